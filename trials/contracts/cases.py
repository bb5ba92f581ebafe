"""Test cases of operators: every value of every parameter at every distinct site, in few cases."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from math import prod

import torch
from torch import nn
from ultralytics.nn.modules import (
    C2PSA,
    C3,
    ELAN1,
    PSA,
    SPPELAN,
    SPPF,
    A2C2f,
    AConv,
    ADown,
    Bottleneck,
    C2f,
    C2fCIB,
    C3k2,
    Concat,
    Conv,
    RepNCSPELAN4,
    SCDown,
)

from search_spaces import OPERATORS, Choice, SearchSpace, Space
from search_spaces import base as bases
from search_spaces.base import Base
from search_spaces.hosts import WHOLE, Channels, host_of
from search_spaces.operators import Operator, Site, Value
from search_spaces.scaling import IMAGE_SIZE, Scaling
from trials.contracts.case import Case

_MAX_COMBINATIONS = 4096
"""Combinations of values up to which all are generated."""

LAYERS: dict[str, tuple[Channels, Callable[[], nn.Module]]] = {
    "C3": (48, lambda: C3(48, 32, n=1, shortcut=False)),  # as in a neck
    "C2f": (32, lambda: C2f(32, 32, n=1)),
    "Bottleneck": (32, lambda: Bottleneck(32, 32)),
    "Bottleneck twice": (32, lambda: nn.Sequential(Bottleneck(32, 32), Bottleneck(32, 32))),
    "C3k2": (32, lambda: C3k2(32, 32, n=1)),
    "C3k2 of C3k": (32, lambda: C3k2(32, 32, 1, c3k=True)),
    "C3k2 with attention": (64, lambda: C3k2(64, 64, 1, attn=True)),
    "C2fCIB": (32, lambda: C2fCIB(32, 32, shortcut=True, lk=True)),
    "A2C2f": (64, lambda: A2C2f(64, 64, 1, a2=False)),
    "A2C2f with attention": (64, lambda: A2C2f(64, 64, 1, residual=True)),
    "C2PSA": (64, lambda: C2PSA(64, 64)),
    "PSA": (64, lambda: PSA(64, 64)),
    "SPPF": (32, lambda: SPPF(32, 32)),
    "SPPELAN": (32, lambda: SPPELAN(32, 32, 16)),
    "RepNCSPELAN4": (64, lambda: RepNCSPELAN4(64, 64, 64, 32, 1)),
    "ELAN1": (32, lambda: ELAN1(32, 32, 32, 16)),
    "Conv 3x3": (32, lambda: Conv(32, 48, 3, 1)),
    "Conv 3x3 s2": (32, lambda: Conv(32, 48, 3, 2)),
    "Conv 3x3 in groups": (32, lambda: Conv(32, 32, 3, 1, g=4)),
    "Conv 1x1": (32, lambda: Conv(32, 32, 1, 1)),
    "Conv 6x6 s2": (3, lambda: Conv(3, 16, 6, 2, 2)),
    "AConv": (32, lambda: AConv(32, 48)),
    "ADown": (32, lambda: ADown(32, 48)),
    "SCDown": (32, lambda: SCDown(32, 48, 3, 2)),
    "nn.Upsample": (16, lambda: nn.Upsample(None, 2, "nearest")),
    "nn.ConvTranspose2d": (16, lambda: nn.ConvTranspose2d(16, 16, 2, 2)),
    "Concat": ((16, 32), Concat),
    "Concat of three": ((16, 8, 16), Concat),
    "nn.Identity": (64, nn.Identity),
}
"""Small layers of all hosts, in variants with different sites, by name: input channels and the layer."""


def of_space(space: Space) -> tuple[Case, ...]:
    """Return cases of all values of a space at all distinct sites, with each scaling factor changed alone."""
    sites = _Sites()
    for member in space.members:
        stock = bases.load(member.base, member.scale)
        for base in (stock.scaled(scaling) for scaling in _scalings(member)):
            for slot in member.slots:
                for operator, layer in product(slot.operators, slot.layers):
                    if operator in OPERATORS:
                        found = base.sites(layer, OPERATORS[operator], inserted=slot.feeds is not None)
                        place = space.name_of(member, slot.name if slot.feeds else str(layer))
                        sites.offer(found, slot.of(operator), place)
    return sites.cases()


def of_model(base: Base) -> tuple[Case, ...]:
    """Return the cases of the operators in a model's file, one per distinct site."""
    sites = _Sites()
    for layer, (operator, parameters) in base.operators.items():
        found = base.sites(layer, OPERATORS[operator])
        sites.offer(found, [Choice.of(operator, parameters)], str(base.index_in_file(layer)))
    for layer, (_, operator, parameters) in base.inserted.items():
        found = base.sites(layer, OPERATORS[operator], inserted=True)
        sites.offer(found, [Choice.of(operator, parameters)], str(base.index_in_file(layer) + 1))
    return sites.cases()


