import numpy as np
import pytest

from nas.algorithms.acquisition import CostPartition, expected_hypervolume_improvement, expected_improvement
from nas.algorithms.arrays import FloatArray
from nas.algorithms.hypervolume import hypervolume
from nas.algorithms.pareto import Direction

FLOOR = 0.1


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def ground(costs: FloatArray, accuracies: FloatArray) -> CostPartition:
    most = np.full(costs.shape[1], 1.2)
    return CostPartition.of(costs, accuracies, floor=FLOOR, least=np.zeros(costs.shape[1]), most=most)


def volume(costs: FloatArray, accuracies: FloatArray) -> float:
    directions = [Direction.MAXIMIZE, *[Direction.MINIMIZE] * costs.shape[1]]
    points = [(float(accuracy), *map(float, row)) for accuracy, row in zip(accuracies, costs, strict=True)]
    return hypervolume(points, directions, (FLOOR, *[1.2] * costs.shape[1]))


@pytest.mark.parametrize(("dimensions", "tolerance"), [(1, 1e-12), (2, 0.02), (3, 0.05)])
def test_the_ground_is_the_hypervolume(rng: np.random.Generator, dimensions: int, tolerance: float) -> None:
    costs, accuracies = rng.random((30, dimensions)), rng.random(30)
    standing = ground(costs, accuracies)
    summed = float((standing.volumes * (standing.heights - FLOOR)).sum())
    assert summed == pytest.approx(volume(costs, accuracies), rel=tolerance)


def test_a_certain_candidate_gains_what_it_adds_to_the_hypervolume(rng: np.random.Generator) -> None:
    costs, accuracies = rng.random((20, 1)), rng.random(20)
    new, means = rng.random((15, 1)), rng.random(15)
    gains = expected_hypervolume_improvement(ground(costs, accuracies), new, means, np.full(15, 1e-9))
    before = volume(costs, accuracies)
    added = [
        volume(np.vstack([costs, row[None]]), np.append(accuracies, mean)) - before
        for row, mean in zip(new, means, strict=True)
    ]
    assert gains == pytest.approx(added, abs=1e-7)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_an_uncertain_candidate_gains_the_mean_of_what_it_may_add(rng: np.random.Generator, dimensions: int) -> None:
    costs, accuracies = rng.random((10, dimensions)), rng.random(10)
    new = rng.random((1, dimensions)) / 2
    (gain,) = expected_hypervolume_improvement(ground(costs, accuracies), new, np.array([0.7]), np.array([0.2]))
    before = volume(costs, accuracies)
    drawn = 0.7 + 0.2 * rng.standard_normal(3000)
    may = [volume(np.vstack([costs, new]), np.append(accuracies, accuracy)) - before for accuracy in drawn]
    assert gain == pytest.approx(np.mean(may), rel=0.06)


def test_what_costs_more_than_the_reference_gains_nothing(rng: np.random.Generator) -> None:
    standing = ground(rng.random((5, 1)), rng.random(5))
    assert expected_hypervolume_improvement(
        standing, np.array([[1.3]]), np.array([2.0]), np.array([0.1])
    ) == pytest.approx([0.0])


def test_the_expected_excess_is_that_of_a_normal_variable(rng: np.random.Generator) -> None:
    drawn = 0.3 + 0.5 * rng.standard_normal(200_000)
    excess = expected_improvement(np.array([0.0, 0.5, 2.0]), np.full(3, 0.3), np.full(3, 0.5))
    assert excess == pytest.approx([np.maximum(0, drawn - height).mean() for height in (0.0, 0.5, 2.0)], abs=3e-3)
