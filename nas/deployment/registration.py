"""Let Ultralytics build rows with operators: the part of a standalone `modules.py` that is equal for every model."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks

from search_spaces.build import put
from search_spaces.hosts import Channels, sites_in
from search_spaces.operators.record import SiteKind

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


def register(rows: Mapping[str, Row]) -> None:
    """Let Ultralytics' `parse_model` read these rows, by their names in model files."""
    stock_parse_model = tasks.parse_model

    @wraps(stock_parse_model)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> Any:  # noqa: FBT001, FBT002 - Ultralytics' signature
        stock, ours = deepcopy(d), {}
        for index, written in enumerate(stock["backbone"] + stock["head"]):
            if written[2] in rows:
                row, (*arguments, given) = rows[written[2]], written[3]
                ours[index] = row, {**row.defaults, **given}
                written[2:] = [row.stock, arguments]
        layers, save = stock_parse_model(stock, ch, verbose)
        for index, (row, parameters) in ours.items():
            c_in = _channels_before(layers, index, ch) if row.stock in _WITHOUT_CHANNELS else 0
            layers[index] = _with_operator(layers[index], row, parameters, c_in)
        return layers, save

    tasks.parse_model = parse_model


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
