"""Progress of a study in one line on stderr, for a Python program that runs in a terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from nas.records.record import Record
from nas.study.study import Study
from nas.words import with_unit

Show = Callable[[Study, Sequence[Record]], None]

_CLEAR = "\r\x1b[K"
_WIDTH = 100


@contextmanager
def progress_line(stream: TextIO | None = None) -> Iterator[Show]:
    """Show the state of a study in one line that is overwritten; nothing if the stream is no terminal.

    Args:
        stream: to write to; None for stderr.

    Yields:
        A function to call with the study and the records of all its trials.
    """
    out = sys.stderr if stream is None else stream
    if out is None or not out.isatty():  # Python without a console has no stderr
        yield lambda _study, _records: None
        return
    try:
        yield lambda study, records: print(f"{_CLEAR}{line(study, records)[:_WIDTH]}", end="", file=out, flush=True)
    finally:
        print(_CLEAR, end="", file=out, flush=True)


def line(study: Study, records: Sequence[Record]) -> str:
    """Return the state of a study: `v9t-digits: 3 of 12 trials, 2 running, best mAP50-95 0.412`."""
    stock = study.stock_training
    if stock is not None and stock.outcome() is None:
        epochs = len(stock.files.read_epochs())
        return f"{study.name}: training the stock model, epoch {epochs} of {stock.budget.epochs}"
    ended = sum(record.ending is not None for record in records)
    running = sum(record.state == "running" for record in records)
    best = max((record.map50_95 for record in records if record.map50_95 is not None), default=None)
    score = "" if best is None else f", best mAP50-95 {best:.3f}"
    return f"{study.name}: {ended} of {with_unit(study.file.run.trials, 'trial')}, {running} running{score}"
