"""Trainings of a study that machines share, as a worker runs them: marked, published, ended once.

Nothing here does anything in a study of one machine.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from nas.execution.lost_machines import store, take_back
from nas.execution.retrying import retried, retry
from nas.locks import ExclusiveLock
from nas.records.stored_outcome import outcome_fields
from nas.records.trial_attributes import DETAIL, ENDING, FINGERPRINT, MACHINE, RETRY_OF
from nas.records.trial_files import TrialFiles
from nas.study.machines import stock_training_of
from nas.study.shared_study import SharedStudy
from nas.study.stock_training import StockTraining
from nas.study.study import Study
from search_spaces import Architecture
from trials import Ending, Epoch, Outcome

_log = logging.getLogger("nas.worker")

_STATE = text("SELECT state FROM trials WHERE trial_id = :trial")
_CHECKPOINT_SECONDS = 60.0
"""Longest part of a training that a lost machine costs, or the epoch that it was in if that is longer."""
_STORING_SHARE = 0.1
"""Largest share of a training's time that goes into storing its checkpoint; a lost machine then costs more."""
_PAUSE_SECONDS = 30.0
"""Pause after the storage did not answer, in which trainings go on without it."""
POLL_SECONDS = 2.0
"""Pause before the storage is asked again whether another machine has trained a stock model."""


class TrialEnded(BaseException):
    """Raised to leave Optuna's loop: the trial has ended in the storage, and nothing is left to be told."""


class StockTrainingTaken(BaseException):
    """Raised to leave the training of a stock model that another machine has taken over, or finished before."""


def mark(study: Study, trial: Trial) -> None:
    """Store which machine runs a trial; first of all, for a running trial of no machine is ended by any of them."""
    if study.shared is not None:
        trial.set_user_attr(MACHINE, study.shared.machines.id)


def require_alone(study: Study, trial: Trial, architecture: Architecture, lock: ExclusiveLock) -> None:
    """Give up a trial if the study has it already: the storage may have been restarted while it was proposed.

    Then the proposal lock was lost and another machine may have proposed the same, or Optuna's answer was lost and it
    has stored the trial twice.

    Raises:
        TrialPruned: the trial is one too many.
    """
    if study.shared is None:
        return
    was_lost = lock.is_lost()
    if was_lost:
        lock.take()
    trials = study.optuna_trials()
    this = trials[trial.number]
    if RETRY_OF in this.user_attrs:
        is_double = any(_retries_the_same(other, this) for other in trials)
    elif "fixed_params" in this.system_attrs:
        is_double = False  # who enqueued it has looked; a lost result is trained again
    else:
        others = [other for other in trials if other.number != trial.number and not _is_void(other)]
        is_double = any(other.user_attrs.get(FINGERPRINT) == architecture.fingerprint for other in others)
        is_double = is_double or (was_lost and _is_too_many(study, trial.number))
    if is_double:
        reason = "one too many, because the storage was away"
        trial.set_user_attr(DETAIL, reason)
        raise optuna.TrialPruned(reason)


def _is_void(trial: FrozenTrial) -> bool:
    """Return whether a trial has ended without an ending: it was interrupted, or is one too many."""
    return trial.state.is_finished() and ENDING not in trial.user_attrs


def _retries_the_same(other: FrozenTrial, trial: FrozenTrial) -> bool:
    """Return whether an earlier trial retries the same one, and was not interrupted."""
    is_earlier = other.number < trial.number and not _is_void(other)
    return is_earlier and other.user_attrs.get(RETRY_OF) == trial.user_attrs[RETRY_OF]


def _is_too_many(study: Study, number: int) -> bool:
    """Return whether the study has its number of trials without this one."""
    records = [record for record in study.records() if record.trial != number]
    return study.remaining_trials(records) <= 0


class _EpochFiles:
    """Progress and checkpoint of a training, which are stored for the other machines after its epochs.

    The progress after each epoch; the checkpoint if more than a minute would be lost with the machine before the next
    epoch ends, and if storing takes a tenth of the time at most. A training does not wait for a storage that is away:
    what is missing is stored after a later epoch.

    Args:
        shared: None in a study of one machine.
    """

    def __init__(self, shared: SharedStudy | None, files: TrialFiles) -> None:
        self._shared, self._files = shared, files
        self._not_before, self._storing_seconds = -float("inf"), 0.0
        self._stored_at = self._epoch_at = time.monotonic()

    def publish(self, is_ours: Callable[[SharedStudy], bool]) -> bool:
        """Store the epochs so far; return False if the training is another machine's by now.

        Args:
            is_ours: asks the storage for that, by one attempt.
        """
        now = time.monotonic()
        epoch_seconds, self._epoch_at = now - self._epoch_at, now
        if self._shared is None or now < self._not_before:
            return True
        try:
            if not is_ours(self._shared):
                return False
            self._shared.publish_at_once(self._files.progress)
            unstored = now + epoch_seconds - self._stored_at
            if unstored > max(_CHECKPOINT_SECONDS, self._storing_seconds / _STORING_SHARE):
                self._shared.publish_at_once(self._files.checkpoint)
                self._stored_at, self._storing_seconds = now, time.monotonic() - now
        except SQLAlchemyError:
            self._not_before = time.monotonic() + _PAUSE_SECONDS
        return True


