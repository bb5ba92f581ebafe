"""Optuna study whose queue returns retries first."""

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from nas.records.trial_attributes import RETRY_OF


class RetryFirstStudy(optuna.Study):
    """Optuna study whose queue returns retries first.

    Optuna's queue is ordered by trial number, and a retry has a higher one. It would wait behind all enqueued trials,
    and might never begin, because a search ends with its number of trials.
    """

    def _pop_waiting_trial_id(self) -> int | None:
        """Claim the next waiting trial; the same as in `optuna.Study` but for the order."""
        waiting = self._storage.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.WAITING,))
        for trial in sorted(waiting, key=lambda trial: (RETRY_OF not in trial.user_attrs, trial.number)):
            try:
                if self._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):  # noqa: SLF001 - Optuna's storages take it
                    return trial._trial_id  # noqa: SLF001 - the same
            except UpdateFinishedTrialError:
                continue
        return None
