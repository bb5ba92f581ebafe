"""Model of the accuracies of one or more searches: trend over cost, spread of true accuracies, noise (Fay and Herriot).

Mean accuracy `y_i` of architecture `i` over `n_i` seeds, of cost `g_i`:

    y_i = theta_i + e_i,   theta_i = b_0 + b_1 log g_i + u_i,   u_i ~ N(0, tau^2),   e_i ~ N(0, sigma^2 / n_i)

Each search has its own `b_0`. Unknown are `b` (flat prior), `tau` (half-Cauchy prior, whose scale is the deviation of
the accuracies, up to twice as much) and `sigma` (known from repeats, `sigma^2 = df s^2 / chi^2_df`). The last two are
integrated on a grid, given which the rest has a closed form.

Sources: Fay and Herriot, "Estimates of income for small places", JASA 74, 1979; Gelman, "Prior distributions for
variance parameters in hierarchical models", Bayesian Analysis 1(3), 2006.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from nas.algorithms.arrays import FloatArray
from nas.algorithms.seed_noise import SeedNoise

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


class GridPoint(NamedTuple):
    """Variance of one training's noise, standard deviation of true accuracies, and the logarithm of the prior."""

    variance: float
    tau: float
    log_prior: float


class Fit(NamedTuple):
    """Fit at a grid point: restricted log-likelihood, precisions, coefficients of the trend and their covariance."""

    log_likelihood: float
    precision: FloatArray
    coefficients: FloatArray
    covariance: FloatArray


def without_failed(architectures: Sequence[Scored], noise: float) -> list[Scored]:
    """Return the architectures without those that lie far below the others, and are not selected.

    Args:
        noise: standard deviation between seeds.
    """
    accuracies = np.array([one.accuracy for one in architectures])
    if not len(accuracies):
        return []
    middle = float(np.median(accuracies))
    spread = max(_MAD * float(np.median(np.abs(accuracies - middle))), noise)
    return [one for one in architectures if one.is_selected or one.accuracy >= middle - _FAILED * spread]


def grid(noise: SeedNoise, deviation: float) -> Iterator[GridPoint]:
    """Yield the grid of `sigma` and `tau`; all quantiles of `sigma` have the same weight.

    Args:
        deviation: standard deviation of the accuracies.
    """
    widest = max(2 * deviation, 1e-9)
    for quantile in (np.arange(_NOISES) + 0.5) / _NOISES:
        chi2 = float(chdtri(noise.degrees_of_freedom, 1 - quantile))
        variance = max(noise.degrees_of_freedom * noise.deviation**2 / chi2, 1e-12)
        for tau in np.linspace(0, widest, _SPREADS):
            yield GridPoint(variance, float(tau), -float(np.log1p((2 * tau / widest) ** 2)))


def design_of(searches: Sequence[Sequence[Scored]]) -> FloatArray:
    """Return the columns of the trend: a constant for each search, and the logarithm of the cost where enough vary.

    Returns:
        `(architectures, searches)`, or one column more. Logarithms are less their mean over all searches.
    """
    every = [one for search in searches for one in search]
    logs = np.log([one.cost for one in every])
    constants = np.repeat(np.eye(len(searches)), [len(search) for search in searches], axis=0)
    enough = len(every) >= _LEAST_FOR_TREND + len(searches) - 1
    has_trend = enough and float(np.ptp(logs)) > _EQUAL_COSTS
    return np.column_stack([constants, logs - logs.mean()]) if has_trend else constants


def fitted(accuracies: FloatArray, design: FloatArray, variances: FloatArray, tau: float) -> Fit:
    """Return the generalised least squares fit of the trend, given `tau` and the variance of each accuracy's noise."""
    precision = 1 / (tau**2 + variances)
    information = design.T @ (design * precision[:, None])
    covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
    coefficients = covariance @ (design.T @ (precision * accuracies))
    residual = accuracies - design @ coefficients
    log_likelihood = 0.5 * (
        np.log(precision).sum() - np.linalg.slogdet(information).logabsdet - (precision * residual**2).sum()
    )
    return Fit(float(log_likelihood), precision, coefficients, covariance)
