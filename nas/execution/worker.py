"""Worker process: ask for an architecture, score it, tell Optuna; repeat, on a study that other workers share.

The supervisor starts one per device, as `python -m nas.execution.worker FOLDER`. It lives as long as trials remain, so
that imports and decoded images are paid for once.
"""

import argparse
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import optuna
from optuna.trial import Trial
from torch.optim.optimizer import register_optimizer_step_post_hook

from nas.execution import recovery
from nas.execution.pruning import judge, limits_for, settle
from nas.locks import Lock
from nas.records.trial_attributes import DETAIL, FINGERPRINT, MACHINE, REPEAT, RETRY_OF
from nas.records.trial_files import TrialFiles, outcome_fields
from nas.samplers.base import SpaceExhaustedError
from nas.samplers.suggest import suggest
from nas.study.study import Study
from search_spaces import Architecture
from search_spaces.errors import NasError
from trials import Budget, Ending, Epoch, Limits, Outcome, evaluate
from trials.machine import Ceiling, Growth, end_with
from trials.scores import GoOn

log = logging.getLogger("nas.worker")

_POLL_SECONDS = 0.2
OUTGROWN = 75
"""The exit code of a worker that holds too much memory, and asks for another in its place (`EX_TEMPFAIL`)."""
UNFIT, PROBLEM = 78, "problem: "
"""The exit code of a worker that cannot work here (`EX_CONFIG`), and what its log's last line begins with: why."""
_SIGN_SECONDS = 1.0


class BrokenTrialError(Exception):
    """A trial failed by an error that is no property of its architecture."""


