"""Train a stock model once per study: its weights are the initial weights of every candidate of its member."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.locks import Lock
from nas.records.trial_files import TrialFiles
from nas.study.score_cache import ScoreCache, training_key, weights_digest
from search_spaces import Architecture
from search_spaces.files import atomic_path
from trials import Budget, Ending, Epoch, Outcome, evaluate
from trials.data import datasets, holdout
from trials.scores import Costs

_FINISHED, _STOPPED = Ending.FINISHED.value, Ending.STOPPED.value


@dataclass(frozen=True, kw_only=True)
class StockTraining:
    """Training of a stock model of a study, which resumes where it was stopped.

    Attributes:
        folder: of the study.
        stock: the base model of a space.
        budget: of this training.
        member: name of that space among several; empty where there is one.
        cache: scores of earlier trainings, of all studies of the user; None if they may not be reused.
    """

    folder: Path
    stock: Architecture
    budget: Budget
    member: str = ""
    cache: ScoreCache | None = None

    @property
    def files(self) -> TrialFiles:
        """Files of the training, named like a trial's."""
        return TrialFiles.of_stock_model(self.folder, self.member)

    @property
    def title(self) -> str:
        """The model in words: `the stock model`, among several `the stock model of v8n`."""
        return f"the stock model of {self.member}" if self.member else "the stock model"

    @property
    def weights(self) -> Path:
        """Initial weights of every candidate."""
        return self.files.weights

    @property
    def lock(self) -> Lock:
        """Lock held by the one process that trains."""
        return Lock(self.files.lock)

    def outcome(self) -> dict[str, Any] | None:
        """Return the stored outcome, as `outcome_fields` writes it; None if the training has not ended."""
        return self.files.read_outcome()

    @property
    def is_done(self) -> bool:
        """Whether candidates can start from its weights."""
        outcome = self.outcome()
        return outcome is not None and outcome["ending"] == _FINISHED and self.weights.is_file()

    @property
    def failure(self) -> str | None:
        """Message on why it ended without weights; None if it did not."""
        outcome = self.outcome()
        if outcome is None or outcome["ending"] in {_FINISHED, _STOPPED}:
            return None
        advice = Ending(outcome["ending"]).advice
        return f"{self.title} could not be trained: {outcome['detail'] or outcome['ending']} ({advice})"

    @property
    def left_out(self) -> str | None:
        """Why nothing starts from its weights: it was stopped at a rung, or has failed; None else."""
        outcome = self.outcome()
        if outcome is not None and outcome["ending"] == _STOPPED:
            return f"{self.title} was not trained further: {outcome['detail']}"
        return self.failure

    @cached_property
    def key(self) -> str:
        """Key of this training in the score cache, and part of the keys of the trainings that start from it."""
        data = datasets.load_for(self.budget.data, self.budget.sealed, self.budget.subset)
        return training_key(self.stock, self.budget, data, weights_digest(self.budget.weights))

    def prepare(self) -> None:
        """Delete the outcome of a failed training, so that it is tried again, or the checkpoint of one that is done."""
        if self.failure:
            self.files.outcome.unlink(missing_ok=True)
        elif self.is_done:
            self.files.checkpoint.unlink(missing_ok=True)

    def copy_from(self, other: "StockTraining") -> None:
        """Take the weights of an equal training that is done, or left out; else change nothing."""
        is_ended = other.is_done or (self.member and other.left_out)
        if self.is_done or not is_ended or not self._equals(other):
            return
        lock = self.lock
        if not lock.take(wait=False):  # a worker trains it
            return
        try:
            for name in ("model", "progress", "weights", "outcome"):  # the outcome last: with it the training is done
                source: Path = getattr(other.files, name)
                if source.is_file():
                    with atomic_path(getattr(self.files, name)) as temporary:
                        shutil.copyfile(source, temporary)
            self.files.checkpoint.unlink(missing_ok=True)
        finally:
            lock.release()

    def _equals(self, other: "StockTraining") -> bool:
        """Return whether two trainings are equal; the list of sealed images lies in the folder of each study."""
        sealed = [None if path is None else holdout.read(path) for path in (self.budget.sealed, other.budget.sealed)]
        budget = self.budget.model_copy(update={"sealed": other.budget.sealed, "rungs": other.budget.rungs})
        return budget == other.budget and sealed[0] == sealed[1] and self.stock.fingerprint == other.stock.fingerprint

    def train(
        self, go_on: Callable[[int, Epoch], bool], costs: Costs | None, why_stopped: Callable[[], str] = str
    ) -> Outcome:
        """Train to the end, or restore an equal training from the score cache; the caller holds the lock.

        Args:
            go_on: called after every epoch; False ends the training.
            costs: of the stock model.
            why_stopped: returns why `go_on` has ended the training, for the outcome.
        """
        self.files.progress.unlink(missing_ok=True)
        self.files.outcome.unlink(missing_ok=True)  # of a training whose weights were deleted
        outcome = self._recall(costs)
        if outcome is None:
            outcome = evaluate(self.stock, self.budget, self.files.folder, go_on, costs=costs)
            if outcome.ending is Ending.STOPPED:
                outcome = replace(outcome, detail=why_stopped())
            if self.cache:
                self.cache.write(self.key, outcome, self.files, copy_weights=True)
        self.files.write_outcome(outcome)
        if outcome.ending in {
            Ending.FINISHED,
            Ending.STOPPED,
        }:  # not before: a worker killed in between would train all epochs again
            self.files.checkpoint.unlink(missing_ok=True)
        return outcome

    def _recall(self, costs: Costs | None) -> Outcome | None:
        """Return the outcome of an equal training from the cache; None if there is none, or its weights are missing."""
        cached = self.cache.read(self.key) if self.cache else None
        if cached is None or not cached.has_weights:
            return None
        return cached.restore(self.stock, costs or Costs(**cached.costs), self.files)
