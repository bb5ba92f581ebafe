"""Repeated evaluation: train the members of the Pareto front again, with other seeds.

A place on the front is in part luck: of many scores the highest are those that noise has raised. So each member is
trained again until it has enough seeds, or until the mean of its scores is not on the front any more.

Source: Moore and Maron, "Hoeffding Races", 1994: only the candidates that are still in the race are evaluated again.
"""

from collections.abc import Iterable, Sequence

from nas.records.record import Record, pareto_front_of, stocks_of

SCORED_BEFORE = 6
"""Number of scored architectures before the first repeat: early fronts are soon dominated."""


def next_repeat(records: Sequence[Record], objectives: Sequence[str], seeds: int) -> tuple[Record, int] | None:
    """Return the trial whose architecture is to be repeated now, and the number of that repeat.

    Of the stock models and the front, the one with the fewest seeds; of equals a stock model, with which all are
    compared, then the most accurate.

    Args:
        records: all trials.
        seeds: number of trainings that each of these is to have.

    Returns:
        None if all have them, or too few architectures are scored.
    """
    if seeds == 1 or len({record.fingerprint for record in records if record.finished}) < SCORED_BEFORE:
        return None
    candidates = [*stocks_of(records), *pareto_front_of(records, objectives)]
    trained = {record.trial: 1 + max(_repeats(record.fingerprint, records)) for record in candidates}
    first = min(candidates, key=lambda record: trained[record.trial], default=None)
    return None if first is None or trained[first.trial] >= seeds else (first, trained[first.trial])


def gains(records: Iterable[Record], one: Record, other: Record) -> list[float]:
    """Return the differences in accuracy between two architectures, for each seed with which both were trained."""
    accuracies: dict[str, dict[int, float]] = {one.fingerprint: {}, other.fingerprint: {}}
    for record in records:
        if record.finished and record.map50_95 is not None and record.fingerprint in accuracies:
            accuracies[record.fingerprint][record.repeat] = record.map50_95
    first, second = accuracies[one.fingerprint], accuracies[other.fingerprint]
    return [first[repeat] - second[repeat] for repeat in sorted(first.keys() & second.keys())]


def _repeats(fingerprint: str, records: Sequence[Record]) -> list[int]:
    """Return the repeat numbers of all trials of an architecture, unfinished ones included."""
    return [record.repeat for record in records if record.fingerprint == fingerprint]
