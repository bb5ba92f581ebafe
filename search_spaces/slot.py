"""Slot, a layer with the choices for it, and scaling factor, a number of the whole model with its values."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from search_spaces import scaling
from search_spaces.architecture import Choice
from search_spaces.base import Base
from search_spaces.insertions import Feeds, behind
from search_spaces.operators import OPERATORS, Value
from search_spaces.operators.class_operator import ClassOperator


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Layer with the choices for it, or for a layer that is inserted behind it.

    Attributes:
        layer: index in the base model, whatever is inserted.
        host: the Ultralytics module there; of an insertion, the stock layer that the inserted one replaces.
        choices: the legal ones, stock first; of an insertion, stock means no layer.
        tied: further layers that always have the same choice.
        feeds: readers of an insertion; None where the layer itself is the slot.
    """

    layer: int
    host: str
    choices: tuple[Choice, ...]
    tied: tuple[int, ...] = ()
    feeds: Feeds | None = None

    @cached_property
    def name(self) -> str:
        """Name in parameters and files: `9`, or `after-9` for an insertion; tied layers have the name of the first."""
        return behind(self.layer) if self.feeds else str(self.layer)

    def __str__(self) -> str:
        """Return the name for messages: `layer 9`, or `after-9`."""
        return self.name if self.feeds else f"layer {self.name}"

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers of the slot."""
        return (self.layer, *self.tied)

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """Operators of the choices, in the order of the file, stock first."""
        return tuple(dict.fromkeys(choice.operator for choice in self.choices))

    def of(self, operator: str) -> tuple[Choice, ...]:
        """Return the choices of one operator; empty if the slot does not offer it."""
        return self._by_operator.get(operator, ())

    def free(self, operator: str) -> dict[str, tuple[Value, ...]]:
        """Return the parameters of an operator that have more than one value here, with their values."""
        return self._free[operator]

    @cached_property
    def _by_operator(self) -> dict[str, tuple[Choice, ...]]:
        return {name: tuple(each for each in self.choices if each.operator == name) for name in self.operators}

    @cached_property
    def _free(self) -> dict[str, dict[str, tuple[Value, ...]]]:
        return {operator: _varied(choices) for operator, choices in self._by_operator.items()}

    def nearest(self, operator: str, wanted: Mapping[str, Value]) -> Choice:
        """Return the operator's choice that has the most of the wanted values; the first of several."""

        def agreement(choice: Choice) -> int:
            return sum(wanted.get(name) == value for name, value in choice.parameters)

        return max(self.of(operator), key=agreement)


def _varied(choices: Sequence[Choice]) -> dict[str, tuple[Value, ...]]:
    """Return the parameters that have more than one value among these choices, with their values."""
    values: dict[str, dict[Value, None]] = {}
    for choice in choices:
        for name, value in choice.parameters:
            values.setdefault(name, {})[value] = None
    return {name: tuple(options) for name, options in values.items() if len(options) > 1}


@dataclass(frozen=True, kw_only=True)
class ScalingFactor:
    """Scaling factor of the whole model that a search may choose.

    Attributes:
        name: `depth`, `width`, `depth.P4`, `width.P4` or `image_size`.
        stock: the value of the base model, or the image size of its deployment.
    """

    name: str
    values: tuple[float, ...]
    stock: float

    @property
    def parameter(self) -> str:
        """Name of the sampler's parameter."""
        return f"{scaling.MACRO}.{self.name}"


def incompatibility(base: Base, slot: Slot, choice: Choice) -> str | None:
    """Return why a choice cannot stand in a slot of a base model: the first reason of any layer and site; else None."""
    operator, parameters, inserted = OPERATORS[choice.operator], dict(choice.parameters), slot.feeds is not None
    reasons = (base.incompatibility(layer, operator, parameters, inserted=inserted) for layer in slot.layers)
    return next(filter(None, reasons), None)


def built_of(base: Base, slot: Slot, choice: Choice) -> Hashable:
    """Return what is equal for choices that are the same network in a slot of a base model.

    `C3k2_Faster(e=0.25)` is `C3k2_Faster` in the place of a block whose row has 0.25.
    """
    operator, parameters = OPERATORS[choice.operator], dict(choice.parameters)
    if not isinstance(operator, ClassOperator):
        return choice
    sites = (site for layer in slot.layers for site in base.sites(layer, operator, inserted=slot.feeds is not None))
    return tuple(tuple(sorted(operator.arguments(site, parameters).items())) for site in sites)
