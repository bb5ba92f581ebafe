"""Categorical features of architectures: which operator and which choice stands where.

A row has a weight in some columns. The product of two rows is the share of equal choices that the surrogate's kernel
is made of: 1 for equal architectures.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from search_spaces import Architecture, JoinedSpace, SearchSpace, Slot, Space
from search_spaces import base as bases
from search_spaces.architecture import STOCK

SAME_OPERATOR = 0.7
"""Share of a slot that two choices have in common if only their operator is equal."""
_OPERATORS, _SLOTS, SHARE_OF_MEMBER = 0.4, 0.4, 0.2
"""Shares of the parts in a joined space: operators by region, choices by slot, the member itself."""

Row = Mapping[int, float]
"""Weights by column; 0 in all others."""


class SlotCategories:
    """Columns for the operator and for the choice of each slot.

    The product of two rows is the mean over slots of 1 for equal choices, 0.7 for equal operators with other
    parameters, and 0 for different operators.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._columns = _columns(space)
        count = max(1, len(space.slots))
        self._weights = math.sqrt(SAME_OPERATOR / count), math.sqrt((1.0 - SAME_OPERATOR) / count)

    def __len__(self) -> int:
        return len(self._columns)

    def of(self, architecture: Architecture) -> Row:
        """Return the row of an architecture."""
        of_operator, of_choice = self._weights
        row: dict[int, float] = {}
        for slot, choice in self._space.choices(architecture).items():
            row[self._columns[slot, choice.operator]] = of_operator
            row[self._columns[slot, choice]] = of_choice
        return row


class JoinedCategories:
    """Columns that architectures of different members share, beside those of each member's slots.

    The product of two rows is a weighted mean of three parts. What crosses members is the first: per region (backbone
    or neck at one resolution), how alike the shares of the operators in its slots are (Bhattacharyya coefficient,
    `sum(sqrt(p * q))`). There, too, layers that are left as they are say nothing of another member: how accurate its
    stock model is has to be seen. The others are 0 between members: equal choices by slot, and the member itself, which
    counts whole where no member has slots. How much the first counts between members is the surrogate's to find.
    """

    def __init__(self, space: JoinedSpace) -> None:
        self._space = space
        self._slots = {member.short_name: SlotCategories(member) for member in space.members}
        self._regions = {member.short_name: _regions(member) for member in space.members}
        named = [_key(member.short_name, *one) for member in space.members for one in _operators(member)]
        self._by_region = {key: column for column, key in enumerate(dict.fromkeys(named))}
        self._first: dict[str, int] = {}
        free = len(self._by_region)
        for name, slots in self._slots.items():
            self._first[name] = free
            free += 1 + len(slots)
        self._count = free
        has_slots = any(member.slots for member in space.members)
        self._member = math.sqrt(SHARE_OF_MEMBER if has_slots else 1.0)

    def __len__(self) -> int:
        return self._count

    def of(self, architecture: Architecture) -> Row:
        """Return the row of an architecture."""
        name = self._space.member_name(architecture)
        first = self._first[name]
        own = self._slots[name].of(architecture)
        return {
            **self._operators(architecture, name),
            first: self._member,
            **{first + 1 + column: math.sqrt(_SLOTS) * weight for column, weight in own.items()},
        }

    def _operators(self, architecture: Architecture, name: str) -> Row:
        choices, regions = self._space.member_of(architecture).choices(architecture), self._regions[name]
        row: dict[int, float] = {}
        for region, slots in regions.items():
            operators = [choices[slot.name].operator for slot in slots]
            for operator in dict.fromkeys(operators):
                share = operators.count(operator) / len(operators) / len(regions)
                row[self._by_region[_key(name, region, operator)]] = math.sqrt(_OPERATORS * share)
        return row


Categories = SlotCategories | JoinedCategories


def categories_of(space: Space) -> Categories:
    """Return the categorical features of a space."""
    return SlotCategories(space) if isinstance(space, SearchSpace) else JoinedCategories(space)


@dataclass(frozen=True)
class _Region:
    """Backbone or neck at one resolution."""

    section: str
    stage: str


def _regions(space: SearchSpace) -> dict[_Region, list[Slot]]:
    """Return the slots of each region."""
    base = bases.load(space.base, space.scale)
    regions: dict[_Region, list[Slot]] = {}
    for slot in space.slots:
        region = _Region(base.section(slot.layer), base.stage(slot.layer))
        regions.setdefault(region, []).append(slot)
    return regions


def _key(member: str, region: _Region, operator: str) -> tuple[str, _Region, str]:
    """Return what a column of operators by region is of; the member is left out where all share it."""
    return member if operator == STOCK.operator else "", region, operator


def _operators(space: SearchSpace) -> Iterator[tuple[_Region, str]]:
    """Yield each operator of each slot, with the slot's region."""
    for region, slots in _regions(space).items():
        yield from ((region, operator) for slot in slots for operator in slot.operators)


def _columns(space: SearchSpace) -> dict[tuple[str, object], int]:
    """Return the column of each operator and of each choice of each slot."""
    keys: list[tuple[str, object]] = []
    for slot in space.slots:
        keys += [(slot.name, operator) for operator in slot.operators]
        keys += [(slot.name, choice) for choice in slot.choices]
    return {key: column for column, key in enumerate(keys)}
