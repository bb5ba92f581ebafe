"""Who is trained again with another seed, before its place on the front is believed.

A place on the front is in part luck: of many scores the highest are those that noise has raised. So whoever would hold
one is trained again, until it has so many seeds or the mean of its scores holds the place no more.

Source: Moore and Maron, "Hoeffding Races", 1994: those that are still in the race are measured again, the others not.
"""

from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import fmean

from nas.records.record import Record, pareto_front_of, stock_of

_FIRST = 6
"""So many architectures are scored before any is trained again: the first fronts fall soon."""
_TELLING = 4
"""So many repeats tell a deviation, give or take a third of it."""


def next_repeat(records: Sequence[Record], objectives: Sequence[str], seeds: int) -> tuple[Record, int] | None:
    """The trial whose architecture is to be trained with another seed now, and the number of that repeat.

    The stock model comes first, since all are compared with it, then the front by accuracy; of these the one with the
    fewest seeds.

    Args:
        records: all trials.
        seeds: how many each of these is to have.

    Returns:
        None if all have them, or too little is known yet.
    """
    if seeds == 1 or len({record.fingerprint for record in records if record.finished}) < _FIRST:
        return None
    stock = stock_of(records)
    racing = [*([stock] if stock else []), *pareto_front_of(records, objectives)]
    had = {record.trial: 1 + max(_repeats(record.fingerprint, records)) for record in racing}
    first = min(racing, key=lambda record: had[record.trial], default=None)
    return None if first is None or had[first.trial] >= seeds else (first, had[first.trial])


def gains(records: Iterable[Record], one: Record, other: Record) -> list[float]:
    """By how much one architecture is more accurate than another, for each seed that both were trained with."""
    accuracies: dict[str, dict[int, float]] = {one.fingerprint: {}, other.fingerprint: {}}
    for record in records:
        if record.finished and record.map50_95 is not None and record.fingerprint in accuracies:
            accuracies[record.fingerprint][record.repeat] = record.map50_95
    mine, theirs = accuracies[one.fingerprint], accuracies[other.fingerprint]
    return [mine[repeat] - theirs[repeat] for repeat in sorted(mine.keys() & theirs.keys())]


def deviation(records: Iterable[Record]) -> float | None:
    """The standard deviation of mAP50-95 between trainings of one architecture, over all that have several.

    Returns:
        None while these are too few to tell.
    """
    accuracies: dict[str, list[float]] = {}
    for record in records:
        if record.finished and record.map50_95 is not None:
            accuracies.setdefault(record.fingerprint, []).append(record.map50_95)
    free = sum(len(each) - 1 for each in accuracies.values())
    if free < _TELLING:
        return None
    return sqrt(sum((value - fmean(each)) ** 2 for each in accuracies.values() for value in each) / free)


def _repeats(fingerprint: str, records: Sequence[Record]) -> list[int]:
    """The numbers of the trainings of an architecture, however they ended or will."""
    return [record.repeat for record in records if record.fingerprint == fingerprint]
