"""A search space: the slots of a base model and its dials, and what each of them may be."""

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
from search_spaces.auxiliary import Pgi
from search_spaces.base import Base
from search_spaces.insertions import Feeds, behind
from search_spaces.operators import OPERATORS, Value


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One layer and what may stand there, or what may be inserted behind it.

    Attributes:
        layer: index in the base model, for ever.
        host: the Ultralytics module there; of an insertion, the stock layer that it stands for.
        choices: the legal ones, stock first; of an insertion, stock is none.
        tied: further layers that always carry the same choice.
        feeds: of an insertion, who reads it; None where the layer itself is the slot.
    """

    layer: int
    host: str
    choices: tuple[Choice, ...]
    tied: tuple[int, ...] = ()
    feeds: Feeds | None = None

    @cached_property
    def name(self) -> str:
        """`9`, or `after-9` for the insertion behind layer 9; tied layers go by the first of them."""
        return behind(self.layer) if self.feeds else str(self.layer)

    def __str__(self) -> str:
        """In a message: `layer 9`, or `after-9`."""
        return self.name if self.feeds else f"layer {self.name}"

    @property
    def layers(self) -> tuple[int, ...]:
        """All its layers."""
        return (self.layer, *self.tied)

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """What the slot may carry, in the order of the file, stock first."""
        return tuple(dict.fromkeys(choice.operator for choice in self.choices))

    def of(self, operator: str) -> tuple[Choice, ...]:
        """The choices of one operator; none if the slot may not carry it."""
        return self._by_operator.get(operator, ())

    def free(self, operator: str) -> dict[str, tuple[Value, ...]]:
        """The operator's parameters that have more than one value here."""
        return self._free[operator]

    @cached_property
    def _by_operator(self) -> dict[str, tuple[Choice, ...]]:
        return {name: tuple(each for each in self.choices if each.operator == name) for name in self.operators}

    @cached_property
    def _free(self) -> dict[str, dict[str, tuple[Value, ...]]]:
        return {operator: _varied(choices) for operator, choices in self._by_operator.items()}

    def nearest(self, operator: str, wanted: Mapping[str, Value]) -> Choice:
        """The operator's choice that agrees with most of the wanted values; the first of several."""

        def agreement(choice: Choice) -> int:
            return sum(wanted.get(name) == value for name, value in choice.parameters)

        return max(self.of(operator), key=agreement)


def _varied(choices: Sequence[Choice]) -> dict[str, tuple[Value, ...]]:
    """The parameters that have more than one value among these choices."""
    values: dict[str, dict[Value, None]] = {}
    for choice in choices:
        for name, value in choice.parameters:
            values.setdefault(name, {})[value] = None
    return {name: tuple(options) for name, options in values.items() if len(options) > 1}


