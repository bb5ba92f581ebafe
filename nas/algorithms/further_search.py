"""Predict how far the finalists of a further search will fall when they are trained again, from earlier searches.

Earlier searches of one kind share the noise `sigma`, the spread `tau` and the trend of the model of
`nas.algorithms.accuracy_model`; its parameters are drawn from their posterior. Given each draw a search is simulated:
true accuracies and scores at the costs of one of the earlier searches, the Pareto front of the scores, and the fresh
seeds of its confirmation. The quantiles of what is measured then are a posterior predictive interval (Gelman et al.,
"Bayesian Data Analysis", 3rd edition, 2013, section 1.3). `benchmarks/shrinkage.py` measures its coverage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.algorithms.accuracy_model import Scored, design_of, fitted, grid, without_failed
from nas.algorithms.arrays import FloatArray
from nas.algorithms.paired_comparison import LEVEL
from nas.algorithms.seed_noise import SeedNoise
from nas.algorithms.shrinkage import LEAST

_DRAWS = 4000


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A search that has ended.

    Attributes:
        architectures: all but the reference.
        reference: the stock model.
        seeds: with which the members of a front are trained in such a search.
    """

    architectures: Sequence[Scored]
    reference: Scored
    seeds: int


@dataclass(frozen=True, kw_only=True)
class FurtherShrinkage:
    """Shrinkage of the finalists of a further search: their mean difference to the reference, less the fresh one.

    Attributes:
        expected: mean.
        low: lower end of the 95 % prediction interval of what a confirmation will measure.
        high: upper end of it.
        seeds: of that confirmation.
        spread: posterior mean of the standard deviation of true accuracies around their trend.
    """

    expected: float
    low: float
    high: float
    seeds: int
    spread: float


class _Draws(NamedTuple):
    """Draws from the posterior, each `(draws,)`.

    Attributes:
        sigma: standard deviation of one training's noise.
        tau: of true accuracies.
        slope: rise of true accuracies with the logarithm of the cost.
        offset: of the reference's true accuracy from the trend.
    """

    sigma: FloatArray
    tau: FloatArray
    slope: FloatArray
    offset: FloatArray


def predict_further(
    searches: Sequence[Searched], noise: SeedNoise, *, seeds: int, most: int
) -> FurtherShrinkage | None:
    """Predict what the confirmation of a further search will measure.

    Args:
        searches: earlier ones of the same kind.
        noise: between seeds, of all of them.
        seeds: of the confirmation, for every model.
        most: finalists at most, the most accurate first.

    Returns:
        None if an earlier search has too few architectures, or a further one would have no finalists.
    """
    compared = [replace(one, architectures=without_failed(one.architectures, noise.deviation)) for one in searches]
    if not compared or min(len(one.architectures) for one in compared) < LEAST:
        return None
    rng = np.random.default_rng(0)
    middle = float(np.mean([np.log(model.cost) for one in compared for model in one.architectures]))
    draws = _posterior_draws(compared, middle, noise, rng)
    parts = np.array_split(np.array(draws), len(compared), axis=1)
    measured = np.concatenate(
        [
            _simulated(one, middle, _Draws(*part), rng, seeds=seeds, most=most)
            for one, part in zip(compared, parts, strict=True)
        ]
    )
    if not len(measured):
        return None
    low, high = np.quantile(measured, [LEVEL / 2, 1 - LEVEL / 2])
    return FurtherShrinkage(
        expected=float(measured.mean()),
        low=float(low),
        high=float(high),
        seeds=seeds,
        spread=float(draws.tau.mean()),
    )


def _posterior_draws(searches: Sequence[Searched], middle: float, noise: SeedNoise, rng: np.random.Generator) -> _Draws:
    """Draw noise, spread, trend and the reference's offset given all searches.

    Args:
        middle: mean logarithm of all costs.
    """
    every = [model for one in searches for model in one.architectures]
    accuracies, counts = (np.array([getattr(model, name) for model in every]) for name in ("accuracy", "seeds"))
    number, design = len(searches), design_of([one.architectures for one in searches])
    means = [float(np.mean([model.accuracy for model in one.architectures])) for one in searches]
    points = list(grid(noise, float((accuracies - design[:, :number] @ means).std())))
    fits = [fitted(accuracies, design, point.variance / counts, point.tau) for point in points]
    logs = np.array([fit.log_likelihood + point.log_prior for fit, point in zip(fits, points, strict=True)])
    weights = np.exp(logs - logs.max())
    chosen = rng.choice(len(points), size=_DRAWS, p=weights / weights.sum())
    sigma = np.sqrt([point.variance for point in points])[chosen]
    coefficients = np.array([fit.coefficients for fit in fits])[chosen]
    slope = np.zeros(_DRAWS)
    if design.shape[1] > number:
        deviations = np.sqrt([fit.covariance[-1, -1] for fit in fits])[chosen]
        slope = coefficients[:, -1] + deviations * rng.normal(size=_DRAWS)
    references = [one.reference for one in searches]
    on_trend = coefficients[:, :number] + slope[:, None] * (np.log([one.cost for one in references]) - middle)
    above = np.array([one.accuracy for one in references]) - on_trend
    error = sigma / np.sqrt(sum(one.seeds for one in references))
    return _Draws(
        sigma=sigma,
        tau=np.array([point.tau for point in points])[chosen],
        slope=slope,
        offset=above.mean(axis=1) + error * rng.normal(size=_DRAWS),
    )


def _simulated(
    search: Searched, middle: float, draws: _Draws, rng: np.random.Generator, *, seeds: int, most: int
) -> FloatArray:
    """Simulate a search at the costs of an earlier one and its confirmation, once for each draw.

    Args:
        middle: mean logarithm of the costs of all earlier searches.

    Returns:
        What the confirmation measures; less values than draws, for a front may be the reference alone.
    """
    costs = np.array([one.cost for one in (search.reference, *search.architectures)])
    shape = (len(draws.sigma), len(costs))
    spread = draws.tau[:, None] * rng.normal(size=shape)
    spread[:, 0] = draws.offset
    trained = np.full(len(costs), search.seeds)
    trained[0] = search.reference.seeds
    errors = draws.sigma[:, None] * rng.normal(size=shape) / np.sqrt(trained)
    scores = draws.slope[:, None] * (np.log(costs) - middle) + spread + errors
    selected = _finalists(scores, costs, most)
    numbers = selected.sum(axis=1)
    any_selected = numbers > 0
    numbers = np.maximum(numbers, 1)
    luck = (errors * selected).sum(axis=1) / numbers - errors[:, 0]
    fresh = rng.normal(size=(2, len(numbers))) * draws.sigma * np.sqrt(1 / seeds)
    measured = luck - fresh[0] / np.sqrt(numbers) + fresh[1]
    return np.asarray(measured[any_selected], dtype=np.float64)


def _finalists(scores: FloatArray, costs: FloatArray, most: int) -> NDArray[np.bool_]:
    """Return a mask of the front's most accurate members without the first column, `(draws, models)`."""
    order = np.argsort(costs, kind="stable")
    by_cost = scores[:, order]
    before = np.maximum.accumulate(by_cost, axis=1)[:, :-1]
    on_front = np.ones(scores.shape, dtype=np.bool_)
    on_front[:, 1:] = by_cost[:, 1:] > before  # accuracy rises with cost along a front
    on_front[:, order == 0] = False
    from_best = np.cumsum(on_front[:, ::-1], axis=1)[:, ::-1]
    selected = np.zeros(scores.shape, dtype=np.bool_)
    selected[:, order] = on_front & (from_best <= most)
    return selected
