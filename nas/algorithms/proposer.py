"""Which candidate of a pool to train next, in numbers alone: no Optuna, no architectures.

Costs are known before anything is trained, so only accuracy has to be learned. A few candidates, spread over the costs,
are taken unlearned; from then on the one is taken that is expected to add the most to the front, or to the best reward.
"""

from dataclasses import dataclass, field

import numpy as np

from nas.algorithms.acquisition import CostPartition, expected_hypervolume_improvement, expected_improvement
from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.gaussian_process import Features, Surrogate
from nas.algorithms.pareto import directions_for, pareto_front

STARTUP_TRIALS = 3
"""Candidates that are taken by their costs alone."""
_MARGIN = 0.05
_FITTED_EACH_TIME, _GROWTH = 20, 1.1
_FITTED_TO, _LEARNED_FROM = 150, 400
"""Of more scores than these, only those that say most are kept: a fit takes a second for 400."""
_NEAR = 0.75


@dataclass(frozen=True)
class Candidates:
    """Architectures as numbers, one a row.

    Attributes:
        costs: less is better in every column, on scales where equal steps matter equally.
        rewards: a slope and an offset, by which a reward to be maximised follows from accuracy; None if the front is
            what is searched.
    """

    features: Features
    costs: FloatArray
    rewards: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: IndexArray) -> "Candidates":
        rewards = None if self.rewards is None else self.rewards[rows]
        return Candidates(self.features[rows], self.costs[rows], rewards)


@dataclass
class Proposer:
    """Takes one candidate after the other.

    What it takes depends on the seed and the history alone. What it keeps of earlier calls saves time, no more.

    Attributes:
        noise: the standard deviation of accuracy between two trainings of one architecture, if it is about known.
        additive: whether the surrogate adds up what choices are worth each, beside comparing whole architectures.
    """

    seed: int
    noise: float | None = None
    startup: int = STARTUP_TRIALS
    additive: bool = True
    _kept: dict[bytes, Surrogate] = field(default_factory=dict, repr=False)

    def choose(
        self, pool: Candidates, tried: Candidates, accuracies: FloatArray, doubts: FloatArray | None = None
    ) -> int:
        """The row of the pool to train next.

        Args:
            tried: what is trained or being trained, in the order of the trials.
            accuracies: of that; NaN for what is being trained.
            doubts: standard deviations of those accuracies that are foreseen, not measured; 0 for the others.

        Raises:
            ValueError: the pool is empty.
        """
        if not len(pool):
            raise ValueError("nothing to choose from: the pool is empty")
        scored = np.flatnonzero(np.isfinite(accuracies))
        if len(scored) < self.startup:
            return self._by_cost(pool, len(tried))
        running = np.flatnonzero(np.isnan(accuracies))
        doubts = np.zeros(len(tried)) if doubts is None else doubts
        surrogate, known, values = self._learned(tried, accuracies, doubts, scored, running)
        means, deviations = surrogate.predict(pool.features)
        if pool.rewards is not None and known.rewards is not None:
            best = (known.rewards[:, 0] * values + known.rewards[:, 1]).max()
            slopes, offsets = pool.rewards.T
            return int(np.argmax(slopes * expected_improvement((best - offsets) / slopes, means, deviations)))
        floor = values.min() - _MARGIN * float(np.ptp(values))
        all_costs = np.vstack([pool.costs, tried.costs])
        worst = all_costs.max(axis=0) + _MARGIN * np.ptp(all_costs, axis=0)
        ground = CostPartition.of(known.costs, values, floor=floor, least=all_costs.min(axis=0), most=worst)
        return int(np.argmax(expected_hypervolume_improvement(ground, pool.costs, means, deviations)))

    def expected(self, tried: Candidates, accuracies: FloatArray, doubts: FloatArray | None = None) -> FloatArray:
        """What each that was tried is expected to score when it is trained again, given all others too.

        Args:
            accuracies: NaN for what is being trained; at least two are not.
        """
        scored = np.flatnonzero(np.isfinite(accuracies))
        doubts = np.zeros(len(tried)) if doubts is None else doubts
        surrogate, _, _ = self._learned(tried, accuracies, doubts, scored, np.empty(0, dtype=np.intp))
        means, _ = surrogate.predict(tried.features)
        return means

    def _by_cost(self, pool: Candidates, number: int) -> int:
        """One of the cheap, the middling or the dear, in turn."""
        rng = np.random.default_rng([self.seed, number])
        rank = np.argsort(pool.costs.sum(axis=1), kind="stable")
        parts = [part for part in np.array_split(rank, self.startup) if len(part)]
        return int(rng.choice(parts[number % len(parts)]))

    def _learned(
        self, tried: Candidates, accuracies: FloatArray, doubts: FloatArray, scored: IndexArray, running: IndexArray
    ) -> tuple[Surrogate, Candidates, FloatArray]:
        """What accuracy is thought to be, and all that is on the way with what it is thought to have.

        A lucky score does not hold a place: what counts of a trained candidate is its mean given all others, too. What
        is being trained is taken to become what it is expected to become, so that another worker looks elsewhere.
        """
        first = scored[: _observations_at_last_fit(len(scored))]
        rows = first[_subset(tried.costs[first], accuracies[first], _FITTED_TO)]
        fitted = self._fitted(tried.features[rows], accuracies[rows], doubts[rows])
        rows = scored[_subset(tried.costs[scored], accuracies[scored], _LEARNED_FROM)]
        features, values, doubts = tried.features[rows], accuracies[rows], doubts[rows]
        surrogate = fitted.given(features, values, doubts)
        if len(running):
            believed, _ = surrogate.predict(tried.features[running])
            features = Features.joined(features, tried.features[running])
            values, doubts = np.append(values, believed), np.append(doubts, np.zeros(len(running)))
            rows = np.append(rows, running)
            surrogate = fitted.given(features, values, doubts)
        return surrogate, tried[rows], surrogate.means

    def _fitted(self, features: Features, values: FloatArray, doubts: FloatArray) -> Surrogate:
        key = b"".join(part.tobytes() for part in (features.scales, features.picks, values, doubts))
        if key not in self._kept:
            fitted = Surrogate.fitted(features, values, self.noise, doubts=doubts, additive=self.additive)
            self._kept = {key: fitted}
        return self._kept[key]


def _observations_at_last_fit(count: int) -> int:
    """The number of scores that hyperparameters were last fitted to: every one of the first, then ever fewer."""
    if count <= _FITTED_EACH_TIME:
        return count
    fitted = float(_FITTED_EACH_TIME)
    while int(fitted * _GROWTH) <= count:
        fitted *= _GROWTH
    return int(fitted)


def _subset(costs: FloatArray, accuracies: FloatArray, most: int) -> IndexArray:
    """All of a few; of many mostly those nearest below the front, and some of the rest, in their order."""
    count = len(accuracies)
    if count <= most:
        return np.arange(count)
    points = [tuple(point) for point in np.column_stack([accuracies, costs]).tolist()]
    best = np.array(pareto_front(points, directions_for(costs=costs.shape[1])))
    affordable = (costs[best] <= costs[:, None]).all(axis=2)
    heights = np.where(affordable, accuracies[best], -np.inf).max(axis=1)
    order = np.argsort(heights - accuracies, kind="stable")
    nearest, rest = np.split(order, [round(_NEAR * most)])
    return np.sort(np.concatenate([nearest, rest[:: -(-len(rest) // (most - len(nearest)))]]))
