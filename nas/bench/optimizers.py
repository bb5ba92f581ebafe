"""Ask/tell optimizers for the tabular benchmark.

The proposer of this package, its ablations, random search, and Optuna's samplers with their own defaults.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from nas.algorithms.arrays import FloatArray
from nas.algorithms.proposer import STARTUP_TRIALS, Proposer
from nas.bench.tables import CostFeatures, Members, Table, is_numeric

_POPULATION = 20


class Optimizer(Protocol):
    """Ask/tell interface: rows are proposed one by one, each at most once."""

    def ask(self) -> int:
        """Return a row that was not proposed before."""

    def tell(self, row: int, accuracy: float, extra_noise: float = 0.0) -> None:
        """Report the accuracy of the row that was last proposed.

        Args:
            row: that was proposed.
            accuracy: NaN if its training was stopped and cannot be extrapolated yet.
            extra_noise: standard deviation of an extrapolated accuracy.
        """

    def predict(self) -> dict[int, float] | None:
        """Return the predicted accuracy of each row with a result; None without a model of accuracy."""


class RandomSearch:
    """Random permutation of the rows."""

    def __init__(self, table: Table, seed: int) -> None:
        self._rows = iter(np.random.default_rng(seed).permutation(len(table)).tolist())

    def ask(self) -> int:
        """Return the next row."""
        return next(self._rows)

    def tell(self, row: int, accuracy: float, extra_noise: float = 0.0) -> None:
        """Ignore the result."""

    def predict(self) -> None:
        """Return None: there is no model of accuracy."""


class EHVIOptimizer:
    """Proposer of this package, with all remaining rows as its pool.

    Args:
        table: to search.
        seed: of its random draws.
        cost_features: costs that accuracy is learned from, see `Table.candidates`.
        members: what families are to the surrogate, see there.
        spread: whether the first rows are spread over the costs, instead of drawn at random.
        additive: whether the kernel has its additive part.
    """

    def __init__(
        self,
        table: Table,
        seed: int,
        *,
        cost_features: CostFeatures = "all",
        members: Members = "column",
        spread: bool = True,
        additive: bool = True,
    ) -> None:
        self._candidates = table.candidates(cost_features, members)
        self._proposer = Proposer(seed, additive=additive)
        self._startup_rng = None if spread else np.random.default_rng(seed)
        self._rows: list[int] = []
        self._accuracies: list[float] = []
        self._extra_noise: list[float] = []

    def ask(self) -> int:
        """Return the row with the highest expected hypervolume improvement."""
        remaining = np.setdiff1d(np.arange(len(self._candidates)), self._rows)
        if self._startup_rng is not None and len(self._rows) < STARTUP_TRIALS:
            return int(self._startup_rng.choice(remaining))
        tried = self._candidates[np.array(self._rows, dtype=np.intp)]
        accuracies, extra_noise = np.array(self._accuracies), np.array(self._extra_noise)
        return int(remaining[self._proposer.choose(self._candidates[remaining], tried, accuracies, extra_noise)])

    def tell(self, row: int, accuracy: float, extra_noise: float = 0.0) -> None:
        """Add the result to the observations."""
        self._rows.append(row)
        self._accuracies.append(accuracy)
        self._extra_noise.append(extra_noise)

    def predict(self) -> dict[int, float] | None:
        """Return the posterior mean accuracy of each row with a result; None while there are fewer than three."""
        if len(self._rows) < STARTUP_TRIALS:
            return None
        tried = self._candidates[np.array(self._rows, dtype=np.intp)]
        means = self._proposer.posterior_means(tried, np.array(self._accuracies), np.array(self._extra_noise))
        return dict(zip(self._rows, means.tolist(), strict=True))


class OptunaOptimizer:
    """Sampler of Optuna; each of its draws is mapped to the nearest remaining row.

    Nearest is the row that differs in the fewest columns, then by the fewest steps. Optuna gets the result of that
    row, not of the draw.
    """

    def __init__(self, sampler: Callable[..., BaseSampler], table: Table, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate TPE
            made = sampler(seed=seed)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=[each.value for each in table.directions], sampler=made)
        self._table, self._rng = table, np.random.default_rng(seed)
        self._remaining = list(range(len(table)))
        self._steps = np.array([is_numeric(values) for values in table.columns.values()], dtype=np.float64)
        self._distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, len(levels) - 1) if is_numeric(levels) else CategoricalDistribution(levels)
            for name, levels in table.levels.items()
        }

    def ask(self) -> int:
        """Return the remaining row that is nearest to the sampler's draw."""
        trial = self._study.ask(self._distributions)
        drawn = [dist.to_internal_repr(trial.params[name]) for name, dist in self._distributions.items()]
        self._attributes = self._study.tell(trial, state=TrialState.FAIL).system_attrs
        row = self._nearest(np.array(drawn))
        self._remaining.remove(row)
        return row

    def tell(self, row: int, accuracy: float, extra_noise: float = 0.0) -> None:  # noqa: ARG002 - its trainings are never stopped
        """Add a trial of the row, with the system attributes of the draw (the generation of NSGA-II)."""
        codes = dict(zip(self._distributions, self._table.codes[row].tolist(), strict=True))
        params = {name: dist.to_external_repr(codes[name]) for name, dist in self._distributions.items()}
        trial = create_trial(
            params=params,
            distributions=self._distributions,
            values=[accuracy, *self._table.costs[row].tolist()],
            system_attrs=self._attributes,
        )
        self._study.add_trial(trial)

    def predict(self) -> None:
        """Return None: Optuna's samplers have no public model of accuracy."""

    def _nearest(self, drawn: FloatArray) -> int:
        """Return the nearest remaining row; a random one of several."""
        rows = self._rng.permutation(self._remaining)
        differences = np.abs(self._table.codes[rows] - drawn)
        return int(rows[np.lexsort(((differences * self._steps).sum(axis=1), (differences > 0).sum(axis=1)))[0]])


def _tpe(*, seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, seed=seed)


def _nsga2(*, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=_POPULATION, seed=seed)


def _gp(*, seed: int) -> BaseSampler:
    return GPSampler(seed=seed)


OURS, RANDOM = "ours", "random"
STOPPING, REPEATING = "-stopping", "-racing"
"""Suffixes of the names of optimizers with successive halving, or with repeated evaluation of the front."""

ABLATIONS: dict[str, Callable[[Table, int], Optimizer]] = {
    "ours-with-one-cost": partial(EHVIOptimizer, cost_features="objectives"),
    "ours-without-costs": partial(EHVIOptimizer, cost_features="none"),
    "ours-without-spread": partial(EHVIOptimizer, spread=False),
    "ours-without-sum": partial(EHVIOptimizer, additive=False),
}

MEMBERS: dict[str, Callable[[Table, int], Optimizer]] = {
    "ours-with-members": partial(EHVIOptimizer, members="joined"),
    "ours-with-members-apart": partial(EHVIOptimizer, members="apart"),
}
"""Ours with the families of a table as members, with and without learning across them."""

OPTIMIZERS: dict[str, Callable[[Table, int], Optimizer]] = {
    RANDOM: RandomSearch,
    OURS: EHVIOptimizer,
    "tpe": partial(OptunaOptimizer, _tpe),
    "nsga2": partial(OptunaOptimizer, _nsga2),
    "gp": partial(OptunaOptimizer, _gp),
    **MEMBERS,
    **ABLATIONS,
}
