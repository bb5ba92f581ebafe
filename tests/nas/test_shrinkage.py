"""Predicted shrinkage of selected models, on studies whose truth is known."""

import numpy as np
import pytest

from nas.algorithms.accuracy_model import Scored
from nas.algorithms.seed_noise import SeedNoise
from nas.algorithms.shrinkage import LEAST, Shrinkage, predict


def noise(deviation: float, freedom: int = 8) -> SeedNoise:
    return SeedNoise(deviation=deviation, low=deviation / 2, high=2 * deviation, degrees_of_freedom=freedom)


def simulated(rng: np.random.Generator, *, spread: float, models: int = 12) -> tuple[Shrinkage, float]:
    """Return the prediction for the best of a study with a noise of 1, and what a confirmation measures."""
    truth, reference = spread * rng.normal(size=models), spread * rng.normal()
    scores = truth + rng.normal(size=models)
    best = int(scores.argmax())
    estimated = float(np.sqrt(rng.chisquare(8) / 8))
    each = [
        Scored(accuracy=score, seeds=1, cost=8.0, is_selected=index == best)
        for index, score in enumerate(scores.tolist())
    ]
    level = float(reference + rng.normal())
    found = predict(each, (level, 1), noise(estimated), seeds=5)
    assert found is not None
    fresh = truth[best] - reference + rng.normal(scale=np.sqrt(2 / 5))
    return found, float(scores[best] - level - fresh)


@pytest.mark.parametrize(("spread", "bias"), [(0.5, -0.2), (1.0, 0.1), (3.0, 0.45)])
def test_interval_contains_what_a_confirmation_measures(spread: float, bias: float) -> None:
    """The spread of twelve architectures is uncertain: a narrow one is overestimated, a wide one underestimated."""
    rng = np.random.default_rng(0)
    each = [simulated(rng, spread=spread) for _ in range(150)]
    expected, measured = np.array([[found.expected, fresh] for found, fresh in each]).T
    covered = [found.low <= fresh <= found.high for found, fresh in each]
    assert 0.9 <= np.mean(covered) < 1
    assert np.mean(expected - measured) == pytest.approx(bias, abs=0.15)
    if spread <= 1:  # better than to believe the scores
        assert np.mean((expected - measured) ** 2) < 0.7 * np.mean(measured**2)


def test_more_noise_shrinks_more() -> None:
    each = [Scored(accuracy=float(score), seeds=1, cost=8.0, is_selected=score == 9) for score in range(10)]
    little, much = (predict(each, (4.0, 1), noise(deviation), seeds=5) for deviation in (0.2, 4.0))
    assert little is not None
    assert much is not None
    assert 0 <= little.expected < 0.3 < much.expected
    assert little.high - little.low < much.high - much.low


def test_more_seeds_shrink_less() -> None:
    once, often = (
        predict(
            [Scored(accuracy=float(score), seeds=seeds, cost=8.0, is_selected=score == 9) for score in range(10)],
            (4.0, seeds),
            noise(2.0),
            seeds=5,
        )
        for seeds in (1, 5)
    )
    assert once is not None
    assert often is not None
    assert often.expected < once.expected


def test_cheap_member_of_the_front_is_drawn_to_the_trend_of_cost() -> None:
    """Its accuracy is low because it is cheap, not because of bad luck."""
    each = [Scored(accuracy=10.0 * np.log(cost), seeds=1, cost=cost, is_selected=cost == 4) for cost in range(4, 16)]
    found = predict(each, (20.0, 1), noise(0.5), seeds=5)
    assert found is not None
    assert abs(found.expected) < 0.5


def test_failed_architectures_do_not_hide_luck() -> None:
    scores = [4.1, 4.5, 3.8, 4.0, 4.9, 4.3, 3.6]
    there = [Scored(accuracy=score, seeds=1, cost=8.0, is_selected=score == 4.9) for score in scores]
    failed = [Scored(accuracy=score, seeds=1, cost=8.0) for score in (-20.0, -12.0)]
    without, together = (predict(each, (4.0, 1), noise(0.5), seeds=5) for each in (there, there + failed))
    assert without is not None
    assert together == without


def test_few_architectures_have_no_prediction() -> None:
    each = [Scored(accuracy=float(score), seeds=1, cost=8.0, is_selected=True) for score in range(LEAST - 1)]
    assert predict(each, (0.0, 1), noise(1.0), seeds=5) is None
    assert predict([], (0.0, 1), noise(1.0), seeds=5) is None
