"""Who plays on a table: what proposes one row after the other, none twice, and is told its accuracy.

Ours, ours without one of its parts, chance, and Optuna's samplers as they come.
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
from nas.bench.tables import CostFeatures, Table, is_numeric

_POPULATION = 20


class Optimizer(Protocol):
    """Asked and told in turn."""

    def ask(self) -> int:
        """A row that was not asked for before."""

    def tell(self, row: int, accuracy: float, doubt: float = 0.0) -> None:
        """What the row that was just asked for is worth.

        Args:
            accuracy: NaN if its training was stopped and nobody can tell.
            doubt: the standard deviation of an accuracy that is foreseen only.
        """

    def expected(self) -> dict[int, float] | None:
        """What each row that it has had would score another time; None if it has no opinion."""


class RandomSearch:
    """Every order of the rows is as likely as any other."""

    def __init__(self, table: Table, seed: int) -> None:
        self._rows = iter(np.random.default_rng(seed).permutation(len(table)).tolist())

    def ask(self) -> int:
        """The next row."""
        return next(self._rows)

    def tell(self, row: int, accuracy: float, doubt: float = 0.0) -> None:
        """It does not care."""

    def expected(self) -> None:
        """It has no opinion."""


class EHVIOptimizer:
    """The proposer of this package, with all rows that are left as its pool.

    Args:
        learned_from: which costs accuracy is learned from, too, see `Table.candidates`.
        spread: whether the first rows are spread over the costs, instead of drawn.
        additive: whether what is equal adds up, beside being alike as a whole.
    """

    def __init__(
        self,
        table: Table,
        seed: int,
        *,
        learned_from: CostFeatures = "all costs",
        spread: bool = True,
        additive: bool = True,
    ) -> None:
        self._candidates = table.candidates(learned_from)
        self._proposer = Proposer(seed, additive=additive)
        self._drawn = None if spread else np.random.default_rng(seed)
        self._rows: list[int] = []
        self._accuracies: list[float] = []
        self._doubts: list[float] = []

    def ask(self) -> int:
        """The row that is expected to add the most."""
        left = np.setdiff1d(np.arange(len(self._candidates)), self._rows)
        if self._drawn is not None and len(self._rows) < STARTUP_TRIALS:
            return int(self._drawn.choice(left))
        tried = self._candidates[np.array(self._rows, dtype=np.intp)]
        accuracies, doubts = np.array(self._accuracies), np.array(self._doubts)
        return int(left[self._proposer.choose(self._candidates[left], tried, accuracies, doubts)])

    def tell(self, row: int, accuracy: float, doubt: float = 0.0) -> None:
        """Remember it."""
        self._rows.append(row)
        self._accuracies.append(accuracy)
        self._doubts.append(doubt)

    def expected(self) -> dict[int, float] | None:
        """By what it has learned of all rows together."""
        if len(self._rows) < STARTUP_TRIALS:
            return None
        tried = self._candidates[np.array(self._rows, dtype=np.intp)]
        means = self._proposer.posterior_means(tried, np.array(self._accuracies), np.array(self._doubts))
        return dict(zip(self._rows, means.tolist(), strict=True))


class OptunaOptimizer:
    """A sampler of Optuna's that knows nothing of the table: what it draws becomes the nearest row that is left.

    Nearest is what differs in the fewest columns, and of these by the fewest steps. The study is told of that row, not
    of what was drawn.
    """

    def __init__(self, sampler: Callable[..., BaseSampler], table: Table, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate TPE
            made = sampler(seed=seed)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=[each.value for each in table.directions], sampler=made)
        self._table, self._rng = table, np.random.default_rng(seed)
        self._left = list(range(len(table)))
        self._steps = np.array([is_numeric(values) for values in table.columns.values()], dtype=np.float64)
        self._distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, len(levels) - 1) if is_numeric(levels) else CategoricalDistribution(levels)
            for name, levels in table.levels.items()
        }

    def ask(self) -> int:
        """The row nearest to what the sampler draws."""
        trial = self._study.ask(self._distributions)
        drawn = [dist.to_internal_repr(trial.params[name]) for name, dist in self._distributions.items()]
        self._attributes = self._study.tell(trial, state=TrialState.FAIL).system_attrs
        row = self._nearest(np.array(drawn))
        self._left.remove(row)
        return row

    def tell(self, row: int, accuracy: float, doubt: float = 0.0) -> None:  # noqa: ARG002 - none of its trainings is stopped
        """A trial of the row itself; with what NSGA-II has noted of the draw, its generation."""
        codes = dict(zip(self._distributions, self._table.codes[row].tolist(), strict=True))
        params = {name: dist.to_external_repr(codes[name]) for name, dist in self._distributions.items()}
        trial = create_trial(
            params=params,
            distributions=self._distributions,
            values=[accuracy, *self._table.costs[row].tolist()],
            system_attrs=self._attributes,
        )
        self._study.add_trial(trial)

    def expected(self) -> None:
        """Optuna's samplers do not say."""

    def _nearest(self, drawn: FloatArray) -> int:
        """One of the nearest rows that are left, by chance."""
        rows = self._rng.permutation(self._left)
        apart = np.abs(self._table.codes[rows] - drawn)
        return int(rows[np.lexsort(((apart * self._steps).sum(axis=1), (apart > 0).sum(axis=1)))[0]])


def _tpe(*, seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, seed=seed)


def _nsga2(*, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=_POPULATION, seed=seed)


def _gp(*, seed: int) -> BaseSampler:
    return GPSampler(seed=seed)


OURS, RANDOM = "ours", "random"
STOPPING, REPEATING = "-stopping", "-racing"
"""Behind the name of one whose trainings are judged before their end, or whose front is trained again."""

ABLATIONS: dict[str, Callable[[Table, int], Optimizer]] = {
    "ours-with-one-cost": partial(EHVIOptimizer, learned_from="costs that count"),
    "ours-without-costs": partial(EHVIOptimizer, learned_from="no costs"),
    "ours-without-spread": partial(EHVIOptimizer, spread=False),
    "ours-without-sum": partial(EHVIOptimizer, additive=False),
}

OPTIMIZERS: dict[str, Callable[[Table, int], Optimizer]] = {
    RANDOM: RandomSearch,
    OURS: EHVIOptimizer,
    "tpe": partial(OptunaOptimizer, _tpe),
    "nsga2": partial(OptunaOptimizer, _nsga2),
    "gp": partial(OptunaOptimizer, _gp),
    **ABLATIONS,
}
