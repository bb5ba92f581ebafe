"""Comparison of two studies: what differs, what can be compared, and which members are better at equal cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas.algorithms.seed_noise import SeedNoise, least_difference
from nas.report.in_words import InWords
from nas.report.verdicts import UNITS
from nas.words import signed

_DECIMALS = {"gflops": ".2f", "params": ",.0f", "latency_ms": ".1f"}
"""Formats of the costs."""
_COLUMNS = (
    "study",
    "trial",
    "mAP50-95",
    "cost",
    "best of the other study at this cost or less",
    "points",
    "architecture",
)


@dataclass(frozen=True, kw_only=True, order=True)
class ComparedModel:
    """Finished model of a study: the mean over its seeds, and its cost."""

    trial: int
    map50_95: float
    cost: float
    seeds: int = 1
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class ComparedStudy:
    """One of the two studies: its Pareto front, most accurate first, and its stock model, if that has finished."""

    name: str
    members: tuple[ComparedModel, ...]
    stock: ComparedModel | None
    finished: int


@dataclass(frozen=True, kw_only=True)
class SettingDifference:
    """Setting that the two studies do not share."""

    setting: str
    values: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class BesideOther:
    """Member of a front beside the most accurate model of the other study that costs no more; in points of mAP50-95.

    Attributes:
        study: whose member it is.
        other: None if the other study has no model at this cost or below.
        difference: None without another one.
    """

    study: str
    member: ComparedModel
    other: ComparedModel | None
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison(InWords):
    """Comparison of two studies.

    Attributes:
        cost: that both weigh against accuracy.
        differences: in settings, space and data.
        obstacles: why accuracies cannot be compared; empty if they can.
        cost_obstacles: why costs cannot be compared.
        measure: command that measures the noise between seeds of one of them.
        space_difference: lines of the two space files that differ; empty if they are equal.
        noise: between seeds, in points; None if neither study has measured it.
    """

    studies: tuple[ComparedStudy, ComparedStudy]
    cost: str
    differences: tuple[SettingDifference, ...]
    obstacles: tuple[str, ...]
    cost_obstacles: tuple[str, ...]
    measure: str
    space_difference: tuple[str, ...] = ()
    noise: SeedNoise | None = None

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two studies."""
        first, second = self.studies
        return first.name, second.name

    @property
    def unit(self) -> str:
        """Unit of the cost."""
        return UNITS[self.cost]

    @property
    def is_accuracy_comparable(self) -> bool:
        """Whether both were trained and validated alike, and their costs are of the same kind."""
        return not self.obstacles and not self.cost_obstacles

    def beside(self) -> list[BesideOther]:
        """Return each member of both fronts beside the other study at equal cost; empty if that cannot be compared."""
        if not self.is_accuracy_comparable:
            return []
        first, second = self.studies
        return [
            _beside(one.name, member, other.members)
            for one, other in ((first, second), (second, first))
            for member in one.members
        ]

    def lines(self) -> list[str]:
        """Return what the comparison shows in words."""
        obstacles = [*self.obstacles, *self.cost_obstacles]
        if obstacles:
            return ["Not comparable:", *(f"  {line}" for line in obstacles), self._searched]
        if not all(one.members for one in self.studies):
            return [f"{one.name} has no finished trial yet." for one in self.studies if not one.members]
        return [*self._stock, *(self._better(index) for index in (0, 1)), self._worth, self._searched]

    def as_document(self) -> dict[str, Any]:
        """Return the comparison as values for JSON, with its words."""
        return {
            **asdict(self),
            "comparable": self.is_accuracy_comparable,
            "members": [asdict(one) for one in self.beside()],
            "lines": self.lines(),
        }

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return columns and rows of a table of both fronts."""
        beside = {(one.study, one.member.trial): one for one in self.beside()}
        rows: list[tuple[str, ...]] = []
        for one, beyond in zip(self.studies, reversed(self.names), strict=True):
            for member in one.members:
                found = beside.get((one.name, member.trial))
                other = found.other if found else None
                rows.append(
                    (
                        one.name,
                        str(member.trial),
                        f"{member.map50_95:.3f}",
                        f"{member.cost:{_DECIMALS[self.cost]}} {self.unit}",
                        f"{beyond} {other.trial}, {other.map50_95:.3f}" if other else "-",
                        signed(found.difference, 1) if found and found.difference is not None else "-",
                        member.summary,
                    )
                )
        return _COLUMNS, rows

    @property
    def _stock(self) -> list[str]:
        first, second = (one.stock for one in self.studies)
        if first is None or second is None:
            return []
        scores = f"{first.map50_95:.3f} in {self.names[0]}, {second.map50_95:.3f} in {self.names[1]}"
        return [f"stock model: mAP50-95 {scores}"]

    def _better(self, index: int) -> str:
        """Return in how many members of its front a study scores higher than the other at equal cost."""
        name, other = self.names[index], self.names[1 - index]
        mine = [one for one in self.beside() if one.study == name]
        above = [one for one in mine if one.difference is None or one.difference > 0]
        alone = sum(one.other is None for one in mine)
        cheaper = f", {alone} of them cheaper than any of {other}" if alone else ""
        return f"{name}: {len(above)} of {len(mine)} members score higher than {other} at equal cost or less{cheaper}"

    @property
    def _worth(self) -> str:
        chosen = "scores of searches, each the best of many: no verdict before fresh seeds judge (nas confirm)"
        if self.noise is None:
            return f"{chosen}; noise between seeds is not measured ({self.measure})"
        seeds = min(member.seeds for one in self.studies for member in one.members)
        return f"{chosen}; with so few seeds, true differences of {least_difference(self.noise, seeds):.1f} points show"

    @property
    def _searched(self) -> str:
        first, second = self.studies
        numbers = f"{first.finished} finished trials in {first.name}, {second.finished} in {second.name}"
        return (
            numbers if first.finished == second.finished else f"{numbers}: the best of more scores is higher by chance"
        )


def _beside(study: str, member: ComparedModel, others: Sequence[ComparedModel]) -> BesideOther:
    affordable = [one for one in others if one.cost <= member.cost]
    other = max(affordable, key=lambda one: one.map50_95, default=None)
    difference = None if other is None else 100 * (member.map50_95 - other.map50_95)
    return BesideOther(study=study, member=member, other=other, difference=difference)