def of_operator(operator: Operator) -> tuple[Case, ...]:
    """Return cases of all allowed values of an operator at all distinct compatible sites of `LAYERS`."""
    sites = _Sites()
    for name in LAYERS:
        for site in sites_in(name, operator):
            legal = [given for given in combinations(operator) if operator.incompatibility(site, given) is None]
            sites.offer([site], [Choice.of(operator.name, given) for given in legal], name)
    return sites.cases()


def sites_in(name: str, operator: Operator) -> tuple[Site, ...]:
    """Return the sites of an operator in one of `LAYERS`."""
    layer = _layer(name)
    host = host_of(layer)
    return host.sites_for(operator, layer, LAYERS[name][0]) if host else ()


def combinations(operator: Operator) -> Iterator[dict[str, Value]]:
    """Yield combinations of values: the defaults, each value with all else default, and all, if not too many."""
    default = {parameter.name: parameter.default for parameter in operator.parameters}
    yield default
    for parameter in operator.parameters:
        yield from (default | {parameter.name: value} for value in parameter.allowed if value != parameter.default)
    if prod(len(parameter.allowed) for parameter in operator.parameters) <= _MAX_COMBINATIONS:
        for values in product(*(parameter.allowed for parameter in operator.parameters)):
            yield dict(zip(default, values, strict=True))


def covering(choices: Iterable[Choice]) -> list[Choice]:
    """Return few of the choices that together have all parameter values of all choices (greedy set cover)."""
    distinct = list(dict.fromkeys(choices))
    uncovered = {value for choice in distinct for value in choice.parameters}
    chosen = distinct[:1]  # an operator without parameters has one choice, and nothing to cover
    uncovered -= {value for choice in chosen for value in choice.parameters}
    while uncovered:
        best = max(distinct, key=lambda choice: len(uncovered.intersection(choice.parameters)))
        chosen.append(best)
        uncovered -= set(best.parameters)
    return chosen


@dataclass
class _Sites:
    """Distinct sites, each with the choices offered there and its places; equal for an operator means equal cases."""

    offers: dict[Case, tuple[Site, dict[Choice, None], dict[str, None]]] = field(default_factory=dict)

    def offer(self, sites: Iterable[Site], choices: Sequence[Choice], place: str) -> None:
        for site in sites if choices else ():
            key = Case.of(Choice(operator=choices[0].operator), replace(site, path=WHOLE), ())
            _, offered, places = self.offers.setdefault(key, (site, {}, {}))
            offered.update(dict.fromkeys(choices))
            places[place] = None

    def cases(self) -> tuple[Case, ...]:
        return tuple(
            Case.of(choice, site, tuple(places))
            for site, offered, places in self.offers.values()
            for choice in covering(offered)
        )


def _scalings(space: SearchSpace) -> Iterator[Scaling]:
    """Yield the stock scaling, then each value of each factor that changes layers, with the others at stock."""
    yield ()
    for factor in space.scaling_factors:
        if factor.name != IMAGE_SIZE:
            yield from (((factor.name, value),) for value in factor.values if value != factor.stock)


@cache
def _layer(name: str) -> nn.Module:
    with torch.device("meta"):
        return LAYERS[name][1]().eval()
