"""Interface of a study of which a report is made."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.report.ablation import Ablation
from nas.report.effects import Effects
from nas.report.trust import Trust
from nas.report.verdict import Verdict
from nas.settings import Settings
from nas.study.study_file import StudyFile
from search_spaces import Architecture
from trials.data.datasets import DataSet


class Reported(Protocol):
    """Interface of a study of which a report is made; `nas.study.study.Study` implements it."""

    folder: Path
    file: StudyFile
    settings: Settings
    name: str

    @property
    def sealed(self) -> Path | None:
        """File that lists the sealed images; None if there are none."""

    def data_set(self) -> DataSet:
        """Return the data set as trainings read it; raise `DataError` if it cannot be trained on any more."""

    def records(self) -> list[Record]:
        """Return the records of all trials."""

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Return the Pareto front, best accuracy first."""

    def began_and_ended(self) -> tuple[datetime | None, datetime | None]:
        """Return when the first trial began and when the last one ended; None for what has not happened."""

    def nothing_learned(self, records: Sequence[Record] | None = None) -> list[str]:
        """Return a warning if the stock model has learned nothing; empty if it has."""

    def verdict(self, *, records: Sequence[Record] | None = None) -> Verdict | None:
        """Return the verdict on the finalists; None before a confirmation."""

    def trust_beside(self, verdict: Verdict | None, records: Sequence[Record]) -> Trust:
        """Return how far the ranking can be believed."""

    def effects(self, records: Sequence[Record] | None = None) -> Effects:
        """Return what each operator did in each slot."""

    def ablation(self, trial: int) -> Ablation | None:
        """Return what each slot of a trial is worth; None before `nas ablate`."""

    def files(self, trial: int) -> TrialFiles:
        """Return the files of a trial."""

    def architecture(self, record: Record) -> Architecture:
        """Return the architecture of a trial."""
