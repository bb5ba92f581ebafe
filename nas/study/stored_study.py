"""Study as it is stored: its settings, records and front, read without PyTorch."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nas import addresses, ranges
from nas.locks import ExclusiveLock, Lock
from nas.records.pace import Pace, pace
from nas.records.record import Record, pareto_front_of
from nas.records.record_file import RecordFile
from nas.records.trial_files import TrialFiles
from nas.settings import RunSettings
from nas.study.folders import (
    HOLDOUT,
    MEASURED_LATENCIES,
    PROPOSAL_LOCK,
    RECORDS,
    SPACE,
    SUPERVISOR_LOCK,
    command,
    default_storage,
    storage_file,
)
from nas.study.machines import stock_training_of
from nas.study.measured_latencies import MeasuredLatencies
from nas.study.named_addresses import require_named
from nas.study.shared_study import SharedStudy
from nas.study.storage import TRIALS, open_storage, study_id
from nas.study.storage_retries import RetryingStorage
from nas.study.study_file import StudyFile
from nas.study.trained_again import Trained, base_accuracy, trained_again
from nas.study.trial_records import TrialRecords
from search_spaces.errors import SpecError, StudyError
from trials import Ending

if TYPE_CHECKING:
    from nas.report.trust import Trust
    from nas.report.verdict import Verdict
    from search_spaces import Space

COUNTED = frozenset(ending.value for ending in Ending if ending not in {Ending.OVER_LIMIT, Ending.BROKEN})
"""Endings that count towards a study's number of trials."""


