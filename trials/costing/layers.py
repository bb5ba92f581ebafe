"""The layers of every architecture of a space, each with a value that is found once.

What a layer costs, or how long it takes, depends on what is built there and on the map that enters it, and on nothing
else: a choice in a slot changes neither the channels nor the map size of another layer; an insertion is one layer more.
Dials change many layers: each setting of them has stock layers of its own.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from search_spaces import Architecture, Choice, SearchSpace, Slot, build
from search_spaces import base as bases
from search_spaces.base import Base
from search_spaces.errors import CostError
from search_spaces.hosts import HOSTS, Host
from search_spaces.macro import Setting
from search_spaces.operators import Operator, Site
from search_spaces.trace import Feature, Traced, trace

IMAGE_CHANNELS = 3

Value = TypeVar("Value")
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """A layer of the base model where the dials stand at one setting.

    Attributes:
        stock: the base model there.
        step: the stock layer on the meta device, with what flows in and out.
    """

    stock: Architecture
    base: Base
    step: Traced

    @property
    def host(self) -> Host:
        """What operators know the layer as."""
        return HOSTS[self.base.rows[self.step.index][2]]

    def sites(self, operator: Operator, *, inserted: bool = False) -> tuple[Site, ...]:
        """Where an operator stands in the layer, or behind it."""
        return self.base.sites(self.step.index, operator, inserted=inserted)


class LayerTable(ABC, Generic[Value]):
    """A value for every layer of every architecture of a space; a subclass says how one is found."""

    def __init__(self, space: SearchSpace, classes: int, image_size: int) -> None:
        self.space, self.classes, self.image_size = space, classes, image_size
        self._settings: dict[Setting, _Setting[Value]] = {}

    @abstractmethod
    def of_stock(self, place: Place) -> Value:
        """The value of a stock layer."""

    @abstractmethod
    def of_choice(self, place: Place, choice: Choice) -> Value:
        """The value of a layer with a choice in it, which is not stock."""

    @abstractmethod
    def of_insertion(self, place: Place, choice: Choice) -> Value:
        """The value of a layer that is inserted behind a place."""

    def layers(self, architecture: Architecture) -> tuple[Value, ...]:
        """The values of an architecture's layers, in order."""
        setting = self.setting(architecture.macro)
        layers = list(setting.layers)
        for layer, choice in architecture.picks:
            layers[layer] = setting.layer(layer, choice)
        for new in reversed(architecture.insertions):
            layers.insert(new.after + 1, setting.inserted(new.after, new.choice))
        return tuple(layers)

    def layer(self, layer: int, choice: Choice, macro: Setting = ()) -> Value:
        """The value of one layer with one choice in it, where the dials stand at `macro`."""
        return self.setting(macro).layer(layer, choice)

    def layers_of(self, slot: Slot, choice: Choice, macro: Setting = ()) -> tuple[Value, ...]:
        """The values of all layers of a slot with one choice in them; none, where nothing is inserted."""
        setting = self.setting(macro)
        if slot.feeds:
            return () if choice.is_stock else (setting.inserted(slot.layer, choice),)
        return tuple(setting.layer(layer, choice) for layer in slot.layers)

    def extreme(self, measured: Callable[[Value], Number], *, cheapest: bool) -> Architecture:
        """The architecture that has least, or most, of a figure that sums over layers.

        Every dial is turned the same way: less of a model costs less.
        """
        best = min if cheapest else max
        turned = {dial.name: best(dial.values) for dial in self.space.dials}
        macro = self.space.of({}, turned).macro
        choices = {}
        for slot in self.space.slots:
            figures = {choice: sum(map(measured, self.layers_of(slot, choice, macro))) for choice in slot.choices}
            choices[slot.name] = best(figures, key=figures.__getitem__)
        return self.space.of(choices, turned)

    def reach(self, measured: Callable[[Value], Number]) -> tuple[Number, Number]:
        """The least and the most that any architecture has of a figure that sums over layers."""
        ends = [self.layers(self.extreme(measured, cheapest=cheapest)) for cheapest in (True, False)]
        return sum(map(measured, ends[0])), sum(map(measured, ends[1]))

    def setting(self, macro: Setting) -> "_Setting[Value]":
        """The base model where the dials stand at `macro`."""
        if macro not in self._settings:
            self._settings[macro] = _Setting(self, self.space.of({}, dict(macro)))
        return self._settings[macro]


