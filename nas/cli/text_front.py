"""Pareto front drawn with characters, for the end of a search in a terminal."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.records.record import Record

# Not drawn by plotext: version 5 lays its legend over the top left corner, where the best of a front stand, and version
# 6, with another interface, ships a compiled library; neither draws steps, so the code here would hardly be shorter.
WIDTH, HEIGHT = 64, 12
LEAST_COLUMNS = WIDTH + 12
"""Columns of a terminal below which no front is drawn."""
_TRIAL, _FRONT, _STOCK, _STEP, _RISE = "·", "●", "★", "─", "│"

Point = tuple[float, float]
"""Cost and accuracy."""


def drawing(trials: Sequence[Point], front: Sequence[Point], stocks: Sequence[Point], *, cost: str) -> list[str]:
    """Return the lines of a figure: accuracy over cost, with the front as steps.

    Args:
        trials: all finished architectures.
        front: those of the Pareto front.
        stocks: the stock models that have finished.
        cost: name of the axis.

    Returns:
        Nothing for fewer than two architectures, or if all cost the same or score the same.
    """
    points = [*trials, *front, *stocks]
    if not points:
        return []
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    if left == right or low == high:
        return []

    def cell(point: Point) -> tuple[int, int]:
        column = round((point[0] - left) / (right - left) * (WIDTH - 1))
        return column, HEIGHT - 1 - round((point[1] - low) / (high - low) * (HEIGHT - 1))

    canvas = [[" "] * WIDTH for _ in range(HEIGHT)]
    _draw_steps(canvas, [cell(point) for point in sorted(front)])
    for some, sign in ((trials, _TRIAL), (front, _FRONT), (stocks, _STOCK)):
        for column, row in map(cell, some):
            canvas[row][column] = sign
    labels = {0: f"{high:.3f}", HEIGHT - 1: f"{low:.3f}"}
    body = [f"{labels.get(row, ''):>7} ┤{''.join(line).rstrip()}" for row, line in enumerate(canvas)]
    ends = f"{left:.4g}", f"{right:.4g}"
    axis = f"{ends[0]}{cost:^{WIDTH - len(ends[0]) - len(ends[1])}}{ends[1]}"
    stock = f"  {_STOCK} stock model{'s' if len(stocks) > 1 else ''}" if stocks else ""
    legend = f"{_FRONT} front  {_TRIAL} other trials{stock}"
    return [f"mAP50-95   {legend}", *body, f"{'':>7} └{'─' * WIDTH}", f"{'':>9}{axis}"]


def _draw_steps(canvas: list[list[str]], corners: Sequence[tuple[int, int]]) -> None:
    """Draw what accuracy each cost buys: level to the next member of the front, then up to it."""
    for (column, row), (following, above) in pairwise(corners):
        for at in range(column, following):
            canvas[row][at] = _STEP
        for at in range(above, row + 1):
            canvas[at][following] = _RISE
        if following > column:
            canvas[row][following] = "┘"


def of_records(records: "Sequence[Record]", front: "Sequence[Record]", cost: str, label: str) -> list[str]:
    """Return the figure of a study's finished trials.

    Args:
        records: of all trials.
        cost: name of the cost, such as `gflops`.
        label: of its axis.
    """
    from nas.report.front_points import front_points

    trained, best, stocks = ([point for _, point in some] for some in front_points(records, front, cost))
    return drawing(trained, best, stocks, cost=label)
