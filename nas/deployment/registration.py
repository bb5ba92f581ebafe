"""Let Ultralytics build rows of a standalone `modules.py`: the part of that file that is equal for every model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Detect

from search_spaces.build import put, replace_layer
from search_spaces.hosts import Channels, sites_in
from search_spaces.memory_format import keeping_contiguous
from search_spaces.operators.record import SiteKind
from search_spaces.parser_rules import has_plain_branches
from search_spaces.placed import STAND_IN, activated_as, repeated, with_light_branches

_WITHOUT_CHANNELS = ("nn.Upsample", "nn.Identity", "Concat")
"""Modules whose rows and layers do not say how many channels they get."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Row of a model file that Ultralytics alone does not have.

    Attributes:
        stock: module of the row that Ultralytics builds first; the operator is put into that layer, or in its place.
        kinds: kinds of site at which the operator can stand in it; the first that the layer has is used.
        build: returns the operator for a site.
        defaults: of its parameters, which the last argument of a row may set.
    """

    stock: str
    kinds: tuple[SiteKind, ...]
    build: Callable[..., nn.Module]
    defaults: Mapping[str, Any]

    def of(self, arguments: Sequence[Any]) -> "Row":
        """Return the row with these arguments: an operator that also replaces convolutions is inserted without any."""
        if arguments or SiteKind.INSERTED not in self.kinds:
            return self
        return replace(self, stock="nn.Identity", kinds=(SiteKind.INSERTED,))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Row of a class, or of a function that returns a layer.

    It stands in a file as `[from, repeats, NAME, [its arguments, {channels: behind the layer}]]`. The mapping may have
    `names` of the last arguments, which are given by name, `one_by_one: true` for a layer that takes its maps as
    several arguments, and the `block` of Ultralytics as which it decides the branches of the head.
    """

    source: int | list[int]
    repeats: int
    module: Callable[..., nn.Module]
    arguments: list[Any]
    names: list[str]
    one_by_one: bool
    block: str


def register(rows: Mapping[str, Row], layers: Mapping[str, Callable[..., nn.Module]]) -> None:
    """Let Ultralytics' `parse_model` read rows with operators, and classes as they stand, by names in model files."""
    stock_parse_model = tasks.parse_model

    @wraps(stock_parse_model)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> Any:  # noqa: FBT001, FBT002 - Ultralytics' signature
        stock, ours, theirs = deepcopy(d), {}, {}
        every = stock["backbone"] + stock["head"]
        for index, written in enumerate(every):
            if written[2] in layers:
                theirs[index], channels = _layer(written, layers, d["nc"])
                written[:] = [-1, 1, STAND_IN, [channels, 0]]
            elif written[2] in rows:
                (*arguments, given) = written[3]
                row = rows[written[2]].of(arguments)
                ours[index] = row, {**row.defaults, **given}
                written[2:] = [row.stock, arguments]
        built, save = stock_parse_model(stock, ch, verbose)
        is_plain = has_plain_branches([*(row[2] for row in every), *(layer.block for layer in theirs.values())])
        with activated_as(built) if stock.get("activation") else nullcontext():
            for index, layer in theirs.items():
                built[index] = _of_class(built[index], layer, is_plain=is_plain)
                sources = [layer.source] if isinstance(layer.source, int) else layer.source
                save = sorted([*save, *(one % index for one in sources if one != -1)])
        if len(built) - 1 not in theirs and not is_plain:
            built[-1] = with_light_branches(built[-1], d, stock_parse_model)
        for index, (row, parameters) in ours.items():
            c_in = _channels_before(built, index, ch) if row.stock in _WITHOUT_CHANNELS else 0
            built[index] = _with_operator(built[index], row, parameters, c_in)
        return built, save

    tasks.parse_model = parse_model
    tasks.BaseModel.to = keeping_contiguous(tasks.BaseModel.to)


def _layer(written: list[Any], layers: Mapping[str, Callable[..., nn.Module]], classes: int) -> tuple[Layer, Any]:
    """Return the layer that a row describes, and the channels behind it."""
    source, repeats, name, (*given, behind) = written
    arguments = [classes if one == "nc" else one for one in given]
    layer = Layer(
        source=source,
        repeats=repeats,
        module=layers[name],
        arguments=arguments,
        names=behind.get("names", []),
        one_by_one=behind.get("one_by_one", False),
        block=behind.get("block", ""),
    )
    return layer, behind["channels"]


def _of_class(stand_in: Any, layer: Layer, *, is_plain: bool) -> nn.Module:
    """Return the layer in the place of Ultralytics' that said the channels behind it."""
    module: Any = layer.module
    if isinstance(layer.module, type) and issubclass(layer.module, Detect):
        module.legacy = is_plain
    stand_in.f = layer.source
    built = repeated(module, layer.arguments, layer.repeats, names=layer.names, one_by_one=layer.one_by_one)
    return replace_layer(stand_in, built)


def _with_operator(layer: nn.Module, row: Row, parameters: Mapping[str, Any], c_in: Channels) -> nn.Module:
    """Return a built layer with the operator at its sites, or the operator in its place."""
    sites = sites_in(layer, row.kinds, c_in)
    if not sites:
        raise ValueError(f"layer {layer.i}: {row.stock} has no place for this operator")
    return put(layer, sites, lambda site: row.build(site, **parameters))


@torch.no_grad()
def _channels_before(layers: nn.Sequential, index: int, channels: int) -> Channels:
    """Return the input channels of a layer that does not have them, of each map, found with a small image."""
    x: Any = torch.zeros(1, channels, 64, 64)
    outputs: list[Any] = []
    for layer in layers[:index].eval():
        x = layer(_input(layer, x, outputs))
        outputs.append(x)
    layers.train()
    read = _input(layers[index], x, outputs)
    return tuple(int(one.shape[1]) for one in read) if isinstance(read, list) else int(read.shape[1])


def _input(layer: Any, last: Any, outputs: list[Any]) -> Any:
    """Return what a layer reads: the last output, that of another layer, or a list of them."""
    if isinstance(layer.f, int):
        return last if layer.f == -1 else outputs[layer.f]
    return [last if one == -1 else outputs[one] for one in layer.f]
