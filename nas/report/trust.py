"""How far the ranking of a search can be believed, in words and as values for JSON.

Noise between seeds, the least difference that seeds tell, what the front will lose when it is trained again, whether
short and long trainings agree, and whether the budget is long enough; then one recommendation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from nas.algorithms.paired_comparison import seeds_for
from nas.algorithms.rank_agreement import Agreement
from nas.algorithms.seed_noise import SeedNoise, least_difference
from nas.algorithms.shrinkage import Shrinkage
from nas.report.defaults import MARGIN, SEEDS
from nas.report.slope import Slope
from nas.words import with_unit

_MOST_SEEDS = 20
"""Seeds of a confirmation beyond which another search is recommended."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Agreement of the orders after a shorter and a longer training.

    Attributes:
        shorter: epochs.
        longer: epochs.
        where: `rung`, or the study with the longer trainings.
    """

    shorter: int
    longer: int
    where: str
    agreement: Agreement

    @property
    def sentence(self) -> str:
        """Agreement in one line."""
        found = self.agreement
        given = "" if found.partial is None else f", {found.partial:.2f} given cost"
        counts = f"{with_unit(found.models, 'model')}: {found.same} pairs alike, {found.inverted} inverted"
        between = f"after {self.shorter} and {self.longer} epochs ({self.where})"
        return f"{between}: Kendall's tau {found.tau:.2f}{given} ({counts})"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How far the ranking of a search can be believed; accuracies are mAP50-95 in points.

    Attributes:
        architectures: finished ones.
        noise: between seeds; None if no architecture was trained twice.
        noise_epochs: of the trainings that it was measured with; None if they are those of the search.
        least_differences: least true difference between two models that so many seeds tell from noise; None without
            noise.
        best: trial of the most accurate model of the front; None if that is the stock model, or there is none.
        best_difference: to the stock model.
        best_seeds: of the best and the stock model, the fewer.
        shrinkage: of the front, predicted; None without noise, or if too few architectures are there.
        measured: mean differences of the finalists in the search and with fresh seeds; None before a confirmation.
        orders: of shorter and longer trainings.
        slope: of the stock model; None while it is not measured.
        measure: command that measures noise and slope.
        confirm: command that judges the front.
    """

    study: str
    architectures: int
    seeds: int
    epochs: int
    base_epochs: int | None
    noise: SeedNoise | None
    noise_epochs: int | None
    least_differences: Mapping[int, float] | None
    best: int | None
    best_difference: float | None
    best_seeds: int
    shrinkage: Shrinkage | None
    measured: tuple[float, float] | None
    orders: tuple[Order, ...]
    slope: Slope | None
    finalists: int
    measure: str
    confirm: str

    @property
    def least(self) -> float | None:
        """Least difference that the seeds of the front's best tell; None without noise."""
        return None if self.noise is None else least_difference(self.noise, max(1, self.best_seeds))

    def lines(self) -> list[str]:
        """Return the report in words."""
        base = "" if self.base_epochs is None else f"--base-epochs {self.base_epochs} "
        budget = f"{base}--epochs {self.epochs}, {with_unit(self.seeds, 'seed')}"
        parts = {
            "noise": self._noise(),
            "tells": self._differences(),
            "shrinks": self._shrinkage(),
            "measured": self._measured(),
            "slope": self.slope.sentence if self.slope else f"not measured ({self.measure})",
        }
        heading = f"Trust in {self.study}: {with_unit(self.architectures, 'architecture')}, {budget}"
        orders = [("order", one.sentence) for one in self.orders]
        shown = [(name, text) for name, text in parts.items() if text]
        return [heading, *(f"{name:<9} {text}" for name, text in [*shown, *orders]), "", *self.recommendation()]

    def recommendation(self) -> list[str]:
        """Return what to do, in one or two sentences."""
        slow = [f"Budget: {self.slope.sentence}."] if self.slope and self.slope.favours_fast else []
        if self.noise is None:
            return [f"Noise is not measured, so no difference can be told from it: {self.measure}", *slow]
        told = f"This ranking tells differences above {self.least:.1f} points"
        if self.best is None or self.best_difference is None:
            return [f"{told}; nothing that was tried scores above the stock model.", *slow]
        found = f"the front's best is {self.best_difference:+.1f}"
        if self.least is not None and self.best_difference > self.least:
            return [f"{told}; {found}: more, but selected by these seeds. Judge it: {self.confirm}", *slow]
        return [f"{told}; {found}: not told apart. {self._further(self.noise)}", *slow]

    def _further(self, noise: SeedNoise) -> str:
        """Return with how many seeds a confirmation would tell what is expected of the front."""
        gain = self.shrinkage.fresh if self.shrinkage else self.best_difference
        wanted = gain if gain is not None and gain > MARGIN else MARGIN
        number = seeds_for(wanted, sqrt(2) * noise.deviation, candidates=max(1, self.finalists))
        if number is not None and number <= _MOST_SEEDS:
            seeds = max(number, SEEDS)
            return f"{seeds} fresh seeds would tell {wanted:.1f} points: {self.confirm} --seeds {seeds}"
        options = self.slope.enough.options if self.slope and self.slope.enough else f"--epochs {2 * self.epochs}"
        count = "more than a thousand" if number is None else str(number)
        return f"To tell {wanted:.1f} points takes {count} fresh seeds: search with {options} --seeds 2."

    def _noise(self) -> str:
        if self.noise is None:
            return f"not measured: no architecture was trained twice ({self.measure})"
        interval = f"95 %: {self.noise.low:.2f} to {self.noise.high:.2f}"
        freedom = "1 degree" if self.noise.degrees_of_freedom == 1 else f"{self.noise.degrees_of_freedom} degrees"
        where = "" if self.noise_epochs is None else f", measured with --epochs {self.noise_epochs}"
        deviates = f"{self.noise.deviation:.2f} points between seeds of one architecture"
        return f"{deviates} ({interval}, {freedom} of freedom){where}"

    def _differences(self) -> str:
        if self.least_differences is None:
            return ""
        each = [f"{with_unit(n, 'seed')} {points:.1f}" for n, points in self.least_differences.items()]
        return f"true differences to the stock model, in points: {', '.join(each)}"

    def _shrinkage(self) -> str:
        if self.shrinkage is None:
            return ""
        found = self.shrinkage
        return (
            f"the front is {found.difference:+.1f} points over stock in the mean, {found.fresh:+.1f} expected with "
            f"{found.seeds} fresh seeds: {found.expected:.1f} less ({found.low:.1f} to {found.high:.1f})"
        )

    def _measured(self) -> str:
        if self.measured is None:
            return ""
        before, after = self.measured
        return (
            f"finalists were {before:+.1f} points over stock, {after:+.1f} with fresh seeds: {before - after:.1f} less"
        )

    def as_document(self) -> dict[str, Any]:
        """Return the report as values for JSON, with its words."""
        least = self.least_differences
        return {
            **asdict(self),
            "least_differences": None if least is None else {str(n): points for n, points in least.items()},
            "least": self.least,
            "orders": [{**asdict(one), "sentence": one.sentence} for one in self.orders],
            "slope": self.slope.as_document() if self.slope else None,
            "recommendation": self.recommendation(),
            "lines": self.lines(),
        }
