"""Search space: the slots of a base model with their choices, and its scaling factors with their values."""

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from search_spaces import base as bases
from search_spaces import scaling
from search_spaces.architecture import STOCK, Architecture, Choice, Insertion
from search_spaces.operators import OPERATORS, Value
from search_spaces.pgi_setting import Pgi
from search_spaces.slot import ScalingFactor, Slot, incompatibility

Chooser = Callable[[str, tuple[Value, ...]], Value]
"""Chooses the value of a sampler's parameter, by its name and its values."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Set of the architectures of one base model at one scale that a search can propose.

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
    def short_name(self) -> str:
        """Name with the scale, `v9t`: that of the space among several."""
        return f"{self.name}{self.scale}"

    @property
    def members(self) -> "tuple[SearchSpace, ...]":
        """The space itself, which is its only member; a `JoinedSpace` has several."""
        return (self,)

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of the members of a joined space; none here."""
        return ()

    def member_of(self, architecture: Architecture) -> "SearchSpace":  # noqa: ARG002 - a `JoinedSpace` looks at it
        """Return the member that has an architecture: the space itself."""
        return self

    def member_name(self, architecture: Architecture) -> str:  # noqa: ARG002 - a `JoinedSpace` looks at it
        """Return the name of the member that has an architecture: empty, for there is only one."""
        return ""

    def is_open(self, architecture: Architecture) -> bool:  # noqa: ARG002 - a `JoinedSpace` looks at it
        """Return whether an architecture may be proposed: any of a single space."""
        return True

    def name_of(self, member: "SearchSpace", part: str) -> str:  # noqa: ARG002 - a `JoinedSpace` looks at it
        """Return the name of a member's slot or layer in the whole space: its own name."""
        return part

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
    def stocks(self) -> tuple[Architecture, ...]:
        """Base model of each member as an architecture."""
        return (self.stock,)

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

    def has_all(self, values: Mapping[str, Value]) -> bool:
        """Return whether a sampler's parameters make an architecture; they do not while it is proposed."""
        names = [f"{slot.name}.operator" for slot in self.slots]
        return all(name in values for name in [*names, *(factor.parameter for factor in self.scaling_factors)])

    def ask(self, choose: Chooser) -> Architecture:
        """Return the architecture whose parameters are chosen one by one: only those that it has are asked for."""
        values: dict[str, Value] = {}
        for slot in self.slots:
            name = f"{slot.name}.operator"
            values[name] = operator = str(choose(name, slot.operators))
            for parameter, options in slot.free(operator).items():
                full = f"{slot.name}.{operator}.{parameter}"
                values[full] = choose(full, options)
        for factor in self.scaling_factors:
            values[factor.parameter] = choose(factor.parameter, factor.values)
        return self.architecture(values)

    @cached_property
    def flat_parameters(self) -> dict[str, tuple[Value, ...]]:
        """Unconditional parameters: the index of the choice in each slot, and each scaling factor.

        For samplers that cannot learn conditional parameters.
        """
        indices: dict[str, tuple[Value, ...]] = {slot.name: tuple(range(len(slot.choices))) for slot in self.slots}
        return indices | {factor.parameter: factor.values for factor in self.scaling_factors}

    def flat_values(self, architecture: Architecture) -> dict[str, Value]:
        """Return the `flat_parameters` of an architecture."""
        choices, factors = self.choices(architecture), self.factor_values(architecture)
        indices: dict[str, Value] = {slot.name: slot.choices.index(choices[slot.name]) for slot in self.slots}
        return indices | {factor.parameter: factors[factor.name] for factor in self.scaling_factors}

    def of_flat(self, values: Mapping[str, Any]) -> Architecture:
        """Return the architecture of `flat_parameters`."""
        return self.of(
            {slot.name: slot.choices[values[slot.name]] for slot in self.slots},
            {factor.name: values[factor.parameter] for factor in self.scaling_factors},
        )

    def every(self) -> Iterator[Architecture]:
        """Yield all architectures, the stock model first."""
        names = [slot.name for slot in self.slots]
        factors = [factor.name for factor in self.scaling_factors]
        scalings = list(product(*(factor.values for factor in self.scaling_factors)))
        for chosen, scaling_values in product(product(*(slot.choices for slot in self.slots)), scalings):
            yield self.of(dict(zip(names, chosen, strict=True)), dict(zip(factors, scaling_values, strict=True)))

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


def _hashed(slot: Slot) -> list[object]:
    """Return the parts of a slot that go into the space's hash."""
    choices = [[choice.operator, choice.effective] for choice in slot.choices]
    place: object = list(slot.layers) if slot.tied else slot.layer
    return [f"{slot.name} {slot.feeds}" if slot.feeds else place, slot.host, choices]
