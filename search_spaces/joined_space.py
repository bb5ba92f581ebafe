"""Joined space: several search spaces, each of one base model at one scale, that one study searches."""

import hashlib
import json
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from search_spaces import base as bases
from search_spaces.architecture import Architecture
from search_spaces.errors import SpecError
from search_spaces.operators import Value
from search_spaces.pgi_setting import Pgi
from search_spaces.space import Chooser, SearchSpace

MEMBER = "member"
"""Parameter of a sampler: the name of a member."""
_ANOTHER_MEMBER = 0.1
"""Probability that a mutation leaves the member of its architecture."""


@dataclass(frozen=True, kw_only=True)
class JoinedSpace:
    """Set of the architectures of several search spaces, with the interface of one.

    Samplers see the parameter `member`, a member's name such as `v8n`, and that member's own parameters behind its
    name: `v8n/4.operator`. These names are stored with every study.

    Attributes:
        members: with names and base models that all differ.
        closed: names of members of which nothing is proposed; all names of parameters stay.
    """

    name: str
    members: tuple[SearchSpace, ...]
    closed: frozenset[str] = frozenset()

    def without(self, names: Collection[str]) -> "JoinedSpace":
        """Return the space of which nothing of these members is proposed any more."""
        return replace(self, closed=frozenset(names))

    @property
    def open_members(self) -> tuple[SearchSpace, ...]:
        """Members of which architectures are proposed."""
        return tuple(member for member in self.members if member.short_name not in self.closed)

    def is_open(self, architecture: Architecture) -> bool:
        """Return whether an architecture may be proposed."""
        return self.member_name(architecture) not in self.closed

    @property
    def scale(self) -> str:
        """Empty: each member has its own."""
        return ""

    @property
    def at_scale(self) -> str:
        """Name for messages."""
        return self.name

    @property
    def short_name(self) -> str:
        """Name with the scales, `v8n,v9t`."""
        return self.name

    @property
    def size(self) -> int:
        """Number of architectures that may be proposed."""
        return sum(member.size for member in self.open_members)

    @cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits of a hash over the members' names and hashes."""
        content = [[member.short_name, member.hash] for member in self.members]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    @property
    def stocks(self) -> tuple[Architecture, ...]:
        """Base model of each member as an architecture."""
        return tuple(member.stock for member in self.members)

    @property
    def stock(self) -> Architecture:
        """Base model of the first member that is open."""
        return self.open_members[0].stock

    @property
    def start(self) -> tuple[Architecture, ...]:
        """The architectures to try first, after the stock models."""
        return tuple(chain.from_iterable(member.start for member in self.members))

    @property
    def pgi(self) -> Pgi:
        """Whether, and how, candidates are trained with YOLOv9's auxiliary branch; the same for all members."""
        return self.members[0].pgi

    @property
    def image_size(self) -> int | None:
        """Image size in pixels that the stock models are deployed at; None if no member has a choice of it."""
        return next((size for member in self.members if (size := member.image_size) is not None), None)

    @property
    def searches_width(self) -> bool:
        """Whether an architecture may be wider or narrower than the stock model of its member."""
        return any(member.searches_width for member in self.members)

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self._by_name)

    def member_of(self, architecture: Architecture) -> SearchSpace:
        """Return the member that has an architecture.

        Raises:
            SpecError: none has its base model at its scale.
        """
        base, scale = architecture.base, architecture.scale
        found = self._by_base.get((base, scale)) or self._by_identity.get((bases.identity(base, scale), scale))
        if found is None:
            at_scale = f" at scale {scale}" if scale else ""
            raise SpecError(f"{self.name}: no member has the base model {base}{at_scale}")
        return found

    def member_name(self, architecture: Architecture) -> str:
        """Return the name of the member that has an architecture."""
        return self.member_of(architecture).short_name

    def name_of(self, member: SearchSpace, part: str) -> str:
        """Return the name of a member's slot or layer in the whole space: `v8n/4`."""
        return _behind(member.short_name, part)

    @cached_property
    def _by_base(self) -> dict[tuple[str, str], SearchSpace]:
        return {(member.base, member.scale): member for member in self.members}

    @cached_property
    def _by_identity(self) -> dict[tuple[str, str], SearchSpace]:
        """Members by what identifies their base models: a user's own file may have been moved."""
        return {(bases.identity(member.base, member.scale), member.scale): member for member in self.members}

    @cached_property
    def _by_name(self) -> dict[str, SearchSpace]:
        return {member.short_name: member for member in self.members}

    @cached_property
    def parameters(self) -> dict[str, tuple[Value, ...]]:
        """Every parameter of a sampler, with its values."""
        own = (_named(name, member.parameters) for name, member in self._by_name.items())
        return {MEMBER: tuple(self._by_name)} | dict(chain.from_iterable(each.items() for each in own))

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """Return the sampler's parameters of an architecture, without those that it does not have."""
        member = self.member_of(architecture)
        return {MEMBER: member.short_name, **_named(member.short_name, member.values(architecture))}

    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """Return the architecture of a sampler's parameters; an illegal combination becomes the nearest legal one."""
        name = str(values[MEMBER])
        return self._by_name[name].architecture(_unnamed(name, values))

    def has_all(self, values: Mapping[str, Value]) -> bool:
        """Return whether a sampler's parameters make an architecture; they do not while it is proposed."""
        name = str(values.get(MEMBER))
        return name in self._by_name and self._by_name[name].has_all(_unnamed(name, values))

    def ask(self, choose: Chooser) -> Architecture:
        """Return the architecture whose parameters are chosen one by one: the member, then those of the member."""
        name = str(choose(MEMBER, tuple(self._by_name)))
        return self._by_name[name].ask(lambda parameter, values: choose(_behind(name, parameter), values))

    @cached_property
    def flat_parameters(self) -> dict[str, tuple[Value, ...]]:
        """The member, and the `flat_parameters` of all members."""
        flat: dict[str, tuple[Value, ...]] = {MEMBER: tuple(self._by_name)}
        for name, member in self._by_name.items():
            flat |= _named(name, member.flat_parameters)
        return flat

    def flat_values(self, architecture: Architecture) -> dict[str, Value]:
        """Return the `flat_parameters` of an architecture; those of other members are at stock."""
        its_member = self.member_of(architecture)
        flat: dict[str, Value] = {MEMBER: its_member.short_name}
        for name, member in self._by_name.items():
            flat |= _named(name, member.flat_values(architecture if member is its_member else member.stock))
        return flat

    def of_flat(self, values: Mapping[str, Any]) -> Architecture:
        """Return the architecture of `flat_parameters`; those of other members have no effect."""
        name = str(values[MEMBER])
        return self._by_name[name].of_flat(_unnamed(name, values))

    def every(self) -> Iterator[Architecture]:
        """Yield all architectures that may be proposed, member after member."""
        return chain.from_iterable(member.every() for member in self.open_members)

    def factor_values(self, architecture: Architecture) -> dict[str, float]:
        """Return an architecture's values of the scaling factors of all members, by name; stock for those of others."""
        stock = {factor.name: factor.stock for member in self.members for factor in member.scaling_factors}
        return stock | self.member_of(architecture).factor_values(architecture)

    def sample(self, rng: random.Random) -> Architecture:
        """Draw a random architecture of a random member."""
        return rng.choice(self.open_members).sample(rng)

    def mutate(self, architecture: Architecture, rng: random.Random, *, steps: int = 1) -> Architecture:
        """Return a neighbour in the same member, or sometimes a random architecture of another member.

        Of a closed member it is always one of another.
        """
        member = self.member_of(architecture)
        others = [other for other in self.open_members if other is not member]
        if others and (member.short_name in self.closed or rng.random() < _ANOTHER_MEMBER):
            return rng.choice(others).sample(rng)
        return member.mutate(architecture, rng, steps=steps)

    def cross(self, left: Architecture, right: Architecture, rng: random.Random) -> Architecture:
        """Return an architecture with each choice from one of two others; a neighbour of one if members differ."""
        member = self.member_of(left)
        parents = [one for one in (left, right) if self.is_open(one)]
        if len(parents) < len((left, right)):
            return self.mutate(rng.choice(parents or (left, right)), rng)
        if self.member_of(right) is member:
            return member.cross(left, right, rng)
        chosen = rng.choice((left, right))
        return self.member_of(chosen).mutate(chosen, rng)

    def incompatibility(self, architecture: Architecture) -> str | None:
        """Return why an architecture cannot be built, or None."""
        return self.member_of(architecture).incompatibility(architecture)


Space = SearchSpace | JoinedSpace
"""What a study searches: the space of one base model, or several joined."""


def require_one(space: Space, what: str) -> SearchSpace:
    """Return a space of one member for a task that is not yet done with several.

    Args:
        what: the task, for the message.

    Raises:
        SpecError: the space has several members.
    """
    if isinstance(space, SearchSpace):
        return space
    raise SpecError(f"{what}: not yet possible with several spaces, got {space.name} (one of them alone)")


def _behind(member: str, parameter: str) -> str:
    return f"{member}/{parameter}"


def _named(member: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's parameters under their names in the joined space."""
    return {_behind(member, name): value for name, value in values.items()}


def _unnamed(member: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a member under their names in that member."""
    prefix = _behind(member, "")
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
