"""Optuna's study, in whose queue retries go first."""

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from nas.records.trial_attributes import RETRY_OF


class RetryFirstStudy(optuna.Study):
    """Optuna's study, in whose queue second tries go first: Optuna goes by number, and a second try has a later one.

    A search ends with its number of trials. What was interrupted among the first ones would wait behind all that was
    enqueued before it, and might never be trained again.
    """

    def _pop_waiting_trial_id(self) -> int | None:
        """Claim the next waiting trial, as `optuna.Study` does, in another order."""
        waiting = self._storage.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.WAITING,))
        for trial in sorted(waiting, key=lambda trial: (RETRY_OF not in trial.user_attrs, trial.number)):
            try:
                if self._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                    return trial._trial_id
            except UpdateFinishedTrialError:
                continue
        return None
