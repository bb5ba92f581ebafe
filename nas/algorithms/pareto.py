"""Pareto front of a set of points, and its knee: pure functions over tuples of numbers.

A point holds one number per objective, in the order of `directions`. A failed trial has no point: numbers that are
not finite are refused here, because no point dominates a NaN, which would be on every front.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from nas.algorithms.arrays import FloatArray

Point = tuple[float, ...]


class Direction(StrEnum):
    """Direction of an objective, with Optuna's names: `StudyDirection[direction.name]` is the same."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


def directions_for(*, costs: int) -> tuple[Direction, ...]:
    """Return the directions of points that hold one accuracy, then this number of costs."""
    return (Direction.MAXIMIZE, *[Direction.MINIMIZE] * costs)


OBJECTIVES: dict[str, Direction] = {
    "map50_95": Direction.MAXIMIZE,
    "map50": Direction.MAXIMIZE,
    "gflops": Direction.MINIMIZE,
    "params": Direction.MINIMIZE,
    "latency_ms": Direction.MINIMIZE,
}

# Rows compared with the front at a time: 10,000 rows that are all on the front then need 3 MB, not 100 MB.
_BLOCK = 256


def main_cost(objectives: Sequence[str]) -> str:
    """Return the cost that a search weighs against accuracy: the first among its objectives, else GFLOPs."""
    return next((name for name in objectives if OBJECTIVES[name] is Direction.MINIMIZE), "gflops")


def dominates(left: Point, right: Point, directions: Sequence[Direction]) -> bool:
    """Return whether `left` is nowhere worse than `right` and somewhere better; equal points do not dominate."""
    one, other = as_costs((left, right), directions)
    return bool((one <= other).all() and (one < other).any())


def pareto_front(points: Sequence[Point], directions: Sequence[Direction]) -> list[int]:
    """Return the indices of the points that no other dominates, ascending.

    Points of equal values do not dominate each other: if one is on the front, all are.
    """
    costs = as_costs(points, directions)
    rows, row_of_point = np.unique(costs, axis=0, return_inverse=True)
    indices: list[int] = np.flatnonzero(non_dominated(rows)[row_of_point.reshape(-1)]).tolist()
    return indices


def knee_point(points: Sequence[Point], directions: Sequence[Direction]) -> int:
    """Return the index of the front's knee: where a little more of one objective begins to cost much of another.

    Each objective is scaled to the front: 0 is its best value there, 1 its worst. The knee is the point of
    the front that lies farthest, on the side of the best, from the hyperplane through the corners where one
    objective is 1 and the others are 0. With two objectives these corners are the front's two ends, and the
    hyperplane is the line between them. Every objective weighs the same, so that beside one accuracy two
    costs that rise together (gflops and latency_ms) draw the knee towards the cheap end.

    A front that is not convex towards the best has its knee at an end. Ties (such as the only two points of a
    front) go to the point that is better in the first objective, then in the second, and so on; of points with
    equal values to the first. The knee of a single point is that point.

    Raises:
        ValueError: there are no points.
    """
    on_front = np.array(pareto_front(points, directions), dtype=np.intp)
    if not on_front.size:
        raise ValueError("a knee needs at least one point, got none")
    costs = as_costs(points, directions)[on_front]
    best, extent = costs.min(axis=0), np.ptp(costs, axis=0)
    scaled = (costs - best) / np.where(extent > 0, extent, 1.0)
    distances = (1.0 - scaled.sum(axis=1)) / sqrt(len(directions))
    # Rounded, so that the points of a straight front tie instead of being ranked by their rounding errors.
    by_distance = np.lexsort((*costs.T[::-1], -distances.round(12)))
    return int(on_front[by_distance[0]])


def signs(directions: Sequence[Direction]) -> FloatArray:
    """Return the factor of each objective, -1 or 1, with which less is better; applied twice it changes nothing."""
    return np.array([-1.0 if Direction(direction) is Direction.MAXIMIZE else 1.0 for direction in directions])


def as_costs(points: Sequence[Point], directions: Sequence[Direction], name: str | None = None) -> FloatArray:
    """Return the points as rows in which less is better everywhere, `(points, objectives)`.

    Args:
        name: of a point in an error; by default its index.

    Raises:
        ValueError: a point has another number of objectives, or a number that is not finite.
    """
    if not directions:
        raise ValueError("points need at least one objective, got no directions")
    for index, point in enumerate(points):
        if len(point) != len(directions):
            raise ValueError(
                f"{name or f'point {index}'} must have one number per objective: "
                f"{len(directions)} directions, got {tuple(point)}"
            )
        if not all(map(isfinite, point)):
            raise ValueError(
                f"{name or f'point {index}'} must be finite, got {tuple(point)} (leave out what has no score)"
            )
    rows = np.array(points, dtype=np.float64).reshape(len(points), len(directions))
    return rows * signs(directions) + 0.0  # -0.0 becomes 0.0: it is the same value, and must sort as one


def non_dominated(rows: FloatArray) -> NDArray[np.bool_]:
    """Return a mask of the rows that no other dominates, less being better.

    The rows must be distinct and sorted by `np.unique`. In this order a row is dominated only by earlier ones, and the
    first objective needs no comparison.
    """
    mask = np.ones(len(rows), dtype=np.bool_)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        stop = start + len(block)
        rivals = np.flatnonzero(mask[:stop])  # the front of the earlier blocks, and this block
        dominated = rivals[:, None] < np.arange(start, stop)
        for objective in range(1, rows.shape[1]):
            dominated &= rows[rivals, objective, None] <= block[:, objective]
        mask[start:stop] = ~dominated.any(axis=0)
    return mask
