"""Trials and trainings of stock models that run now: where, how far, and the last sign of life."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.locks import is_held
from nas.records.record import Record
from nas.records.trial_attributes import HOST
from nas.records.trial_files import TrialFiles
from nas.study.storage import study_id
from nas.study.stored_study import StoredStudy
from nas.words import duration


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """Trial that some process trains.

    Attributes:
        epochs: that are done.
        of: epochs of its budget.
        host: name on the network of its machine; empty if it is not stored.
        process: id of the worker's process; None if it runs on another machine.
        silent_seconds: since the last heartbeat; None for another machine's trial.
    """

    trial: int
    summary: str
    epochs: int
    of: int
    host: str
    process: int | None
    silent_seconds: float | None

    @property
    def sentence(self) -> str:
        """Trial in one line: `trial 7  epoch 2 of 5  lab3, process 4711, heartbeat 3 s ago`."""
        process = "" if self.process is None else f", process {self.process}"
        beat = "" if self.silent_seconds is None else f", heartbeat {duration(self.silent_seconds)} ago"
        return f"trial {self.trial}  epoch {self.epochs} of {self.of}  {self.host}{process}{beat}"


@dataclass(frozen=True, kw_only=True)
class StockTraining:
    """Training of a stock model before all trials, which has not ended.

    Attributes:
        member: of several, whose stock model it is; else empty.
        is_waiting: whether it has not begun.
        epochs: that are done.
        of: epochs of its budget.
    """

    member: str
    is_waiting: bool
    epochs: int
    of: int

    @property
    def sentence(self) -> str:
        """Training in one line: `stock model  epoch 3 of 6`."""
        name = f"{self.member}: stock model" if self.member else "stock model"
        return f"{name}  {'waiting' if self.is_waiting else f'epoch {self.epochs} of {self.of}'}"


def stock_trainings(study: StoredStudy) -> list[StockTraining]:
    """Return the trainings of stock models that have not ended; none if the study inherits no weights of them."""
    budget = study.settings.base
    if budget is None:
        return []
    return [
        StockTraining(
            member=member,
            is_waiting=bool(member) and not files.folder.is_dir(),
            epochs=len(files.read_epochs()),
            of=budget.epochs,
        )
        for member, files in study.files_of_stock_models().items()
        if files.read_outcome() is None
    ]


def running_trials(study: StoredStudy, records: Sequence[Record]) -> list[RunningTrial]:
    """Return the trials that run, in order; those whose process is gone are left out.

    Args:
        records: of all trials.
    """
    running = {record.trial: record for record in records if record.state == "running"}
    if not running:
        return []
    stored = study.storage.get_all_trials(study_id(study.storage, study.file.name), deepcopy=False)
    hosts = {trial.number: str(trial.user_attrs.get(HOST, "")) for trial in stored if trial.number in running}
    found = []
    for number, record in running.items():
        files = study.files(number)
        is_here = is_held(files.lock)
        if files.lock.exists() and not is_here:
            continue
        silent = max(0.0, time.time() - files.read_heartbeat() / 1e9) if is_here else None  # clocks are set back
        found.append(
            RunningTrial(
                trial=number,
                summary=record.summary,
                epochs=len(files.read_epochs()),
                of=study.settings.budget.epochs,
                host=hosts.get(number, ""),
                process=files.read_holder() if is_here else None,
                silent_seconds=silent,
            )
        )
    return found


def with_progress(study: StoredStudy, records: Sequence[Record]) -> list[Record]:
    """Return records, those of running trials with the epochs that are done, and their seconds."""
    is_supervised = is_held(study.supervision_lock.path)
    return [
        _progressed(study.files(one.trial), one, is_supervised=is_supervised) if one.state == "running" else one
        for one in records
    ]


def _progressed(files: TrialFiles, record: Record, *, is_supervised: bool) -> Record:
    """Return a running trial with its progress; interrupted if its process is gone.

    The storage has it as running until the study is resumed. A trial of another machine has no lock in this folder.

    Args:
        is_supervised: whether a process on this machine runs the study.
    """
    epochs = files.read_epochs()
    is_gone = not is_supervised and files.lock.exists() and not is_held(files.lock)
    return replace(
        record,
        state="fail" if is_gone else record.state,
        epochs=len(epochs),
        seconds=round(sum(epoch.seconds for epoch in epochs), 1),
    )
