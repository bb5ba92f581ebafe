"""Weights from another model: tensors are taken over by name and shape, layers counted as in the base model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.tasks import load_checkpoint

from search_spaces import insertions, pgi
from search_spaces.errors import DataError


def inherit(model: nn.Module, weights: Path) -> float:
    """Take a checkpoint's tensors over wherever name and shape agree.

    Returns:
        The share of the deployed model's parameters that came from it.

    Raises:
        DataError: no checkpoint, or nothing of it fits.
    """
    if not weights.is_file():  # Ultralytics would look for it in the network
        raise DataError(f"{weights}: no such file (a checkpoint, such as a trial's weights.pt)")
    try:
        source, _ = load_checkpoint(weights)
    except Exception as error:
        raise DataError(f"{weights}: not a checkpoint that Ultralytics loads: {error}") from error
    share = take_over(model, source.float())
    if not share:
        raise DataError(f"{weights}: no tensor has a name and shape of this model; is it of the same base and scale?")
    return share


def take_over(model: nn.Module, source: nn.Module) -> float:
    """Take a model's tensors over wherever name and shape agree; insertions and auxiliary halves shift no layer.

    Returns:
        The share of the deployed model's parameters that came from it.
    """
    offered = dict(_by_base_layer(source))
    known = dict(zip(model.state_dict(), (name for name, _ in _by_base_layer(model)), strict=True))
    fitting = {
        name: offered[known[name]]
        for name, value in model.state_dict().items()
        if known[name] in offered and offered[known[name]].shape == value.shape
    }
    deployed = {name: value for name, value in model.named_parameters() if _AUXILIARY not in known[name]}
    taken = sum(value.numel() for name, value in deployed.items() if name in fitting)
    model.load_state_dict(fitting, strict=False)
    return taken / sum(value.numel() for value in deployed.values())


_AUXILIARY = "auxiliary"


def _by_base_layer(model: Any) -> Iterator[tuple[str, Tensor]]:
    """A model's tensors in order, each named by its layer's number in the base model."""
    names = _layers(model)
    for name, value in model.state_dict().items():
        prefix, layer, *rest = name.split(".")
        yield ".".join((prefix, names[int(layer)], *rest)), value


def _layers(model: Any) -> list[str]:
    """What the base model calls the layers of a built one: `8`, `after-8`, `auxiliary-0`."""
    layers = list(model.model)
    keep = pgi.kept(layers)
    inserted = (model.yaml.get("nas") or {}).get("insert", {})
    names = dict(zip(keep, insertions.labels(len(keep) - len(inserted), inserted), strict=True))
    others = [index for index in range(len(layers)) if index not in names]
    names |= {index: f"{_AUXILIARY}-{number}" for number, index in enumerate(others)}
    return [names[index] for index in range(len(layers))]
