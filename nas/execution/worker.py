"""Worker process: ask for an architecture, score it, tell Optuna, repeat; several workers share a study.

The supervisor starts one per device, as `python -m nas.execution.worker FOLDER`. It runs all of its trials in one
process, so that modules are imported and images decoded once.
"""

import argparse
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial
from torch.optim.optimizer import register_optimizer_step_post_hook

from nas.execution import shared_trials
from nas.execution.enqueue import enqueue_extremes, enqueue_repeat
from nas.execution.problem_line import print_problem
from nas.execution.pruning import limits_of, promote, store_outcome
from nas.execution.retrying import retried, retry
from nas.execution.shared_trials import EpochPublisher, StockSharing, StockTrainingTaken, TrialEnded
from nas.locks import Lock
from nas.records.stored_outcome import outcome_fields
from nas.records.trial_attributes import ARCHITECTURE, DETAIL, FINGERPRINT, HOST, REPEAT, RETRY_OF
from nas.records.trial_files import TrialFiles
from nas.samplers.base import SpaceExhaustedError
from nas.samplers.suggest import suggest
from nas.study.stock_rungs import StockRungs
from nas.study.stock_training import StockTraining
from nas.study.study import Study
from nas.study.trial_records import description
from search_spaces import Architecture
from search_spaces.errors import GpuError, NasError, unwrapped
from search_spaces.files import environment_problem
from trials import Budget, Ending, Epoch, Limits, Outcome, evaluate
from trials.machine import MemoryGrowth, MemoryLimit, end_with
from trials.scores import GoOn
from trials.torch_devices import require_usable

log = logging.getLogger("nas.worker")

_POLL_SECONDS = 0.2
OUTGROWN = 75
"""Exit code of a worker that uses too much memory and is to be replaced by a new process (`EX_TEMPFAIL`)."""
UNFIT = 78
"""Exit code of a worker that cannot work on this machine (`EX_CONFIG`)."""
CORRUPTED = 71
"""Exit code of a worker that can compute nothing more on its GPU, though another process can (`EX_OSERR`)."""
LOST = 69
"""Exit code of a worker whose GPU is lost (`EX_UNAVAILABLE`)."""
_HEARTBEAT_SECONDS = 1.0


class BrokenTrialError(Exception):
    """Raised when a trial failed by an error in the code, not by its architecture."""


