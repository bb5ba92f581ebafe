"""Trials of a study as a pandas DataFrame."""

from collections.abc import Collection, Sequence

import pandas as pd

from nas.records.record import Record, columns_of

_NUMBERS = {
    "trial": "int64",
    "map50_95": "float64",
    "map50": "float64",
    "expected": "float64",
    "gflops": "float64",
    "params": "Int64",
    "latency_ms": "float64",
    "measured_ms": "float64",
    "inherited": "float64",
    "epochs": "int64",
    "seconds": "float64",
    "repeat": "int64",
    "seeds": "int64",
}
"""Types of the columns of numbers, whichever of them a study has; `Int64` has missing values."""


def data_frame(records: Sequence[Record], *, on_front: Collection[int]) -> pd.DataFrame:
    """Return a table with one row for each record, in order: `COLUMNS`, the architecture in words, and the front.

    Args:
        on_front: trials on the Pareto front.
    """
    table = pd.DataFrame([one.as_row() for one in records], columns=list(columns_of(records))).astype(_NUMBERS)
    return table.assign(
        architecture=[one.summary for one in records], on_front=[one.trial in on_front for one in records]
    )
