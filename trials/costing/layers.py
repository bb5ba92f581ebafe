"""Table with one value per layer for all architectures of a space; each distinct value is computed once.

The cost or latency of a layer depends only on the module that is built there and on the shape of its input. A choice in
a slot changes neither channels nor map size of other layers, and an insertion adds one layer. Scaling factors (depth,
width, image size) change many layers: each combination of them has other stock layers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from search_spaces import Architecture, Choice, SearchSpace, Slot, build, model_file
from search_spaces import base as bases
from search_spaces.base import Base
from search_spaces.errors import CostError
from search_spaces.hosts import HOSTS, Host
from search_spaces.meta_device import is_of_user
from search_spaces.operators import Operator, Site
from search_spaces.placed import as_raw_head
from search_spaces.scaling import Scaling
from search_spaces.trace import Traced, trace

IMAGE_CHANNELS = model_file.IMAGE_CHANNELS

Value = TypeVar("Value")
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, eq=False, kw_only=True)
class StockLayer:
    """Layer of the stock model at one combination of scaling factors.

    Attributes:
        model: the stock model with these scaling factors.
        base: the base model with these scaling factors.
        step: the layer on the meta device, with its input and output.
    """

    model: Architecture
    base: Base
    step: Traced

    @property
    def host(self) -> Host:
        """Host of the layer: the Ultralytics block that carries an operator."""
        return HOSTS[self.base.rows[self.step.index][2]]

    def sites(self, operator: Operator, *, inserted: bool = False) -> tuple[Site, ...]:
        """Return the sites of an operator in the layer, or behind it if it is inserted."""
        return self.base.sites(self.step.index, operator, inserted=inserted)


class LayerTable(ABC, Generic[Value]):
    """One value per layer for all architectures of a space; subclasses define how a value is computed.

    Args:
        classes: number of classes of the detection head.
        image_size: in pixels, of the deployed model; an architecture with an `image_size` overrides it.
    """

    def __init__(self, space: SearchSpace, classes: int, image_size: int) -> None:
        self.space, self.classes, self.image_size = space, classes, image_size
        self._scaled: dict[Scaling, _LayersAtScaling[Value]] = {}

    @abstractmethod
    def value_of_stock(self, layer: StockLayer) -> Value:
        """Compute the value of a stock layer."""

    @abstractmethod
    def value_of_choice(self, layer: StockLayer, choice: Choice) -> Value:
        """Compute the value of a layer with a choice other than stock in it."""

    @abstractmethod
    def value_of_insertion(self, layer: StockLayer, choice: Choice) -> Value:
        """Compute the value of a layer that is inserted behind a stock layer."""

    def layers(self, architecture: Architecture) -> tuple[Value, ...]:
        """Return the values of an architecture's layers, in order."""
        scaled = self.at_scaling(architecture.macro)
        layers = list(scaled.values)
        for layer, choice in architecture.picks:
            layers[layer] = scaled.layer(layer, choice)
        for new in reversed(architecture.insertions):
            layers.insert(new.after + 1, scaled.insertion(new.after, new.choice))
        return tuple(layers)

    def layer(self, layer: int, choice: Choice, macro: Scaling = ()) -> Value:
        """Return the value of one layer with one choice in it, at the scaling factors `macro`."""
        return self.at_scaling(macro).layer(layer, choice)

    def layers_of(self, slot: Slot, choice: Choice, macro: Scaling = ()) -> tuple[Value, ...]:
        """Return the values of all layers of a slot with one choice in them; empty where nothing is inserted."""
        scaled = self.at_scaling(macro)
        if slot.feeds:
            return () if choice.is_stock else (scaled.insertion(slot.layer, choice),)
        return tuple(scaled.layer(layer, choice) for layer in slot.layers)

    def extreme(self, figure: Callable[[Value], Number], *, cheapest: bool) -> Architecture:
        """Return the architecture with the lowest or the highest total of a figure that is a sum over layers.

        All scaling factors take their lowest or their highest value: a smaller model costs less.
        """
        best = min if cheapest else max
        factors = {factor.name: best(factor.values) for factor in self.space.scaling_factors}
        macro = self.space.of({}, factors).macro
        choices = {}
        for slot in self.space.slots:
            totals = {choice: sum(map(figure, self.layers_of(slot, choice, macro))) for choice in slot.choices}
            choices[slot.name] = best(totals, key=totals.__getitem__)
        return self.space.of(choices, factors)

    def reach(self, figure: Callable[[Value], Number]) -> tuple[Number, Number]:
        """Return the lowest and the highest total in the space, of a figure that is a sum over layers."""
        ends = [self.layers(self.extreme(figure, cheapest=cheapest)) for cheapest in (True, False)]
        return sum(map(figure, ends[0])), sum(map(figure, ends[1]))

    def at_scaling(self, macro: Scaling) -> "_LayersAtScaling[Value]":
        """Return the layers at the scaling factors `macro`."""
        if macro not in self._scaled:
            self._scaled[macro] = _LayersAtScaling(self, self.space.of({}, dict(macro)))
        return self._scaled[macro]


class _LayersAtScaling(Generic[Value]):
    """Layers at one combination of scaling factors: the stock model's, and memoised those with a choice.

    Attributes:
        image_size: in pixels, of the deployed model.
        stock: the layers of the stock model.
        values: their values.
    """

    def __init__(self, table: LayerTable[Value], model: Architecture) -> None:
        self.image_size = model.image_size or table.image_size
        self._table = table
        base = bases.load(model.base, model.scale).scaled(model.shape)
        steps = traced(build.skeleton(model.document(table.classes), table.classes), self.image_size)
        self.stock = [StockLayer(model=model, base=base, step=step) for step in steps]
        self.values = [table.value_of_stock(layer) for layer in self.stock]
        self._choices: dict[tuple[int, Choice], Value] = {}
        self._insertions: dict[tuple[int, Choice], Value] = {}

    def layer(self, layer: int, choice: Choice) -> Value:
        if choice.is_stock:
            return self.values[layer]
        if (layer, choice) not in self._choices:
            self._choices[layer, choice] = self._table.value_of_choice(self.stock[layer], choice)
        return self._choices[layer, choice]

    def insertion(self, after: int, choice: Choice) -> Value:
        if (after, choice) not in self._insertions:
            self._insertions[after, choice] = self._table.value_of_insertion(self.stock[after], choice)
        return self._insertions[after, choice]


def traced(layers: nn.Sequential, image_size: int, *, channels: int = IMAGE_CHANNELS) -> list[Traced]:
    """Run one image through a model's layers on the meta device and return each with its input and output.

    Raises:
        CostError: the model does not take images of that size.
    """
    head: Any = layers[-1]
    if is_of_user(head):
        as_raw_head(head, len(head.f))
    head.stride = torch.full((head.nl,), 32.0)  # any number: decoding on the meta device only needs one
    return passed_through(layers, image_size, channels=channels)


def passed_through(layers: nn.Sequential, image_size: int, *, channels: int = IMAGE_CHANNELS) -> list[Traced]:
    """Run one image through layers on the meta device, whose head has its strides if it needs them.

    Raises:
        CostError: the model does not take images of that size.
    """
    image = torch.zeros(1, channels, image_size, image_size, device="meta")
    try:
        return trace(layers, image)
    except Exception as error:
        raise CostError(f"the model does not take images of {image_size} px: {error}") from error
