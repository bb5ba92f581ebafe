import random
from itertools import product
from math import inf, nan
from time import perf_counter

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.study import StudyDirection

from nas.algorithms.hypervolume import hypervolume, reference_point
from nas.algorithms.pareto import OBJECTIVES, Direction, Point, dominates, knee_point, pareto_front

UP, DOWN = Direction.MAXIMIZE, Direction.MINIMIZE

Problem = tuple[list[Point], list[Direction]]


@st.composite
def problems(draw: st.DrawFn, *, least: int = 0, objectives: int = 4) -> Problem:
    """Points on a coarse grid, where ties and equal points are frequent, with their directions."""
    directions = draw(st.lists(st.sampled_from(Direction), min_size=1, max_size=objectives))
    value = st.integers(-3, 3).map(lambda number: number / 2)
    point = st.tuples(*[value] * len(directions))
    return draw(st.lists(point, min_size=least, max_size=14)), directions


def minimised(points: list[Point], directions: list[Direction]) -> list[Point]:
    signs = [-1 if direction is UP else 1 for direction in directions]
    return [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]


def sphere(count: int, objectives: int) -> list[Point]:
    """Points none of which dominates another: the corner of a sphere."""
    rows = np.abs(np.random.default_rng(0).normal(size=(count, objectives)))
    return [tuple(row) for row in (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()]


class TestDominates:
    def test_dominates_if_better_in_one_and_worse_in_none(self) -> None:
        assert dominates((0.5, 8.0), (0.5, 9.0), (UP, DOWN))
        assert not dominates((0.5, 9.0), (0.5, 8.0), (UP, DOWN))

    def test_trade_off_dominates_neither_way(self) -> None:
        assert not dominates((0.6, 9.0), (0.5, 8.0), (UP, DOWN))
        assert not dominates((0.5, 8.0), (0.6, 9.0), (UP, DOWN))

    @given(problems(least=2))
    def test_dominance_is_asymmetric_and_irreflexive(self, problem: Problem) -> None:
        (left, right, *_), directions = problem
        assert not dominates(left, left, directions)
        assert not (dominates(left, right, directions) and dominates(right, left, directions))

    def test_directions_may_be_strings(self) -> None:
        assert dominates((0.5,), (0.4,), [Direction("maximize")])

    def test_direction_of_every_objective(self) -> None:
        gained = {name for name, direction in OBJECTIVES.items() if direction is UP}
        assert gained == {"map50_95", "map50"}
        assert set(OBJECTIVES) - gained == {"gflops", "params", "latency_ms"}


class TestFront:
    @given(problems())
    def test_front_is_exactly_the_non_dominated_points(self, problem: Problem) -> None:
        points, directions = problem
        on_front = set(pareto_front(points, directions))
        for index, point in enumerate(points):
            dominated = any(dominates(other, point, directions) for other in points)
            assert dominated == (index not in on_front)

    @given(problems())
    def test_points_off_the_front_are_dominated_by_one_on_it(self, problem: Problem) -> None:
        points, directions = problem
        on_front = pareto_front(points, directions)
        for index in set(range(len(points))) - set(on_front):
            assert any(dominates(points[member], points[index], directions) for member in on_front)

    @given(problems(), st.randoms(use_true_random=False))
    def test_front_does_not_depend_on_the_order(self, problem: Problem, shuffler: random.Random) -> None:
        points, directions = problem
        order = list(range(len(points)))
        shuffler.shuffle(order)
        shuffled = pareto_front([points[index] for index in order], directions)
        assert sorted(order[index] for index in shuffled) == pareto_front(points, directions)

    @given(problems(least=1), st.data())
    def test_dominated_point_does_not_change_the_front(self, problem: Problem, data: st.DataObject) -> None:
        points, directions = problem
        better = data.draw(st.sampled_from(points))
        worse = tuple(
            value + (-1 if direction is UP else 1) for value, direction in zip(better, directions, strict=True)
        )
        assert pareto_front([*points, worse], directions) == pareto_front(points, directions)

    @given(problems(least=1, objectives=3))
    @settings(deadline=None, max_examples=50)
    def test_front_agrees_with_optuna(self, problem: Problem) -> None:
        points, directions = problem
        study = optuna.create_study(directions=[StudyDirection[direction.name] for direction in directions])
        study.add_trials([optuna.trial.create_trial(values=point) for point in points])
        assert pareto_front(points, directions) == sorted(trial.number for trial in study.best_trials)

    def test_front_indices_are_ascending(self) -> None:
        points = [(0.5, 9.0), (0.3, 5.0), (0.4, 9.0), (0.6, 20.0)]
        assert pareto_front(points, (UP, DOWN)) == [0, 1, 3]

    def test_equal_points_of_the_front_are_all_on_it(self) -> None:
        assert pareto_front([(0.5, 9.0), (0.4, 9.0), (0.5, 9.0)], (UP, DOWN)) == [0, 2]

    def test_zero_equals_negative_zero(self) -> None:
        assert pareto_front([(0.0, 1.0), (-0.0, 1.0), (0.0, 2.0)], (DOWN, UP)) == [2]
        assert pareto_front([(0.0,), (-0.0,)], (UP,)) == [0, 1]

    def test_front_of_no_points_is_empty(self) -> None:
        assert pareto_front([], (UP, DOWN)) == []

    @pytest.mark.parametrize("wrong", [nan, inf, -inf])
    def test_error_names_a_point_that_is_not_finite(self, wrong: float) -> None:
        with pytest.raises(ValueError, match=r"^point 1 must be finite, got \(0\.4, -?(nan|inf)\) \(leave out what"):
            pareto_front([(0.5, 9.0), (0.4, wrong)], (UP, DOWN))

    def test_error_names_a_point_of_another_length(self) -> None:
        with pytest.raises(
            ValueError, match=r"^point 1 must have one number per objective: 2 directions, got \(0\.4,\)"
        ):
            pareto_front([(0.5, 9.0), (0.4,)], (UP, DOWN))

    def test_no_objectives_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="at least one objective"):
            pareto_front([()], ())

    @pytest.mark.parametrize("points", [sphere(10_000, 3), np.random.default_rng(0).random((10_000, 3)).tolist()])
    def test_front_of_ten_thousand_points_is_fast(self, points: list[Point]) -> None:
        start = perf_counter()
        pareto_front(points, (DOWN, DOWN, DOWN))
        assert perf_counter() - start < 3

    def test_front_of_more_points_than_a_block(self) -> None:
        points = sphere(1000, 3)
        worse: list[Point] = [(x + 0.1, y + 0.1, z + 0.1) for x, y, z in points]
        assert pareto_front([*worse, *points], (DOWN, DOWN, DOWN)) == list(range(1000, 2000))


