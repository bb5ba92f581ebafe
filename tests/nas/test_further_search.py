"""Predicted shrinkage of a further search, from searches whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from nas.algorithms.accuracy_model import Scored
from nas.algorithms.further_search import FurtherShrinkage, Searched, predict_further
from nas.algorithms.seed_noise import SeedNoise
from nas.algorithms.shrinkage import LEAST


def noise(deviation: float = 1.0, freedom: int = 20) -> SeedNoise:
    return SeedNoise(deviation=deviation, low=deviation / 2, high=2 * deviation, degrees_of_freedom=freedom)


def searched(rng: np.random.Generator, *, spread: float, models: int = 12) -> tuple[Searched, np.ndarray]:
    """Return a search with a noise of 1, and the true accuracies, the stock model's first."""
    truth = spread * rng.normal(size=1 + models)
    truth[0] = 0.0
    costs = rng.uniform(6, 9, 1 + models)
    scores = truth + rng.normal(size=truth.shape)
    reference, *others = (
        Scored(accuracy=score, seeds=1, cost=cost) for score, cost in zip(scores.tolist(), costs.tolist(), strict=True)
    )
    return Searched(architectures=others, reference=reference, seeds=1), truth


def measured(rng: np.random.Generator, search: Searched, truth: np.ndarray) -> float | None:
    """Return what five fresh seeds of the front and the stock model show; None if that is alone on the front."""
    models = [search.reference, *search.architectures]
    front = [
        index
        for index, one in enumerate(models)
        if index and all(one.accuracy > other.accuracy for other in models if other.cost < one.cost)
    ]
    if not front:
        return None
    accuracies = np.array([one.accuracy for one in models])
    fresh = truth + rng.normal(scale=np.sqrt(1 / 5), size=truth.shape)
    luck = accuracies - fresh
    return float(luck[front].mean() - luck[0])


def predicted(searches: list[Searched], found: SeedNoise) -> FurtherShrinkage:
    prediction = predict_further(searches, found, seeds=5, most=8)
    assert prediction is not None
    return prediction


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_interval_contains_what_a_third_search_loses(spread: float) -> None:
    rng = np.random.default_rng(0)
    covered, errors = [], []
    for _ in range(60):
        pair = [searched(rng, spread=spread)[0] for _ in range(2)]
        found = predicted(pair, noise(float(np.sqrt(rng.chisquare(20) / 20))))
        third = None
        while third is None:
            third = measured(rng, *searched(rng, spread=spread))
        covered.append(found.low <= third <= found.high)
        errors.append(found.expected - third)
    assert 0.88 <= np.mean(covered) < 1
    assert abs(np.mean(errors)) < 0.5


def test_more_degrees_of_freedom_make_the_interval_narrower() -> None:
    pair = [searched(np.random.default_rng(seed), spread=5.0)[0] for seed in range(2)]
    vague, sure = (predicted(pair, noise(freedom=freedom)) for freedom in (2, 30))
    assert sure.high - sure.low < 0.8 * (vague.high - vague.low)


def test_equal_architectures_lose_more_than_different_ones() -> None:
    rng = np.random.default_rng(1)
    equal, different = (predicted([searched(rng, spread=spread)[0]] * 2, noise()) for spread in (0.0, 5.0))
    assert equal.expected > different.expected + 0.2
    assert different.spread > 2 * equal.spread


def test_level_of_a_search_is_no_spread() -> None:
    """Searches start from weights of their own, so that their accuracies lie on levels of their own."""
    one, other = (searched(np.random.default_rng(seed), spread=1.0)[0] for seed in (2, 3))
    higher = replace(
        other,
        architectures=[replace(each, accuracy=each.accuracy + 30) for each in other.architectures],
        reference=replace(other.reference, accuracy=other.reference.accuracy + 30),
    )
    before, after = predicted([one, other], noise()), predicted([one, higher], noise())
    assert after.spread == pytest.approx(before.spread, rel=1e-6)
    assert after.expected == pytest.approx(before.expected, abs=1e-6)


def test_prediction_is_the_same_every_time() -> None:
    pair = [searched(np.random.default_rng(seed), spread=1.0)[0] for seed in range(2)]
    assert predicted(pair, noise()) == predicted(pair, noise())


def test_few_architectures_have_no_prediction() -> None:
    rng = np.random.default_rng(4)
    pair = [searched(rng, spread=1.0, models=models)[0] for models in (12, LEAST - 1)]
    assert predict_further(pair, noise(), seeds=5, most=8) is None
    assert predict_further([], noise(), seeds=5, most=8) is None
