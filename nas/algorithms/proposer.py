"""Choice of the next candidate to train, by expected hypervolume improvement or expected improvement of a reward.

Costs are known before training, so that only accuracy has to be learned. The first few candidates are spread over the
costs; each later one maximises the acquisition function.
"""

from dataclasses import dataclass, field

import numpy as np

from nas.algorithms.acquisition import CostPartition, expected_hypervolume_improvement, expected_improvement
from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.gaussian_process import Features, Surrogate
from nas.algorithms.pareto import directions_for, pareto_front

STARTUP_TRIALS = 3
"""Number of first candidates, which are chosen by their costs alone."""
_MARGIN = 0.05
"""Distance of the reference point from the worst values, as a share of their range."""
_REFITTED_UP_TO, _REFIT_GROWTH = 20, 1.1
"""Hyperparameters are fitted again with every observation up to so many, then each time that they grow so much."""
_MOST_FITTED, _MOST_CONDITIONED = 150, 400
"""Most observations to fit hyperparameters to, and to condition on: a fit takes a second for 400."""
_SHARE_NEAR_FRONT = 0.75


@dataclass(frozen=True)
class Candidates:
    """Candidates as arrays, one row each.

    Attributes:
        features: of the surrogate, `(candidates, features)`.
        costs: `(candidates, costs)`; less is better, equal differences count equally (logarithms).
        rewards: slope and offset of a reward that is affine in accuracy, `(candidates, 2)`; None to search the Pareto
            front.
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
    """Bayesian optimisation over a pool of candidates.

    A choice depends on the seed and the history alone. The surrogate cached between calls saves time only.

    Attributes:
        noise: approximate standard deviation of accuracy between seeds.
        startup: number of first candidates, which are chosen by their costs alone.
        additive: whether the kernel has its additive part.
    """

    seed: int
    noise: float | None = None
    startup: int = STARTUP_TRIALS
    additive: bool = True
    _fits: dict[bytes, Surrogate] = field(default_factory=dict, repr=False)

    def choose(
        self, pool: Candidates, tried: Candidates, accuracies: FloatArray, extra_noise: FloatArray | None = None
    ) -> int:
        """Return the row of the pool to train next.

        Args:
            pool: to choose from.
            tried: trained and running candidates, in the order of the trials.
            accuracies: `(tried,)`; NaN for running ones.
            extra_noise: further standard deviation of each accuracy, `(tried,)`; above 0 for extrapolated ones.

        Raises:
            ValueError: the pool is empty.
        """
        if not len(pool):
            raise ValueError("nothing to choose from: the pool is empty")
        scored = np.flatnonzero(np.isfinite(accuracies))
        if len(scored) < self.startup:
            return self._by_cost(pool, len(tried))
        running = np.flatnonzero(np.isnan(accuracies))
        extra_noise = np.zeros(len(tried)) if extra_noise is None else extra_noise
        surrogate, observed, values = self._condition(tried, accuracies, extra_noise, scored, running)
        means, stds = surrogate.predict(pool.features)
        if pool.rewards is not None and observed.rewards is not None:
            best = (observed.rewards[:, 0] * values + observed.rewards[:, 1]).max()
            slopes, offsets = pool.rewards.T
            return int(np.argmax(slopes * expected_improvement((best - offsets) / slopes, means, stds)))
        floor = values.min() - _MARGIN * float(np.ptp(values))
        all_costs = np.vstack([pool.costs, tried.costs])
        worst = all_costs.max(axis=0) + _MARGIN * np.ptp(all_costs, axis=0)
        partition = CostPartition.of(observed.costs, values, floor=floor, lower=all_costs.min(axis=0), upper=worst)
        return int(np.argmax(expected_hypervolume_improvement(partition, pool.costs, means, stds)))

    def posterior_means(
        self, tried: Candidates, accuracies: FloatArray, extra_noise: FloatArray | None = None
    ) -> FloatArray:
        """Posterior mean accuracy of each tried candidate, given all of them, `(tried,)`.

        Args:
            tried: trained and running candidates, in the order of the trials.
            accuracies: `(tried,)`; NaN for running ones; at least two are finite.
            extra_noise: as in `choose`.
        """
        scored = np.flatnonzero(np.isfinite(accuracies))
        extra_noise = np.zeros(len(tried)) if extra_noise is None else extra_noise
        surrogate, _, _ = self._condition(tried, accuracies, extra_noise, scored, np.empty(0, dtype=np.intp))
        means, _ = surrogate.predict(tried.features)
        return means

    def _by_cost(self, pool: Candidates, number: int) -> int:
        """Draw a cheap, medium or expensive candidate, in turn."""
        rng = np.random.default_rng([self.seed, number])
        rank = np.argsort(pool.costs.sum(axis=1), kind="stable")
        parts = [part for part in np.array_split(rank, self.startup) if len(part)]
        return int(rng.choice(parts[number % len(parts)]))

    def _condition(
        self,
        tried: Candidates,
        accuracies: FloatArray,
        extra_noise: FloatArray,
        scored: IndexArray,
        running: IndexArray,
    ) -> tuple[Surrogate, Candidates, FloatArray]:
        """Fit the GP to scored candidates; impute running ones with the posterior mean (kriging believer).

        The kriging believer keeps parallel workers from proposing the same candidate (Ginsbourger, Le Riche and Carraro
        2010, "Kriging is well-suited to parallelize optimization").

        Returns:
            The surrogate, the candidates that it is conditioned on, and their posterior means. These, not the measured
            accuracies, span the front: a lucky score would exclude its neighbours.
        """
        first = scored[: _observations_at_last_fit(len(scored))]
        rows = first[_subset(tried.costs[first], accuracies[first], _MOST_FITTED)]
        fitted = self._fit(tried.features[rows], accuracies[rows], extra_noise[rows])
        rows = scored[_subset(tried.costs[scored], accuracies[scored], _MOST_CONDITIONED)]
        features, values, extra_noise = tried.features[rows], accuracies[rows], extra_noise[rows]
        surrogate = fitted.condition_on(features, values, extra_noise)
        if len(running):
            imputed, _ = surrogate.predict(tried.features[running])
            features = Features.concatenate(features, tried.features[running])
            values, extra_noise = np.append(values, imputed), np.append(extra_noise, np.zeros(len(running)))
            rows = np.append(rows, running)
            surrogate = fitted.condition_on(features, values, extra_noise)
        return surrogate, tried[rows], surrogate.means

    def _fit(self, features: Features, values: FloatArray, extra_noise: FloatArray) -> Surrogate:
        """Fit the hyperparameters, or return the last fit if it was to the same observations."""
        parts = (features.continuous, features.categorical, values, extra_noise)
        key = b"".join(part.tobytes() for part in parts)
        if key not in self._fits:
            fitted = Surrogate.fit(features, values, self.noise, extra_noise=extra_noise, additive=self.additive)
            self._fits = {key: fitted}
        return self._fits[key]


def _observations_at_last_fit(count: int) -> int:
    """Return the number of observations of the last fit: of all of the first ones, then at growing intervals."""
    if count <= _REFITTED_UP_TO:
        return count
    fitted = float(_REFITTED_UP_TO)
    while int(fitted * _REFIT_GROWTH) <= count:
        fitted *= _REFIT_GROWTH
    return int(fitted)


def _subset(costs: FloatArray, accuracies: FloatArray, most: int) -> IndexArray:
    """Return the rows to learn from, ascending: all if they are few, else mostly those nearest below the front.

    The rest is sampled evenly, by distance below the front.
    """
    count = len(accuracies)
    if count <= most:
        return np.arange(count)
    points = [tuple(point) for point in np.column_stack([accuracies, costs]).tolist()]
    best = np.array(pareto_front(points, directions_for(costs=costs.shape[1])))
    affordable = (costs[best] <= costs[:, None]).all(axis=2)
    best_accuracies = np.where(affordable, accuracies[best], -np.inf).max(axis=1)
    order = np.argsort(best_accuracies - accuracies, kind="stable")
    nearest, rest = np.split(order, [round(_SHARE_NEAR_FRONT * most)])
    return np.sort(np.concatenate([nearest, rest[:: -(-len(rest) // (most - len(nearest)))]]))
