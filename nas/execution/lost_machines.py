"""Trials of machines that are lost: retried by another one, and taken back if the machine returns with a result.

Every change is made under the study's proposal lock, and Optuna refuses to change a trial that has ended. So a trial
is given away once, and of two trainings of it the first that finishes is stored.
"""

import logging
import shutil
import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.execution.pruning import store_outcome
from nas.execution.retrying import retry
from nas.records.trial_attributes import ENDING, HOST, MACHINE, RETRY_OF
from nas.records.trial_files import TrialFiles
from nas.study.study import Study
from trials import Ending

_log = logging.getLogger(__name__)


def recover_lost(study: Study, lost: Collection[str] | None = None) -> bool:
    """Retry the running trials of machines that count as dead, and end those that no machine works on.

    A trial whose outcome its machine has stored in time is ended with it.

    Args:
        lost: ids of these machines; None for those that count as dead now.

    Returns:
        Whether a trial was ended.
    """
    shared = study.shared
    if shared is None:
        return False
    lost, ended = shared.machines.lost() if lost is None else lost, False
    if not any(_is_abandoned(trial, lost) for trial in study.optuna_trials()):
        return False
    with study.proposal_lock.held():  # else a worker may be between Optuna's new trial and its machine's attribute
        for trial in study.optuna_trials():
            if _is_abandoned(trial, lost):
                _give_away(study, trial)
                ended = True
    return ended


def runs_on_some_machine(study: Study) -> bool:
    """Return whether a trial runs on a machine that would be noticed if it were lost."""
    return any(trial.state == TrialState.RUNNING and MACHINE in trial.user_attrs for trial in study.optuna_trials())


def _is_abandoned(trial: FrozenTrial, lost: Collection[str]) -> bool:
    """Return whether a running trial is of a lost machine, or of none."""
    attributes = trial.user_attrs
    belongs = MACHINE in attributes or HOST in attributes
    return trial.state == TrialState.RUNNING and (attributes.get(MACHINE) in lost or not belongs)


def _give_away(study: Study, trial: FrozenTrial) -> None:
    """End a trial of a lost machine; the caller holds the proposal lock."""
    files, shared = study.files(trial.number), study.shared
    fields = None
    if shared is not None and shared.has_outcome(files):
        shared.fetch_training(files, large=False)
        fields = files.read_outcome()
    if fields is not None and fields[ENDING] != Ending.BROKEN:
        store(study, trial, fields)
        return
    reason = f"its machine {trial.user_attrs.get(HOST, '')} was lost" if HOST in trial.user_attrs else "interrupted"
    retry(study, trial.number, reason)
    study.optuna.tell(trial.number, state=TrialState.FAIL)
    _log.warning("trial %d: %s", trial.number, reason)


def store(study: Study, trial: FrozenTrial, fields: Mapping[str, Any]) -> None:
    """Store the outcome of a running trial, and end it."""
    with study.storage.batch():
        values = store_outcome(study.settings, Trial(study.optuna, trial._trial_id), fields)  # noqa: SLF001 - Optuna's class takes it
    study.optuna.tell(trial.number, values, state=None if values else TrialState.PRUNED)


def take_back(study: Study, number: int, fields: Mapping[str, Any]) -> bool:
    """Store the outcome of a trial that was given away in the trial that retries it; the caller holds the lock.

    Args:
        number: of the trial that was given away.
        fields: of its outcome, as `stored_outcome.outcome_fields` returns them.

    Returns:
        Whether it was stored: not if the other training has ended before.
    """
    trials = study.optuna_trials()
    retrying = _last_retry(trials, number)
    if retrying is None or study.shared is None or ENDING in retrying.user_attrs:
        return False
    identifier = retrying._trial_id  # noqa: SLF001 - Optuna's storages take it
    try:
        if retrying.state == TrialState.WAITING:
            study.storage.set_trial_state_values(identifier, TrialState.RUNNING)
        study.storage.set_trial_user_attr(identifier, HOST, socket.gethostname())
        study.storage.set_trial_user_attr(identifier, MACHINE, study.shared.machines.id)
        files = study.files(retrying.number)
        _move(study.files(number), files)
        study.shared.delete_large([number])
        study.shared.publish(files)
        store(study, retrying, fields)
    except UpdateFinishedTrialError:
        return False
    _log.info("trial %d: the result of trial %d, which was given away", retrying.number, number)
    return True


def _last_retry(trials: Sequence[FrozenTrial], number: int) -> FrozenTrial | None:
    """Return the last trial in the chain of those that retry a trial; None if none does."""
    retries = {trial.user_attrs[RETRY_OF]: trial for trial in trials if RETRY_OF in trial.user_attrs}
    last = None
    while number in retries:
        last = retries[number]
        number = last.number
    return last


def _move(source: TrialFiles, target: TrialFiles) -> None:
    """Move what a training has left into the folder of another trial."""
    target.folder.mkdir(parents=True, exist_ok=True)
    for name in ("model", "progress", "weights", "judged", "error", "outcome"):
        file = getattr(source, name)
        if file.is_file():
            shutil.move(file, getattr(target, name))
    source.checkpoint.unlink(missing_ok=True)
