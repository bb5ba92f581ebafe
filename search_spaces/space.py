"""A search space: the slots of a base model, and what may stand in each."""

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from search_spaces import base as bases
from search_spaces.architecture import STOCK, Architecture, Choice
from search_spaces.operators import Value


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One layer and what may stand there.

    Attributes:
        layer: index in the base model, for ever.
        host: the Ultralytics module there.
        choices: the legal ones, stock first.
    """

    layer: int
    host: str
    choices: tuple[Choice, ...]

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """What the slot may carry, in the order of the file, stock first."""
        return tuple(dict.fromkeys(choice.operator for choice in self.choices))

    def of(self, operator: str) -> tuple[Choice, ...]:
        """The choices of one operator."""
        return tuple(choice for choice in self.choices if choice.operator == operator)

    def free(self, operator: str) -> dict[str, tuple[Value, ...]]:
        """The operator's parameters that have more than one value here."""
        values: dict[str, dict[Value, None]] = {}
        for choice in self.of(operator):
            for name, value in choice.parameters:
                values.setdefault(name, {})[value] = None
        return {name: tuple(options) for name, options in values.items() if len(options) > 1}

    def nearest(self, operator: str, wanted: Mapping[str, Value]) -> Choice:
        """The operator's choice that agrees with most of the wanted values; the first of several."""

        def agreement(choice: Choice) -> int:
            return sum(wanted.get(name) == value for name, value in choice.parameters)

        return max(self.of(operator), key=agreement)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Everything that a search can say.

    An architecture is also a mapping of parameters, the form in which a sampler speaks: `<layer>.operator` for every
    slot, and `<layer>.<operator>.<parameter>` for what is free in the operator picked there.

    Attributes:
        base: as the space file names it, `{scale}` not filled in.
    """

    name: str
    base: str
    scale: str
    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        """How many architectures there are."""
        return math.prod(len(slot.choices) for slot in self.slots)

    @cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits over everything that can be said and how a sampler spells it."""
        slots = [[slot.layer, slot.host, [[c.operator, c.parameters] for c in slot.choices]] for slot in self.slots]
        content = json.dumps([bases.identity(self.base, self.scale), self.scale, slots])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @cached_property
    def parameters(self) -> dict[str, tuple[Value, ...]]:
        """Every parameter that a sampler may be asked for, with its values."""
        return dict(self._spell())

    def _spell(self) -> Iterator[tuple[str, tuple[Value, ...]]]:
        for slot in self.slots:
            yield f"{slot.layer}.operator", slot.operators
            for operator in slot.operators:
                for name, options in slot.free(operator).items():
                    yield f"{slot.layer}.{operator}.{name}", options

    @property
    def stock(self) -> Architecture:
        """The base model itself."""
        return self.of({})

    def of(self, picks: Mapping[int, Choice]) -> Architecture:
        """The architecture with these picks, stock elsewhere."""
        return Architecture.of(self.base, self.scale, picks)

    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """The architecture that these parameters say; a combination that is not legal becomes the nearest that is."""
        picks = {}
        for slot in self.slots:
            operator = str(values[f"{slot.layer}.operator"])
            prefix = f"{slot.layer}.{operator}."
            wanted = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
            picks[slot.layer] = slot.nearest(operator, wanted)
        return self.of(picks)

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """The parameters that say this architecture: those that are asked for, and no others."""
        picks = dict(architecture.picks)
        values: dict[str, Value] = {}
        for slot in self.slots:
            choice = picks.get(slot.layer, STOCK)
            values[f"{slot.layer}.operator"] = choice.operator
            parameters = dict(choice.parameters)
            for name in slot.free(choice.operator):
                values[f"{slot.layer}.{choice.operator}.{name}"] = parameters[name]
        return values

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture: how much it changes is drawn first, then an operator for each slot, then a choice."""
        boldness = rng.random()
        picks = {}
        for slot in self.slots:
            operators = [operator for operator in slot.operators if operator != STOCK.operator]
            if operators and rng.random() < boldness:
                picks[slot.layer] = rng.choice(slot.of(rng.choice(operators)))
        return self.of(picks)

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """The architecture with another choice in one random slot."""
        slot = rng.choice([slot for slot in self.slots if len(slot.choices) > 1])
        picks = dict(architecture.picks)
        others = [choice for choice in slot.choices if choice != picks.get(slot.layer, STOCK)]
        operator = rng.choice(list(dict.fromkeys(choice.operator for choice in others)))
        picks[slot.layer] = rng.choice([choice for choice in others if choice.operator == operator])
        return self.of(picks)
