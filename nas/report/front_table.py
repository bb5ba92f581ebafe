"""Table of a Pareto front as cells of text, for HTML."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nas.records.distinct_summaries import distinct_summaries
from nas.records.facts import facts
from nas.records.record import Record, its_stock, stocks_of
from nas.report.beside_stock import accuracy_gain, cost_share, reference_in_words

_FRESH, _JUDGED = "fresh seeds: points over stock", "verdict"
"""Columns of a confirmation."""
_GAIN, _SHARE = "points over stock", "of stock"
_COLUMNS = (
    *("trial", "mAP50-95", _GAIN, _FRESH, _JUDGED),
    *("GFLOPs", "params", "latency", "measured", "architecture"),
)
_COSTS = {"gflops": "GFLOPs", "params": "params", "latency_ms": "latency"}
"""Columns of costs, beside which their share of the stock model's stands."""


def front_table(
    records: Sequence[Record],
    front: Sequence[Record],
    cost: str,
    fresh: Mapping[int, tuple[str, str]] = MappingProxyType({}),
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns of the front's table, and its rows; latency is a column where it was measured or predicted.

    Of several stock models alone, each of which stands beside itself, no comparison is shown.

    Args:
        cost: name of the cost that is shown as a share of the stock model's.
        fresh: the difference to the stock model with fresh seeds, and the verdict, by trial; empty before there is one.
    """
    stocks, on_front = stocks_of(records), {one.trial for one in front}
    shown = [*front, *(stock for stock in stocks if stock.trial not in on_front)]
    summaries = distinct_summaries(shown)
    cells = []
    for record in shown:
        values, stock = facts(record), its_stock(record, stocks)
        gained, share = accuracy_gain(record, stock), cost_share(record, stock, cost)
        cells.append(
            {
                "trial": str(record.trial),
                "mAP50-95": values["mAP50-95"],
                _GAIN: "" if gained is None else f"{100 * gained:+.1f}",
                **dict(zip((_FRESH, _JUDGED), fresh.get(record.trial, ("", "")), strict=True)),
                "GFLOPs": values["GFLOPs"],
                _SHARE: "" if share is None else f"{share:.1%}",
                "params": values["params"],
                "latency": values["latency"].removeprefix("-"),
                "measured": "" if record.measured_ms is None else f"{record.measured_ms:.1f} ms",
                "architecture": summaries[record.trial],
            }
        )
    is_compared = not (len(stocks) > 1 and len(shown) == len(stocks))
    optional = {
        _GAIN: is_compared,
        _FRESH: bool(fresh),
        _JUDGED: bool(fresh),
        "latency": any(record.latency_ms for record in shown),
        "measured": any(record.measured_ms for record in shown),
    }
    names = [name for name in _COLUMNS if optional.get(name, True)]
    beside = _COSTS[cost] if _COSTS[cost] in names else "GFLOPs"
    share_of_stock = (_SHARE,) if is_compared else ()
    columns = (*names[: (at := names.index(beside) + 1)], *share_of_stock, *names[at:])
    reference = reference_in_words(record.member for record in shown)
    headings = {_GAIN: f"points over {reference}", _SHARE: f"of {reference}"}
    if reference != "stock":  # the verdict names another one: that at its cost
        headings[_FRESH] = f"{_FRESH} at its cost"
    return tuple(headings.get(name, name) for name in columns), [tuple(row[name] for name in columns) for row in cells]
