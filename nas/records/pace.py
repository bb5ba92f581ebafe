"""Pace of a study: trials per hour, and the time that the remaining ones take, by the trainings so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from nas.records.record import TRAINED_BEFORE, Record

_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Pace of a study whose workers are all busy."""

    trials_per_hour: float
    seconds_left: float


def pace(records: Sequence[Record], *, workers: int, missing: int) -> Pace | None:
    """Return the pace by the mean duration of the trials that have ended; None while none has.

    Trials whose score was taken from another study took no time, and others like them cannot be foreseen.

    Args:
        records: of all trials.
        workers: that train at the same time.
        missing: number of trials that have not ended, running ones included.
    """
    took = [
        record.seconds
        for record in records
        if record.ending is not None and record.seconds and not record.detail.startswith(TRAINED_BEFORE)
    ]
    if not took:
        return None
    seconds = fmean(took) / workers
    return Pace(trials_per_hour=_HOUR / seconds, seconds_left=seconds * missing)
