"""Proposals: Optuna's TPE, made feasible and new before anything is built.

An architecture over a limit is never proposed, nor one that the study has seen: parameters and multiply-adds are known
exactly before training, so only accuracy has to be learned from trials.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, product
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Architecture, Choice, SearchSpace, Slot
from search_spaces.operators import Value
from trials import Limits
from trials.cost import CostTable
from trials.latency_table import LatencyTable

FINGERPRINT = "fingerprint"
"""The user attribute by which a trial says its architecture."""
AGAIN, ENDING = "again", "ending"
"""Those by which it says which trial it repeats, and how it ended."""

_TPE_DRAWS = 6
_MUTATIONS = 300
_LISTED = 20_000
"""A space with at most so many architectures is searched to the last of them."""


class SpaceExhaustedError(Exception):
    """There is no architecture left to propose."""


class Feasible:
    """Which architectures of a space are within the limits that are known before anything is built.

    Args:
        table: gives the costs; not asked for as long as there are no limits.
        predicted: gives latencies, where a device's table does.
    """

    def __init__(
        self,
        space: SearchSpace,
        table: Callable[[], CostTable],
        limits: Limits,
        predicted: LatencyTable | None = None,
    ) -> None:
        self._space, self._table, self._limits, self._predicted = space, table, limits, predicted

    def excess(self, architecture: Architecture) -> str | None:
        """The figure of a layer, `macs`, `params` or `ms`, whose sum is over its limit; None if none is."""
        most_ms = self._limits.latency_ms
        if self._predicted is not None and most_ms is not None and self._predicted.predict(architecture) > most_ms:
            return "ms"
        if self._limits.gflops is None and self._limits.params is None:
            return None
        cost = self._table().cost(architecture)
        if self._limits.gflops is not None and cost.gflops > self._limits.gflops:
            return "macs"
        if self._limits.params is not None and cost.params > self._limits.params:
            return "params"
        return None

    def repaired(self, architecture: Architecture, rng: random.Random) -> Architecture | None:
        """The architecture with cheaper choices in as many random slots as it takes; None if none are left."""
        while (figure := self.excess(architecture)) is not None:
            cheaper = self._cheaper(architecture, figure)
            if not cheaper:
                return None
            architecture = rng.choice(cheaper[rng.choice(sorted(cheaper))])()
        if self._space.dials and self._space.obstacle(architecture):
            return None
        return architecture

    def _cheaper(self, architecture: Architecture, figure: str) -> dict[str, list[Callable[[], Architecture]]]:
        """Ways to change one slot or dial so that the architecture costs less, by that slot's or dial's name."""
        space, standing = self._space, self._space.choices(architecture)
        cheaper: dict[str, list[Callable[[], Architecture]]] = {}
        for slot in space.slots:
            now = self._figure(slot, standing[slot.name], architecture, figure)
            for choice in slot.choices:
                if self._figure(slot, choice, architecture, figure) < now:
                    cheaper.setdefault(slot.name, []).append(partial(space.with_choice, architecture, slot, choice))
        turned = space.turned(architecture)
        for dial in space.dials:
            less = [value for value in dial.values if value < turned[dial.name]]
            if less:
                cheaper[dial.name] = [partial(space.with_dial, architecture, dial, value) for value in less]
        return cheaper

    def _figure(self, slot: Slot, choice: Choice, architecture: Architecture, figure: str) -> float:
        """What a choice costs in the layers of its slot."""
        if figure == "ms":
            assert self._predicted is not None  # noqa: S101 - who else said that it is over
            return self._predicted.slot_ms(slot, choice, architecture.macro)
        return float(getattr(self._table().slot(slot, choice, architecture.macro), figure))


class FeasibleTPE(BaseSampler):
    """Optuna's multivariate, grouped TPE behind a gate: what passes is feasible and new.

    Grouped, because the parameters of a space are conditional: independent TPE would learn each by itself, and NSGA-II
    and GP would leave conditional ones random for ever. Constant liar is off: the gate keeps workers from proposing
    the same architecture, and Optuna would re-read every running trial from the database for each parameter.

    A proposal depends on the seed, the trial's number and the study's history.
    """

    def __init__(self, space: SearchSpace, feasible: Feasible, *, seed: int, startup: int) -> None:
        self._space, self._feasible, self._seed, self._startup = space, feasible, seed, startup
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
        rng = random.Random(f"{self._seed}/{trial.number}")  # noqa: S311 - proposals, not secrets
        seen = fingerprints(study, except_for=trial.number)
        for proposal in self._proposals(study, trial, rng):
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

    def _tpe(self, *, seed: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # `group` and `multivariate`, since Optuna 2
            return TPESampler(
                multivariate=True, group=True, constant_liar=False, n_startup_trials=self._startup, seed=seed
            )

    def _proposals(self, study: optuna.Study, trial: FrozenTrial, rng: random.Random) -> Iterator[Architecture]:
        """TPE's draws, then random neighbours of the last of them, then whatever is left of a small space."""
        tpe = self._tpe(seed=rng.randrange(2**32))
        groups = tpe.infer_relative_search_space(study, trial)
        last = self._space.stock
        for _ in range(_TPE_DRAWS):
            drawn = tpe.sample_relative(study, trial, groups)
            sampled = self._space.sample(rng)
            last = self._space.architecture(_filled(self._space, drawn, rng)) if drawn else sampled
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
    return trial.state == TrialState.FAIL and not {AGAIN, ENDING} <= trial.user_attrs.keys()


def _filled(space: SearchSpace, drawn: Mapping[str, Value], rng: random.Random) -> dict[str, Value]:
    """TPE's draw with random values for the parameters that it has not seen in any trial yet."""
    return {name: drawn[name] if name in drawn else rng.choice(values) for name, values in space.parameters.items()}
