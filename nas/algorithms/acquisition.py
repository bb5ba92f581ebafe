"""Expected hypervolume improvement of one more training, where costs are known exactly and accuracy is not.

The hypervolume of a front is an integral over the cost space of the best accuracy at or below each cost. A candidate
of costs `c` and accuracy `a` raises that integrand to `a` wherever the cost is at least `c`. With a normal posterior
`a ~ N(mean, std^2)`, the expectation of the gain is, cell by cell, the expected improvement in closed form:

    EHVI(c) = sum over cells i at or above c of volume_i * EI(best_accuracy_i)

Sources: Jones, Schonlau and Welch 1998, "Efficient global optimization of expensive black-box functions", equation 15
(expected improvement); Emmerich 2005, "Single- and multi-objective evolutionary optimization assisted by Gaussian
random field metamodels" (its form for a front).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from nas.algorithms.arrays import FloatArray

_SOBOL_POINTS = 1024
_SQRT_2_PI = np.sqrt(2.0 * np.pi)


@dataclass(frozen=True)
class CostPartition:
    """Partition of the cost space into cells, each with the best accuracy at or below its costs.

    Exact for one cost. For several, a quasi-Monte Carlo approximation: Sobol points, each for an equal volume.

    Attributes:
        corners: costs of each cell, `(cells, costs)`. With one cost, the lower end of an interval.
        volumes: of each cell, `(cells,)`.
        best_accuracies: best accuracy that costs no more than the corner in anything, `(cells,)`.
    """

    corners: FloatArray
    volumes: FloatArray
    best_accuracies: FloatArray

    @classmethod
    def of(
        cls, costs: FloatArray, accuracies: FloatArray, *, floor: float, lower: FloatArray, upper: FloatArray
    ) -> "CostPartition":
        """Partition the cost space for the architectures trained so far.

        Args:
            costs: `(observations, costs)`, less is better.
            accuracies: `(observations,)`.
            floor: accuracy of the reference point of the hypervolume.
            lower: lowest costs, `(costs,)`; nothing is below them.
            upper: costs of the reference point of the hypervolume, `(costs,)`.
        """
        if costs.shape[1] == 1:
            inside = costs[(costs > lower) & (costs < upper)]
            starts = np.unique(np.concatenate([lower, inside]))
            corners, volumes = starts[:, None], np.diff(np.concatenate([starts, upper]))
        else:
            from scipy.stats import qmc  # noqa: PLC0415 - it takes a second, which every command would pay for

            points = qmc.Sobol(costs.shape[1], scramble=False).random(_SOBOL_POINTS)
            corners = lower + (points + 0.5 / _SOBOL_POINTS) * (upper - lower)
            volumes = np.full(_SOBOL_POINTS, float(np.prod(upper - lower)) / _SOBOL_POINTS)
        affordable = (costs[None] <= corners[:, None]).all(axis=2)
        return cls(corners, volumes, np.where(affordable, accuracies, floor).max(axis=1, initial=floor))


def expected_hypervolume_improvement(
    partition: CostPartition, costs: FloatArray, means: FloatArray, stds: FloatArray
) -> FloatArray:
    """Expected hypervolume improvement of each candidate, `(candidates,)`.

    Args:
        costs: `(candidates, costs)`.
        means: posterior means of accuracy, `(candidates,)`.
        stds: posterior standard deviations of accuracy, above 0, `(candidates,)`.
    """
    if costs.shape[1] == 1:
        starts = partition.corners[:, 0]
        volumes = np.clip(starts + partition.volumes - costs, 0.0, partition.volumes)
    else:
        volumes = (costs[:, None] <= partition.corners).all(axis=2) * partition.volumes
    improvements = expected_improvement(partition.best_accuracies, means[:, None], stds[:, None])
    ehvi: FloatArray = (volumes * improvements).sum(axis=1)
    return ehvi


def expected_improvement(threshold: FloatArray, means: FloatArray, stds: FloatArray) -> FloatArray:
    """Expected improvement over a threshold, `E[max(0, Y - threshold)]` for `Y ~ N(mean, std^2)`; shapes broadcast.

    With `z = (mean - threshold) / std` it is `std * (z * Phi(z) + phi(z))` (Jones et al. 1998, equation 15).
    """
    z = (means - threshold) / stds
    improvement: FloatArray = stds * (z * ndtr(z) + np.exp(-0.5 * z**2) / _SQRT_2_PI)
    return improvement
