"""Trials whose worker is gone: what they left is adopted, or their architectures are tried again."""

import socket
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, Trial, TrialState

from nas.execution.exit_causes import Death
from nas.execution.pruning import settle
from nas.execution.watchdog import Training
from nas.locks import is_held
from nas.records.trial_attributes import CRASH_CAUSE, DETAIL, ENDING, FINGERPRINT, MACHINE, REPEAT, RETRY_OF, ROLE, RUNG
from trials import Ending

if TYPE_CHECKING:
    from nas.study.study import Study


def again(study: "Study", number: int, reason: str, *, crashed: bool = False) -> None:
    """Put the architecture of a trial that runs no more back into the queue, once; then the trial may be ended.

    Args:
        reason: why it runs no more, in words.
        crashed: whether its worker died of itself, which it may do once.
    """
    trials = study.trials()
    trial = trials[number]
    if FINGERPRINT not in trial.user_attrs or any(other.user_attrs.get(RETRY_OF) == number for other in trials):
        return  # interrupted before its architecture was known, or queued already
    if not trial.state.is_finished():
        note = f"{reason}; its architecture is tried again"
        study.storage.set_trial_user_attr(trial._trial_id, DETAIL, note)
    kept = {
        key: value
        for key, value in trial.user_attrs.items()
        if key in {FINGERPRINT, ROLE, REPEAT, CRASH_CAUSE} or key.startswith(RUNG)
    }
    said = trial.system_attrs.get("fixed_params") or trial.params
    kept = {**kept, RETRY_OF: number} | ({CRASH_CAUSE: reason} if crashed else {})
    study.optuna.enqueue_trial(said, user_attrs=kept)


def working(study: "Study") -> dict[int, Training]:
    """What each worker of this host is training, by its process."""
    running = [study.files(trial.number) for trial in study.trials() if _is_running_here(trial)]
    trainings = [Training(files, study.settings.budget.timeout) for files in running]
    if study.base is not None and study.base.outcome() is None:
        trainings.append(Training(study.base.files, study.base.budget.timeout))
    return {holder: each for each in trainings if (holder := each.files.read_holder()) is not None}


def at_work(study: "Study") -> dict[int, int]:
    """Return the running trials whose locks processes of this host hold, each with its process."""
    files = {trial.number: study.files(trial.number) for trial in study.trials() if _is_running_here(trial)}
    holders = {number: each.read_holder() for number, each in files.items() if is_held(each.lock)}
    return {number: holder for number, holder in holders.items() if holder is not None}


def reap(study: "Study", deaths: Mapping[int, Death | None] | None = None) -> dict[int, int | None]:
    """End the trials of this host whose worker is gone: adopt a finished one, queue the others again.

    Args:
        deaths: how processes died by themselves while the supervisor lived; then only their trials are ended, and
            one whose worker has died before for good. None: it was stopped, or all were, and is simply tried again.

    Returns:
        The numbers of the trials that were ended, and the processes that had worked on them, where known.
    """
    ended = {}
    with study.asking.held():  # nobody is between a proposal and the lock that says who works on it
        for trial in study.trials():
            holder = study.files(trial.number).read_holder()
            theirs = deaths is None or holder is None or holder in deaths
            if _is_running_here(trial) and theirs and not is_held(study.files(trial.number).lock):
                _end(study, trial, None if deaths is None or holder is None else deaths[holder])
                ended[trial.number] = holder
        for trial in study.trials():
            if trial.state == TrialState.FAIL and ENDING not in trial.user_attrs:
                again(study, trial.number, "interrupted")  # in the moment between Optuna's question and ours
    return ended


def _is_running_here(trial: FrozenTrial) -> bool:
    here = socket.gethostname()
    return trial.state == TrialState.RUNNING and trial.user_attrs.get(MACHINE, here) == here


def _end(study: "Study", trial: FrozenTrial, death: Death | None) -> None:
    """End a trial that nobody works on any more.

    Args:
        death: its worker's; None if that was stopped, which says nothing of the trial.
    """
    fields = study.files(trial.number).read_outcome()
    if fields is None or fields["ending"] == Ending.BROKEN:
        repeated = CRASH_CAUSE in trial.user_attrs
        if death is None or FINGERPRINT not in trial.user_attrs or (death.again and not repeated):
            reason = "interrupted" if death is None else death.cause
            again(study, trial.number, reason, crashed=death is not None)
            study.optuna.tell(trial.number, state=TrialState.FAIL)
            return
        fields = _last_fields(study, trial, death)
    values = settle(study.settings, Trial(study.optuna, trial._trial_id), fields)
    study.optuna.tell(trial.number, values, state=None if values else TrialState.PRUNED)


def _last_fields(study: "Study", trial: FrozenTrial, death: Death) -> dict[str, Any]:
    """What a record holds of a trial that said no outcome, in the words of `records.told`."""
    first = trial.user_attrs.get(CRASH_CAUSE, death.cause)
    before = "" if first == death.cause else f"; the first time: {first}"
    began = trial.datetime_start
    return {
        "epochs": len(study.files(trial.number).read_epochs()),
        "seconds": round((datetime.now() - began).total_seconds(), 1) if began else 0.0,  # noqa: DTZ005 - as Optuna
        DETAIL: f"{death.cause}{before}; see workers/ in the study's folder",
        ENDING: death.ending.value,
    }
