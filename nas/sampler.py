"""Proposals, as samplers of Optuna: behind one gate, through which only what is feasible and new comes.

An architecture over a limit is never proposed, nor one that the study has seen: parameters and multiply-adds are known
exactly before training, so only accuracy has to be learned from trials.
"""

import math
import random
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice, product
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.attributes import ACCURACY, AGAIN, ENDING, FINGERPRINT, RUNG
from nas.config import Sampler, Settings
from nas.encoding import Encoding
from nas.feasible import Feasible
from nas.front import front, up_and_down
from nas.proposals import STARTUP, Candidates, Proposer
from nas.stopping import foreseen
from nas.surrogate import Numbers
from search_spaces import Architecture, SearchSpace
from search_spaces.operators import Value
from trials import Ending

_TPE_DRAWS, _TPE_STARTUP = 6, 10
_FLAT_DRAWS, _POPULATION = 3, 20
"""Of NSGA-II's population: with Optuna's default of 50 a study of a hundred trials is random search."""
_MUTATIONS = 300
_LISTED = 20_000
"""A space with at most so many architectures is searched to the last of them."""
_DRAWN, _MUTATED, _CROSSED, _REPAIRED = 120, 200, 80, 20
"""How a pool is made; measured by how long asking takes, a tenth of a second at a thousand trials."""
_STEPS_MORE, _BEST = 0.4, 5
_STOPPED = Ending.STOPPED.name.lower()


class SpaceExhaustedError(Exception):
    """There is no architecture left to propose."""


class Gate(BaseSampler):
    """What passes is feasible and new; a subclass says what is tried.

    A proposal depends on the seed and the study's history alone; a trial that was killed and is tried again leaves no
    trace in it.
    """

    def __init__(self, space: SearchSpace, feasible: Feasible, *, seed: int) -> None:
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
            repaired = self._feasible.repaired(proposal, rng)
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
            dials = [dial.name for dial in self._space.dials]
            choices = product(*(slot.choices for slot in self._space.slots))
            settings = list(product(*(dial.values for dial in self._space.dials)))
            for one, setting in islice(product(choices, settings), _LISTED):
                yield self._space.of(dict(zip(names, one, strict=True)), dict(zip(dials, setting, strict=True)))


class RandomSampler(Gate):
    """Random architectures."""

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, seen: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        for _ in range(_TPE_DRAWS):
            yield self._space.sample(rng)


