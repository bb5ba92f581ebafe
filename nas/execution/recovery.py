"""Recover trials whose worker exited: take over what they have left, or retry their architectures."""

import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nas.execution.exit_causes import ExitCause
from nas.execution.lost_machines import store, take_back
from nas.execution.retrying import retry
from nas.execution.watchdog import Training
from nas.locks import is_held
from nas.records.trial_attributes import CRASH_CAUSE, DETAIL, ENDING, FINGERPRINT, HOST, MACHINE
from nas.records.trial_files import TrialFiles
from nas.study.study import Study
from trials import Ending
from trials.devices import CPU


def trainings_by_process(study: Study) -> dict[int, Training]:
    """Return the training of each worker process of this machine, the stock models' trainings included."""
    running = [study.files(trial.number) for trial in study.optuna_trials() if _runs_here(study, trial)]
    on_gpu = study.settings.budget.device != CPU
    trainings = [Training(files, study.settings.budget.timeout, on_gpu) for files in running]
    stocks = [training for training in study.stock_trainings if training.outcome() is None]
    trainings += [Training(training.files, training.budget.timeout, on_gpu) for training in stocks]
    return {holder: each for each in trainings if (holder := each.files.read_holder()) is not None}


def processes_by_trial(study: Study) -> dict[int, int]:
    """Return the process of each running trial whose lock is held on this machine."""
    files = {trial.number: study.files(trial.number) for trial in study.optuna_trials() if _runs_here(study, trial)}
    holders = {number: each.read_holder() for number, each in files.items() if is_held(each.lock)}
    return {number: holder for number, holder in holders.items() if holder is not None}


def recover(study: Study, exits: Mapping[int, ExitCause | None] | None = None) -> dict[int, int | None]:
    """End the trials of this machine whose worker exited: take over a stored outcome, retry the others.

    Args:
        exits: causes by process. Only trials of these processes are ended. A cause of None stands for a worker that
            was stopped: the trial is retried. So is every trial if `exits` is None.

    Returns:
        The process of each trial that was ended; None where it is unknown.
    """
    ended = {}
    with study.proposal_lock.held():  # else a worker may be between its proposal and the trial's lock
        for trial in study.optuna_trials():
            holder = study.files(trial.number).read_holder()
            concerned = exits is None or holder is None or holder in exits
            if _runs_here(study, trial) and concerned and not is_held(study.files(trial.number).lock):
                _end(study, trial, None if exits is None or holder is None else exits[holder])
                ended[trial.number] = holder
        for trial in study.optuna_trials():
            if trial.state == TrialState.FAIL and ENDING not in trial.user_attrs:
                retry(study, trial.number, "interrupted")  # after Optuna had failed it, before the worker enqueued it
                _take_back_finished(study, trial)
    return ended


def _runs_here(study: Study, trial: FrozenTrial) -> bool:
    """Return whether a running trial is of this machine: by its identity, or by the host name where it has none.

    Trials whose storage is a file are, whatever the machine was called.
    """
    if trial.state != TrialState.RUNNING:
        return False
    if study.shared is not None and MACHINE in trial.user_attrs:
        return bool(trial.user_attrs[MACHINE] == study.shared.machines.id)
    here = socket.gethostname()
    return study.database is not None or trial.user_attrs.get(HOST, here) == here


def _take_back_finished(study: Study, trial: FrozenTrial) -> None:
    """Store what this machine has finished of a trial that was given away while the machine was lost."""
    if study.shared is None or trial.user_attrs.get(MACHINE) != study.shared.machines.id:
        return
    fields = study.files(trial.number).read_outcome()
    if fields is not None and fields["ending"] == Ending.FINISHED:
        take_back(study, trial.number, fields)


def _end(study: Study, trial: FrozenTrial, cause: ExitCause | None) -> None:
    """End a trial whose worker exited.

    Args:
        cause: None if the worker was stopped, for which the trial is not to blame.
    """
    fields = study.files(trial.number).read_outcome()
    if fields is None or fields["ending"] == Ending.BROKEN:
        crashed_before = CRASH_CAUSE in trial.user_attrs
        if cause is None or FINGERPRINT not in trial.user_attrs or (cause.retry and not crashed_before):
            retry(study, trial.number, "interrupted" if cause is None else cause.text, crashed=cause is not None)
            study.optuna.tell(trial.number, state=TrialState.FAIL)
            return
        fields = _fields_of_crash(study.files(trial.number), trial, cause)
    if study.shared is not None:
        study.shared.publish(study.files(trial.number))
    store(study, trial, fields)


def _fields_of_crash(files: TrialFiles, trial: FrozenTrial, cause: ExitCause) -> dict[str, Any]:
    """Return the fields, as in `stored_outcome.outcome_fields`, of a trial whose worker wrote no outcome."""
    first = trial.user_attrs.get(CRASH_CAUSE, cause.text)
    before = "" if first == cause.text else f"; the first time: {first}"
    return {
        "epochs": len(files.read_epochs()),
        "seconds": _seconds_since(trial.datetime_start),
        DETAIL: f"{cause.text}{before}; see workers/ in the study's folder",
        ENDING: cause.ending.value,
    }


def _seconds_since(began: datetime | None) -> float:
    """Return the time since a trial began, by the time of day, which may have been set back."""
    return max(0.0, round((datetime.now() - began).total_seconds(), 1)) if began else 0.0  # noqa: DTZ005 - as Optuna
