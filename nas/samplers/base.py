"""Proposals, as samplers of Optuna: behind one gate, through which only what is feasible and new comes.

An architecture over a limit is never proposed, nor one that the study has seen: parameters and multiply-adds are known
exactly before training, so only accuracy has to be learned from trials.
"""

import random
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice, product
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from nas.records.trial_attributes import ENDING, FINGERPRINT, RETRY_OF
from nas.samplers.feasibility import FeasibilityFilter
from search_spaces import Architecture, SearchSpace

_DRAWS = 6
_MUTATIONS = 300
_LISTED = 20_000
"""A space with at most so many architectures is searched to the last of them."""


class SpaceExhaustedError(Exception):
    """There is no architecture left to propose."""


class FilteredSampler(BaseSampler):
    """What passes is feasible and new; a subclass says what is tried.

    A proposal depends on the seed and the study's history alone; a trial that was killed and is tried again leaves no
    trace in it.
    """

    def __init__(self, space: SearchSpace, feasible: FeasibilityFilter, *, seed: int) -> None:
        self._space, self._feasible, self._seed = space, feasible, seed
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in space.parameters.items()
        }

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of the space; a proposal names those that its architecture has."""
        return self._distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The parameters of one feasible, new architecture; none if the space is exhausted."""
        if "fixed_params" in trial.system_attrs:  # enqueued: its parameters are known
            return {}
        seen = fingerprints(study, except_for=trial.number)
        rng = random.Random(f"{self._seed}/{len(seen)}")  # noqa: S311 - proposals, not secrets
        for proposal in self._tried(study, trial, seen, rng):
            repaired = self._feasible.repair(proposal, rng)
            if repaired is not None and repaired.fingerprint not in seen:
                return dict(self._space.values(repaired))
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Asked for only where there was no proposal, since a proposal names every parameter of its architecture.

        Raises:
            SpaceExhaustedError: always.
        """
        raise SpaceExhaustedError(f"every architecture within limits has been seen, before trial {trial.number}")

    @abstractmethod
    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, seen: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        """Some architectures, the best first."""

    def _tried(
        self, study: optuna.Study, trial: FrozenTrial, seen: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        """The proposals, then random neighbours of the last of them, then whatever is left of a small space."""
        last = self._space.stock
        for last in self._proposals(study, trial, seen, rng):
            yield last
        for _ in range(_MUTATIONS):
            last = self._space.mutate(last, rng)
            yield last
        if self._space.size <= _LISTED:
            names = [slot.name for slot in self._space.slots]
            factors = [factor.name for factor in self._space.scaling_factors]
            choices = product(*(slot.choices for slot in self._space.slots))
            settings = list(product(*(factor.values for factor in self._space.scaling_factors)))
            for one, setting in islice(product(choices, settings), _LISTED):
                yield self._space.of(dict(zip(names, one, strict=True)), dict(zip(factors, setting, strict=True)))


class RandomSampler(FilteredSampler):
    """Random architectures."""

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, seen: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        for _ in range(_DRAWS):
            yield self._space.sample(rng)


def fingerprints(study: optuna.Study, *, except_for: int) -> set[str]:
    """The architectures that a study has trained, is training or will train, and those that it has given up.

    One whose trial failed may be proposed again, unless that was its second try.
    """
    return {
        trial.user_attrs[FINGERPRINT]
        for trial in study.get_trials(deepcopy=False)
        if trial.number != except_for and FINGERPRINT in trial.user_attrs and not _may_be_repeated(trial)
    }


def _may_be_repeated(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not {RETRY_OF, ENDING} <= trial.user_attrs.keys()
