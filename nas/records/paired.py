"""Trainings of several architectures with the same seeds, which are compared in pairs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.records.record import Record

LEAST_SEEDS = 2
"""Fewest pairs for a comparison."""


@dataclass(frozen=True, kw_only=True)
class PairedTrainings:
    """Trainings of architectures that are compared.

    Attributes:
        names: fingerprints of the architectures, the one first with which the others are compared.
        repeats: with which all of them have finished, in order.
        trainings: record of each finished training, by architecture and repeat, the latest where there are two.
        planned: number of seeds that were enqueued.
        unfinished: number of trainings that have not ended.
    """

    names: Sequence[str]
    repeats: Sequence[int]
    trainings: Mapping[str, Mapping[int, Record]]
    planned: int
    unfinished: int

    @classmethod
    def of(cls, records: Sequence[Record], names: Iterable[str]) -> Self:
        """Return the trainings of the named architectures among all records of a study."""
        trainings = {name: _by_repeat(records, name) for name in names}
        common = set.intersection(*(set(each) for each in trainings.values())) if trainings else set()
        return cls(
            names=tuple(trainings),
            repeats=sorted(common),
            trainings=trainings,
            planned=planned_seeds(records),
            unfinished=sum(record.is_unfinished for record in records),
        )

    @property
    def accuracies(self) -> FloatArray:
        """Accuracies in points, `(architectures, seeds)`."""
        return self.table(lambda record: 100 * (record.map50_95 or 0.0))

    def by_seed(self, name: str) -> tuple[float, ...]:
        """Return the accuracies of an architecture, of 1, in the order of the seeds."""
        return tuple(self.trainings[name][repeat].map50_95 or 0.0 for repeat in self.repeats)

    def table(self, value: Callable[[Record], Any]) -> FloatArray:
        """Return a value of each training, `(architectures, seeds, ...)`."""
        rows = [[value(self.trainings[name][repeat]) for repeat in self.repeats] for name in self.names]
        return np.array(rows, dtype=np.float64)

    def seconds_per_seed(self, workers: int) -> float | None:
        """Return the duration of one more seed of all architectures; None if one has no recorded duration."""
        each = [
            [record.seconds for record in self.trainings[name].values() if record.seconds > 0] for name in self.names
        ]
        return sum(fmean(seconds) for seconds in each) / workers if all(each) else None

    @property
    def shortage(self) -> str:
        """Why there are too few seeds to compare; empty if there are enough."""
        if len(self.repeats) >= LEAST_SEEDS:
            return ""
        finished = f"{len(self.repeats)} of {self.planned} seeds"
        return f"all models have finished with {finished}; the least are {LEAST_SEEDS}"


def planned_seeds(records: Iterable[Record]) -> int:
    """Return the number of seeds that were enqueued; 0 without any training."""
    return 1 + max((record.repeat for record in records), default=-1)


def failure(records: Sequence[Record], fingerprint: str) -> str:
    """Return how trainings of an architecture ended that have no score and are not tried again; empty if none did."""
    last = {record.repeat: record for record in records if record.fingerprint == fingerprint}
    failed = [record for record in last.values() if record.ending is not None and not record.finished]
    endings = ", ".join(sorted({str(record.ending) for record in failed}))
    return f"{endings} with {len(failed)} of {len(last)} seeds" if failed else ""


def _by_repeat(records: Sequence[Record], fingerprint: str) -> dict[int, Record]:
    """Return the finished trainings of an architecture by the number of the repeat."""
    return {
        record.repeat: record
        for record in records
        if record.fingerprint == fingerprint and record.finished and record.map50_95 is not None
    }
