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

Final accuracies of trainings that were stopped early are imputed several times (`nas.algorithms.imputation`); the
posterior is then the mean of the posteriors given each completed set.

Sources: those of `nas.algorithms.shrinkage_regression`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import stdtr, stdtrit

from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.imputation import can_be_imputed, impute
from nas.algorithms.shrinkage_regression import RATIOS, half_cauchy, posterior

CORRELATIONS = (0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375)
"""Grid of `rho`, the intraclass correlation of an architecture's trainings; used if any was trained twice."""
_LEAST_WEIGHT = 1e-4
"""Grid points with less than this share of the best one's posterior probability are left out."""
DRAWS = 20
"""Completed sets of accuracies, where some are imputed."""
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
        weights: probabilities of the points, `(points,)`.
        means: `(points, effects)`.
        scales: `(points, effects)`.
        residuals: scale of the residual, `(points,)`.
    """

    weights: FloatArray
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
    rungs: FloatArray | None = None,
    ratios: Sequence[float] = RATIOS,
    correlations: Sequence[float] = CORRELATIONS,
) -> Effects:
    """Fit the additive model and return the posterior of its effects.

    Args:
        features: 1 where a training's architecture has the choice of an effect, else 0; `(trainings, effects)`.
        accuracies: final ones, `(trainings,)`; NaN where a training was stopped at a rung.
        groups: group of each effect, `(effects,)`; each group has a `lambda` of its own, and the cost grows
            exponentially with the number of groups.
        architectures: index of each training's architecture, `(trainings,)`.
        seeds: index of each training's seed, `(trainings,)`.
        level: probability of an interval.
        rungs: accuracies at the rungs, in their order, `(trainings, rungs)`; NaN where a training did not get there.
            None, or too few of them: trainings without a final accuracy do not count.
        ratios: grid of `lambda`, of equal steps in its logarithm.
        correlations: grid of `rho`, of equal steps.

    Raises:
        ValueError: no degree of freedom is left.
    """
    used = ~np.isnan(accuracies) | can_be_imputed(accuracies, rungs) if rungs is not None else np.isfinite(accuracies)
    features, architectures, seeds = features[used], architectures[used], seeds[used]
    degrees = degrees_of_freedom(seeds)
    if degrees < 1:
        raise ValueError(f"{len(seeds)} trainings with {len(np.unique(seeds))} seeds leave no degree of freedom")
    sets = [accuracies[used]]
    if rungs is not None and np.isnan(sets[0]).any():
        rng = np.random.default_rng(len(seeds))
        sets = [impute(features, accuracies[used], rungs[used], rng) for _ in range(DRAWS)]
    spread, count = float(np.std(sets[0])), features.shape[1]
    if not spread or not count:
        return Effects(means=np.zeros(count), lower=np.zeros(count), upper=np.zeros(count), residual=spread)
    names, index = np.unique(groups, return_inverse=True)
    grid = np.array(list(product(ratios, repeat=len(names))))
    is_repeated = len(np.unique(architectures)) < len(architectures)
    parts = [
        _mixture(
            features, one, architectures, seeds, grid=grid, index=index, rhos=correlations if is_repeated else (0.0,)
        )
        for one in sets
    ]
    return _summary(parts, degrees, level)


def _mixture(
    features: FloatArray,
    accuracies: FloatArray,
    architectures: IndexArray,
    seeds: IndexArray,
    *,
    grid: FloatArray,
    index: IndexArray,
    rhos: Sequence[float],
) -> _Mixture:
    """Return the posterior of the effects given one set of accuracies, in their unit.

    Args:
        features: `(trainings, effects)`.
        accuracies: `(trainings,)`.
        architectures: `(trainings,)`.
        seeds: `(trainings,)`.
        grid: ratio of each group at each point, `(points, groups)`.
        index: group of each effect, `(effects,)`.
        rhos: grid of `rho`.
    """
    degrees, spread = degrees_of_freedom(seeds), float(np.std(accuracies))
    standardised = (accuracies - accuracies.mean()) / spread
    flat = np.ones((len(seeds), 1)), (seeds[:, None] == np.unique(seeds)[None, 1:]).astype(np.float64)
    design = np.hstack([*flat, features])
    same = (architectures[:, None] == architectures[None, :]).astype(np.float64)
    diagonal = np.arange(design.shape[1] - features.shape[1], design.shape[1])
    parts = []
    for rho in rhos:
        correlation = (1.0 - rho) * np.eye(len(same)) + rho * same
        found = posterior(design, standardised, correlation, grid[:, index], degrees)
        variances = found.squares[:, None] / degrees * found.covariances[:, diagonal, diagonal]
        residuals = np.sqrt(found.squares / degrees)
        parts.append((found.logs, found.means[:, diagonal], np.sqrt(variances), residuals))
    logs, means, scales, residuals = (np.concatenate(each) for each in zip(*parts, strict=True))
    logs = logs + np.tile(half_cauchy(grid).sum(axis=1), len(rhos))
    weights = np.exp(logs - logs.max())
    likely = weights > _LEAST_WEIGHT
    return _Mixture(
        weights[likely] / weights[likely].sum(),
        spread * means[likely],
        spread * scales[likely],
        spread * residuals[likely],
    )


def _summary(parts: Sequence[_Mixture], degrees: int, level: float) -> Effects:
    """Return means and quantiles of the mean of several posteriors."""
    weights = np.concatenate([part.weights for part in parts]) / len(parts)
    means = np.concatenate([part.means for part in parts])
    scales = np.concatenate([part.scales for part in parts])
    tail = (1.0 - level) / 2.0
    lower, upper = (_quantile(share, weights, means, scales, degrees) for share in (tail, 1.0 - tail))
    residuals = np.concatenate([part.residuals for part in parts])
    return Effects(means=weights @ means, lower=lower, upper=upper, residual=float(weights @ residuals))


def _quantile(share: float, weights: FloatArray, means: FloatArray, scales: FloatArray, degrees: int) -> FloatArray:
    """Return a quantile of each effect's mixture, by bisection between the least and the highest component's."""
    ends = means + scales * stdtrit(degrees, share)
    low, high = ends.min(axis=0), ends.max(axis=0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        is_below = weights @ stdtr(degrees, (middle - means) / scales) < share
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return (low + high) / 2.0