class Worker:
    """Worker of a study in this process.

    Attributes:
        deadline: in seconds of `time.monotonic`, which all processes of a machine share; no trial begins after it.
        outgrown: whether it stopped because it uses too much memory.

    Args:
        memory: bytes that it may allocate for its trials; None for no limit.
        supervisor: process id of the supervisor; None stands for the parent process.
    """

    def __init__(
        self, study: Study, *, deadline: float, memory: int | None = None, supervisor: int | None = None
    ) -> None:
        self.study, self.deadline = study, deadline
        self.outgrown = False
        self._memory_limit, self._growth = MemoryLimit(memory), MemoryGrowth()
        self._proposal_lock = study.proposal_lock
        self._supervisor = os.getppid() if supervisor is None else supervisor
        self._exhausted = False
        self._left_out: Mapping[str, str] = {}
        self._stock_rungs = StockRungs(study)

    def run(self) -> None:
        """Run trials until none remains, or this process uses too much memory."""
        self._train_stock_models()
        self._left_out = self.study.stock_trainings.left_out
        if self._left_out:
            self.study.forget_proposals()
        while not self.outgrown and self._may_begin():
            try:
                self.study.optuna.optimize(self._objective, n_trials=1, catch=(BrokenTrialError,))
            except TrialEnded as ended:
                log.info("%s", ended)
            except _LeftRunning as interrupted:
                raise interrupted.reason from None
            except AssertionError as error:
                # Optuna's, when the end of a trial cannot be stored either, such as on a full disk
                if not isinstance(error.__context__, NasError):
                    raise
                raise error.__context__ from None
            finally:
                self._proposal_lock.release()

    def _train_stock_models(self) -> None:
        """Train the stock models that no other worker trains, one after the other, and wait for the others."""
        trainings, scoring = self.study.stock_trainings, self.study.scoring
        sharing = {training.member: StockSharing(self.study, training) for training in trainings}
        while not trainings.failure and (pending := trainings.pending):
            pending.sort(
                key=lambda training: scoring.cost_table.cost(training.stock).gflops
            )  # a cheap one may dominate costly ones
            if not any(self._took(training, sharing[training.member]) for training in pending):
                self._require_supervisor()
                for training in pending:
                    sharing[training.member].log_waiting()
                time.sleep(_POLL_SECONDS if self.study.shared is None else shared_trials.POLL_SECONDS)

    def _took(self, training: StockTraining, sharing: StockSharing) -> bool:
        """Train a stock model, or fetch it; return False if another worker or machine trains it."""
        lock = training.lock
        if not lock.take(wait=False):
            return False
        try:
            if sharing.is_ours():
                self._train_stock_model(training, sharing)
                return True
            return training.is_done or training.left_out is not None
        finally:
            lock.release()

    def _train_stock_model(self, training: StockTraining, sharing: StockSharing) -> None:
        """Train a stock model, whose lock this process holds, unless that is done by now."""
        if not training.is_done and not training.left_out:
            log.info("training %s", training.title)
            reasons, publish = list[str](), sharing.epoch_callback()

            def is_hopeful(epoch: Epoch) -> bool:
                publish(epoch)
                reasons[:] = [self._stock_rungs.reason_to_stop(training.stock, epoch, training.budget)]
                return not reasons[0]

            with self._memory_limit.applied(), _heartbeat(training.files):
                go_on = self._epoch_callback(training.files, training.budget.epochs, is_hopeful)
                try:
                    outcome = training.train(go_on, self.study.scoring.costs(training.stock), lambda: reasons[0])
                except StockTrainingTaken as taken:
                    log.info("%s", taken)
                    return
                except KeyboardInterrupt:
                    shared_trials.hand_over(self.study, training.files)
                    raise
            sharing.publish()
            log.info("%s: %s %s", training.title, outcome.ending, outcome.detail)

    def _epoch_callback(self, files: TrialFiles, epochs: int, should_continue: Callable[[Epoch], bool]) -> GoOn:
        """Return the callback that stores every epoch and says whether the training continues.

        It interrupts a worker whose supervisor has exited, since no process would restart or stop that; except after
        the last epoch, so that a finished training counts.
        """

        def go_on(number: int, epoch: Epoch) -> bool:
            files.write_epoch(epoch)
            if number < epochs:
                self._require_supervisor()
            return should_continue(epoch)

        return go_on

    def _require_supervisor(self) -> None:
        if os.getppid() != self._supervisor:
            raise KeyboardInterrupt

    def _may_begin(self) -> bool:
        """Return whether a trial may begin; if so, hold the proposal lock."""
        if self._exhausted or time.monotonic() > self.deadline or os.getppid() != self._supervisor:
            return False
        self._proposal_lock.take()
        self.study.read_number_of_trials()
        records = self.study.records()
        if self.study.remaining_trials(records) and not self.study.reason_to_stop(records):
            if self.study.settings.members:  # not before it is known which members are left out
                enqueue_extremes(self.study, records)
            enqueue_repeat(self.study, records)
            return True
        self._proposal_lock.release()
        return False

    def _objective(self, trial: Trial) -> list[float]:
        files = self.study.files(trial.number)
        with Lock(files.lock).held(), _heartbeat(files):
            try:
                shared_trials.mark(self.study, trial)
                trial.set_user_attr(HOST, socket.gethostname())
                architecture = self._propose(trial)
                self._proposal_lock.release()
                log.info("trial %d: %s", trial.number, architecture)
                return self._score(trial, architecture)
            except GpuError as error:  # recovery retries the trial once, as after a crash
                raise _LeftRunning(error) from None
            except (KeyboardInterrupt, NasError) as error:  # of this machine or the data, not of the architecture
                if files.outcome.is_file():
                    raise _LeftRunning(error) from None
                shared_trials.hand_over(self.study, files)
                retry(self.study, trial.number, str(error) or "interrupted")
                raise
            except UpdateFinishedTrialError:  # a machine that this one could not reach for long has given it away
                raise TrialEnded(f"trial {trial.number}: given away to another machine") from None

    def _propose(self, trial: Trial) -> Architecture:
        try:
            with self.study.storage.batch():
                architecture = suggest(trial, self.study.space)
        except SpaceExhaustedError as error:
            trial.set_user_attr(DETAIL, str(error))
            self._exhausted = True
            raise optuna.TrialPruned from None
        if (reason := self._left_out.get(self.study.space.member_name(architecture))) is not None:
            trial.set_user_attr(DETAIL, reason)
            raise optuna.TrialPruned(reason)
        shared_trials.require_alone(self.study, trial, architecture, self._proposal_lock)
        with self.study.storage.batch():
            trial.set_user_attr(ARCHITECTURE, description(architecture, self.study.space))
            trial.set_user_attr(FINGERPRINT, architecture.fingerprint)
        return architecture

    def _score(self, trial: Trial, architecture: Architecture) -> list[float]:
        scoring, files = self.study.scoring, self.study.files(trial.number)
        files.folder.mkdir(parents=True, exist_ok=True)
        files.progress.unlink(missing_ok=True)
        self._take_checkpoint(trial, files)
        limits = limits_of(trial.user_attrs, self.study.settings)
        budget = scoring.budget(architecture, trial.user_attrs.get(REPEAT, 0))
        cached = scoring.recall(architecture, budget, limits, files)
        outcome = cached or self._evaluate(trial, architecture, budget, limits, files)
        files.write_outcome(outcome)
        log.info("trial %d: %s %s", trial.number, outcome.ending, outcome.detail)
        if cached is None:
            scoring.remember(outcome, budget, files)
        if self.study.shared is not None:
            shared_trials.end(self.study, trial, outcome)
        return self._finish(trial, outcome)

    def _take_checkpoint(self, trial: Trial, files: TrialFiles) -> None:
        """Move the checkpoint of the trial that this one retries here; a retry may be killed before it does so."""
        for number in retried(self.study, trial.user_attrs):
            if files.checkpoint.is_file():
                return
            before = self.study.files(number)
            if self.study.shared is not None:
                self.study.shared.fetch(before.checkpoint)
            files.move_checkpoint_from(before)

    def _evaluate(
        self, trial: Trial, architecture: Architecture, budget: Budget, limits: Limits, files: TrialFiles
    ) -> Outcome:
        publisher, reason = EpochPublisher(self.study, trial, files), ""

        def promoted(epoch: Epoch) -> bool:
            nonlocal reason
            publisher.publish()
            if not self.study.settings.stock_only:
                return promote(self.study, trial, architecture, epoch)
            reason = self._stock_rungs.reason_to_stop(architecture, epoch, budget)
            return not reason

        try:
            with self._memory_limit.applied():
                outcome = evaluate(
                    architecture,
                    budget,
                    files.folder,
                    self._epoch_callback(files, budget.epochs, promoted),
                    limits=limits,
                    costs=self.study.scoring.costs(architecture),
                    judging=self.study.judging,
                )
        except MemoryError:  # too little was left for `evaluate` to return the outcome
            outcome = Outcome(architecture=architecture, ending=Ending.OUT_OF_MEMORY, detail="on the host: MemoryError")
        if outcome.ending is Ending.STOPPED:
            outcome = replace(outcome, detail=reason)
        self.outgrown = self._growth.after(ran_out=outcome.ending is Ending.OUT_OF_MEMORY)
        return outcome

    def _finish(self, trial: Trial, outcome: Outcome) -> list[float]:
        """Store the outcome in Optuna; return its objective values.

        Raises:
            TrialPruned: the outcome has no scores.
            BrokenTrialError: the trial failed by an error in the code; it is retried once.
        """
        with self.study.storage.batch():
            values = store_outcome(self.study.settings, trial, outcome_fields(outcome))
        if values is not None:
            return values
        if outcome.ending is Ending.BROKEN:
            if RETRY_OF not in trial.user_attrs:
                retry(self.study, trial.number, outcome.detail)
            raise BrokenTrialError(outcome.detail)
        raise optuna.TrialPruned(outcome.detail)


