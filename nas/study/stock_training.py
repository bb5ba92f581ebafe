"""The stock model, trained once for a study before its trials: what every candidate starts from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.locks import Lock
from nas.records.trial_files import TrialFiles
from nas.study.score_cache import ScoreCache, begun_from, key
from search_spaces import Architecture
from trials import Budget, Ending, Epoch, Outcome, evaluate
from trials.data import datasets
from trials.scores import Costs

_FINISHED = Ending.FINISHED.value


@dataclass(frozen=True, kw_only=True)
class BaseTraining:
    """The training of a study's stock model, which goes on where it was stopped.

    Attributes:
        folder: the study's.
        stock: the space's own model.
        budget: of this training alone.
        cache: of trainings that other studies have paid for, if they may be taken.
    """

    folder: Path
    stock: Architecture
    budget: Budget
    cache: ScoreCache | None = None

    @property
    def files(self) -> TrialFiles:
        """As a trial has them."""
        return TrialFiles.of_stock_model(self.folder)

    @property
    def weights(self) -> Path:
        """What every candidate starts from."""
        return self.files.weights

    @property
    def lock(self) -> Lock:
        """Held by the one process that trains."""
        return Lock(self.files.lock)

    def outcome(self) -> dict[str, Any] | None:
        """What `records.told` said of it, or None if it has not ended."""
        return self.files.read_outcome()

    @property
    def is_done(self) -> bool:
        """Whether candidates can start from it."""
        outcome = self.outcome()
        return outcome is not None and outcome["ending"] == _FINISHED and self.weights.is_file()

    @property
    def failure(self) -> str | None:
        """Why it ended without weights, in words; None if it did not."""
        outcome = self.outcome()
        if outcome is None or outcome["ending"] == _FINISHED:
            return None
        cure = Ending(outcome["ending"]).advice
        return f"the stock model could not be trained: {outcome['detail'] or outcome['ending']} ({cure})"

    @cached_property
    def key(self) -> str:
        """Under which the cache knows this training, and what starts from it."""
        return key(self.stock, self.budget, datasets.load(self.budget.data), begun_from(self.budget.weights))

    def forget_failure(self) -> None:
        """Let it be tried again."""
        if self.failure:
            self.files.outcome.unlink(missing_ok=True)

    def train(self, go_on: Callable[[int, Epoch], bool], costs: Costs | None) -> Outcome:
        """Train to the end, unless another study has; the caller holds the lock.

        Args:
            go_on: hears of every epoch.
            costs: of the stock model.
        """
        self.files.progress.unlink(missing_ok=True)
        self.files.outcome.unlink(missing_ok=True)  # of a training whose weights are gone
        outcome = self._recalled(costs)
        if outcome is None:
            outcome = evaluate(self.stock, self.budget, self.files.folder, go_on, costs=costs)
            if self.cache:
                self.cache.remember(self.key, outcome, self.files, keep_weights=True)
        if outcome.ending is Ending.FINISHED:  # nothing goes on from here: candidates start from the weights
            self.files.checkpoint.unlink(missing_ok=True)
        self.files.write_outcome(outcome)
        return outcome

    def _recalled(self, costs: Costs | None) -> Outcome | None:
        """How another study's training of the very same ended, if its weights are still there."""
        known = self.cache.read(self.key) if self.cache else None
        if known is None or not known.has_weights:
            return None
        return known.given(self.stock, costs or Costs(**known.costs), self.files)
