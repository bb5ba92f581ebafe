"""Optuna's samplers behind the feasibility filter."""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.samplers.base import FilteredSampler
from nas.samplers.feasibility import FeasibilityFilter
from search_spaces import Architecture, Space
from search_spaces.operators import Value

_TPE_DRAWS, TPE_STARTUP = 6, 10
_FLAT_DRAWS, POPULATION = 3, 20
"""Population of NSGA-II: with Optuna's default of 50 a study of a hundred trials is random search."""


class GroupedTPESampler(FilteredSampler):
    """Optuna's multivariate, grouped TPE.

    Grouped, because the parameters of a space are conditional: independent TPE would learn each by itself, and NSGA-II
    and GP would always draw conditional ones at random. The constant liar is off: the filter already keeps workers from
    proposing the same architecture, and Optuna would read every running trial from the database for each parameter.
    """

    def __init__(self, space: Space, feasible: FeasibilityFilter, *, seed: int, startup: int) -> None:
        super().__init__(space, feasible, seed=seed)
        self._startup = startup

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, excluded: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        tpe = self._tpe(seed=rng.randrange(2**32))
        groups = tpe.infer_relative_search_space(study, trial)
        for _ in range(_TPE_DRAWS):
            drawn = tpe.sample_relative(study, trial, groups)
            sampled = self._space.sample(rng)
            yield self._space.architecture(_fill_missing(self._space, drawn, rng)) if drawn else sampled

    def _tpe(self, *, seed: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # `group` and `multivariate`, since Optuna 2
            return TPESampler(
                multivariate=True, group=True, constant_liar=False, n_startup_trials=self._startup, seed=seed
            )


class FlatSampler(FilteredSampler):
    """Optuna's NSGA-II or GP on a flat encoding: one categorical parameter for each slot, the index of its choice.

    With conditional parameters these samplers would always draw most of them at random. Each proposal comes from a new
    study in memory with the finished trials of this one, so that it depends on nothing else.
    """

    def __init__(
        self, space: Space, feasible: FeasibilityFilter, sampler: Callable[..., BaseSampler], *, seed: int
    ) -> None:
        super().__init__(space, feasible, seed=seed)
        self._sampler = sampler
        self._flat: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in space.flat_parameters.items()
        }

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, excluded: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        flat = optuna.create_study(directions=study.directions, sampler=self._sampler(seed=rng.randrange(2**32)))
        generation = NSGAIISampler._get_generation_key()  # noqa: SLF001 - Optuna 5 has no other way to set a finished trial's
        for index, done in enumerate(finished):
            flat.add_trial(
                create_trial(
                    params=self._space.flat_values(self._space.architecture(done.params)),
                    distributions=self._flat,
                    values=done.values,
                    system_attrs={generation: index // POPULATION},
                )
            )
        for _ in range(_FLAT_DRAWS):
            drawn = flat.ask(self._flat)
            yield self._space.of_flat(drawn.params)
            flat.tell(drawn, state=TrialState.FAIL)


def _fill_missing(space: Space, drawn: Mapping[str, Value], rng: random.Random) -> dict[str, Value]:
    """Return TPE's draw with random values for parameters that no trial has had yet."""
    return {name: drawn[name] if name in drawn else rng.choice(values) for name, values in space.parameters.items()}
