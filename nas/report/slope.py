"""Gain of the stock model in further epochs, beside the difference to be detected.

The stock model is trained before all trials, and again, from its weights, as trial 0. What trial 0 gains is what the
budget of a candidate adds to a model that replaces nothing. A longer training of the stock model shows what is left to
gain after that budget, and then it alone counts. Where the gain is more than the differences between candidates, these
are partly differences of speed: what learns fast is ahead, and need not be after a longer training.

One rule, with the 90 % interval of the gain: *steep* if all of it lies above the difference, *flat* if all of it lies
below, else *not told*. So the budget is called too short, or not, with an error of 5 % each. A training that costs
accuracy says nothing about what is left to gain: *not told* either.

Epochs within a training are not used: accuracy lags behind until the learning rate has come down, which it does at the
end of each training.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby
from math import ceil, inf, sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from nas.algorithms.learning_curve import growth
from nas.algorithms.seed_noise import SeedNoise
from nas.defaults import MARGIN
from nas.records.record import Record, has_learned, mean_over_seeds, stock_of
from nas.report.budget import Budgets
from nas.settings import Settings
from nas.words import decimal, digits_of, with_unit

_LEAST = 4
"""Fewest architectures of which a typical difference is reported."""
_MOST_PAIRED = 1000
_ONE_SIDED = 0.95


class Steepness(StrEnum):
    """Finding on a gain beside the difference to be detected."""

    STEEP = "steep"
    FLAT = "flat"
    NOT_TOLD = "not told"


class End(NamedTuple):
    """Accuracy of the stock model at the end of its trainings of one length.

    Attributes:
        epochs: all of the model's, those of the training before it included.
        accuracy: mAP50-95, the mean over the seeds.
        seeds: number of trainings.
    """

    epochs: int
    accuracy: float
    seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Gain of the stock model in further epochs.

    Attributes:
        epochs: of further training: those of a candidate.
        gain: in points of mAP50-95; below 0 for a loss.
        low: lower end of its 90 % interval.
        high: upper end of it.
        difference: points beside which the gain stands.
        architectures: whose median difference that is, or at least the margin, below which differences do not matter;
            0 if it is the margin because there are too few of them.
        noise: standard deviation of a score between seeds, in points.
        is_longer: whether a longer training shows the gain, after a candidate's budget; else trial 0 does.
        enough: epochs with which the gain would be no more than the difference; None unless it is steep.
        measure: command that measures a longer training; empty if none is named.
        member: whose stock model it is among several; else empty.
    """

    epochs: int
    gain: float
    low: float
    high: float
    difference: float
    architectures: int
    noise: float
    is_longer: bool
    enough: Budgets | None
    measure: str = ""
    member: str = ""

    @property
    def finding(self) -> Steepness:
        """Whether the budget is too short to rank."""
        if self.low > self.difference:
            return Steepness.STEEP
        return Steepness.FLAT if self.high <= self.difference and not self._is_loss else Steepness.NOT_TOLD

    @property
    def _is_loss(self) -> bool:
        """Whether training costs accuracy, so that nothing is shown of what is left to gain.

        A short training does at a high learning rate, and a longer one gains all the same.
        """
        return self.high < 0 or (self.gain <= 0 and not self.is_longer)

    @property
    def favours_fast(self) -> bool:
        """Whether the ranking favours what learns fast."""
        return self.finding is Steepness.STEEP

    @property
    def advised(self) -> Budgets | None:
        """Epochs to search with; None unless it is steep and the differences between candidates are known.

        Before, `enough` would advise what ranks candidates that hardly differ: often ten times as many epochs.
        """
        return self.enough if self.architectures else None

    @property
    def is_warning(self) -> bool:
        """Whether the ranking may favour what learns fast."""
        return self.finding is not Steepness.FLAT

    @property
    def amount(self) -> str:
        """Gain with its interval: `gains 1.1 points in another 3 epochs (0.2 to 2.0)`."""
        digits = digits_of(self.gain)
        size, low, high = (decimal(value, digits) for value in (abs(self.gain), self.low, self.high))
        verb = "loses" if self.gain < 0 and float(size) else "still gains" if self.favours_fast else "gains"
        return f"{verb} {size} points in another {with_unit(self.epochs, 'epoch')} (90 %: {low} to {high})"

    @property
    def gain_in_words(self) -> str:
        """Gain in words, with the member whose stock model gains it."""
        return f"the stock model{self._of_member} {self.amount}"

    @property
    def sentence(self) -> str:
        """Finding in one line."""
        gained = self.gain_in_words
        is_margin = self.difference <= MARGIN
        beside = f"the {self.difference:.1f} points {'that matter' if is_margin else 'between candidates'}"
        match self.finding:
            case Steepness.STEEP:
                return f"{gained}, more than {beside}: {self._consequence}"
            case Steepness.FLAT:
                return f"{gained}, no more than {beside}: no sign that the budget is too short to rank"
        if self._is_loss:
            return f"{gained}: where training costs accuracy, {_NOT_TOLD}{self._remedy}"
        return f"{gained}, beside {beside}: {_NOT_TOLD}{self._remedy}"

    @property
    def budget_later(self) -> str:
        """Words in the place of a budget while the differences between candidates, of the member, are not known."""
        return f"how many epochs are enough is told from {_LEAST} architectures{self._of_member} on"

    @property
    def _of_member(self) -> str:
        return f" of {self.member}" if self.member else ""

    @property
    def _consequence(self) -> str:
        """Consequence of a steep stock model: for the candidates, and once they are known for the budget."""
        if self.advised is None:
            return f"candidates that differ by less are ranked by how fast they learn; {self.budget_later}"
        least = "at least " if self.advised.is_lower_bound else ""
        return f"this ranking favours what learns fast; use {least}{self.advised.options}"

    @property
    def _remedy(self) -> str:
        """Which training would tell."""
        if self.is_longer:
            return ": noise is as large"
        return "; a longer training tells" + (f": {self.measure}" if self.measure else "")

    def as_document(self) -> dict[str, Any]:
        """Return the slope as values for JSON, with its words."""
        words = {"finding": str(self.finding), "favours_fast": self.favours_fast, "sentence": self.sentence}
        return {name: value for name, value in {**asdict(self), **words}.items() if value or name != "member"}


