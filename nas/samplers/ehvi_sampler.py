"""Sampler that proposes by expected hypervolume improvement."""

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
from search_spaces import Architecture, SearchSpace
from trials import Ending

_DRAWN, _MUTATED, _CROSSED, _REPAIRED = 120, 200, 80, 20
"""How a pool is made; measured by how long asking takes, a tenth of a second at a thousand trials."""


_STEPS_MORE, _BEST = 0.4, 5


_STOPPED = Ending.STOPPED.value


class EHVISampler(FilteredSampler):
    """Ours: of a pool of architectures, the one that is expected to add the most to the front.

    The pool is random architectures, neighbours of the front and what lies between two of its members.
    """

    def __init__(self, settings: Settings, space: SearchSpace, feasible: FeasibilityFilter) -> None:
        super().__init__(space, feasible, seed=settings.budget.seed)
        self._settings, self._proposer = settings, Proposer(settings.budget.seed, settings.noise)
        self._known: dict[int, Architecture] = {}

    @cached_property
    def _encoding(self) -> Encoding:
        """Made when it is first needed: whoever only looks at a study counts no costs."""
        known, feasible = self._settings.known_costs, self._feasible
        rewarded = self._settings.rewarded if self._settings.reward else None
        return Encoding(self._space, feasible.ends(), feasible.figures, known, rewarded)

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, seen: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        tried, accuracies, doubts = self._history(study, except_for=trial.number)
        candidates = self._encoding.of(tried)
        pool = self._pool(_parents(tried, candidates, accuracies) or [self._space.stock], seen, rng)
        if pool:
            yield pool[self._proposer.choose(self._encoding.of(pool), candidates, accuracies, doubts)]

    def expected_accuracies(self, study: optuna.Study) -> dict[str, float]:
        """What each architecture that has a score would score if it were trained again, given all others too.

        Returns:
            By fingerprints; nothing while fewer than three have finished.
        """
        tried, accuracies, doubts = self._history(study)
        if np.isfinite(accuracies).sum() < STARTUP_TRIALS:
            return {}
        means = self._proposer.posterior_means(self._encoding.of(tried), accuracies, doubts)
        return {one.fingerprint: mean for one, mean in zip(tried, means.tolist(), strict=True)}

    def _history(
        self, study: optuna.Study, *, except_for: int | None = None
    ) -> tuple[list[Architecture], FloatArray, FloatArray]:
        """What is trained, is being trained and waits for it; accuracies, and how much they are in doubt.

        What was stopped at a rung would have gained what others gained from there. What failed by itself is the worst.
        A trial that repeats another stands in the place of that one.
        """
        every = study.get_trials(deepcopy=False)
        trials = [
            trial
            for trial in sorted(every, key=lambda trial: _first_try(trial, every))
            if trial.number != except_for and FINGERPRINT in trial.user_attrs and trial.state != TrialState.FAIL
        ]
        finished = [trial.user_attrs for trial in trials if trial.state == TrialState.COMPLETE]
        worst = min((told[ACCURACY] for told in finished), default=math.nan)
        known = []
        for trial in trials:
            match trial.state:
                case TrialState.COMPLETE:
                    known.append((trial.user_attrs[ACCURACY], 0.0))
                case TrialState.PRUNED:
                    known.append(_stopped(trial.user_attrs, finished) or (worst, 0.0))
                case _:
                    known.append((math.nan, 0.0))
        accuracies, doubts = np.array(known, dtype=np.float64).reshape(len(known), 2).T
        return [self._architecture(trial) for trial in trials], accuracies, doubts

    def _architecture(self, trial: FrozenTrial) -> Architecture:
        if trial.number not in self._known:
            said = trial.system_attrs.get("fixed_params") or trial.params
            self._known[trial.number] = self._space.architecture(said)
        return self._known[trial.number]

    def _pool(self, parents: Sequence[Architecture], seen: set[str], rng: random.Random) -> list[Architecture]:
        """Feasible, new architectures, each once."""
        space = self._space
        found: dict[str, Architecture] = {}
        drawn = [space.sample(rng) for _ in range(_DRAWN)]
        crossed = [space.cross(rng.choice(parents), rng.choice(parents), rng) for _ in range(_CROSSED)]
        for architecture in [*drawn, *(self._neighbour(rng.choice(parents), rng) for _ in range(_MUTATED)), *crossed]:
            if architecture.fingerprint not in seen and self._feasible.allows(architecture):
                found[architecture.fingerprint] = architecture
        for architecture in drawn[:_REPAIRED]:
            if len(found) >= _REPAIRED:
                break
            repaired = self._feasible.repair(architecture, rng)
            if repaired is not None and repaired.fingerprint not in seen:
                found[repaired.fingerprint] = repaired
        return list(found.values())

    def _neighbour(self, architecture: Architecture, rng: random.Random) -> Architecture:
        steps = 1
        while rng.random() < _STEPS_MORE:
            steps += 1
        return self._space.mutate(architecture, rng, steps=steps)


def _stopped(told: Mapping[str, Any], finished: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """What a stopped trial would have come to, and how much that is in doubt; NaN while nobody can tell.

    None if it was not stopped, but failed.
    """
    if told.get(ENDING) != _STOPPED:
        return None
    rungs = [key for key in told if key.startswith(RUNG)]
    if not rungs:
        return math.nan, 0.0
    last = max(rungs, key=lambda key: int(key.removeprefix(RUNG)))
    gains = [other[ACCURACY] - other[last][0] for other in finished if last in other]
    return extrapolated(told[last][0], gains) or (math.nan, 0.0)


def _parents(tried: Sequence[Architecture], candidates: Candidates, accuracies: FloatArray) -> list[Architecture]:
    """The front of what was scored; by accuracy, or reward, and every cost."""
    scored = np.flatnonzero(np.isfinite(accuracies))
    if candidates.rewards is not None:
        worth = candidates.rewards[scored, 0] * accuracies[scored] + candidates.rewards[scored, 1]
        return [tried[scored[row]] for row in np.argsort(-worth, kind="stable")[:_BEST]]
    points = [(accuracies[row], *candidates.costs[row]) for row in scored]
    return [tried[scored[row]] for row in pareto_front(points, directions_for(costs=candidates.costs.shape[1]))]


def _first_try(trial: FrozenTrial, every: Sequence[FrozenTrial]) -> int:
    """The number of the trial that this one repeats, and of the one that that repeats."""
    while RETRY_OF in trial.user_attrs:
        trial = every[trial.user_attrs[RETRY_OF]]
    return trial.number