class TreeSampler(Gate):
    """Optuna's multivariate, grouped TPE.

    Grouped, because the parameters of a space are conditional: independent TPE would learn each by itself, and NSGA-II
    and GP would leave conditional ones random for ever. Constant liar is off: the gate keeps workers from proposing
    the same architecture, and Optuna would re-read every running trial from the database for each parameter.
    """

    def __init__(self, space: SearchSpace, feasible: Feasible, *, seed: int, startup: int) -> None:
        super().__init__(space, feasible, seed=seed)
        self._startup = startup

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, seen: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        tpe = self._tpe(seed=rng.randrange(2**32))
        groups = tpe.infer_relative_search_space(study, trial)
        for _ in range(_TPE_DRAWS):
            drawn = tpe.sample_relative(study, trial, groups)
            sampled = self._space.sample(rng)
            yield self._space.architecture(_filled(self._space, drawn, rng)) if drawn else sampled

    def _tpe(self, *, seed: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # `group` and `multivariate`, since Optuna 2
            return TPESampler(
                multivariate=True, group=True, constant_liar=False, n_startup_trials=self._startup, seed=seed
            )


class FlatSampler(Gate):
    """Optuna's NSGA-II or GP, to which a space is said flat: one parameter for each slot, its choice's number.

    Said with conditional parameters, these would draw most of them at random for ever. What they are asked is a study
    in memory, made of this one's finished trials each time, so that a proposal depends on nothing else.
    """

    def __init__(
        self, space: SearchSpace, feasible: Feasible, sampler: Callable[..., BaseSampler], *, seed: int
    ) -> None:
        super().__init__(space, feasible, seed=seed)
        self._sampler = sampler
        self._flat: dict[str, BaseDistribution] = {
            **{slot.name: CategoricalDistribution(range(len(slot.choices))) for slot in space.slots},
            **{dial.spelled: CategoricalDistribution(dial.values) for dial in space.dials},
        }

    def _proposals(
        self, study: optuna.Study, trial: FrozenTrial, seen: set[str], rng: random.Random
    ) -> Iterator[Architecture]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        flat = optuna.create_study(directions=study.directions, sampler=self._sampler(seed=rng.randrange(2**32)))
        generation = NSGAIISampler._get_generation_key()  # noqa: SLF001 - Optuna 5 has no other way to say a finished trial's
        for index, told in enumerate(finished):
            flat.add_trial(
                create_trial(
                    params=self._said(self._space.architecture(told.params)),
                    distributions=self._flat,
                    values=told.values,
                    system_attrs={generation: index // _POPULATION},
                )
            )
        for _ in range(_FLAT_DRAWS):
            drawn = flat.ask(self._flat)
            yield self._meant(drawn.params)
            flat.tell(drawn, state=TrialState.FAIL)

    def _said(self, architecture: Architecture) -> dict[str, Any]:
        choices, turned = self._space.choices(architecture), self._space.turned(architecture)
        numbers = {slot.name: slot.choices.index(choices[slot.name]) for slot in self._space.slots}
        return {**numbers, **{dial.spelled: turned[dial.name] for dial in self._space.dials}}

    def _meant(self, said: Mapping[str, Any]) -> Architecture:
        return self._space.of(
            {slot.name: slot.choices[said[slot.name]] for slot in self._space.slots},
            {dial.name: said[dial.spelled] for dial in self._space.dials},
        )


class GainSampler(Gate):
    """Ours: of a pool of architectures, the one that is expected to add the most to the front.

    The pool is random architectures, neighbours of the front and what lies between two of its members.
    """

    def __init__(self, settings: Settings, space: SearchSpace, feasible: Feasible) -> None:
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

    def expected(self, study: optuna.Study) -> dict[str, float]:
        """What each architecture that has a score would score if it were trained again, given all others too.

        Returns:
            By fingerprints; nothing while fewer than three have finished.
        """
        tried, accuracies, doubts = self._history(study)
        if np.isfinite(accuracies).sum() < STARTUP:
            return {}
        means = self._proposer.expected(self._encoding.of(tried), accuracies, doubts)
        return {one.fingerprint: mean for one, mean in zip(tried, means.tolist(), strict=True)}

    def _history(
        self, study: optuna.Study, *, except_for: int | None = None
    ) -> tuple[list[Architecture], Numbers, Numbers]:
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
            repaired = self._feasible.repaired(architecture, rng)
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
    return foreseen(told[last][0], gains) or (math.nan, 0.0)


def _parents(tried: Sequence[Architecture], candidates: Candidates, accuracies: Numbers) -> list[Architecture]:
    """The front of what was scored; by accuracy, or reward, and every cost."""
    scored = np.flatnonzero(np.isfinite(accuracies))
    if candidates.rewards is not None:
        worth = candidates.rewards[scored, 0] * accuracies[scored] + candidates.rewards[scored, 1]
        return [tried[scored[row]] for row in np.argsort(-worth, kind="stable")[:_BEST]]
    points = [(accuracies[row], *candidates.costs[row]) for row in scored]
    return [tried[scored[row]] for row in front(points, up_and_down(costs=candidates.costs.shape[1]))]


def sampler_of(settings: Settings, space: SearchSpace, feasible: Feasible, *, trials: int) -> Gate:
    """Who proposes in a study.

    Args:
        trials: that it is to have; TPE draws at random for the first half of a short one.
    """
    match settings.sampler:
        case Sampler.OURS:
            return GainSampler(settings, space, feasible)
        case Sampler.TPE:
            startup = max(5, min(_TPE_STARTUP, trials // 2))
            return TreeSampler(space, feasible, seed=settings.budget.seed, startup=startup)
        case Sampler.NSGA2:
            nsga2 = partial(NSGAIISampler, population_size=_POPULATION)
            return FlatSampler(space, feasible, nsga2, seed=settings.budget.seed)
        case Sampler.GP:
            return FlatSampler(space, feasible, GPSampler, seed=settings.budget.seed)
        case Sampler.RANDOM:
            return RandomSampler(space, feasible, seed=settings.budget.seed)


def fingerprints(study: optuna.Study, *, except_for: int) -> set[str]:
    """The architectures that a study has trained, is training or will train, and those that it has given up.

    One whose trial failed may be proposed again, unless that was its second try.
    """
    return {
        trial.user_attrs[FINGERPRINT]
        for trial in study.get_trials(deepcopy=False)
        if trial.number != except_for and FINGERPRINT in trial.user_attrs and not _may_be_repeated(trial)
    }


def _first_try(trial: FrozenTrial, every: Sequence[FrozenTrial]) -> int:
    """The number of the trial that this one repeats, and of the one that that repeats."""
    while AGAIN in trial.user_attrs:
        trial = every[trial.user_attrs[AGAIN]]
    return trial.number


def _may_be_repeated(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not {AGAIN, ENDING} <= trial.user_attrs.keys()


def _filled(space: SearchSpace, drawn: Mapping[str, Value], rng: random.Random) -> dict[str, Value]:
    """TPE's draw with random values for the parameters that it has not seen in any trial yet."""
    return {name: drawn[name] if name in drawn else rng.choice(values) for name, values in space.parameters.items()}
