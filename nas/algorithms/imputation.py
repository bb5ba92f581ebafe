"""Multiple imputation of the final accuracies of trainings that were stopped at a rung.

Whether a training is stopped depends on its accuracy at the rung alone, which is known of all that reached it. Given
that accuracy and its features, a final accuracy is missing at random: what is learned from the trainings that went on
holds for those that were stopped. From the last rung to the first, final accuracies of those stopped there are drawn
from the posterior predictive distribution of

    final = a + b * (accuracy at the rung) + x' delta + e

fitted to all trainings that passed the rung, with the final accuracies that were drawn at later rungs. The pattern of
what is missing is monotone, so one pass is enough.

Sources: Rubin, "Multiple Imputation for Nonresponse in Surveys", 1987; Little and Rubin, "Statistical Analysis with
Missing Data", 3rd edition, 2019, chapters 7 and 10.
"""

import numpy as np

from nas.algorithms.arrays import BoolArray, FloatArray
from nas.algorithms.shrinkage_regression import RATIOS, half_cauchy, posterior

LEAST_TRAININGS = 6
"""Fewest trainings that passed a rung from which a final accuracy is imputed."""
_FLAT = 2
"""Columns with a flat prior: the constant, and the accuracy at the rung."""


def can_be_imputed(accuracies: FloatArray, rungs: FloatArray) -> BoolArray:
    """Return which missing final accuracies can be imputed, `(trainings,)`, as booleans.

    Args:
        accuracies: final ones, NaN where a training was stopped; `(trainings,)`.
        rungs: accuracies at the rungs, in their order, NaN where a training did not get there; `(trainings, rungs)`.
    """
    is_available: BoolArray = ~np.isnan(accuracies)
    for rung in reversed(range(rungs.shape[1])):
        if (is_available & ~np.isnan(rungs[:, rung])).sum() >= LEAST_TRAININGS:
            is_available = is_available | _stopped_at(accuracies, rungs, rung)
    return is_available & np.isnan(accuracies)


def impute(features: FloatArray, accuracies: FloatArray, rungs: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the final accuracies with one draw in place of each missing one that can be imputed.

    Args:
        features: `(trainings, effects)`.
        accuracies: final ones, NaN where a training was stopped; `(trainings,)`.
        rungs: accuracies at the rungs, in their order, NaN where a training did not get there; `(trainings, rungs)`.
        rng: source of the draws.
    """
    drawn = accuracies.copy()
    for rung in reversed(range(rungs.shape[1])):
        passed = ~np.isnan(drawn) & ~np.isnan(rungs[:, rung])
        stopped = _stopped_at(accuracies, rungs, rung)
        if stopped.any() and passed.sum() >= LEAST_TRAININGS:
            drawn[stopped] = _draw(features, rungs[:, rung], drawn, passed, stopped, rng)
    return drawn


def _stopped_at(accuracies: FloatArray, rungs: FloatArray, rung: int) -> BoolArray:
    """Return which trainings were stopped at a rung: they have no accuracy after it."""
    later = np.column_stack([rungs[:, rung + 1 :], accuracies])
    stopped: BoolArray = ~np.isnan(rungs[:, rung]) & np.isnan(later).all(axis=1)
    return stopped


def _draw(  # noqa: PLR0917 - the data of one regression
    features: FloatArray,
    at_rung: FloatArray,
    final: FloatArray,
    passed: BoolArray,
    stopped: BoolArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Draw final accuracies of the stopped trainings, given those of the ones that passed."""
    shift, scale = at_rung[passed].mean(), at_rung[passed].std() or 1.0
    mean, spread = final[passed].mean(), final[passed].std() or 1.0
    flat = np.ones(len(features)), (at_rung - shift) / scale
    design = np.column_stack([*flat, features])
    ratios = np.array(RATIOS)
    degrees = int(passed.sum()) - _FLAT
    lambdas = np.tile(ratios[:, None], (1, features.shape[1]))
    fitted = posterior(design[passed], (final[passed] - mean) / spread, np.eye(int(passed.sum())), lambdas, degrees)
    logs = fitted.logs + half_cauchy(ratios)
    weights = np.exp(logs - logs.max())
    point = rng.choice(len(weights), p=weights / weights.sum())
    variance = fitted.squares[point] / rng.chisquare(degrees)
    coefficients = rng.multivariate_normal(fitted.means[point], variance * fitted.covariances[point])
    noise = np.sqrt(variance) * rng.standard_normal(int(stopped.sum()))
    drawn: FloatArray = mean + spread * (design[stopped] @ coefficients + noise)
    return drawn