class _LeftRunning(BaseException):
    """Raised where recovery is to end a trial: its outcome is written, or its process cannot go on.

    Optuna, which fails a trial that raises an `Exception` or a `KeyboardInterrupt`, leaves the trial running.

    Args:
        reason: what has interrupted the trial.
    """

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def _heartbeat(files: TrialFiles) -> Iterator[None]:
    """Write a heartbeat at optimiser steps, about once a second; the supervisor's watchdog reads it."""
    last = time.monotonic()

    def beat(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > _HEARTBEAT_SECONDS:
            last = time.monotonic()
            files.write_heartbeat()

    files.write_heartbeat()
    hook = register_optimizer_step_post_hook(beat)
    try:
        yield
    finally:
        hook.remove()


def main() -> None:
    """Run trials of a study until none remains."""
    parser = argparse.ArgumentParser(prog="python -m nas.execution.worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--deadline", type=float, default=float("inf"))
    parser.add_argument("--memory", type=int)
    parser.add_argument("--supervisor", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor handles Ctrl-C
    faulthandler.enable()  # a crash writes its traceback to the log,
    faulthandler.register(signal.SIGUSR1)  # and so does a trial that hangs, at the supervisor's request
    if arguments.supervisor is not None:
        end_with(arguments.supervisor)
    try:
        study = Study.open(arguments.folder)
        study.is_patient = True
        require_usable(study.settings.budget.device)
        worker = Worker(
            study,
            deadline=arguments.deadline,
            memory=arguments.memory,
            supervisor=arguments.supervisor,
        )
        worker.run()
    except KeyboardInterrupt:
        log.info("stopped")
        return
    except GpuError as error:
        print_problem(unwrapped(error))
        # At once: PyTorch's destructors raise where the context is corrupted, which would abort this process (SIGABRT)
        # and print more behind that line, or they wait for a lost card.
        os._exit(LOST if error.is_lost else CORRUPTED)
    except (NasError, OSError) as error:
        problem = environment_problem(error) if isinstance(error, OSError) else error
        if problem is None:
            raise
        print_problem(unwrapped(problem))
        sys.exit(UNFIT)
    if worker.outgrown:
        log.info("this process uses too much memory; another takes its place")
        sys.exit(OUTGROWN)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
