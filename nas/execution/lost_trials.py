"""Take trials over into the storage that it has lost, from their files: their end, or the trials as a whole."""

from optuna.trial import Trial, TrialState

from nas.execution.pruning import store_outcome
from nas.records.trial_attributes import ARCHITECTURE, FINGERPRINT, REPEAT, ROLE
from nas.samplers.suggest import suggest
from nas.study.study import Study
from nas.study.trial_records import description
from search_spaces import Architecture
from search_spaces.errors import StudyError


def end_waiting(study: Study, number: int) -> None:
    """End a trial that waits in the storage with the outcome in its folder; do nothing for one that does not wait.

    Raises:
        StudyError: there is no outcome.
    """
    trial = study.optuna_trials()[number]
    if trial.state == TrialState.WAITING:
        _end(study, trial._trial_id, number)  # noqa: SLF001 - Optuna's storages take it


def add(study: Study, number: int) -> None:
    """Add the trial of a folder to the storage.

    Args:
        study: whose lock the caller holds.
        number: of the folder; the storage must have all trials before it and no other.

    Raises:
        StudyError: another number is the next one, or there is no outcome.
    """
    files, before = study.files(number), study.optuna_trials()
    if len(before) != number:
        raise StudyError(f"{files.folder}: trial {len(before)} is the next one of the storage; nothing was added")
    architecture, outcome = Architecture.read(files.model), files.read_outcome() or {}
    seed = (outcome.get("provenance") or {}).get("seed", study.settings.budget.seed)
    attributes = {
        FINGERPRINT: architecture.fingerprint,
        ARCHITECTURE: description(architecture, study.space),
        REPEAT: max(0, seed - study.settings.budget.seed),
    }
    if architecture.is_stock and not any(ROLE in trial.user_attrs for trial in before):
        attributes[ROLE] = "stock"
    study.optuna.enqueue_trial(study.space.values(architecture), user_attrs=attributes)
    _end(study, study.optuna_trials()[number]._trial_id, number)  # noqa: SLF001 - Optuna's storages take it


def _end(study: Study, trial_id: int, number: int) -> None:
    """Begin a waiting trial with the parameters of its architecture, and end it with its outcome."""
    files = study.files(number)
    outcome = files.read_outcome()
    if outcome is None:
        raise StudyError(f"{files.outcome}: missing or damaged; the trial cannot be ended with it")
    study.storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
    trial = Trial(study.optuna, trial_id)
    suggest(trial, study.space)
    values = store_outcome(study.settings, trial, outcome)
    study.optuna.tell(number, values, state=None if values else TrialState.PRUNED)
