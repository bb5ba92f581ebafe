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


def test_everything_goes_on_while_nothing_is_known() -> None:
    assert should_promote((0.1, 9.0), [(0.5, 1.0)], BOTH, eta=3)


def test_the_front_goes_on_and_what_it_dominates_does_not() -> None:
    others = drawn(30)
    assert should_promote((1.1, 0.5), others, BOTH, eta=3)
    assert not should_promote((-0.1, 0.9), others, BOTH, eta=3)


def test_a_cheap_model_is_compared_with_cheap_ones() -> None:
    """Dear models are all more accurate; the best of the cheap ones goes on beside them."""
    dear = [(0.5 + index / 100, 10.0 + index) for index in range(20)]
    cheap = [(0.2 + index / 100, 1.0) for index in range(5)]
    assert should_promote((0.25, 1.0), dear + cheap, BOTH, eta=3)
    assert not should_promote((0.19, 1.0), dear + cheap, BOTH, eta=3)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_about_one_of_eta_goes_on(eta: int) -> None:
    points = drawn(300)
    gone = sum(should_promote(own, points[:index], BOTH, eta) for index, own in enumerate(points))
    assert 300 / eta * 0.7 < gone < 300 / eta * 1.5


def test_the_ranking_is_front_by_front() -> None:
    points = drawn(40)
    first = set(pareto_front(points, BOTH))
    assert set(rank(points, BOTH, len(first))) == first
    assert sorted(rank(points, BOTH, 40)) == list(range(40))


def test_inside_a_front_the_ends_come_first() -> None:
    line = [(index / 10, index / 10) for index in range(11)]
    assert rank(line, BOTH, 3) == [10, 0, 5]
    assert rank(line, BOTH, 5)[3:] in ([2, 7], [3, 7], [2, 8], [3, 8])


def test_one_objective_is_ranked_plainly() -> None:
    assert rank([(0.1,), (0.3,), (0.2,)], BOTH[:1], 3) == [1, 2, 0]


def test_equal_points_keep_their_order() -> None:
    assert rank([(0.5, 1.0)] * 4, BOTH, 2) == [0, 1]


def test_a_stopped_training_would_have_gained_what_others_gained() -> None:
    assert extrapolated(0.2, [0.1, 0.1]) is None
    assert extrapolated(0.2, [0.1, 0.2, 0.3]) == pytest.approx((0.4, 0.1))
