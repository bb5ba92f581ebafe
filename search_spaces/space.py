"""Search space: the slots of a base model with their choices, and its scaling factors with their values."""

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from search_spaces import base as bases
from search_spaces import scaling
from search_spaces.architecture import STOCK, Architecture, Choice, Insertion
from search_spaces.base import Base
from search_spaces.insertions import Feeds, behind
from search_spaces.operators import OPERATORS, Value
from search_spaces.pgi_setting import Pgi


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


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Set of the architectures that a search can propose.

    Samplers see an architecture as a mapping of parameters: `<slot>.operator` for every slot,
    `<slot>.<operator>.<parameter>` for the parameters of the chosen operator that have several values there, and
    `macro.<scaling factor>`. These names are stored with every study.

    Attributes:
        base: as the space file names it, `{scale}` not filled in.
        start: the architectures to try first, after the stock model.
        pgi: whether, and how, candidates are trained with YOLOv9's auxiliary branch.
    """

    name: str
    base: str
    scale: str
    slots: tuple[Slot, ...]
    scaling_factors: tuple[ScalingFactor, ...] = ()
    start: tuple[Architecture, ...] = ()
    pgi: Pgi = False

    @property
    def at_scale(self) -> str:
        """Name for messages: `v9 at scale t`; the name alone for a base model without scales."""
        return f"{self.name} at scale {self.scale}" if self.scale else self.name

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(slot.choices) for slot in self.slots) * math.prod(
            len(factor.values) for factor in self.scaling_factors
        )

    @cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits of a hash over the base model, the slots, their choices and the scaling factors.

        Parameters at their defaults are not part of it, so that an operator can get a new one.
        """
        slots = [_hashed(slot) for slot in self.slots]
        content = [bases.identity(self.base, self.scale), self.scale, slots]
        content += [[factor.name, factor.values] for factor in self.scaling_factors]
        used = {choice.operator for slot in self.slots for choice in slot.choices if not choice.is_stock}
        content += sorted(source.digest for name in used if (source := OPERATORS[name].source))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    @cached_property
    def parameters(self) -> dict[str, tuple[Value, ...]]:
        """Every parameter of a sampler, with its values."""
        return dict(self._parameters())

    def _parameters(self) -> Iterator[tuple[str, tuple[Value, ...]]]:
        for slot in self.slots:
            yield f"{slot.name}.operator", slot.operators
            for operator in slot.operators:
                for name, options in slot.free(operator).items():
                    yield f"{slot.name}.{operator}.{name}", options
        for factor in self.scaling_factors:
            yield factor.parameter, factor.values

    @property
    def stock(self) -> Architecture:
        """Base model as an architecture."""
        return self.of({})

    @property
    def searches_width(self) -> bool:
        """Whether an architecture may be wider or narrower than the stock model."""
        return any(factor.name.partition(".")[0] == scaling.WIDTH for factor in self.scaling_factors)

    @property
    def image_size(self) -> int | None:
        """Image size in pixels that the stock model is deployed at; None if the space has no choice of it."""
        return next((int(factor.stock) for factor in self.scaling_factors if factor.name == scaling.IMAGE_SIZE), None)

    def of(self, choices: Mapping[Any, Choice], factors: Mapping[str, float] | None = None) -> Architecture:
        """Return the architecture with these choices, by slot name or layer, and scaling factors; else stock."""
        named = {str(name): choice for name, choice in choices.items()}
        picks: dict[int, Choice] = {}
        inserted: list[Insertion] = []
        for slot in self.slots:
            choice = named.pop(slot.name, STOCK)
            if choice.is_stock:
                continue
            if slot.feeds:
                inserted.append(Insertion(after=slot.layer, feeds=slot.feeds, choice=choice))
            else:
                picks |= dict.fromkeys(slot.layers, choice)
        picks |= {int(name): choice for name, choice in named.items()}
        values = {factor.name: factor.stock for factor in self.scaling_factors} | dict(factors or {})
        return Architecture.of(self.base, self.scale, picks, inserted=inserted, macro=values)

    def choices(self, architecture: Architecture) -> dict[str, Choice]:
        """Return the choice of an architecture in each slot, by the slot's name."""
        picks = dict(architecture.picks)
        inserted = {new.after: new.choice for new in architecture.insertions}
        return {
            slot.name: (inserted if slot.feeds else picks).get(slot.layer, STOCK)  # tied layers have the same choice
            for slot in self.slots
        }

    def factor_values(self, architecture: Architecture) -> dict[str, float]:
        """Return an architecture's values of all scaling factors, by name."""
        differing = dict(architecture.macro)
        return {factor.name: differing.get(factor.name, factor.stock) for factor in self.scaling_factors}

    def with_choice(self, architecture: Architecture, slot: Slot, choice: Choice) -> Architecture:
        """Return the architecture with another choice in one slot."""
        return self.of({**self.choices(architecture), slot.name: choice}, self.factor_values(architecture))

    def with_factor(self, architecture: Architecture, factor: ScalingFactor, value: float) -> Architecture:
        """Return the architecture with another value of one scaling factor."""
        return self.of(self.choices(architecture), {**self.factor_values(architecture), factor.name: value})

    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """Return the architecture of a sampler's parameters; an illegal combination becomes the nearest legal one."""
        choices = {}
        for slot in self.slots:
            operator = str(values[f"{slot.name}.operator"])
            prefix = f"{slot.name}.{operator}."
            wanted = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
            choices[slot.name] = slot.nearest(operator, wanted)
        return self.of(choices, {factor.name: float(values[factor.parameter]) for factor in self.scaling_factors})

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """Return the sampler's parameters of an architecture, without those of operators that it does not have."""
        values: dict[str, Value] = {}
        for slot, choice in zip(self.slots, self.choices(architecture).values(), strict=True):
            values[f"{slot.name}.operator"] = choice.operator
            parameters = dict(choice.parameters)
            for name in slot.free(choice.operator):
                values[f"{slot.name}.{choice.operator}.{name}"] = parameters[name]
        factors = self.factor_values(architecture)
        return values | {factor.parameter: factors[factor.name] for factor in self.scaling_factors}

    def sample(self, rng: random.Random) -> Architecture:
        """Draw a random architecture.

        First the probability that a slot or scaling factor differs from stock is drawn, then an operator for each slot
        and one of its choices.
        """
        change_probability = rng.random()
        choices = {}
        for slot in self.slots:
            operators = [operator for operator in slot.operators if operator != STOCK.operator]
            if operators and rng.random() < change_probability:
                choices[slot.name] = rng.choice(slot.of(rng.choice(operators)))
        factors = {
            factor.name: rng.choice(factor.values)
            for factor in self.scaling_factors
            if rng.random() < change_probability
        }
        return self.of(choices, factors)

    def mutate(self, architecture: Architecture, rng: random.Random, *, steps: int = 1) -> Architecture:
        """Return the architecture with another choice in a random slot, or another scaling factor, `steps` times."""
        choices, factors = self.choices(architecture), self.factor_values(architecture)
        changeable: list[Slot | ScalingFactor] = [slot for slot in self.slots if len(slot.choices) > 1]
        changeable += [factor for factor in self.scaling_factors if len(factor.values) > 1]
        for _ in range(steps):
            changed = rng.choice(changeable)
            if isinstance(changed, ScalingFactor):
                others = [value for value in changed.values if value != factors[changed.name]]
                factors[changed.name] = rng.choice(others)
            else:
                choices[changed.name] = _another(changed, choices[changed.name], rng)
        return self.of(choices, factors)

    def cross(self, left: Architecture, right: Architecture, rng: random.Random) -> Architecture:
        """Return an architecture with each choice and each scaling factor from one of two others, at random."""
        lefts, rights = self.choices(left), self.choices(right)
        left_factors, right_factors = self.factor_values(left), self.factor_values(right)
        return self.of(
            {name: rng.choice((choice, rights[name])) for name, choice in lefts.items()},
            {name: rng.choice((value, right_factors[name])) for name, value in left_factors.items()},
        )

    def incompatibility(self, architecture: Architecture) -> str | None:
        """Return why an architecture cannot be built, or None.

        Every choice of a slot is legal in the base model and with each scaling factor alone; two factors together can
        give a layer a number of channels for which an operator is illegal.
        """
        base = bases.load(self.base, self.scale).scaled(architecture.shape)
        for slot, choice in zip(self.slots, self.choices(architecture).values(), strict=True):
            if not choice.is_stock:
                reason = incompatibility(base, slot, choice)
                if reason:
                    return f"{slot}: {choice}: {reason}"
        return None


def _another(slot: Slot, current: Choice, rng: random.Random) -> Choice:
    """Draw a choice other than the current one: first the operator, then the choice."""
    others = [choice for choice in slot.choices if choice != current]
    operator = rng.choice(list(dict.fromkeys(choice.operator for choice in others)))
    return rng.choice([choice for choice in others if choice.operator == operator])


def incompatibility(base: Base, slot: Slot, choice: Choice) -> str | None:
    """Return why a choice cannot stand in a slot of a base model: the first reason of any layer and site; else None."""
    operator, parameters, inserted = OPERATORS[choice.operator], dict(choice.parameters), slot.feeds is not None
    reasons = (base.incompatibility(layer, operator, parameters, inserted=inserted) for layer in slot.layers)
    return next(filter(None, reasons), None)


def _hashed(slot: Slot) -> list[object]:
    """Return the parts of a slot that go into the space's hash."""
    choices = [[choice.operator, choice.effective] for choice in slot.choices]
    place: object = list(slot.layers) if slot.tied else slot.layer
    return [f"{slot.name} {slot.feeds}" if slot.feeds else place, slot.host, choices]