class TestHypervolume:
    def test_hypervolume_of_one_point(self) -> None:
        assert hypervolume([(0.5, 8.0)], (UP, DOWN), (0.25, 10.0)) == 0.5

    def test_hypervolume_counts_overlaps_once(self) -> None:
        assert hypervolume([(1.0, 2.0), (2.0, 1.0)], (DOWN, DOWN), (3.0, 3.0)) == 3.0

    def test_hypervolume_of_no_points_is_0(self) -> None:
        assert hypervolume([], (UP, DOWN), (0.0, 10.0)) == 0.0

    @given(problems(objectives=5))
    @settings(deadline=None)
    def test_hypervolume_equals_the_cells_of_a_grid(self, problem: Problem) -> None:
        points, directions = problem
        corners = [[round(2 * value) + 3 for value in point] for point in minimised(points, directions)]
        cells = sum(
            any(all(x <= at for x, at in zip(corner, cell, strict=True)) for corner in corners)
            for cell in product(range(4), repeat=len(directions))
        )
        corner = tuple(-0.5 if direction is UP else 0.5 for direction in directions)
        assert hypervolume(points, directions, corner) == pytest.approx(cells * 0.5 ** len(directions))

    @pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
    def test_hypervolume_agrees_with_optuna(self, objectives: int) -> None:
        chance = np.random.default_rng(objectives)
        for count in (1, 2, 3, 10, 30):
            points = chance.random((count, objectives))
            corner = points.max(axis=0) * 1.1
            ours = hypervolume([tuple(row) for row in points.tolist()], [DOWN] * objectives, tuple(corner.tolist()))
            assert ours == pytest.approx(compute_hypervolume(points, corner), rel=1e-9)

    @given(problems(least=1))
    def test_hypervolume_is_monotonic(self, problem: Problem) -> None:
        (point, *points), directions = problem
        corner = reference_point([point, *points], directions)
        before = hypervolume(points, directions, corner)
        assert hypervolume([point, *points], directions, corner) >= before - 1e-9

    @given(problems(least=1))
    def test_hypervolume_is_that_of_the_front(self, problem: Problem) -> None:
        points, directions = problem
        corner = reference_point(points, directions)
        best = [points[index] for index in reversed(pareto_front(points, directions))]
        assert hypervolume(best, directions, corner) == pytest.approx(hypervolume(points, directions, corner))

    @pytest.mark.parametrize("outside", [(0.1, 8.0), (0.9, 12.0), (0.2, 8.0), (0.9, 10.0)])
    def test_point_beyond_the_reference_adds_nothing(self, outside: Point) -> None:
        inside = (0.5, 8.0)
        alone = hypervolume([inside], (UP, DOWN), (0.2, 10.0))
        assert hypervolume([inside, outside], (UP, DOWN), (0.2, 10.0)) == alone

    def test_reference_that_is_not_finite_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"^the reference must be finite, got"):
            hypervolume([(0.5, 8.0)], (UP, DOWN), (0.0, inf))

    @pytest.mark.parametrize(("count", "objectives"), [(200, 3), (10_000, 3), (100, 4), (50, 5)])
    def test_hypervolume_is_fast(self, count: int, objectives: int) -> None:
        points = sphere(count, objectives)
        start = perf_counter()
        hypervolume(points, [DOWN] * objectives, (1.1,) * objectives)
        assert perf_counter() - start < 3


