"""Effects of operators on accuracy: Bayesian linear regression with integrated variance components.

The model of the accuracy of training `i`, of architecture `a(i)` with seed `s(i)`:

    y_i = mu + gamma_s(i) + x_i' beta + u_a(i) + e_i

`x_i` holds a 1 for each choice that differs from the stock model, `beta` the effects, `gamma` the effect of a seed that
is not the first (`mu` and `gamma` with a flat prior), `u ~ N(0, rho * sigma^2)` what is left of an architecture
that is not additive, and `e ~ N(0, (1 - rho) * sigma^2)` the noise between seeds. Effects of a group have the prior
`beta_j ~ N(0, (lambda * sigma)^2)`, which shrinks an effect that few trainings speak for.

Given `lambda` and `rho`, everything is closed-form: with `p(sigma^2) = 1 / sigma^2` the effects have a multivariate
Student t posterior, and the restricted marginal likelihood of `lambda` and `rho` is known. Both are integrated on a
grid, under a half-Cauchy prior on `lambda` and a uniform one on `rho`, so that intervals contain their uncertainty.

Sources: Gelman et al., "Bayesian Data Analysis", 3rd edition, 2013, chapters 14 and 15; Gelman, "Prior distributions
for variance parameters in hierarchical models", Bayesian Analysis 1(3), 2006 (half-Cauchy); Harville, "Bayesian
inference for variance components using only error contrasts", Biometrika 61(2), 1974 (restricted likelihood).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import stdtr, stdtrit

from nas.algorithms.arrays import FloatArray, IndexArray

RATIOS = tuple(float(ratio) for ratio in np.geomspace(0.05, 10.0, 11))
"""Grid of `lambda`, the standard deviation of effects over the residual's."""
CORRELATIONS = (0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375)
"""Grid of `rho`, the intraclass correlation of an architecture's trainings; used if any was trained twice."""
_LEAST_WEIGHT = 1e-4
"""Grid points with less than this share of the best one's posterior probability are left out."""
_LEAST_RESIDUAL = 1e-12
"""Least residual sum of squares, as a share of the total: a perfect fit has a scale, too."""
_BISECTIONS = 40


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Posterior of the effects, in the unit of the accuracies.

    Attributes:
        means: posterior means, `(effects,)`.
        lower: lower ends of the central credible intervals, `(effects,)`.
        upper: their upper ends, `(effects,)`.
        residual: standard deviation `sigma` of what the effects do not explain, posterior mean.
    """

    means: FloatArray
    lower: FloatArray
    upper: FloatArray
    residual: float


@dataclass(frozen=True)
class _Mixture:
    """Posterior as a mixture of Student t distributions, one for each point of the grid.

    Attributes:
        logs: logarithms of the restricted likelihoods, up to a constant, `(points,)`.
        means: `(points, effects)`.
        scales: `(points, effects)`.
        residuals: scale of the residual, `(points,)`.
    """

    logs: FloatArray
    means: FloatArray
    scales: FloatArray
    residuals: FloatArray


def degrees_of_freedom(seeds: IndexArray) -> int:
    """Return the degrees of freedom of the posterior: the trainings, less one for each distinct seed."""
    return len(seeds) - len(np.unique(seeds))


def fit(
    features: FloatArray,
    accuracies: FloatArray,
    *,
    groups: IndexArray,
    architectures: IndexArray,
    seeds: IndexArray,
    level: float = 0.95,
    ratios: Sequence[float] = RATIOS,
    correlations: Sequence[float] = CORRELATIONS,
) -> Effects:
    """Fit the additive model and return the posterior of its effects.

    Args:
        features: 1 where a training's architecture has the choice of an effect, else 0; `(trainings, effects)`.
        accuracies: `(trainings,)`.
        groups: group of each effect, `(effects,)`; each group has a `lambda` of its own, and the cost grows
            exponentially with the number of groups.
        architectures: index of each training's architecture, `(trainings,)`.
        seeds: index of each training's seed, `(trainings,)`.
        level: probability of an interval.
        ratios: grid of `lambda`, of equal steps in its logarithm.
        correlations: grid of `rho`, of equal steps.

    Raises:
        ValueError: no degree of freedom is left.
    """
    degrees = degrees_of_freedom(seeds)
    if degrees < 1:
        raise ValueError(f"{len(accuracies)} trainings with {len(np.unique(seeds))} seeds leave no degree of freedom")
    spread = float(np.std(accuracies))
    count = features.shape[1]
    if not spread or not count:
        return Effects(means=np.zeros(count), lower=np.zeros(count), upper=np.zeros(count), residual=spread)
    standardised = (accuracies - accuracies.mean()) / spread
    flat = np.ones((len(seeds), 1)), (seeds[:, None] == np.unique(seeds)[None, 1:]).astype(np.float64)
    design = np.hstack([*flat, features])
    names, index = np.unique(groups, return_inverse=True)
    grid = np.array(list(product(ratios, repeat=len(names))))
    is_repeated = len(np.unique(architectures)) < len(architectures)
    same = (architectures[:, None] == architectures[None, :]).astype(np.float64)
    parts = [
        _conditional(design, standardised, (1.0 - rho) * np.eye(len(same)) + rho * same, grid[:, index], degrees)
        for rho in (correlations if is_repeated else (0.0,))
    ]
    log_prior = _half_cauchy(grid).sum(axis=1)
    return _summary(parts, log_prior, degrees, level, spread)


def _conditional(
    design: FloatArray, values: FloatArray, correlation: FloatArray, lambdas: FloatArray, degrees: int
) -> _Mixture:
    """Return the posterior at each combination of ratios, given the correlation matrix of the residual.

    Args:
        design: columns with a flat prior, then the effects', `(trainings, flat columns + effects)`.
        values: standardised accuracies, `(trainings,)`.
        correlation: `(trainings, trainings)`.
        lambdas: ratio of each effect at each grid point, `(points, effects)`.
        degrees: of freedom.
    """
    flat = design.shape[1] - lambdas.shape[1]
    weights = np.linalg.inv(correlation)
    weighted = weights @ design
    precisions = np.tile(design.T @ weighted, (len(lambdas), 1, 1))
    diagonal = np.arange(flat, design.shape[1])
    precisions[:, diagonal, diagonal] += lambdas**-2.0
    covariances = np.linalg.inv(precisions)
    projected = weighted.T @ values
    means = covariances @ projected
    total = float(values @ weights @ values)
    squares = np.maximum(total - means @ projected, _LEAST_RESIDUAL * total)
    log_determinant = np.linalg.slogdet(correlation)[1] + np.linalg.slogdet(precisions)[1]
    log_likelihood = -0.5 * log_determinant - np.log(lambdas).sum(axis=1) - 0.5 * degrees * np.log(squares)
    variances = squares[:, None] / degrees * covariances[:, diagonal, diagonal]
    return _Mixture(
        log_likelihood,
        means[:, flat:],
        np.sqrt(variances),
        np.sqrt(squares / degrees),
    )


def _half_cauchy(ratios: FloatArray) -> FloatArray:
    """Logarithm of the unnormalised half-Cauchy density of ratios, with respect to their logarithm."""
    logs: FloatArray = np.log(ratios) - np.log1p(ratios**2)
    return logs


def _summary(parts: Sequence[_Mixture], log_prior: FloatArray, degrees: int, level: float, spread: float) -> Effects:
    """Return means and quantiles of the mixture of all grid points, in the unit of the accuracies."""
    logs = np.concatenate([part.logs + log_prior for part in parts])
    weights = np.exp(logs - logs.max())
    likely = weights > _LEAST_WEIGHT
    weights = weights[likely] / weights[likely].sum()
    means = np.concatenate([part.means for part in parts])[likely]
    scales = np.concatenate([part.scales for part in parts])[likely]
    residuals = np.concatenate([part.residuals for part in parts])[likely]
    tail = (1.0 - level) / 2.0
    lower, upper = (_quantile(share, weights, means, scales, degrees) for share in (tail, 1.0 - tail))
    return Effects(
        means=spread * (weights @ means),
        lower=spread * lower,
        upper=spread * upper,
        residual=spread * float(weights @ residuals),
    )


def _quantile(share: float, weights: FloatArray, means: FloatArray, scales: FloatArray, degrees: int) -> FloatArray:
    """Return a quantile of each effect's mixture, by bisection between the least and the highest component's."""
    ends = means + scales * stdtrit(degrees, share)
    low, high = ends.min(axis=0), ends.max(axis=0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        is_below = weights @ stdtr(degrees, (middle - means) / scales) < share
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return (low + high) / 2.0
