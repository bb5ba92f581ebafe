"""Plan of a study that trains models of a search again: how many trainings are left, and about how long they take."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from nas.records.record import Record
from nas.study.study import Study
from nas.words import duration, with_unit


@dataclass(frozen=True, kw_only=True)
class TrainingsPlan:
    """Trainings of a study that exists or would be created; nothing is written.

    Attributes:
        study: name of that study.
        models: number of architectures.
        seeds: with which each is trained.
        epochs: of each training.
        trainings: number of those that are left.
        seconds: that these take together, by the trainings of the search; None if none of them has a duration.
    """

    study: str
    models: int
    seeds: tuple[int, ...]
    epochs: int
    trainings: int
    seconds: float | None

    @property
    def left(self) -> str:
        """Trainings that are left in words: `12 trainings to run, about 4 min`."""
        took = "" if self.seconds is None else f", about {duration(self.seconds)}"
        return f"{with_unit(self.trainings, 'training')} to run{took}" if self.trainings else "all are trained"

    def as_document(self) -> dict[str, Any]:
        """Return the plan as values for JSON."""
        return {**asdict(self), "seconds": None if self.seconds is None else round(self.seconds, 1)}


def seconds_of_training(search: Study, fingerprints: Sequence[str], epochs: int) -> float | None:
    """Return how long one training takes, by those of the same models in the search, or else of any; None without."""
    finished = [record for record in search.records() if record.finished and record.seconds > 0]
    same = [record.seconds for record in finished if record.fingerprint in set(fingerprints)]
    seconds = same or [record.seconds for record in finished]
    return fmean(seconds) * epochs / search.settings.budget.epochs if seconds else None


def number_done(records: Sequence[Record]) -> int:
    """Return the number of trainings that need not be run again."""
    return len({(one.fingerprint, one.repeat) for one in records if one.ending is not None})