class Worker:
    """One process's share of a study.

    Attributes:
        deadline: in seconds of `time.time`; no trial begins after it.
        outgrown: whether it ended because it held too much memory.

    Args:
        memory: bytes that it may allocate for its trials; None is without end.
        supervisor: the process that started it; None is its present parent.
    """

    def __init__(
        self, study: Study, *, deadline: float, memory: int | None = None, supervisor: int | None = None
    ) -> None:
        self.study, self.deadline = study, deadline
        self.outgrown = False
        self._ceiling, self._growth = Ceiling(memory), Growth()
        self._asking = study.asking
        self._supervisor = os.getppid() if supervisor is None else supervisor
        self._exhausted = False

    def run(self) -> None:
        """Work until no place is left, or too much memory is held."""
        self._lay_base()
        while not self.outgrown and self._may_begin():
            try:
                self.study.optuna.optimize(self._objective, n_trials=1, catch=(BrokenTrialError,))
            finally:
                self._asking.release()

    def _lay_base(self) -> None:
        """Train the stock model, or wait for the worker that does."""
        base = self.study.base
        while base is not None and not base.is_done and not base.failure:
            lock = base.lock
            if not lock.take(wait=False):
                self._require_supervisor()
                time.sleep(_POLL_SECONDS)
                continue
            try:
                if not base.is_done and not base.failure:
                    log.info("training the stock model")
                    with self._ceiling.held(), _signs_of_life(base.files):
                        outcome = base.train(self._noting(base.files, base.budget.epochs), self.study.costs(base.stock))
                    log.info("stock model: %s %s", outcome.ending, outcome.detail)
            finally:
                lock.release()

    def _noting(self, files: TrialFiles, epochs: int, judge: Callable[[Epoch], bool] = lambda _: True) -> GoOn:
        """Note every epoch; a worker whose supervisor is gone stops: nobody would start or stop it any more.

        Not after the last epoch: what is trained to its end is kept.
        """

        def go_on(number: int, epoch: Epoch) -> bool:
            files.write_epoch(epoch)
            if number < epochs:
                self._require_supervisor()
            return judge(epoch)

        return go_on

    def _require_supervisor(self) -> None:
        if os.getppid() != self._supervisor:
            raise KeyboardInterrupt

    def _may_begin(self) -> bool:
        """Take the lock under which places are counted and architectures proposed; keep it if there is a place."""
        if self._exhausted or time.time() > self.deadline or os.getppid() != self._supervisor:
            return False
        self._asking.take()
        records = self.study.records()
        if self.study.places(records) and not self.study.fuse(records):
            self.study.race(records)
            return True
        self._asking.release()
        return False

    def _objective(self, trial: Trial) -> list[float]:
        files = self.study.files(trial.number)
        with Lock(files.lock).held(), _signs_of_life(files):
            try:
                trial.set_user_attr(MACHINE, socket.gethostname())
                architecture = self._propose(trial)
                self._asking.release()
                log.info("trial %d: %s", trial.number, architecture)
                return self._score(trial, architecture)
            except KeyboardInterrupt:
                recovery.again(self.study, trial.number, "interrupted")
                raise
            except NasError as error:  # of this machine, or the data: no fault of the architecture
                recovery.again(self.study, trial.number, str(error))
                raise

    def _propose(self, trial: Trial) -> Architecture:
        try:
            architecture = suggest(trial, self.study.space)
        except SpaceExhaustedError as error:
            trial.set_user_attr(DETAIL, str(error))
            self._exhausted = True
            raise optuna.TrialPruned from None
        trial.set_user_attr(FINGERPRINT, architecture.fingerprint)
        return architecture

    def _score(self, trial: Trial, architecture: Architecture) -> list[float]:
        study, files = self.study, self.study.files(trial.number)
        files.folder.mkdir(parents=True, exist_ok=True)
        files.progress.unlink(missing_ok=True)
        if RETRY_OF in trial.user_attrs:
            files.move_checkpoint_from(study.files(trial.user_attrs[RETRY_OF]))
        limits = limits_for(trial.user_attrs, study.settings.limits)
        budget = study.budget_of(trial.user_attrs.get(REPEAT, 0))
        known = study.recalled(architecture, budget, limits, files)
        outcome = known or self._evaluated(trial, architecture, budget, limits, files)
        files.write_outcome(outcome)
        log.info("trial %d: %s %s", trial.number, outcome.ending, outcome.detail)
        if known is None:
            study.remember(outcome, budget, files)
        return self._tell(trial, outcome)

    def _evaluated(
        self, trial: Trial, architecture: Architecture, budget: Budget, limits: Limits, files: TrialFiles
    ) -> Outcome:
        study = self.study
        try:
            with self._ceiling.held():
                outcome = evaluate(
                    architecture,
                    budget,
                    files.folder,
                    self._noting(files, budget.epochs, partial(judge, study, trial, architecture)),
                    limits=limits,
                    costs=study.costs(architecture),
                )
        except MemoryError:  # so little was left that the ending could not be written
            outcome = Outcome(architecture=architecture, ending=Ending.OUT_OF_MEMORY, detail="on the host: MemoryError")
        self.outgrown = self._growth.after(ran_out=outcome.ending is Ending.OUT_OF_MEMORY)
        return outcome

    def _tell(self, trial: Trial, outcome: Outcome) -> list[float]:
        """Store what is known, then give Optuna values, a pruned trial or a failed one."""
        values = settle(self.study.settings, trial, outcome_fields(outcome))
        if values is not None:
            return values
        if outcome.ending is Ending.BROKEN:
            if RETRY_OF not in trial.user_attrs:
                recovery.again(self.study, trial.number, outcome.detail)
            raise BrokenTrialError(outcome.detail)
        raise optuna.TrialPruned(outcome.detail)


@contextmanager
def _signs_of_life(files: TrialFiles) -> Iterator[None]:
    """Sign at every step of an optimiser, about once a second: the supervisor ends a trial that shows no sign."""
    signed = time.monotonic()

    def sign(*_: object) -> None:
        nonlocal signed
        if time.monotonic() - signed > _SIGN_SECONDS:
            signed = time.monotonic()
            files.write_heartbeat()

    files.write_heartbeat()
    hook = register_optimizer_step_post_hook(sign)
    try:
        yield
    finally:
        hook.remove()


def main() -> None:
    """Work on a study until no place is left."""
    parser = argparse.ArgumentParser(prog="python -m nas.execution.worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--deadline", type=float, default=float("inf"))
    parser.add_argument("--memory", type=int)
    parser.add_argument("--supervisor", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to pass on
    faulthandler.enable()  # a crash says where, in the log,
    faulthandler.register(signal.SIGUSR1)  # and so does a trial that hangs, when the supervisor asks
    if arguments.supervisor is not None:
        end_with(arguments.supervisor)
    try:
        worker = Worker(
            Study.open(arguments.folder),
            deadline=arguments.deadline,
            memory=arguments.memory,
            supervisor=arguments.supervisor,
        )
        worker.run()
    except KeyboardInterrupt:
        log.info("stopped")
        return
    except NasError as error:
        print(f"{PROBLEM}{' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - the supervisor reads it
        sys.exit(UNFIT)
    if worker.outgrown:
        log.info("this process has grown too large; another takes its place")
        sys.exit(OUTGROWN)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
