"""Bayesian linear regression with a normal prior on effects, closed-form at each point of a grid of its scale.

Sources: Gelman et al., "Bayesian Data Analysis", 3rd edition, 2013, chapters 14 and 15; Gelman, "Prior distributions
for variance parameters in hierarchical models", Bayesian Analysis 1(3), 2006 (half-Cauchy); Harville, "Bayesian
inference for variance components using only error contrasts", Biometrika 61(2), 1974 (restricted likelihood).
"""

from dataclasses import dataclass

import numpy as np

from nas.algorithms.arrays import FloatArray

RATIOS = tuple(float(ratio) for ratio in np.geomspace(0.05, 10.0, 11))
"""Grid of `lambda`, the standard deviation of effects over the residual's."""
_LEAST_RESIDUAL = 1e-12
"""Least residual sum of squares, as a share of the total: a perfect fit has a scale, too."""


@dataclass(frozen=True)
class Posterior:
    """Posterior of all columns' coefficients, at each point of the grid.

    Attributes:
        logs: logarithms of the restricted likelihoods, up to a constant, `(points,)`.
        means: `(points, columns)`.
        covariances: in units of the residual's variance, `(points, columns, columns)`.
        squares: residual sums of squares, `(points,)`.
    """

    logs: FloatArray
    means: FloatArray
    covariances: FloatArray
    squares: FloatArray


def posterior(
    design: FloatArray, values: FloatArray, correlation: FloatArray, lambdas: FloatArray, degrees: int
) -> Posterior:
    """Return the posterior at each combination of ratios, given the correlation matrix of the residual.

    Args:
        design: columns with a flat prior, then the effects', `(observations, flat columns + effects)`.
        values: standardised, `(observations,)`.
        correlation: `(observations, observations)`.
        lambdas: ratio of each effect at each grid point, `(points, effects)`.
        degrees: of freedom.
    """
    flat = design.shape[1] - lambdas.shape[1]
    weights = np.linalg.inv(correlation)
    weighted = weights @ design
    precisions = np.tile(design.T @ weighted, (len(lambdas), 1, 1))
    diagonal = np.arange(flat, design.shape[1])
    precisions[:, diagonal, diagonal] += lambdas**-2.0
    covariances = np.asarray(np.linalg.inv(precisions), dtype=np.float64)
    projected = weighted.T @ values
    means = covariances @ projected
    total = float(values @ weights @ values)
    squares = np.maximum(total - means @ projected, _LEAST_RESIDUAL * total)
    log_determinant = np.linalg.slogdet(correlation)[1] + np.linalg.slogdet(precisions)[1]
    logs = -0.5 * log_determinant - np.log(lambdas).sum(axis=1) - 0.5 * degrees * np.log(squares)
    return Posterior(logs, means, covariances, squares)


def half_cauchy(ratios: FloatArray) -> FloatArray:
    """Logarithm of the unnormalised half-Cauchy density of ratios, with respect to their logarithm."""
    logs: FloatArray = np.log(ratios) - np.log1p(ratios**2)
    return logs
