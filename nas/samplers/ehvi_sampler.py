"""Sampler that maximises expected hypervolume improvement over a pool of architectures."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.algorithms.arrays import FloatArray
from nas.algorithms.pareto import directions_for, pareto_front
from nas.algorithms.proposer import STARTUP_TRIALS, Candidates, Proposer
from nas.algorithms.successive_halving import extrapolated
from nas.records.trial_attributes import ACCURACY, ENDING, FINGERPRINT, RETRY_OF, RUNG
from nas.samplers.base import FilteredSampler
from nas.samplers.encoding import Encoding
from nas.samplers.feasibility import FeasibilityFilter
from nas.settings import Settings
from search_spaces import Architecture, Space
from trials import Ending

_DRAWN, _MUTATED, _CROSSED, _REPAIRED = 120, 200, 80, 20
"""Architectures of a pool; so many that a proposal takes a tenth of a second at a thousand trials."""
_ANOTHER_STEP, _BEST = 0.4, 5
"""Probability of each further mutation; number of parents by reward."""
_STOPPED = Ending.STOPPED.value


class EHVISampler(FilteredSampler):
    """Sampler that proposes the architecture with the highest expected hypervolume improvement (EHVI) of a pool.

    With a reward instead of costs, the highest expected improvement of the reward. The pool has random architectures,
    mutations of the Pareto front, and crossovers of two of its members.
    """

    def __init__(self, settings: Settings, space: Space, feasible: FeasibilityFilter) -> None:
        super().__init__(space, feasible, seed=settings.budget.seed)
        self._settings, self._proposer = settings, Proposer(settings.budget.seed, settings.noise)
        self._architectures: dict[int, Architecture] = {}

    @cached_property
    def _encoding(self) -> Encoding:
        """Encoding of the space; made when it is first used, because it counts costs."""
        costs, feasible = self._settings.predicted_costs, self._feasible
        rewarded = self._settings.rewarded if self._settings.reward else None
        return Encoding(self._space, feasible.extremes(), feasible.figures, costs, rewarded)

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, excluded: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        tried, accuracies, extra_noise = self._history(study, except_for=trial.number)
        candidates = self._encoding.of(tried)
        pool = self._pool(_parents(tried, candidates, accuracies) or [self._space.stock], excluded, rng)
        if pool:
            yield pool[self._proposer.choose(self._encoding.of(pool), candidates, accuracies, extra_noise)]

    def expected_accuracies(self, study: optuna.Study) -> dict[str, float]:
        """Return the posterior mean accuracy of each tried architecture, by fingerprint.

        Returns:
            Empty while fewer than three have a score.
        """
        tried, accuracies, extra_noise = self._history(study)
        if np.isfinite(accuracies).sum() < STARTUP_TRIALS:
            return {}
        means = self._proposer.posterior_means(self._encoding.of(tried), accuracies, extra_noise)
        return {one.fingerprint: mean for one, mean in zip(tried, means.tolist(), strict=True)}

    def _history(
        self, study: optuna.Study, *, except_for: int | None = None
    ) -> tuple[list[Architecture], FloatArray, FloatArray]:
        """Return the finished, running and enqueued architectures, their accuracies and extra noise.

        A trial stopped at a rung has its extrapolated accuracy. A pruned trial without a rung (diverged, out of memory,
        timed out, crashed) has the worst accuracy; trials in state FAIL are left out. A running trial has NaN. A retry
        stands in the place of the trial that it retries.

        Returns:
            Architectures, accuracies and extra noise, `(tried,)` each.
        """
        every = study.get_trials(deepcopy=False)
        trials = [
            trial
            for trial in sorted(every, key=lambda trial: _first_try(trial, every))
            if trial.number != except_for and FINGERPRINT in trial.user_attrs and trial.state != TrialState.FAIL
        ]
        finished = [trial.user_attrs for trial in trials if trial.state == TrialState.COMPLETE]
        worst = min((attributes[ACCURACY] for attributes in finished), default=math.nan)
        results = []
        for trial in trials:
            match trial.state:
                case TrialState.COMPLETE:
                    results.append((trial.user_attrs[ACCURACY], 0.0))
                case TrialState.PRUNED:
                    results.append(_extrapolated(trial.user_attrs, finished) or (worst, 0.0))
                case _:
                    results.append((math.nan, 0.0))
        accuracies, extra_noise = np.array(results, dtype=np.float64).reshape(len(results), 2).T
        return [self._architecture(trial) for trial in trials], accuracies, extra_noise

    def _architecture(self, trial: FrozenTrial) -> Architecture:
        if trial.number not in self._architectures:
            params = trial.system_attrs.get("fixed_params") or trial.params
            self._architectures[trial.number] = self._space.architecture(params)
        return self._architectures[trial.number]

    def _pool(self, parents: Sequence[Architecture], excluded: set[str], rng: random.Random) -> list[Architecture]:
        """Return feasible, new architectures, each once."""
        space = self._space
        pool: dict[str, Architecture] = {}
        drawn = [space.sample(rng) for _ in range(_DRAWN)]
        crossed = [space.cross(rng.choice(parents), rng.choice(parents), rng) for _ in range(_CROSSED)]
        for architecture in [*drawn, *(self._neighbour(rng.choice(parents), rng) for _ in range(_MUTATED)), *crossed]:
            if architecture.fingerprint not in excluded and self._feasible.allows(architecture):
                pool[architecture.fingerprint] = architecture
        for architecture in drawn[:_REPAIRED]:
            if len(pool) >= _REPAIRED:
                break
            repaired = self._feasible.repair(architecture, rng)
            if repaired is not None and repaired.fingerprint not in excluded:
                pool[repaired.fingerprint] = repaired
        return list(pool.values())

    def _neighbour(self, architecture: Architecture, rng: random.Random) -> Architecture:
        steps = 1
        while rng.random() < _ANOTHER_STEP:
            steps += 1
        return self._space.mutate(architecture, rng, steps=steps)


def _extrapolated(attributes: Mapping[str, Any], finished: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Return the extrapolated accuracy of a stopped trial and its standard deviation; NaN while too few have finished.

    None if the trial was not stopped, but failed.
    """
    if attributes.get(ENDING) != _STOPPED:
        return None
    rungs = [key for key in attributes if key.startswith(RUNG)]
    if not rungs:
        return math.nan, 0.0
    last = max(rungs, key=lambda key: int(key.removeprefix(RUNG)))
    gains = [other[ACCURACY] - other[last][0] for other in finished if last in other]
    return extrapolated(attributes[last][0], gains) or (math.nan, 0.0)


def _parents(tried: Sequence[Architecture], candidates: Candidates, accuracies: FloatArray) -> list[Architecture]:
    """Return the Pareto front of accuracy and costs, or the best by reward, of the scored architectures."""
    scored = np.flatnonzero(np.isfinite(accuracies))
    if candidates.rewards is not None:
        rewards = candidates.rewards[scored, 0] * accuracies[scored] + candidates.rewards[scored, 1]
        return [tried[scored[row]] for row in np.argsort(-rewards, kind="stable")[:_BEST]]
    points = [(accuracies[row], *candidates.costs[row]) for row in scored]
    return [tried[scored[row]] for row in pareto_front(points, directions_for(costs=candidates.costs.shape[1]))]


def _first_try(trial: FrozenTrial, every: Sequence[FrozenTrial]) -> int:
    """Return the number of the first attempt in a chain of retries; of a trial that retries none, its number."""
    while RETRY_OF in trial.user_attrs:
        trial = every[trial.user_attrs[RETRY_OF]]
    return trial.number