class TestKnee:
    def test_knee_is_the_bend_of_the_front(self) -> None:
        points = [(0.30, 4.0), (0.44, 5.0), (0.46, 9.0), (0.47, 14.0)]
        assert knee_point(points, (UP, DOWN)) == 1

    def test_knee_of_one_objective_is_the_best(self) -> None:
        assert knee_point([(0.3,), (0.5,), (0.4,)], (UP,)) == 1

    def test_knee_of_one_point(self) -> None:
        assert knee_point([(0.3, 4.0)], (UP, DOWN)) == 0

    def test_knee_of_two_points_is_the_better_in_the_first_objective(self) -> None:
        assert knee_point([(0.3, 4.0), (0.4, 9.0)], (UP, DOWN)) == 1
        assert knee_point([(4.0, 0.3), (9.0, 0.4)], (DOWN, UP)) == 0

    def test_knee_of_a_straight_front_is_the_better_in_the_first_objective(self) -> None:
        assert knee_point([(0.1 * step, 0.3 * step) for step in range(11)], (UP, DOWN)) == 10

    def test_knee_of_three_objectives(self) -> None:
        ends = [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)]
        assert knee_point([*ends, (0.6, 0.6, 0.6), (0.3, 0.4, 0.3)], (DOWN, DOWN, DOWN)) == 4

    @given(problems(least=1))
    def test_knee_is_on_the_front(self, problem: Problem) -> None:
        points, directions = problem
        assert knee_point(points, directions) in pareto_front(points, directions)

    @given(problems(least=1), st.randoms(use_true_random=False))
    def test_knee_does_not_depend_on_order_or_units(self, problem: Problem, shuffler: random.Random) -> None:
        points, directions = problem
        found = points[knee_point(points, directions)]
        shuffled = [tuple(1000 * value for value in point) for point in points]
        shuffler.shuffle(shuffled)
        assert shuffled[knee_point(shuffled, directions)] == tuple(1000 * value for value in found)

    def test_knee_of_no_points_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="a knee needs at least one point"):
            knee_point([], (UP, DOWN))


class TestReference:
    def test_reference_is_5_percent_of_the_range_beyond_the_worst(self) -> None:
        points = [(0.30, 4.0), (0.50, 14.0), (0.40, 9.0)]
        assert reference_point(points, (UP, DOWN)) == pytest.approx((0.29, 14.5))

    def test_reference_of_equal_values_is_5_percent_beyond_them(self) -> None:
        assert reference_point([(0.40, 10.0)], (UP, DOWN)) == pytest.approx((0.38, 10.5))

    def test_reference_of_zeros_is_0(self) -> None:
        points = [(0.0, 4.0), (0.0, 8.0)]
        corner = reference_point(points, (UP, DOWN))
        assert corner == pytest.approx((0.0, 8.2))
        assert hypervolume(points, (UP, DOWN), corner) == 0.0

    @given(problems(least=1))
    def test_reference_is_worse_than_every_point(self, problem: Problem) -> None:
        points, directions = problem
        corner = reference_point(points, directions)
        for point in minimised(points, directions):
            assert all(x <= r for x, r in zip(point, minimised([corner], directions)[0], strict=True))

    def test_reference_of_no_points_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="a reference needs at least one point"):
            reference_point([], (UP, DOWN))

    def test_errors_of_the_reference_name_points(self) -> None:
        with pytest.raises(ValueError, match=r"^point 0 must be finite, got"):
            reference_point([(inf, 1.0)], (UP, DOWN))
