"""Predict how far the accuracies of selected models fall when they are trained again: empirical Bayes.

The best of many accuracies are in part luck (the winner's curse). Model of the mean accuracy `y_i` of architecture `i`
over `n_i` seeds, of cost `g_i`:

    y_i = theta_i + e_i,   theta_i = b_0 + b_1 log g_i + u_i,   u_i ~ N(0, tau^2),   e_i ~ N(0, sigma^2 / n_i)

Given `tau` and `sigma` the posterior mean of `theta_i` lies between `y_i` and the trend, the nearer to the trend the
noisier `y_i` is. It holds for the selected ones as well: a posterior does not depend on why one looks at it (Dawid
1994; Efron 2011, who calls its difference to `y_i` the selection bias). The reference model was selected by nothing, so
its accuracy is taken as it is, with its noise.

Unknown are `b` (flat prior), `tau` (half-Cauchy prior, whose scale is the deviation of the accuracies, up to twice as
much) and `sigma` (known from repeats, `sigma^2 = df s^2 / chi^2_df`); all three are integrated, so that the interval
contains their uncertainty. `benchmarks/shrinkage.py` measures its coverage.

Sources: Fay and Herriot, "Estimates of income for small places", JASA 74, 1979 (the model); Efron, "Tweedie's formula
and selection bias", JASA 106, 2011; Dawid, "Selection paradoxes of Bayesian inference", IMS Lecture Notes 24, 1994;
Gelman, "Prior distributions for variance parameters in hierarchical models", Bayesian Analysis 1(3), 2006.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.special import chdtri, ndtr

from nas.algorithms.arrays import FloatArray
from nas.algorithms.paired_comparison import LEVEL
from nas.algorithms.seed_noise import SeedNoise

LEAST = 5
"""Fewest architectures, without the reference, of which a spread is estimated."""
_LEAST_FOR_TREND, _EQUAL_COSTS = 8, 1e-6
_NOISES, _SPREADS = 15, 25
_FAILED = 3.0
"""Robust standard deviations below the median at which an architecture is one of another kind: it has failed."""
_MAD = 1.4826
"""Standard deviation of normal values over their median absolute deviation."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An architecture of a search.

    Attributes:
        accuracy: mean over its seeds.
        seeds: number of them.
        cost: above 0.
        is_selected: whether it is one of those that are trained again.
    """

    accuracy: float
    seeds: int
    cost: float
    is_selected: bool = False


@dataclass(frozen=True, kw_only=True)
class Shrinkage:
    """Mean difference of the selected architectures to the reference, now and when all are trained again.

    Attributes:
        difference: in the search.
        fresh: expected with fresh seeds.
        expected: the first less the second.
        low: lower end of the 95 % prediction interval of what a confirmation will measure as the latter.
        high: upper end of it.
        seeds: of that confirmation.
    """

    difference: float
    fresh: float
    expected: float
    low: float
    high: float
    seeds: int


class _Component(NamedTuple):
    """Normal distribution of the fresh difference, given `tau` and `sigma`."""

    log_weight: float
    mean: float
    deviation: float


def predict(
    architectures: Sequence[Scored], reference: tuple[float, int], noise: SeedNoise, *, seeds: int
) -> Shrinkage | None:
    """Predict what a confirmation will measure of the selected architectures.

    Args:
        architectures: all of the search but the reference.
        reference: accuracy of the reference and number of its seeds.
        noise: between seeds.
        seeds: of the confirmation, for every model.

    Returns:
        None if none is selected, or too few are there.
    """
    compared = _without_failed(architectures, noise.deviation)
    selected = np.array([one.is_selected for one in compared], dtype=np.float64)
    if len(compared) < LEAST or not selected.any():
        return None
    share = selected / selected.sum()
    difference = float(share @ np.array([one.accuracy for one in compared])) - reference[0]
    parts = list(_components(compared, share, reference, noise, seeds))
    weights = np.exp(np.array([part.log_weight for part in parts]) - max(part.log_weight for part in parts))
    weights /= weights.sum()
    means, deviations = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "deviation"))
    fresh = float(weights @ means)
    low, high = (_quantile(weights, means, deviations, level) for level in (LEVEL / 2, 1 - LEVEL / 2))
    return Shrinkage(
        difference=difference,
        fresh=fresh,
        expected=difference - fresh,
        low=difference - high,
        high=difference - low,
        seeds=seeds,
    )


def _without_failed(architectures: Sequence[Scored], noise: float) -> list[Scored]:
    """Return the architectures without those that lie far below the others, and are not selected."""
    accuracies = np.array([one.accuracy for one in architectures])
    if not len(accuracies):
        return []
    middle = float(np.median(accuracies))
    spread = max(_MAD * float(np.median(np.abs(accuracies - middle))), noise)
    return [one for one in architectures if one.is_selected or one.accuracy >= middle - _FAILED * spread]


def _components(
    architectures: Sequence[Scored], share: FloatArray, reference: tuple[float, int], noise: SeedNoise, seeds: int
) -> Iterator[_Component]:
    """Yield the distribution of the fresh difference on the grid of `sigma` and `tau`."""
    accuracies = np.array([one.accuracy for one in architectures])
    counts = np.array([one.seeds for one in architectures])
    design, widest = _design(architectures), max(2 * float(accuracies.std()), 1e-9)
    level, trained = reference
    again = (share**2).sum() / seeds + 1 / seeds
    for quantile in (np.arange(_NOISES) + 0.5) / _NOISES:
        chi2 = float(chdtri(noise.degrees_of_freedom, 1 - quantile))
        variance = max(noise.degrees_of_freedom * noise.deviation**2 / chi2, 1e-12)
        for tau in np.linspace(0, widest, _SPREADS):
            log_weight, mean, spread = _posterior(accuracies, design, variance / counts, float(tau), share)
            total = spread + variance * (1 / trained + again)
            prior = -float(np.log1p((2 * tau / widest) ** 2))
            yield _Component(log_weight + prior, mean - level, float(np.sqrt(total)))


def _design(architectures: Sequence[Scored]) -> FloatArray:
    """Return the columns of the trend: a constant, and the logarithm of the cost where enough of it vary."""
    logs = np.log([one.cost for one in architectures])
    constant = np.ones(len(architectures))
    has_trend = len(architectures) >= _LEAST_FOR_TREND and float(np.ptp(logs)) > _EQUAL_COSTS
    return np.column_stack([constant, logs - logs.mean()]) if has_trend else constant[:, None]


def _posterior(
    accuracies: FloatArray, design: FloatArray, variances: FloatArray, tau: float, share: FloatArray
) -> tuple[float, float, float]:
    """Return the restricted log-likelihood, and mean and variance of the weighted `theta`."""
    precision = 1 / (tau**2 + variances)
    information = design.T @ (design * precision[:, None])
    covariance = np.linalg.inv(information)
    trend = design @ (covariance @ (design.T @ (precision * accuracies)))
    residual = accuracies - trend
    log_weight = 0.5 * (
        np.log(precision).sum() - np.linalg.slogdet(information).logabsdet - (precision * residual**2).sum()
    )
    to_trend = variances * precision
    pulled = share * to_trend
    mean = share @ (accuracies - to_trend * residual)
    spread = (share**2 * to_trend * tau**2).sum() + (design.T @ pulled) @ covariance @ (design.T @ pulled)
    return float(log_weight), float(mean), float(spread)


def _quantile(weights: FloatArray, means: FloatArray, deviations: FloatArray, level: float) -> float:
    """Return a quantile of a mixture of normal distributions."""
    reach = 10 * float(deviations.max())
    return float(
        optimize.brentq(
            lambda value: float(weights @ ndtr((value - means) / deviations)) - level,
            float(means.min()) - reach,
            float(means.max()) + reach,
        )
    )