@dataclass(frozen=True, kw_only=True)
class ScalingFactor:
    """A number about the model as a whole that a search may turn.

    Attributes:
        name: `depth`, `width`, `depth.P4`, `width.P4` or `image_size`.
        stock: the value that is the base model, or its deployment.
    """

    name: str
    values: tuple[float, ...]
    stock: float

    @property
    def parameter(self) -> str:
        """As a sampler's parameter."""
        return f"{scaling.MACRO}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Everything that a search can say.

    An architecture is also a mapping of parameters, the form in which a sampler speaks: `<slot>.operator` for every
    slot, `<slot>.<operator>.<parameter>` for what is free in the operator picked there, and `macro.<factor>`.

    Attributes:
        base: as the space file names it, `{scale}` not filled in.
        dials: of the model as a whole.
        start: what a search tries first, after the stock model.
        pgi: whether candidates are trained with YOLOv9's auxiliary branch.
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
        """In words: `v9 at scale t`, or the name alone where the base model has no scales."""
        return f"{self.name} at scale {self.scale}" if self.scale else self.name

    @property
    def size(self) -> int:
        """How many architectures there are."""
        return math.prod(len(slot.choices) for slot in self.slots) * math.prod(
            len(factor.values) for factor in self.scaling_factors
        )

    @cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits over everything that can be said and how a sampler spells it.

        A parameter at its default leaves no trace, so an operator may later gain one.
        """
        slots = [_spoken(slot) for slot in self.slots]
        content = [bases.identity(self.base, self.scale), self.scale, slots]
        content += [[factor.name, factor.values] for factor in self.scaling_factors]
        used = {choice.operator for slot in self.slots for choice in slot.choices if not choice.is_stock}
        content += sorted(source.digest for name in used if (source := OPERATORS[name].source))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    @cached_property
    def parameters(self) -> dict[str, tuple[Value, ...]]:
        """Every parameter that a sampler may be asked for, with its values."""
        return dict(self._spell())

    def _spell(self) -> Iterator[tuple[str, tuple[Value, ...]]]:
        for slot in self.slots:
            yield f"{slot.name}.operator", slot.operators
            for operator in slot.operators:
                for name, options in slot.free(operator).items():
                    yield f"{slot.name}.{operator}.{name}", options
        for factor in self.scaling_factors:
            yield factor.parameter, factor.values

    @property
    def stock(self) -> Architecture:
        """The base model itself."""
        return self.of({})

    @property
    def image_size(self) -> int | None:
        """Pixels that the stock model is deployed at, where the space lets a search choose; else None."""
        return next((int(factor.stock) for factor in self.scaling_factors if factor.name == scaling.IMAGE_SIZE), None)

    def of(self, choices: Mapping[Any, Choice], turned: Mapping[str, float] | None = None) -> Architecture:
        """The architecture with these choices, by the slot's name or layer, and dials; stock elsewhere."""
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
        values = {factor.name: factor.stock for factor in self.scaling_factors} | dict(turned or {})
        return Architecture.of(self.base, self.scale, picks, inserted=inserted, macro=values)

    def choices(self, architecture: Architecture) -> dict[str, Choice]:
        """What an architecture says in each slot, by the slot's name."""
        picks = dict(architecture.picks)
        inserted = {new.after: new.choice for new in architecture.insertions}
        return {
            slot.name: (inserted if slot.feeds else picks).get(slot.layer, STOCK)  # tied layers carry the same
            for slot in self.slots
        }

    def factor_values(self, architecture: Architecture) -> dict[str, float]:
        """What an architecture's dials stand at."""
        differing = dict(architecture.macro)
        return {factor.name: differing.get(factor.name, factor.stock) for factor in self.scaling_factors}

    def with_choice(self, architecture: Architecture, slot: Slot, choice: Choice) -> Architecture:
        """The architecture with another choice in one slot."""
        return self.of({**self.choices(architecture), slot.name: choice}, self.factor_values(architecture))

    def with_factor(self, architecture: Architecture, factor: ScalingFactor, value: float) -> Architecture:
        """The architecture with one factor turned."""
        return self.of(self.choices(architecture), {**self.factor_values(architecture), factor.name: value})

    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """The architecture that these parameters say; a combination that is not legal becomes the nearest that is."""
        choices = {}
        for slot in self.slots:
            operator = str(values[f"{slot.name}.operator"])
            prefix = f"{slot.name}.{operator}."
            wanted = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
            choices[slot.name] = slot.nearest(operator, wanted)
        return self.of(choices, {factor.name: float(values[factor.parameter]) for factor in self.scaling_factors})

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """The parameters that say this architecture: those that are asked for, and no others."""
        values: dict[str, Value] = {}
        for slot, choice in zip(self.slots, self.choices(architecture).values(), strict=True):
            values[f"{slot.name}.operator"] = choice.operator
            parameters = dict(choice.parameters)
            for name in slot.free(choice.operator):
                values[f"{slot.name}.{choice.operator}.{name}"] = parameters[name]
        turned = self.factor_values(architecture)
        return values | {factor.parameter: turned[factor.name] for factor in self.scaling_factors}

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture: how much it changes is drawn first, then an operator for each slot, then a choice."""
        boldness = rng.random()
        choices = {}
        for slot in self.slots:
            operators = [operator for operator in slot.operators if operator != STOCK.operator]
            if operators and rng.random() < boldness:
                choices[slot.name] = rng.choice(slot.of(rng.choice(operators)))
        turned = {factor.name: rng.choice(factor.values) for factor in self.scaling_factors if rng.random() < boldness}
        return self.of(choices, turned)

    def mutate(self, architecture: Architecture, rng: random.Random, *, steps: int = 1) -> Architecture:
        """The architecture with another choice in one random slot, or one factor turned; several times over."""
        choices, turned = self.choices(architecture), self.factor_values(architecture)
        changeable: list[Slot | ScalingFactor] = [slot for slot in self.slots if len(slot.choices) > 1]
        changeable += [factor for factor in self.scaling_factors if len(factor.values) > 1]
        for _ in range(steps):
            changed = rng.choice(changeable)
            if isinstance(changed, ScalingFactor):
                others = [value for value in changed.values if value != turned[changed.name]]
                turned[changed.name] = rng.choice(others)
            else:
                choices[changed.name] = _another(changed, choices[changed.name], rng)
        return self.of(choices, turned)

    def cross(self, left: Architecture, right: Architecture, rng: random.Random) -> Architecture:
        """An architecture that has each slot and each factor from one of two others."""
        lefts, rights = self.choices(left), self.choices(right)
        turned, others = self.factor_values(left), self.factor_values(right)
        return self.of(
            {name: rng.choice((choice, rights[name])) for name, choice in lefts.items()},
            {name: rng.choice((value, others[name])) for name, value in turned.items()},
        )

    def incompatibility(self, architecture: Architecture) -> str | None:
        """Why an architecture cannot be built, or None.

        Every choice of a slot is legal in the base model and with each factor turned alone; two dials together may
        leave a layer with channels that an operator cannot take.
        """
        base = bases.load(self.base, self.scale).scaled(architecture.shape)
        for slot, choice in zip(self.slots, self.choices(architecture).values(), strict=True):
            if not choice.is_stock:
                told = incompatibility(base, slot, choice)
                if told:
                    return f"{slot}: {choice}: {told}"
        return None


def _another(slot: Slot, standing: Choice, rng: random.Random) -> Choice:
    """Another choice than the one that stands in a slot: the operator is drawn first."""
    others = [choice for choice in slot.choices if choice != standing]
    operator = rng.choice(list(dict.fromkeys(choice.operator for choice in others)))
    return rng.choice([choice for choice in others if choice.operator == operator])


def incompatibility(base: Base, slot: Slot, choice: Choice) -> str | None:
    """Why a choice cannot stand in a slot of a base model, or None: the first reason at any site of any layer."""
    operator, parameters, inserted = OPERATORS[choice.operator], dict(choice.parameters), slot.feeds is not None
    reasons = (base.incompatibility(layer, operator, parameters, inserted=inserted) for layer in slot.layers)
    return next(filter(None, reasons), None)


def _spoken(slot: Slot) -> list[object]:
    """A slot as a hash knows it."""
    choices = [[choice.operator, choice.effective] for choice in slot.choices]
    place: object = list(slot.layers) if slot.tied else slot.layer
    return [f"{slot.name} {slot.feeds}" if slot.feeds else place, slot.host, choices]
