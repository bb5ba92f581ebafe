"""Interface of a stored study that reports of several studies read; `nas.study.stored_study` implements it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nas.records.record import Record
from nas.settings import Settings
from nas.study.study_file import StudyFile


class ReadableStudy(Protocol):
    """Interface of a stored study: `nas.study.stored_study.StoredStudy`, which imports reports itself."""

    folder: Path
    file: StudyFile
    settings: Settings
    name: str

    def records(self) -> list[Record]:
        """Return the records of all trials."""

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Return the Pareto front, best accuracy first."""
