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


def partition(costs: FloatArray, accuracies: FloatArray) -> CostPartition:
    upper = np.full(costs.shape[1], 1.2)
    return CostPartition.of(costs, accuracies, floor=FLOOR, lower=np.zeros(costs.shape[1]), upper=upper)


def volume(costs: FloatArray, accuracies: FloatArray) -> float:
    directions = [Direction.MAXIMIZE, *[Direction.MINIMIZE] * costs.shape[1]]
    points = [(float(accuracy), *map(float, row)) for accuracy, row in zip(accuracies, costs, strict=True)]
    return hypervolume(points, directions, (FLOOR, *[1.2] * costs.shape[1]))


@pytest.mark.parametrize(("dimensions", "tolerance"), [(1, 1e-12), (2, 0.02), (3, 0.05)])
def test_partition_sums_to_the_hypervolume(rng: np.random.Generator, dimensions: int, tolerance: float) -> None:
    costs, accuracies = rng.random((30, dimensions)), rng.random(30)
    cells = partition(costs, accuracies)
    summed = float((cells.volumes * (cells.best_accuracies - FLOOR)).sum())
    assert summed == pytest.approx(volume(costs, accuracies), rel=tolerance)


def test_ehvi_without_uncertainty_is_the_hypervolume_improvement(rng: np.random.Generator) -> None:
    costs, accuracies = rng.random((20, 1)), rng.random(20)
    new, means = rng.random((15, 1)), rng.random(15)
    gains = expected_hypervolume_improvement(partition(costs, accuracies), new, means, np.full(15, 1e-9))
    before = volume(costs, accuracies)
    added = [
        volume(np.vstack([costs, row[None]]), np.append(accuracies, mean)) - before
        for row, mean in zip(new, means, strict=True)
    ]
    assert gains == pytest.approx(added, abs=1e-7)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_ehvi_is_the_mean_improvement_over_the_posterior(rng: np.random.Generator, dimensions: int) -> None:
    costs, accuracies = rng.random((10, dimensions)), rng.random(10)
    new = rng.random((1, dimensions)) / 2
    (gain,) = expected_hypervolume_improvement(partition(costs, accuracies), new, np.array([0.7]), np.array([0.2]))
    before = volume(costs, accuracies)
    drawn = 0.7 + 0.2 * rng.standard_normal(3000)
    may = [volume(np.vstack([costs, new]), np.append(accuracies, accuracy)) - before for accuracy in drawn]
    assert gain == pytest.approx(np.mean(may), rel=0.06)


def test_ehvi_is_0_beyond_the_reference_point(rng: np.random.Generator) -> None:
    cells = partition(rng.random((5, 1)), rng.random(5))
    assert expected_hypervolume_improvement(
        cells, np.array([[1.3]]), np.array([2.0]), np.array([0.1])
    ) == pytest.approx([0.0])


def test_expected_improvement_is_that_of_a_normal_variable(rng: np.random.Generator) -> None:
    drawn = 0.3 + 0.5 * rng.standard_normal(200_000)
    improvement = expected_improvement(np.array([0.0, 0.5, 2.0]), np.full(3, 0.3), np.full(3, 0.5))
    assert improvement == pytest.approx(
        [np.maximum(0, drawn - threshold).mean() for threshold in (0.0, 0.5, 2.0)], abs=3e-3
    )
