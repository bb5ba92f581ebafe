"""Predict how far the accuracies of selected models fall when they are trained again: empirical Bayes.

The best of many accuracies are in part luck (the winner's curse). Given `tau` and `sigma` of the model of
`nas.algorithms.accuracy_model`, the posterior mean of `theta_i` lies between `y_i` and the trend, the nearer to the
trend the noisier `y_i` is. It holds for the selected ones as well: a posterior does not depend on why one looks at it
(Dawid 1994; Efron 2011, who calls its difference to `y_i` the selection bias). The reference model was selected by
nothing, so its accuracy is taken as it is, with its noise.

Trend, `tau` and `sigma` are integrated, so that the interval contains their uncertainty. `benchmarks/shrinkage.py`
measures its coverage.

Sources: Efron, "Tweedie's formula and selection bias", JASA 106, 2011; Dawid, "Selection paradoxes of Bayesian
inference", IMS Lecture Notes 24, 1994.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.special import ndtr

from nas.algorithms.accuracy_model import Scored, design_of, fitted, grid, without_failed
from nas.algorithms.arrays import FloatArray
from nas.algorithms.paired_comparison import LEVEL
from nas.algorithms.seed_noise import SeedNoise

LEAST = 5
"""Fewest architectures, without the reference, of which a spread is estimated."""


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


class Reference(NamedTuple):
    """Model that selected architectures are compared with.

    Attributes:
        accuracy: mean over its seeds.
        seeds: number of them.
        share: of the selected architectures that are compared with it.
    """

    accuracy: float
    seeds: int
    share: float = 1.0


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
    return predict_groups([architectures], [Reference(*reference)], noise, seeds=seeds)


def predict_groups(
    groups: Sequence[Sequence[Scored]], references: Sequence[Reference], noise: SeedNoise, *, seeds: int
) -> Shrinkage | None:
    """Predict what a confirmation will measure of architectures of several groups, each with a level of its own.

    Args:
        groups: architectures of the search but the references; spread and trend are those of all groups.
        references: which the selected ones are compared with; their shares add up to 1.
        noise: between seeds.
        seeds: of the confirmation, for every model.

    Returns:
        None if none is selected, or too few are there.
    """
    parted = [each for group in groups if (each := without_failed(group, noise.deviation))]
    compared = [one for group in parted for one in group]
    selected = np.array([one.is_selected for one in compared], dtype=np.float64)
    if len(compared) < LEAST + len(parted) - 1 or not selected.any():
        return None
    share = selected / selected.sum()
    level = sum(one.share * one.accuracy for one in references)
    difference = float(share @ np.array([one.accuracy for one in compared])) - level
    parts = list(_components(parted, share, references, noise, seeds))
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


def _components(
    groups: Sequence[Sequence[Scored]],
    share: FloatArray,
    references: Sequence[Reference],
    noise: SeedNoise,
    seeds: int,
) -> Iterator[_Component]:
    """Yield the distribution of the fresh difference on the grid of `sigma` and `tau`."""
    architectures = [one for group in groups for one in group]
    accuracies = np.array([one.accuracy for one in architectures])
    counts = np.array([one.seeds for one in architectures])
    design = design_of(groups)
    level = sum(one.share * one.accuracy for one in references)
    trained = sum(one.share**2 / one.seeds for one in references)
    again = (share**2).sum() / seeds + sum(one.share**2 for one in references) / seeds
    for point in grid(noise, float(accuracies.std())):
        log_likelihood, mean, spread = _posterior(accuracies, design, point.variance / counts, point.tau, share)
        total = spread + point.variance * (trained + again)
        yield _Component(log_likelihood + point.log_prior, mean - level, float(np.sqrt(total)))


def _posterior(
    accuracies: FloatArray, design: FloatArray, variances: FloatArray, tau: float, share: FloatArray
) -> tuple[float, float, float]:
    """Return the restricted log-likelihood, and mean and variance of the weighted `theta`."""
    fit = fitted(accuracies, design, variances, tau)
    residual = accuracies - design @ fit.coefficients
    to_trend = variances * fit.precision
    pulled = share * to_trend
    mean = share @ (accuracies - to_trend * residual)
    spread = (share**2 * to_trend * tau**2).sum() + (design.T @ pulled) @ fit.covariance @ (design.T @ pulled)
    return fit.log_likelihood, float(mean), float(spread)


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
