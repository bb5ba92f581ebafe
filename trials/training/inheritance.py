"""Transfer of weights from another model, by role instead of by layer number.

A tensor's role is its layer's number in the base model, and its name in that layer:

- layers that an insertion or an auxiliary branch shifts keep their role, and so does what remains of a host around its
  operators;
- where a model is wider, narrower, deeper or shallower, the channels that both have are copied, except in the head,
  whose outputs mean classes. Of more channels either the first ones are copied, or the most important ones
  (`channel_selection.py`), in the head, too, but for its outputs;
- an operator in a place where the other model has another module is initialised from that module, to compute nearly
  the same;
- where one of the two base models has more layers, as one with a P2 head, layers are aligned by their types, and the
  levels of the heads by their strides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces import OPERATORS, build, insertions, pgi
from search_spaces.errors import DataError
from trials.budget import Channels
from trials.scores import Coverage
from trials.training.alignment import align, layers_of, level_of_role
from trials.training.channel_graph import Axis, channel_graph
from trials.training.channel_selection import Positions, importance, select
from trials.weights import read

_MIN_SHARE = 0.05
"""Not 0: two unrelated models have some channels of their first convolutions in common."""


def inherit(model: nn.Module, weights: Path, *, channels: Channels = "first") -> Coverage:
    """Initialise a model from a checkpoint.

    Args:
        channels: those that a narrower model gets.

    Returns:
        What was transferred.

    Raises:
        DataError: not a checkpoint, or less than `_MIN_SHARE` of the model can be initialised from it.
    """
    if not weights.is_file():  # Ultralytics would look for it in the network
        raise DataError(f"{weights}: no such file (a checkpoint, such as a trial's weights.pt)")
    coverage = transfer(model, _read_source(weights, weights.stat().st_mtime_ns), channels=channels)
    if coverage.share < _MIN_SHARE:
        raise DataError(
            f"{weights}: only {coverage.share:.1%} of this model's parameters are in it; "
            "is it of the same base and scale?"
        )
    return coverage


def require(weights: Path, document: Mapping[str, Any], classes: int) -> Coverage:
    """Check that a model can be initialised from a checkpoint, without training it; return what is transferred.

    Raises:
        DataError: not a checkpoint of a detection model, or less than `_MIN_SHARE` of the model can be
            initialised from it.
    """
    with torch.random.fork_rng(devices=[]):
        return inherit(build.model(document, classes), weights)


@lru_cache(maxsize=1)
def _read_source(weights: Path, changed: int) -> nn.Module:  # noqa: ARG001 - a file that was written again is another one
    """Read a model that all trials of a study start from, once in a process."""
    return read(weights).float()


@torch.no_grad()
def transfer(model: nn.Module, source: nn.Module, *, channels: Channels = "first") -> Coverage:
    """Copy the tensors of equal role, then initialise operators from the modules that they replace."""
    labels, head = _labels_in(model, source), f"{_labels(model)[-1]}."
    tensors = source.state_dict()
    sources = _at_levels_of(model, source, {role: name for name, role, _ in _tensors(source, labels)}, head)
    offered = {role: tensors[name] for role, name in sources.items()}
    positions = _important_positions(model, source, sources) if channels == "important" else {}
    copied: dict[str, int] = {}
    for name, role, value in _tensors(model, _labels(model)):
        if (role, 0) in positions:
            copied[name] = _copy_positions(value, offered[role], positions[role, 0], positions.get((role, 1)))
        elif role in offered and (offered[role].shape == value.shape or not role.startswith(head)):
            copied[name] = _copy_common_channels(value, offered[role])
    copied |= {name: model.get_parameter(name).numel() for name in _init_operators(model, source, labels)}
    return replace(_coverage(model, copied), is_narrowed=bool(positions))


def _copy_common_channels(value: Tensor, offered: Tensor) -> int:
    """Copy the first channels, which both tensors have; return how many numbers that is."""
    if value.ndim != offered.ndim or value.shape[2:] != offered.shape[2:]:
        return 0
    common = tuple(slice(min(sizes)) for sizes in zip(value.shape, offered.shape, strict=True))
    value[common] = offered[common].to(value)
    return value[common].numel()


def _important_positions(model: nn.Module, source: nn.Module, sources: Mapping[str, str]) -> dict[Axis, Positions]:
    """Return what is copied of each axis, by role; nothing for models of equal shapes.

    Args:
        sources: name of the source's tensor of each role.
    """
    ours = {role: value for _, role, value in _tensors(model, _labels(model))}
    theirs = source.state_dict()
    if all(role not in ours or ours[role].shape == theirs[name].shape for role, name in sources.items()):
        return {}
    graph = channel_graph(source)
    roles = {
        name: role
        for role, name in sources.items()
        if role in ours and ours[role].ndim == theirs[name].ndim and ours[role].shape[2:] == theirs[name].shape[2:]
    }
    lengths = {axis: ours[roles[axis[0]]].shape[axis[1]] for axis in graph.axes if axis[0] in roles}
    positions = select(graph, lengths, importance(graph, theirs))
    return {(roles[name], dimension): found for (name, dimension), found in positions.items()}


def _copy_positions(value: Tensor, offered: Tensor, outputs: Positions, inputs: Positions | None) -> int:
    """Copy chosen channels; return how many numbers that is.

    Args:
        inputs: of the second dimension; None copies those that both have.
    """
    rows = offered[outputs[1]]
    if inputs is None:
        common = value[outputs[0]]
        number = _copy_common_channels(common, rows)
        value[outputs[0]] = common
        return number
    value[outputs[0][:, None], inputs[0]] = rows[:, inputs[1]].to(value)
    return len(outputs[0]) * len(inputs[0]) * value[0, 0].numel()


def _coverage(model: nn.Module, by_name: Mapping[str, int]) -> Coverage:
    roles = {name: role for name, role, _ in _tensors(model, _labels(model))}
    parameters = {name: value.numel() for name, value in model.named_parameters()}
    by_layer: dict[str, list[int]] = {}
    for name, count in parameters.items():
        if _AUXILIARY not in roles[name]:  # which is in further layers, and in the head
            layer = by_layer.setdefault(roles[name].partition(".")[0], [0, 0])
            layer[0] += by_name.get(name, 0)
            layer[1] += count
    copied, deployed = (sum(figures) for figures in zip(*by_layer.values(), strict=True))
    return Coverage(
        share=copied / deployed,
        layers=tuple((layer, some / every) for layer, (some, every) in by_layer.items() if some < every),
        new=frozenset(name for name, count in parameters.items() if by_name.get(name, 0) < count),
    )


def _init_operators(model: nn.Module, source: nn.Module, labels: Sequence[str | None]) -> frozenset[str]:
    """Initialise each operator from the source's module of the same role; return the names of the tensors copied."""
    init_from = {
        operator.module: operator.init_from for operator in OPERATORS.values() if operator.init_from is not None
    }
    by_role = {f"{label}.{path}": module for _, label, path, module in _modules(source, labels)}
    copied: set[str] = set()
    for name, label, path, module in _modules(model, _labels(model)):
        replaced = by_role.get(f"{label}.{path}")  # None for an inserted layer
        if type(module) in init_from and type(replaced) is not type(module):
            names = init_from[type(module)](module, replaced)
            copied.update(f"{name}.{each}" for each in names)
    return frozenset(copied)