class EpochPublisher:
    """Stores the epochs of a trial, and sometimes its checkpoint, for the other machines."""

    def __init__(self, study: Study, trial: Trial, files: TrialFiles) -> None:
        self._study, self._trial = study, trial
        self._epochs = _EpochFiles(study.shared, files)

    def publish(self) -> None:
        """Store the epochs so far.

        Raises:
            TrialEnded: another machine has got the trial.
        """
        if not self._epochs.publish(self._is_running):
            raise TrialEnded(f"trial {self._trial.number}: given away to another machine, which goes on with it")

    def _is_running(self, _: SharedStudy) -> bool:
        with self._study.storage.engine.connect() as connection:
            state = connection.execute(_STATE, {"trial": self._trial._trial_id}).scalar()  # noqa: SLF001 - Optuna's storages take it
        return str(getattr(state, "name", state)) == TrialState.RUNNING.name


def hand_over(study: Study, files: TrialFiles) -> None:
    """Store the checkpoint of a training that is interrupted, for the machine that goes on, if the storage answers."""
    if study.shared is not None:
        with suppress(SQLAlchemyError):
            study.shared.publish_at_once(files.checkpoint)


def end(study: Study, trial: Trial, outcome: Outcome) -> None:
    """Store the outcome of a trial and its files, and end it; or store it in the trial that retries it.

    Raises:
        TrialEnded: always, for Optuna's loop has nothing left to tell.
    """
    if study.shared is None:
        return
    study.shared.publish(study.files(trial.number))
    fields, number = outcome_fields(outcome), trial.number
    with study.proposal_lock.held():
        stored = study.storage.get_trial(trial._trial_id)  # noqa: SLF001 - Optuna's storages take it
        try:
            if outcome.ending is Ending.BROKEN:
                _end_broken(study, trial, stored, fields)
            else:
                store(study, stored, fields)
        except UpdateFinishedTrialError:
            was_stored = outcome.ending is Ending.FINISHED and take_back(study, number, fields)
            study.shared.delete_large([number])
            what = "stored in the trial that retries it" if was_stored else "another machine has finished it before"
            raise TrialEnded(f"trial {number}: it was given away; {what}") from None
    study.shared.delete_large(retried(study, stored.user_attrs))
    raise TrialEnded(f"trial {number}: stored")


def _end_broken(study: Study, trial: Trial, stored: FrozenTrial, fields: dict[str, object]) -> None:
    """End a trial that failed by an error in the code; it is retried once."""
    if RETRY_OF not in stored.user_attrs:
        retry(study, trial.number, str(fields[DETAIL]))
    for name, value in fields.items():
        trial.set_user_attr(name, value)
    study.optuna.tell(trial.number, state=TrialState.FAIL)


def prepare_stock_models(study: Study) -> None:
    """Prepare the trainings of the stock models for another run of the study.

    Where all of several have failed, they are tried again: their outcomes are deleted from the storage, too, from which
    a worker would fetch them. What other machines have stored since counts.
    """
    trainings, shared = study.stock_trainings, study.shared
    if shared is not None and study.settings.members:
        shared.fetch(*(one.files.outcome for one in trainings if not one.is_done), anew=True)
        if trainings.failure:
            for one in trainings:
                shared.delete_same(one.files.outcome)
    trainings.prepare()


class StockSharing:
    """Training of a stock model by one machine for all: the others wait for it, and fetch its weights."""

    def __init__(self, study: Study, training: StockTraining) -> None:
        self._shared, self._training = study.shared, training
        self._task = stock_training_of(training.member)
        self._trains = self._waits_for = ""

    def is_ours(self) -> bool:
        """Return whether this machine trains it; the caller holds the training's lock.

        If not, the files are fetched as soon as they are there.
        """
        shared, training = self._shared, self._training
        if shared is None:
            return True
        if not training.is_done and shared.has_outcome(training.files):
            shared.fetch_training(training.files, anew=True)  # an interrupted training may have left some here
        if training.is_done or training.left_out:
            return False
        before = shared.machines.other_holder(self._task)
        if shared.machines.claim(self._task, shared.machines.lost()):
            shared.fetch(
                training.files.checkpoint, anew=bool(before)
            )  # a lost machine's is ahead of one from before it
            return True
        self._trains = before
        return False

    def epoch_callback(self) -> Callable[[Epoch], bool]:
        """Return the callback that stores the epochs so far, and sometimes the checkpoint, for the other machines.

        It raises `StockTrainingTaken` if another machine has taken the training over or finished it before; not after
        the last epoch, so that a finished training counts.
        """
        files, last = self._training.files, self._training.budget.epochs
        epochs = _EpochFiles(self._shared, files)

        def publish(epoch: Epoch) -> bool:
            if epoch.epoch < last and not epochs.publish(lambda shared: shared.trains(self._task, files)):
                raise StockTrainingTaken(f"{self._training.title}: another machine has taken it over")
            return True

        return publish

    def log_waiting(self) -> None:
        """Log that another machine trains the stock model, once; this one has found nothing else to do."""
        if self._trains != self._waits_for:
            self._waits_for = self._trains
            _log.info("waiting for machine %s, which trains %s for all", self._trains, self._training.title)

    def publish(self) -> None:
        """Store the files of a training that has finished, or take those of the machine that was first.

        Of a member that is left out, the others get to know that.
        """
        if self._shared is not None and self._training.is_done:
            self._shared.publish_first(self._training.files)
        elif self._shared is not None and self._training.member:
            self._shared.publish(self._training.files, large=False)