class StoredStudy:
    """Existing study, to be looked at.

    Attributes:
        folder: absolute; holds `study.json`, `space.yaml`, `study.db`, `trials/`, `workers/`.
        file: content of `study.json`.
        name: of the folder; Optuna's study has the one under which the study was created.
        remark: a sentence for the user from when the study was resumed; empty if there is none.
        is_patient: whether opening the storage waits for a server that does not answer.
        record_file: records of finished trials.
        measured_latencies: of trials' models, measured after the search.
    """

    def __init__(self, folder: Path, file: StudyFile) -> None:
        self.folder, self.file = folder, file
        self.settings = file.settings
        self.name = folder.name
        self.remark = ""
        self.is_patient = False
        self.record_file = RecordFile(folder / RECORDS)
        self.measured_latencies = MeasuredLatencies(folder / MEASURED_LATENCIES)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, folder={str(self.folder)!r})"

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Self:
        """Open the study of a folder; `nas.open_study` opens one by its name.

        Raises:
            StudyError: there is none.
        """
        path = Path(folder).absolute()
        return cls(path, StudyFile.read(path))

    @cached_property
    def space(self) -> "Space":
        """Search space, from the study's copy of the file; not needed to read finished trials.

        Raises:
            StudyError: it has changed since the study was created, or brings operators that the user has not run.
        """
        from nas.study.operator_files import require_trusted  # noqa: PLC0415 - PyTorch, as the next
        from search_spaces import joined_file  # noqa: PLC0415 - PyTorch, which only trials of older versions need

        path, before = self.folder / SPACE, self.settings.space_hash
        try:
            require_trusted(self.folder)
            space = joined_file.load(path)
        except SpecError as error:
            mistakes = "; ".join(error.mistakes)
            raise StudyError(
                f"{path}: the study's copy of its space cannot be read: {mistakes} (put it back as it was, or begin "
                "another study)"
            ) from None
        if space.hash != before:
            raise StudyError(
                f"{path}: the space has changed since the study was created ({space.hash}, not {before}); "
                "begin another study for it"
            )
        return space

    @property
    def database(self) -> Path | None:
        """File of the storage; None if the storage is a server."""
        return storage_file(self.file.storage)

    @property
    def shares_storage(self) -> bool:
        """Whether the storage is not a file in this study's folder, so that it may hold other studies."""
        return self.database != storage_file(default_storage(self.folder))

    @cached_property
    def storage(self) -> RetryingStorage:
        """Optuna's storage; one per process.

        Raises:
            EnvironmentProblem: it cannot be opened.
            StudyError: it is a file that is missing, empty or damaged; or see `storage_address`.
        """
        return open_storage(self.storage_address, patient=self.is_patient)

    @property
    def storage_address(self) -> str:
        """Address of Optuna's storage.

        Raises:
            StudyError: the user has not named it.
        """
        require_named(self.file.storage, addresses.STORAGE, self.folder)
        return self.file.storage

    @property
    def tracking(self) -> str:
        """Address of MLflow.

        Raises:
            StudyError: the user has not named it.
        """
        require_named(self.file.tracking, addresses.TRACKING, self.folder)
        return self.file.tracking

    @cached_property
    def shared(self) -> SharedStudy | None:
        """Files, machines and lock that this machine has in common with others; None unless the storage is PostgreSQL.

        Raises:
            StudyError: the storage does not have the study.
        """
        if not addresses.is_postgresql(self.file.storage):
            return None
        return SharedStudy(self.folder, self.storage, study_id(self.storage, self.file.name))

    def read_number_of_trials(self) -> None:
        """Take over the number of trials that another machine has set for all."""
        if self.shared is None:
            return
        attributes = self.storage.get_study_user_attrs(study_id(self.storage, self.file.name))
        trials = attributes.get(TRIALS, self.file.run.trials)
        if trials != self.file.run.trials:
            self.file = self.file.model_copy(update={"run": self.file.run.model_copy(update={"trials": trials})})

    def stock_training_host(self, member: str = "") -> str:
        """Return the name of the machine that trains a stock model for this one; empty if this one does."""
        if self.shared is None:
            return ""
        return self.shared.machines.other_holder(stock_training_of(member))

    def is_fetched_later(self, files: TrialFiles) -> bool:
        """Return whether a training has ended on another machine, and its outcome is not on this one."""
        return self.shared is not None and not files.outcome.is_file() and self.shared.has_outcome(files)

    def files_of_stock_models(self) -> dict[str, TrialFiles]:
        """Return the files of the training of each stock model by member; one with an empty name in a single space."""
        return TrialFiles.of_stock_models(self.folder, self.settings.members)

    def _share_number_of_trials(self) -> None:
        if self.shared is not None:
            self.storage.set_study_user_attr(study_id(self.storage, self.file.name), TRIALS, self.file.run.trials)

    @property
    def sealed(self) -> Path | None:
        """File that lists the sealed images; None if there are none."""
        return self.folder / HOLDOUT if self.settings.holdout else None

    def files(self, trial: int) -> TrialFiles:
        """Return the files of a trial."""
        return TrialFiles.of(self.folder, trial)

    def records(self) -> list[Record]:
        """Return the records of all trials, in order."""
        records = self._trial_records.read()
        measured = self.measured_latencies.read()
        for number, record in records.items():
            if str(number) in measured:
                records[number] = replace(record, measured_ms=measured[str(number)])
        return [records[number] for number in sorted(records)]

    def save_records(self) -> None:
        """Append the records of finished trials to their file; only the supervisor does, after it has read them."""
        self._trial_records.save()

    @cached_property
    def _trial_records(self) -> TrialRecords:
        return TrialRecords(self.file.name, self.storage, lambda: self.space, self.record_file)

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Return the Pareto front of the finished trials, best accuracy first."""
        return pareto_front_of(self.records() if records is None else records, self.settings.objectives)

    def remaining_trials(self, records: Sequence[Record]) -> int:
        """Return how many further trials may begin now."""
        if self.settings.confirms or self.settings.stock_only:
            return sum(record.state == "waiting" for record in records)
        taken = sum(record.ending in COUNTED or record.state == "running" for record in records)
        return max(0, self.file.run.trials - taken)

    def unfinished_trials(self, records: Sequence[Record]) -> int:
        """Return how many trials are missing: those that may begin, and those that run or were killed in their run."""
        return self.remaining_trials(records) + sum(record.state == "running" for record in records)

    def pace(self, records: Sequence[Record]) -> Pace | None:
        """Return the pace of this study, and the time that the remaining trials take; None while no trial has ended."""
        return pace(records, workers=self.file.run.workers, missing=self.unfinished_trials(records))

    def verdict(self, *, margin: float | None = None, records: Sequence[Record] | None = None) -> "Verdict | None":
        """Return the verdict on the finalists of this search, or of this confirmation of one.

        Of several confirmations that have ended, the last one that judges by images that no search has read counts, or
        else the last one.

        Args:
            margin: points of mAP50-95 within which two models count as equally accurate; None for that of the
                confirmation.
            records: of this study, if they have been read already.

        Returns:
            None before `nas confirm` was called for the search.

        Raises:
            ScoreError: what a training has scored on the images that judge is missing or damaged.
            SpecError: the margin is no number of points.
        """
        from nas.report.search_verdict import verdict_on  # noqa: PLC0415 - a report of several studies

        ranges.require(margin=margin)
        return verdict_on(self, StoredStudy.open, margin=margin, records=records)

    def nothing_learned(self, records: Sequence[Record] | None = None) -> list[str]:
        """Return a warning if the stock model has learned nothing; empty if it has, or is not trained yet.

        Args:
            records: of all trials; read if they are not given.
        """
        from nas.report.unlearned import nothing_learned  # noqa: PLC0415 - words, which only reports need

        every = self.records() if records is None else records
        return nothing_learned(self.settings, every, base_accuracy(self.folder, self.settings))

    def trust(self) -> "Trust":
        """Return how far the ranking of this search can be believed, from what was trained.

        Raises:
            StudyError: this study is no search, but trains models of one again.
        """
        records = self.records()
        return self.trust_beside(self.verdict(records=records), records)

    def trust_beside(
        self, verdict: "Verdict | None", records: Sequence[Record], *, reads_rungs: bool = True
    ) -> "Trust":
        """Return what `trust` does, from a verdict and records that have been read already.

        Args:
            reads_rungs: whether the order of trials after rungs is compared; each trial has a file of its own for it.
        """
        from nas.report.trusting import trust  # noqa: PLC0415 - a report of several studies; only this method needs it

        search, again = self.trained(records, reads_rungs=reads_rungs)
        return trust(
            search,
            again,
            measure=f"{command('trust', self.folder)} --measure",
            confirm=command("confirm", self.folder),
            verdict=verdict,
        )

    def trained(self, records: Sequence[Record], *, reads_rungs: bool = True) -> tuple[Trained, list[Trained]]:
        """Return the trainings of this search, and of the studies beside it that train models of it again.

        Args:
            records: of this search.
            reads_rungs: whether its accuracies at rungs are read, from one file a trial.

        Raises:
            StudyError: this study is no search, or has stock models alone.
        """
        if self.settings.confirms:
            search = self.folder.with_name(self.settings.confirms)
            raise StudyError(f"{self.name} trains models of another study again; ask: {command('trust', search)}")
        if self.settings.stock_only:
            raise StudyError(
                f"{self.name}: has stock models alone, and no ranking of candidates; fresh seeds judge them: "
                f"{command('confirm', self.folder)}"
            )
        again = [StoredStudy.open(folder) for folder in trained_again(self.folder, self.settings)]
        return (
            Trained.of(self.folder, self.file, records, reads_rungs=reads_rungs),
            [Trained.of(one.folder, one.file, one.records(), search=self.settings) for one in again],
        )

    def set_run(self, run: RunSettings) -> None:
        """Store how the study is run from now on; the number of trials for all machines."""
        self.set_file(self.file.model_copy(update={"run": run}))
        self._share_number_of_trials()

    def set_file(self, file: StudyFile) -> None:
        """Replace `study.json`."""
        self.file = file
        self.file.write(self.folder)

    def already_running(self) -> StudyError:
        """Return the error to raise if another process supervises the study."""
        advice = f"look at it with: {command('status', self.folder)}"
        return StudyError(f"{self.name} is running already, in another process; {advice}")

    @property
    def proposal_lock(self) -> ExclusiveLock:
        """Lock held while counting remaining trials and proposing one."""
        if self.shared is not None:
            return self.shared.proposal_lock
        return Lock(self.folder / PROPOSAL_LOCK)

    @property
    def supervision_lock(self) -> Lock:
        """Lock held by the one supervisor of this study on this machine."""
        return Lock(self.folder / SUPERVISOR_LOCK)
