"""Hypervolume of a set of points, and the point from which it is measured."""

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.algorithms.pareto import Direction, Point, as_costs, non_dominated, signs

# How far beyond the worst value the reference lies, in ranges of the objective: far enough that the front's
# ends count, near enough that they do not outweigh its middle.
REFERENCE_MARGIN = 0.05


def hypervolume(points: Sequence[Point], directions: Sequence[Direction], reference: Point) -> float:
    """Return the exact volume that the points dominate, up to `reference`; 0 for no points.

    Its unit is the product of the objectives' units; two hypervolumes compare only if they have the same reference.
    A point that is not better than the reference in every objective contributes nothing.
    """
    corner = as_costs((reference,), directions, "the reference")[0]
    gains = corner - as_costs(points, directions)
    return _volume(gains[(gains > 0).all(axis=1)])


def reference_point(points: Sequence[Point], directions: Sequence[Direction]) -> Point:
    """Return the reference point of a study's hypervolume.

    It is the worst value of each objective over all points, on the front or not, made worse by 5 % of the
    objective's range; by 5 % of the value itself where all values are equal. Where all are 0 it stays 0,
    and so does the hypervolume: nothing has been found yet.

    For a hypervolume over time, take the reference once, from all points, and use it for each part of the
    history.

    Raises:
        ValueError: there are no points.
    """
    if not points:
        raise ValueError("a reference needs at least one point, got none")
    costs = as_costs(points, directions)
    worst, extent = costs.max(axis=0), np.ptp(costs, axis=0)
    corner = worst + REFERENCE_MARGIN * np.where(extent > 0, extent, np.abs(worst))
    return tuple((corner * signs(directions) + 0.0).tolist())


def _volume(gains: FloatArray) -> float:
    """Return the volume of the union of the boxes between the origin and each row; all gains are positive.

    Above three objectives it is computed by WFG (While, Bradstreet, Barone 2012, "A fast way of calculating exact
    hypervolumes"): each box adds its volume without its overlap with the boxes before it. With boxes
    sorted by falling last gain, the overlap is as high as the box, and its base is a volume of one objective less.
    """
    if gains.shape[1] <= 3:
        return _volume_by_sweep(gains)
    rows = np.unique(-gains, axis=0)
    boxes = -rows[non_dominated(rows)]
    boxes = boxes[np.argsort(-boxes[:, -1])]
    bases, heights = boxes[:, :-1], boxes[:, -1]
    volume = 0.0
    for index, base in enumerate(bases):
        overlap = _volume(np.minimum(bases[:index], base))
        volume += float(heights[index]) * (float(base.prod()) - overlap)
    return volume


def _volume_by_sweep(gains: FloatArray) -> float:
    """Return the volume for up to three objectives, box by box from the highest to the lowest.

    The union of the boxes' bases is a staircase, which only grows; what a box adds to it is as high as the box.
    Missing objectives are filled with 1, which changes no volume.
    """
    missing = np.ones((len(gains), 3 - gains.shape[1]))
    boxes = np.hstack([gains, missing])
    boxes = boxes[np.argsort(-boxes[:, 2])]
    widths, heights = [0.0, inf], [inf, 0.0]  # sentinels: infinitely high on the left, 0 on the right
    return sum((_grow(widths, heights, x, y) * top for x, y, top in boxes.tolist()), start=0.0)


def _grow(widths: list[float], heights: list[float], x: float, y: float) -> float:
    """Add the rectangle from the origin to (x, y) to a staircase, in place; return the area by which it grew.

    Step i is as high as `heights[i]` from `widths[i - 1]` to `widths[i]`; widths rise, heights fall.
    """
    last = step = bisect_left(widths, x)
    right, grown = x, 0.0
    while heights[step] < y:
        grown += (right - widths[step - 1]) * (y - heights[step])
        step -= 1
        right = widths[step]
    if step < last:
        widths[step + 1 : last] = [x]
        heights[step + 1 : last] = [y]
    return grown
