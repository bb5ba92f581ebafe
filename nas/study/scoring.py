"""Costs, training budgets and cached scores of a study's candidates."""

from functools import cached_property
from pathlib import Path

from nas.records.trial_files import TrialFiles
from nas.settings import Settings
from nas.study.score_cache import ScoreCache, training_key, weights_digest
from nas.study.stock_training import StockTraining
from nas.study.stock_trainings import StockTrainings
from search_spaces import Architecture, Space
from trials import Budget, Limits, Outcome
from trials.budget import Subset
from trials.costing import space_costs
from trials.costing.space_costs import SpaceCosts
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.evaluation import exceeded_limits
from trials.latency.space_latencies import SpaceLatencies
from trials.scores import Costs


def candidate_budget(
    budget: Budget,
    stock_training: StockTraining | None,
    repeat: int,
    *,
    sealed: Path | None = None,
    subset: Subset | None = None,
) -> Budget:
    """Return the budget of a candidate, with its initial weights and the images that the study reads.

    Args:
        budget: of the study.
        repeat: how often the architecture was trained before; added to the seed.
        sealed: the study's `holdout.json`; None if it has sealed no images.
        subset: of the other images; None reads all.
    """
    if stock_training is not None:
        budget = budget.model_copy(update={"weights": stock_training.weights})
    return budget.model_copy(update={"seed": budget.seed + repeat, "sealed": sealed, "subset": subset})


class Scoring:
    """Costs, training budgets and cached scores of a study's candidates.

    Args:
        latency_table: predicts latencies; None if they are measured.
        stock_trainings: their weights are the candidates' initial weights; empty if the budget names those, or they are
            random.
        cache: scores of earlier trainings, of all studies of the user; None if they may not be reused.
        sealed: the study's `holdout.json`; None if it has sealed no images.
    """

    def __init__(
        self,
        space: Space,
        settings: Settings,
        *,
        latency_table: SpaceLatencies | None,
        stock_trainings: StockTrainings,
        cache: ScoreCache | None,
        sealed: Path | None = None,
    ) -> None:
        self._space, self._settings = space, settings
        self._latency_table, self._stock_trainings, self._cache = latency_table, stock_trainings, cache
        self._sealed = sealed

    @cached_property
    def cost_table(self) -> SpaceCosts:
        """Deployed cost of every architecture; building it takes seconds."""
        return self.cost_table_of(self._space)

    def cost_table_of(self, space: Space) -> SpaceCosts:
        """Return the deployed costs of the architectures that are proposed of the study's space."""
        return space_costs.table(space, len(self._settings.classes), self._settings.budget.deploy_size)

    def costs(self, architecture: Architecture) -> Costs | None:
        """Return the costs of an architecture before it is built; None if its latency matters and must be measured."""
        predicted = self._latency_table.predict(architecture) if self._latency_table else None
        if self._settings.needs_latency and predicted is None:
            return None
        counted = self.cost_table.cost(architecture)
        return Costs(params=counted.params, gflops=counted.gflops, latency_ms=predicted)

    def budget(self, architecture: Architecture, repeat: int = 0) -> Budget:
        """Return the `candidate_budget` of an architecture in this study."""
        settings, training = self._settings, self._stock_trainings.of(architecture)
        budget = settings.starting_at(settings.budget, self._space.member_name(architecture))
        return candidate_budget(budget, training, repeat, sealed=self._sealed, subset=settings.subset)

    def recall(self, architecture: Architecture, budget: Budget, limits: Limits, files: TrialFiles) -> Outcome | None:
        """Return the outcome of an equal training from the cache; None if there is none, or a figure is missing."""
        if self._cache is None:
            return None
        key = self._key(architecture, budget)
        cached = self._cache.read(key)
        if cached is None:
            return None
        judged = self._cache.judged_file(key, cached) if self._settings.judging else None
        costs = self.costs(architecture) or Costs(**cached.costs)
        has_latency = costs.latency_ms is not None or not self._settings.needs_latency
        is_complete = has_latency and (judged is not None or self._settings.judging is None)
        if not is_complete or exceeded_limits(costs, limits):
            return None
        return cached.restore(architecture, costs, files, judged=judged)

    def remember(self, outcome: Outcome, budget: Budget, files: TrialFiles) -> None:
        """Put the outcome of a training into the cache; of stock models alone with weights, for later searches."""
        if self._cache is not None:
            key, copies = self._key(outcome.architecture, budget), self._settings.stock_only
            self._cache.write(key, outcome, files, copy_weights=copies)

    def _key(self, architecture: Architecture, budget: Budget) -> str:
        judging = self._settings.judging.fingerprint if self._settings.judging else ""
        return training_key(architecture, budget, self._data, self._initial_weights(architecture), judging=judging)

    @cached_property
    def _data(self) -> DataSet:
        """Data set, checked once: that reads every label."""
        return datasets.load_for(self._settings.budget.data, self._sealed, self._settings.subset)

    def _initial_weights(self, architecture: Architecture) -> str:
        training = self._stock_trainings.of(architecture)
        if training is not None:
            return training.key
        return self._digests[self._space.member_name(architecture)]

    @cached_property
    def _digests(self) -> dict[str, str]:
        """Hash of the checkpoint from which trainings start, by the member's name; empty for random weights."""
        settings = self._settings
        return {
            name: weights_digest(settings.starting_at(settings.budget, name).weights)
            for name in self._space.member_names or ("",)
        }
