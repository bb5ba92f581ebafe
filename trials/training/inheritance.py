"""Weights from another model: by role, not by a layer's number, and as near to that model's function as may be.

A tensor's role is its layer as the base model counts it, and its name in that layer: what an insertion or an auxiliary
half shifts keeps its role, and what a graft leaves in its host has it, too. Where a model is wider, narrower, deeper or
shallower, the channels that both have are taken over, except in the head, whose outputs mean classes. An operator that
stands where the other model has something else adopts it: it starts as the nearest function to it that its form allows.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces import OPERATORS, build, insertions, pgi
from search_spaces.errors import DataError
from trials.scores import Coverage
from trials.weights import read

_LEAST = 0.05
"""Two models that have nothing to do with each other have some channels of their first convolutions in common."""


def inherit(model: nn.Module, weights: Path) -> Coverage:
    """Take over what a checkpoint has for a model.

    Raises:
        DataError: no checkpoint, or nothing of it fits.
    """
    if not weights.is_file():  # Ultralytics would look for it in the network
        raise DataError(f"{weights}: no such file (a checkpoint, such as a trial's weights.pt)")
    coverage = take_over(model, _source(weights, weights.stat().st_mtime_ns))
    if coverage.share < _LEAST:
        raise DataError(
            f"{weights}: only {coverage.share:.1%} of this model's parameters are in it; "
            "is it of the same base and scale?"
        )
    return coverage


def require(weights: Path, document: Mapping[str, Any], classes: int) -> None:
    """Check, before anything is written, that a training of a model can begin from a checkpoint.

    Raises:
        DataError: no checkpoint of a detection model, or nothing of it fits.
    """
    with torch.random.fork_rng(devices=[]):
        inherit(build.model(document, classes), weights)


@lru_cache(maxsize=1)
def _source(weights: Path, changed: int) -> nn.Module:  # noqa: ARG001 - a file that was written again is another one
    """What all trials of a study begin from: read once in a process."""
    return read(weights).float()


@torch.no_grad()
def take_over(model: nn.Module, source: nn.Module) -> Coverage:
    """Take over the tensors of equal role, then let operators adopt what stood in their place."""
    offered = {role: value for _, role, value in _tensors(source)}
    head = f"{_labels(model)[-1]}."
    came: dict[str, int] = {}
    for name, role, value in _tensors(model):
        if role in offered and (offered[role].shape == value.shape or not role.startswith(head)):
            came[name] = _overlay(value, offered[role])
    came |= {name: model.get_parameter(name).numel() for name in _adopt(model, source)}
    return _coverage(model, came)


def _overlay(value: Tensor, offered: Tensor) -> int:
    """Copy the channels that two tensors have in common, the first ones; how many numbers that is."""
    if value.ndim != offered.ndim or value.shape[2:] != offered.shape[2:]:
        return 0
    common = tuple(slice(min(sizes)) for sizes in zip(value.shape, offered.shape, strict=True))
    value[common] = offered[common].to(value)
    return value[common].numel()


def _coverage(model: nn.Module, came: Mapping[str, int]) -> Coverage:
    roles = {name: role for name, role, _ in _tensors(model)}
    parameters = {name: value.numel() for name, value in model.named_parameters()}
    by_layer: dict[str, list[int]] = {}
    for name, count in parameters.items():
        if _AUXILIARY not in roles[name]:  # a layer, or in the head
            layer = by_layer.setdefault(roles[name].partition(".")[0], [0, 0])
            layer[0] += came.get(name, 0)
            layer[1] += count
    taken, deployed = (sum(figures) for figures in zip(*by_layer.values(), strict=True))
    return Coverage(
        share=taken / deployed,
        layers=tuple((layer, some / whole) for layer, (some, whole) in by_layer.items() if some < whole),
        new=frozenset(name for name, count in parameters.items() if came.get(name, 0) < count),
    )


def _adopt(model: nn.Module, source: nn.Module) -> frozenset[str]:
    """Let every operator adopt what stands in its place in the source; the names of what it has from there."""
    adopt = {operator.module: operator.init_from for operator in OPERATORS.values() if operator.init_from is not None}
    places = {f"{label}.{path}": module for _, label, path, module in _modules(source)}
    adopted: set[str] = set()
    for name, label, path, module in _modules(model):
        before = places.get(f"{label}.{path}")  # nothing stands where a layer was inserted
        if type(module) in adopt and type(before) is not type(module):
            names = adopt[type(module)](module, before)
            adopted.update(f"{name}.{each}" for each in names)
    return frozenset(adopted)


_AUXILIARY = "auxiliary"


def _tensors(model: Any) -> Iterator[tuple[str, str, Tensor]]:
    """A model's tensors in order: name, role, value."""
    labels = _labels(model)
    for name, value in model.state_dict().items():
        _, layer, rest = name.split(".", 2)
        yield name, f"{labels[int(layer)]}.{rest}", value


def _modules(model: Any) -> Iterator[tuple[str, str, str, nn.Module]]:
    """Every module of every layer: name, the layer's label, the path in it, the module."""
    labels = _labels(model)
    for index, layer in enumerate(model.model):
        for path, module in layer.named_modules():
            yield f"model.{index}.{path}".rstrip("."), labels[index], path, module


def _labels(model: Any) -> list[str]:
    """What the base model calls the layers of a built one: `8`, `after-8`, `auxiliary-0`."""
    layers = list(model.model)
    keep = pgi.deployed_layers(layers)
    inserted = (model.yaml.get("nas") or {}).get("insert", {})
    names = dict(zip(keep, insertions.labels(len(keep) - len(inserted), inserted), strict=True))
    others = [index for index in range(len(layers)) if index not in names]
    names |= {index: f"{_AUXILIARY}-{number}" for number, index in enumerate(others)}
    return [names[index] for index in range(len(layers))]
