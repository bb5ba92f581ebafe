"""Which trainings of stock models are hopeless on the way: dominated at a rung by more than noise.

Models learn at different speeds, so the lead at a rung is not that at the end: between the two lies the difference of
their gains. How much gains differ is estimated from the trainings that have ended, together with a usual value as a
prior (a scaled inverse chi-squared distribution of the variance).

Trainings are compared at the last rung that both have reached, so their order does not matter much. Unlike successive
halving, no share of them has to go: models that are not told apart are all trained to their end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

_DEVIATIONS = 2 * sqrt(2)
"""Least difference that counts, in standard deviations of a training: twice that of a difference of two."""
_GAIN_DEVIATION, _PRIOR_WEIGHT = 0.117, 3
"""Usual standard deviation of gains between models, for each part of the epochs that is left, and the degrees of
freedom that it counts. Measured: 0.078 for the last two thirds of nine epochs, of the seven families' smallest models
on the built-in digits from scratch (docs/search.md); for the last third it is smaller than this."""

_RUNGS = 9
"""Parts of a training, with a rung between each two."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Training on its way.

    Attributes:
        costs: known before the training, in one order for all trainings.
        accuracies: best so far at each rung that was reached, by epoch.
        end: accuracy of a training that has ended with its last epoch; None of others.
    """

    costs: tuple[float, ...]
    accuracies: Mapping[int, float]
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Dominator:
    """Training that dominates another.

    Attributes:
        name: of its model.
        rung: epoch at which they were compared.
        lead: by which it was more accurate there.
    """

    name: str
    rung: int
    lead: float


def rungs_of(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which trainings of so many epochs are compared: each ninth; the last is none of them."""
    return tuple(sorted({round(epochs * part / _RUNGS) for part in range(1, _RUNGS)} - {0, epochs}))


def dominator_of(training: Standing, others: Mapping[str, Standing], *, epochs: int, noise: float) -> Dominator | None:
    """Return the training that leads by most, of those that cost no more and lead by more than noise.

    Args:
        others: trainings by the name of their model.
        epochs: of each training.
        noise: standard deviation of the accuracy between trainings of one model.

    Returns:
        None if there is none: the training goes on.
    """
    found = []
    for name, other in others.items():
        common = training.accuracies.keys() & other.accuracies.keys()
        costs_no_more = all(theirs <= own for theirs, own in zip(other.costs, training.costs, strict=True))
        if not common or not costs_no_more:
            continue
        rung = max(common)
        lead = other.accuracies[rung] - training.accuracies[rung]
        if lead > least_difference(noise, _gain_deviation(others.values(), rung, epochs)):
            found.append(Dominator(name=name, rung=rung, lead=lead))
    return max(found, key=lambda one: one.lead, default=None)


def least_difference(noise: float, gain_deviation: float = 0.0) -> float:
    """Return the difference of two trainings that counts as more than noise.

    Args:
        noise: standard deviation of the accuracy between trainings of one model.
        gain_deviation: standard deviation between models of what they still gain; 0 at the end.
    """
    return _DEVIATIONS * sqrt(noise**2 + gain_deviation**2)


def _gain_deviation(trainings: Iterable[Standing], rung: int, epochs: int) -> float:
    """Return the standard deviation between models of their gains from a rung to the end."""
    gains = [one.end - one.accuracies[rung] for one in trainings if one.end is not None and rung in one.accuracies]
    squares = float(np.var(gains)) * len(gains) if gains else 0.0
    usual = _GAIN_DEVIATION * (1 - rung / epochs)
    return sqrt((_PRIOR_WEIGHT * usual**2 + squares) / (_PRIOR_WEIGHT + max(0, len(gains) - 1)))