class _Setting(Generic[Value]):
    """The base model where the dials stand at one setting, and the values of its layers and of choices in them.

    Attributes:
        image_size: that it is deployed at.
        places: the stock layers.
        layers: their values.
    """

    def __init__(self, table: LayerTable[Value], stock: Architecture) -> None:
        self.image_size = stock.image_size or table.image_size
        self._table = table
        base = bases.load(stock.base, stock.scale).at(stock.shape)
        steps = traced(build.skeleton(stock.document(table.classes), table.classes), self.image_size)
        self.places = [Place(stock=stock, base=base, step=step) for step in steps]
        self.layers = [table.of_stock(place) for place in self.places]
        self._picked: dict[tuple[int, Choice], Value] = {}
        self._added: dict[tuple[int, Choice], Value] = {}

    def layer(self, layer: int, choice: Choice) -> Value:
        if choice.is_stock:
            return self.layers[layer]
        if (layer, choice) not in self._picked:
            self._picked[layer, choice] = self._table.of_choice(self.places[layer], choice)
        return self._picked[layer, choice]

    def inserted(self, after: int, choice: Choice) -> Value:
        if (after, choice) not in self._added:
            self._added[after, choice] = self._table.of_insertion(self.places[after], choice)
        return self._added[after, choice]


def traced(layers: nn.Sequential, image_size: int) -> list[Traced]:
    """Every layer on the meta device, with what flows in and out for one image.

    Raises:
        CostError: the model does not take images of that size.
    """
    head: Any = layers[-1]
    head.stride = torch.full((head.nl,), 32.0)  # any number: decoding on the meta device only needs one
    image = torch.zeros(1, IMAGE_CHANNELS, image_size, image_size, device="meta")
    try:
        return trace(layers, image)
    except Exception as error:
        raise CostError(f"the model does not take images of {image_size} px: {error}") from error


_IRRELEVANT: dict[str, bool | float] = {"inplace": False, "eps": 1e-5, "momentum": 0.1}
"""Attributes that change neither time nor cost, each with the value that stands for all: what PyTorch builds with.

Ultralytics shares one activation among all its blocks and makes it an in-place one when it loads a checkpoint
(`nn/tasks.py:2060`), and it sets batch norm's numbers in whole models only.
"""

_UNPRINTED = re.compile(r"(?:, )?inplace=(?:True|False)")
_PRINTED = re.compile(r"\b(eps|momentum)=[^,)]+")


def likeness(module: nn.Module) -> Hashable:
    """Return the structural key of a module: equal where two modules compute and cost the same.

    Weights, the place in a model, and what changes neither time nor cost are not part of it.
    """
    attributes = [
        (name, _IRRELEVANT.get(name, value))
        for inner in module.modules()
        for name, value in vars(inner).items()
        if isinstance(value, bool | int | float | str) and name not in {"i", "np", "type", "training"}
    ]
    text = _PRINTED.sub(lambda found: f"{found[1]}={_IRRELEVANT[found[1]]}", _UNPRINTED.sub("", repr(module)))
    return text, tuple(attributes), tuple(parameter.shape for parameter in module.parameters())


def shapes(feature: Feature | Sequence[Feature]) -> Hashable:
    """The shape of a tensor, or those of several, in their nesting."""
    return feature.shape if isinstance(feature, Tensor) else tuple(shapes(inner) for inner in feature)
