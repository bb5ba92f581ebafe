import random

import pytest

from nas.algorithms.pareto import Direction, Point, pareto_front
from nas.algorithms.successive_halving import Stopping, extrapolated, rank, should_promote

BOTH = (Direction.MAXIMIZE, Direction.MINIMIZE)


def drawn(count: int, seed: int = 0) -> list[Point]:
    rng = random.Random(seed)
    return [(rng.random(), rng.random()) for _ in range(count)]


@pytest.mark.parametrize(
    ("eta", "first", "epochs", "rungs"),
    [(3, 1, 9, (1, 3)), (3, 1, 10, (1, 3, 9)), (2, 4, 20, (4, 8, 16)), (3, 8, 8, ()), (4, 1, 1, ())],
)
def test_rungs_grow_by_eta_and_end_before_the_end(eta: int, first: int, epochs: int, rungs: tuple[int, ...]) -> None:
    assert Stopping(eta=eta, first=first).rungs(epochs) == rungs


def test_every_training_is_promoted_below_eta_trainings() -> None:
    assert should_promote((0.1, 9.0), [(0.5, 1.0)], BOTH, eta=3)


def test_front_is_promoted_and_dominated_points_are_not() -> None:
    others = drawn(30)
    assert should_promote((1.1, 0.5), others, BOTH, eta=3)
    assert not should_promote((-0.1, 0.9), others, BOTH, eta=3)


def test_cheap_model_is_compared_with_cheap_ones() -> None:
    """Expensive models are all more accurate; the best of the cheap ones is promoted as well."""
    expensive = [(0.5 + index / 100, 10.0 + index) for index in range(20)]
    cheap = [(0.2 + index / 100, 1.0) for index in range(5)]
    assert should_promote((0.25, 1.0), expensive + cheap, BOTH, eta=3)
    assert not should_promote((0.19, 1.0), expensive + cheap, BOTH, eta=3)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_about_one_of_eta_is_promoted(eta: int) -> None:
    points = drawn(300)
    promoted = sum(should_promote(point, points[:index], BOTH, eta) for index, point in enumerate(points))
    assert 300 / eta * 0.7 < promoted < 300 / eta * 1.5


def test_rank_is_front_by_front() -> None:
    points = drawn(40)
    first = set(pareto_front(points, BOTH))
    assert set(rank(points, BOTH, len(first))) == first
    assert sorted(rank(points, BOTH, 40)) == list(range(40))


def test_rank_inside_a_front_begins_with_its_ends() -> None:
    line = [(index / 10, index / 10) for index in range(11)]
    assert rank(line, BOTH, 3) == [10, 0, 5]
    assert rank(line, BOTH, 5)[3:] in ([2, 7], [3, 7], [2, 8], [3, 8])


def test_rank_of_one_objective_is_its_order() -> None:
    assert rank([(0.1,), (0.3,), (0.2,)], BOTH[:1], 3) == [1, 2, 0]


def test_rank_keeps_the_order_of_equal_points() -> None:
    assert rank([(0.5, 1.0)] * 4, BOTH, 2) == [0, 1]


def test_extrapolated_accuracy_has_the_mean_gain() -> None:
    assert extrapolated(0.2, [0.1, 0.1]) is None
    assert extrapolated(0.2, [0.1, 0.2, 0.3]) == pytest.approx((0.4, 0.1))
