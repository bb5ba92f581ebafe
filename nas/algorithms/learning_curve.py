"""Extrapolate a model's accuracy beyond the end of a training: a saturating power law.

    accuracy(n) = a - c * n ** -alpha

`n` counts all epochs of a model, those of the training before it included. Every point is the end of a whole training,
where the learning rate has come down: within a training the accuracy lags behind, and jumps at the end.

If all epochs grow by a factor `f`, the gain of the last ones shrinks to `f ** -alpha` of what it was, whatever `a` and
`c` are. So the factor that brings a gain down to a target depends on `alpha` alone. Two points say nothing about
`alpha`: then its prior is uniform on 0.25 to 1.75. From three points on, each `alpha` is weighted by the likelihood of
its least-squares fit.

Sources: Domhan, Springenberg and Hutter, "Speeding up automatic hyperparameter optimization of deep neural networks by
extrapolation of learning curves", IJCAI 2015 (the family `pow3`); Viering and Loog, "The shape of learning curves: a
review", arXiv 2103.10948.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.algorithms.arrays import FloatArray

_EXPONENTS = np.linspace(0.25, 1.75, 61)
_POINTS_OF_A_FIT = 3
MOST = 10.0
"""Largest factor that is reported: three points near a training's end say nothing about what lies further away."""
_VAGUE = 2.0
"""An estimate is a lower bound if the upper end of its interval is so many times as large."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Factor by which all epochs have to grow.

    Attributes:
        factor: median; at least 1, at most `MOST`.
        low: lower end of the 90 % interval.
        high: upper end of it; at most `MOST`.
        is_lower_bound: whether the factor is only "at least": nothing bounds it from above by much.
    """

    factor: float
    low: float
    high: float
    is_lower_bound: bool


def growth(points: Sequence[tuple[float, float]], *, gain: float, target: float, noise: float) -> Growth:
    """Return the factor by which epochs have to grow until a gain is down to a target.

    Args:
        points: epochs and accuracy at the end of trainings.
        gain: accuracy that the model gained in its last epochs; above 0.
        target: gain that does not matter any more; above 0.
        noise: standard deviation of an accuracy.

    Raises:
        ValueError: a gain, a target or a noise that is not above 0.
    """
    if min(gain, target, noise) <= 0:
        raise ValueError(f"gain, target and noise are above 0: got {gain}, {target} and {noise}")
    if gain <= target:
        return Growth(factor=1.0, low=1.0, high=1.0, is_lower_bound=False)
    factors = np.minimum((gain / target) ** (1 / _EXPONENTS), MOST)
    weights = exponent_weights(points, noise)
    low, factor, high = (_quantile(factors, weights, share) for share in (0.05, 0.5, 0.95))
    vague = factor >= MOST or high > _VAGUE * factor or len(points) < _POINTS_OF_A_FIT
    return Growth(factor=factor, low=low, high=high, is_lower_bound=vague)


def exponent_weights(points: Sequence[tuple[float, float]], noise: float) -> FloatArray:
    """Return the posterior weight of each exponent on the grid from 0.25 to 1.75; they sum to 1."""
    if len(points) < _POINTS_OF_A_FIT:
        return np.full(len(_EXPONENTS), 1 / len(_EXPONENTS))
    epochs, accuracies = np.asarray(points, dtype=np.float64).T
    squares = np.array([_squares(epochs, accuracies, exponent) for exponent in _EXPONENTS])
    weights = np.exp(-(squares - squares.min()) / (2 * noise**2))
    return np.asarray(weights / weights.sum())


def _squares(epochs: FloatArray, accuracies: FloatArray, exponent: float) -> float:
    """Return the residual sum of squares of the law with this exponent, `c >= 0` and `a <= 1`."""
    falling = epochs**-exponent
    slope, level = np.polyfit(falling, accuracies, 1)
    if slope > 0:  # accuracy would fall with epochs: the law is flat
        slope, level = 0.0, accuracies.mean()
    if level > 1:
        level, slope = 1.0, -float(((1 - accuracies) * falling).sum() / (falling**2).sum())
    return float(((accuracies - level - slope * falling) ** 2).sum())


def _quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    """Return a quantile of weighted values."""
    order = np.argsort(values)
    at = int(np.searchsorted(np.cumsum(weights[order]), share))
    return float(values[order][min(at, len(values) - 1)])