def decisive(slopes: Sequence[Slope]) -> Slope | None:
    """Return the slope of several stock models that decides on the budget: the one that asks for most epochs.

    Without one that asks for more, one that cannot be told; only if there is no such one either, a flat one.
    """

    def weight(one: Slope) -> tuple[bool, float, float, bool, float]:
        is_steep = one.finding is Steepness.STEEP
        advised, enough = (found.epochs if found else 0 for found in (one.advised, one.enough))
        return is_steep, advised, enough, one.finding is Steepness.NOT_TOLD, one.gain

    return max(slopes, key=weight, default=None)


_NOT_TOLD = "whether the budget is long enough to rank cannot be told"


def slope(
    settings: Settings,
    records: Sequence[Record],
    *,
    base: float | None,
    longer: Sequence[End] = (),
    noise: SeedNoise | None = None,
    measure: str = "",
    member: str = "",
) -> Slope | None:
    """Return how much the stock model gains in further epochs; None while that is not measured.

    Args:
        settings: of the search.
        records: all records of the search.
        base: mAP50-95 of the stock model after its training before all trials; None without one.
        longer: longer trainings of the stock model that start as its trial does; their epochs without those before.
        noise: between seeds, in points, with what a seed does to all architectures alike; None takes what is typical.
        measure: command that measures a longer training.
        member: whose records and accuracies these are among several; else empty.
    """
    stock = stock_of(records)
    ends = _ends(settings, stock, base, longer)
    if len(ends) < 2 or not all(has_learned(end.accuracy) for end in ends):
        return None
    trial = [end.epochs for end in ends].index(_before(settings) + settings.budget.epochs)
    is_longer = trial + 1 < len(ends)
    start, end = ends[trial : trial + 2] if is_longer else ends[trial - 1 : trial + 1]
    deviation = settings.noise if noise is None or noise.deviation == 0 else noise.deviation / 100
    freedom = inf if noise is None or noise.deviation == 0 else noise.degrees_of_freedom
    share = settings.budget.epochs / (end.epochs - start.epochs)
    gain = share * (end.accuracy - start.accuracy)
    error = share * deviation * sqrt(1 / start.seeds + 1 / end.seeds)
    reach = float(stdtrit(freedom, _ONE_SIDED)) * error
    between = median_difference(records)
    target = max(MARGIN / 100, between[0] if between else 0.0)
    return Slope(
        epochs=settings.budget.epochs,
        gain=100 * gain,
        low=100 * (gain - reach),
        high=100 * (gain + reach),
        difference=100 * target,
        architectures=between[1] if between else 0,
        noise=100 * deviation,
        is_longer=is_longer,
        enough=_enough(settings, ends, gain, target, deviation) if gain - reach > target else None,
        measure=measure,
        member=member,
    )


def median_difference(records: Sequence[Record]) -> tuple[float, int] | None:
    """Return the median difference in mAP50-95 between two architectures, and their number; None for few.

    The median, since a few that fail lie far from all others. Of many, a thousand represent all: pairs are counted.
    """
    accuracies = sorted(record.map50_95 for record in mean_over_seeds(records) if record.map50_95 is not None)
    if len(accuracies) < _LEAST:
        return None
    some = np.array(accuracies[:: 1 + len(accuracies) // _MOST_PAIRED])
    first, second = np.triu_indices(len(some), k=1)
    return float(np.median(some[second] - some[first])), len(accuracies)


def _before(settings: Settings) -> int:
    """Return the epochs of the stock model before its trial."""
    return settings.base.epochs if settings.base is not None else 0


def _ends(settings: Settings, stock: Record | None, base: float | None, longer: Sequence[End]) -> list[End]:
    """Return the ends of the stock model's trainings, shortest first; none before its trial has finished."""
    if stock is None or stock.map50_95 is None:
        return []
    first = _before(settings)
    before = [End(first, base)] if first and base is not None else []
    trial = End(first + settings.budget.epochs, stock.map50_95, stock.seeds)
    return [*before, trial, *_by_length(end._replace(epochs=first + end.epochs) for end in longer)]


def _by_length(ends: Iterable[End]) -> Iterator[End]:
    """Yield one end for each number of epochs, with the mean over all its trainings."""
    for epochs, group in groupby(sorted(ends), key=lambda end: end.epochs):
        same = list(group)
        seeds = sum(end.seeds for end in same)
        yield End(epochs, sum(end.accuracy * end.seeds for end in same) / seeds, seeds)


def _enough(settings: Settings, ends: Sequence[End], gain: float, target: float, noise: float) -> Budgets:
    """Return the epochs with which the gain would be down to the target."""
    grown = growth([(end.epochs, end.accuracy) for end in ends], gain=gain, target=target, noise=noise)
    epochs = ceil(settings.budget.epochs * grown.factor)
    base = settings.base
    return Budgets(
        epochs=epochs,
        base_epochs=None if base is None else ceil(base.epochs * epochs / settings.budget.epochs),
        is_lower_bound=grown.is_lower_bound,
    )
