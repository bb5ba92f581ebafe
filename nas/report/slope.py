"""Gain of the stock model in further epochs, beside the difference to be detected.

The stock model is trained before all trials, and again, from its weights, as trial 0. What trial 0 gains is what the
budget of a candidate adds to a model that replaces nothing. Where that is more than the differences between candidates,
these are partly differences of speed: what learns fast is ahead, and need not be after a longer training.

Epochs within a training are not used: accuracy lags behind until the learning rate has come down, which it does at the
end of each training.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np

from nas.algorithms.learning_curve import growth
from nas.defaults import MARGIN
from nas.records.record import Record, has_learned, mean_over_seeds, stock_of
from nas.report.budget import Budgets
from nas.settings import Settings
from nas.words import with_unit

_LEAST = 4
"""Fewest architectures of which a typical difference is reported."""
_MOST_PAIRED = 1000
_SURE = 2.0
"""Standard errors by which a gain has to lie above zero."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Gain of the stock model in further epochs.

    Attributes:
        epochs: of further training.
        gain: in points of mAP50-95.
        difference: points beside which the gain stands.
        architectures: whose median difference that is; 0 if it is the margin, below which differences do not matter.
        noise: standard deviation of a score between seeds, in points.
        enough: epochs with which the gain would be no more than the difference; None if they are enough.
    """

    epochs: int
    gain: float
    difference: float
    architectures: int
    noise: float
    enough: Budgets | None

    @property
    def favours_fast(self) -> bool:
        """Whether the ranking favours what learns fast."""
        return self.enough is not None

    @property
    def sentence(self) -> str:
        """Finding in one line."""
        further = f"another {with_unit(self.epochs, 'epoch')}"
        differences = "between candidates" if self.architectures else "that matter"
        beside = f"the {self.difference:.1f} points {differences}"
        if self.enough is None:
            gained = f"the stock model gains {self.gain:.1f} points in {further}"
            if self.gain > self.difference:
                return f"{gained}, no more than noise: no sign that the budget is too short to rank"
            return f"{gained}, no more than {beside}: no sign that the budget is too short to rank"
        least = "at least " if self.enough.is_lower_bound else ""
        return (
            f"the stock model still gains {self.gain:.1f} points in {further}, more than {beside}: "
            f"this ranking favours what learns fast; use {least}{self.enough.options}"
        )

    def as_document(self) -> dict[str, Any]:
        """Return the slope as values for JSON, with its words."""
        return {**asdict(self), "favours_fast": self.favours_fast, "sentence": self.sentence}


def slope(
    settings: Settings,
    records: Sequence[Record],
    *,
    base: float | None,
    longer: Sequence[tuple[int, float]] = (),
    noise: float | None = None,
) -> Slope | None:
    """Return how much the stock model gains in further epochs; None while that is not measured.

    Args:
        settings: of the search.
        records: all records of the search.
        base: mAP50-95 of the stock model after its training before all trials; None without one.
        longer: epochs and mAP50-95 of longer trainings of the stock model that start as its trial does.
        noise: standard deviation of mAP50-95 between seeds; None takes what is typical.
    """
    stock = stock_of(records)
    points = _points(settings, stock, base, longer)
    if len(points) < 2 or not all(has_learned(accuracy) for _, accuracy in points):
        return None
    (before, low), (after, high) = points[:2]
    between = median_difference(records)
    if between is not None and between[0] <= MARGIN / 100:
        between = None
    deviation, target = noise or settings.noise, between[0] if between else MARGIN / 100
    epochs = after - before
    # A short training at a high learning rate may lose what it had; a longer one shows what is left to gain.
    gain = max(high - low, *((further - high) / (end - after) * epochs for end, further in points[2:]), 0.0)
    steep = gain > max(target, _SURE * sqrt(2) * deviation)
    return Slope(
        epochs=epochs,
        gain=100 * gain,
        difference=100 * target,
        architectures=between[1] if between else 0,
        noise=100 * deviation,
        enough=_enough(settings, points, gain, target, deviation) if steep else None,
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


def _points(
    settings: Settings, stock: Record | None, base: float | None, longer: Sequence[tuple[int, float]]
) -> list[tuple[int, float]]:
    """Return all epochs of the stock model and its accuracy at the end of its trainings, fewest first."""
    first = settings.base.epochs if settings.base is not None else 0
    before = [(first, base)] if first and base is not None else []
    trial = [(first + settings.budget.epochs, stock.map50_95)] if stock and stock.map50_95 is not None else []
    if not trial:
        return []
    return [*before, *trial, *sorted((first + epochs, accuracy) for epochs, accuracy in longer)]


def _enough(
    settings: Settings, points: Sequence[tuple[int, float]], gain: float, target: float, noise: float
) -> Budgets:
    """Return the epochs with which the gain would be down to the target."""
    grown = growth(points, gain=gain, target=target, noise=noise)
    epochs = ceil(settings.budget.epochs * grown.factor)
    base = settings.base
    return Budgets(
        epochs=epochs,
        base_epochs=None if base is None else ceil(base.epochs * epochs / settings.budget.epochs),
        is_lower_bound=grown.is_lower_bound,
    )