_AUXILIARY = "auxiliary"


def _tensors(model: Any, labels: Sequence[str | None]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield the name, role and value of the tensors of a model's layers that have a label, in order."""
    for name, value in model.state_dict().items():
        _, layer, rest = name.split(".", 2)
        if labels[int(layer)] is not None:
            yield name, f"{labels[int(layer)]}.{rest}", value


def _modules(model: Any, labels: Sequence[str | None]) -> Iterator[tuple[str, str, str, nn.Module]]:
    """Yield every module of every layer with a label: its name, that label, its path in the layer, the module."""
    for index, (layer, label) in enumerate(zip(model.model, labels, strict=True)):
        if label is not None:
            for path, module in layer.named_modules():
                yield f"model.{index}.{path}".rstrip("."), label, path, module


def _labels_in(model: Any, source: Any) -> list[str | None]:
    """Return the labels of the source's layers as the model counts them; None for a layer that the model has not."""
    labels, others = _labels(model), _labels(source)
    base, other_base = ([i for i, label in enumerate(one) if label.isdecimal()] for one in (labels, others))
    if len(base) == len(other_base):
        return list(others)
    layers, other_layers = layers_of(model), layers_of(source)
    found = align([layers[index] for index in base], [other_layers[index] for index in other_base])
    found[len(other_base) - 1] = len(base) - 1  # the heads, of which one may have an auxiliary half
    aligned = {other_base[other]: labels[base[layer]] for other, layer in found.items()}
    return [aligned.get(index) for index in range(len(others))]


def _at_levels_of(model: Any, source: Any, offered: dict[str, str], head: str) -> dict[str, str]:
    """Return names of tensors by their roles in a model whose head may have other levels than the source's."""
    strides, others = ([float(stride) for stride in one.stride] for one in (model, source))
    if strides == others:
        return offered
    levels = {others.index(stride): strides.index(stride) for stride in others if stride in strides}
    found = {}
    for role, value in offered.items():
        in_head = role.startswith(head)
        there = level_of_role(role.removeprefix(head), levels) if in_head else role
        if there is not None:
            found[f"{head}{there}" if in_head else there] = value
    return found


def _labels(model: Any) -> list[str]:
    """Return the labels of a built model's layers: `8`, `after-8`, `auxiliary-0`."""
    layers = list(model.model)
    keep = pgi.deployed_layers(layers)
    inserted = (model.yaml.get("nas") or {}).get("insert", {})
    names = dict(zip(keep, insertions.labels(len(keep) - len(inserted), inserted), strict=True))
    others = [index for index in range(len(layers)) if index not in names]
    names |= {index: f"{_AUXILIARY}-{number}" for number, index in enumerate(others)}
    return [names[index] for index in range(len(layers))]
