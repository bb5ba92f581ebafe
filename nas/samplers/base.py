"""Base class of Optuna samplers that propose only feasible and new architectures.

An architecture over a limit is never proposed, nor one that the study has already: parameters and multiply-adds are
counted exactly before training, so that only accuracy has to be learned from trials.
"""

import random
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from nas.records.trial_attributes import ENDING, FINGERPRINT, RETRY_OF
from nas.samplers.feasibility import FeasibilityFilter
from search_spaces import Architecture, Space

_DRAWS = 6
_MUTATIONS = 300
_ENUMERATED = 20_000
"""A space with at most so many architectures is enumerated when proposals are exhausted."""


class SpaceExhaustedError(Exception):
    """Raised when no feasible architecture is left to propose."""


class FilteredSampler(BaseSampler):
    """Sampler whose proposals are repaired to be within limits, and filtered to be new.

    A subclass implements `_proposals`. A proposal depends on the seed and the study's history alone; a trial that was
    killed and is retried does not change later ones.

    Args:
        space: to propose from.
        feasible: filter that repairs proposals.
        seed: of all random draws.
    """

    def __init__(self, space: Space, feasible: FeasibilityFilter, *, seed: int) -> None:
        self._space, self._feasible, self._seed = space, feasible, seed
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in space.parameters.items()
        }

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all parameters of the space; a proposal sets those that its architecture has."""
        return self._distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the parameters of one feasible, new architecture; none if the space is exhausted."""
        if "fixed_params" in trial.system_attrs:  # enqueued, with all its parameters
            return {}
        excluded = fingerprints(study, except_for=trial.number)
        rng = random.Random(f"{self._seed}/{len(excluded)}")  # noqa: S311 - proposals, not secrets
        for proposal in self._candidates(study, trial, excluded, rng):
            repaired = self._feasible.repair(proposal, rng)
            if repaired is not None and repaired.fingerprint not in excluded:
                return dict(self._space.values(repaired))
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise: Optuna calls it only if there was no proposal, which sets every parameter of its architecture.

        Raises:
            SpaceExhaustedError: always.
        """
        raise SpaceExhaustedError(f"every architecture within limits has been proposed, before trial {trial.number}")

    @abstractmethod
    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, excluded: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        """Yield some architectures, the best first.

        Args:
            study: with its history.
            trial: that asks.
            excluded: fingerprints that are not proposed again.
            rng: seeded by the number of these.
        """

    def _candidates(
        self, study: optuna.Study, trial: FrozenTrial, excluded: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        """Yield the proposals, then random neighbours of the last of them, then all architectures of a small space."""
        last = self._space.stock
        for last in self._proposals(study, trial, excluded, rng):
            yield last
        for _ in range(_MUTATIONS):
            last = self._space.mutate(last, rng)
            yield last
        if self._space.size <= _ENUMERATED:
            yield from self._space.every()


class RandomSampler(FilteredSampler):
    """Random search."""

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, excluded: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        for _ in range(_DRAWS):
            yield self._space.sample(rng)


def fingerprints(study: optuna.Study, *, except_for: int) -> set[str]:
    """Return the fingerprints of all architectures that are finished, running, enqueued or given up.

    An architecture whose trial failed may be proposed again, unless that trial was a retry.
    """
    return {
        trial.user_attrs[FINGERPRINT]
        for trial in study.get_trials(deepcopy=False)
        if trial.number != except_for and FINGERPRINT in trial.user_attrs and not _may_be_proposed_again(trial)
    }


def _may_be_proposed_again(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not {RETRY_OF, ENDING} <= trial.user_attrs.keys()
