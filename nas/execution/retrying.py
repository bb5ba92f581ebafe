"""Enqueue the architecture of an unfinished trial once more."""

from collections.abc import Iterator, Mapping
from typing import Any

from nas.records.trial_attributes import ARCHITECTURE, CRASH_CAUSE, DETAIL, FINGERPRINT, REPEAT, RETRY_OF, ROLE, RUNG
from nas.study.study import Study


def retry(study: Study, number: int, reason: str, *, crashed: bool = False) -> None:
    """Enqueue the architecture of an unfinished trial once more; the caller then ends that trial.

    Args:
        reason: why the trial was not finished, as a phrase.
        crashed: whether its worker crashed, which is allowed once.
    """
    trials = study.optuna_trials()
    trial = study.storage.get_trial(trials[number]._trial_id)  # noqa: SLF001 - with its rungs; Optuna's storages take it
    if FINGERPRINT not in trial.user_attrs or any(other.user_attrs.get(RETRY_OF) == number for other in trials):
        return  # interrupted before it had an architecture, or enqueued already
    if not trial.state.is_finished():
        note = f"{reason}; its architecture is tried again"
        study.storage.set_trial_user_attr(trial._trial_id, DETAIL, note)  # noqa: SLF001 - Optuna's storages take it
    attributes = {
        key: value
        for key, value in trial.user_attrs.items()
        if key in {ARCHITECTURE, FINGERPRINT, ROLE, REPEAT, CRASH_CAUSE} or key.startswith(RUNG)
    }
    attributes = {**attributes, RETRY_OF: number} | ({CRASH_CAUSE: reason} if crashed else {})
    parameters = trial.system_attrs.get("fixed_params") or trial.params
    study.optuna.enqueue_trial(parameters, user_attrs=attributes)


def retried(study: Study, attributes: Mapping[str, Any]) -> Iterator[int]:
    """Yield the trials that a trial retries, the last one first.

    Args:
        attributes: of the trial.
    """
    before = attributes.get(RETRY_OF)
    while before is not None:
        yield before
        before = study.optuna_trials()[before].user_attrs.get(RETRY_OF)
