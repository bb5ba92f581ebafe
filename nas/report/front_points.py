"""Points of a figure of the Pareto front: accuracy over one cost, for drawings without Plotly."""

from collections.abc import Iterator, Sequence

from nas.records.record import Record, mean_over_seeds, stocks_of

Point = tuple[float, float]
"""Cost and accuracy."""


def front_points(
    records: Sequence[Record], front: Sequence[Record], cost: str
) -> tuple[list[tuple[Record, Point]], list[tuple[Record, Point]], list[tuple[Record, Point]]]:
    """Return the points of all architectures, of the front, and of the stock models, each with its record.

    An architecture has the mean over its seeds. One without this cost or without a score has no point.

    Args:
        records: of all trials.
        front: Pareto front.
        cost: name of the cost, such as `gflops`.
    """
    trained, stocks = mean_over_seeds(records), stocks_of(records)
    return list(_points(trained, cost)), list(_points(front, cost)), list(_points(stocks, cost))


def _points(records: Sequence[Record], cost: str) -> Iterator[tuple[Record, Point]]:
    for record in records:
        value = getattr(record, cost)
        if value is not None and record.map50_95 is not None:
            yield record, (float(value), record.map50_95)
