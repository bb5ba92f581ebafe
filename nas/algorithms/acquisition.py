"""What one more training is expected to add to the front, where its costs are known before and its accuracy is not.

The hypervolume of a front is an integral over the costs: above each point of the box of costs stands the best accuracy
that costs no more in anything. A candidate raises it wherever it costs no more, by as much as its accuracy lies above;
and of that, for a normal distribution, the expectation is known in closed form (Jones, Schonlau and Welch 1998,
"Efficient global optimization of expensive black-box functions"; for a front, Emmerich 2005).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from nas.algorithms.arrays import FloatArray

_NODES = 1024
_ROOT = np.sqrt(2.0 * np.pi)


@dataclass(frozen=True)
class CostPartition:
    """The accuracy that stands above each part of the box of costs.

    Attributes:
        corners: one a row. With one cost, a corner stands for all from there to the next one, exactly; with several,
            corners are drawn evenly, and each stands for as much as any other.
        volumes: of the box of costs that each corner stands for.
        heights: the best accuracy that costs no more than the corner in anything.
    """

    corners: FloatArray
    volumes: FloatArray
    heights: FloatArray

    @classmethod
    def of(
        cls, costs: FloatArray, accuracies: FloatArray, *, floor: float, least: FloatArray, most: FloatArray
    ) -> "CostPartition":
        """What stands there so far.

        Args:
            costs: a row for each architecture, less is better in every column.
            accuracies: of each.
            floor: the accuracy from which the hypervolume is measured.
            least: the corner of the box of costs that nothing undercuts.
            most: its other one, from which the hypervolume is measured.
        """
        if costs.shape[1] == 1:
            inside = costs[(costs > least) & (costs < most)]
            starts = np.unique(np.concatenate([least, inside]))
            corners, volumes = starts[:, None], np.diff(np.concatenate([starts, most]))
        else:
            from scipy.stats import qmc  # noqa: PLC0415 - it takes a second, which every command would pay for

            drawn = qmc.Sobol(costs.shape[1], scramble=False).random(_NODES)
            corners = least + (drawn + 0.5 / _NODES) * (most - least)
            volumes = np.full(_NODES, float(np.prod(most - least)) / _NODES)
        affordable = (costs[None] <= corners[:, None]).all(axis=2)
        return cls(corners, volumes, np.where(affordable, accuracies, floor).max(axis=1, initial=floor))


def expected_hypervolume_improvement(
    ground: CostPartition, costs: FloatArray, means: FloatArray, deviations: FloatArray
) -> FloatArray:
    """The expected improvement of the hypervolume by each candidate.

    Args:
        costs: a row for each.
        means: of its accuracy.
        deviations: the standard deviations of that, above 0.
    """
    if costs.shape[1] == 1:
        starts = ground.corners[:, 0]
        shares = np.clip(starts + ground.volumes - costs, 0.0, ground.volumes)
    else:
        shares = (costs[:, None] <= ground.corners).all(axis=2) * ground.volumes
    above = expected_improvement(ground.heights, means[:, None], deviations[:, None])
    gains: FloatArray = (shares * above).sum(axis=1)
    return gains


def expected_improvement(height: FloatArray, means: FloatArray, deviations: FloatArray) -> FloatArray:
    """By how much a normal variable is expected to exceed a height; nothing counts where it falls short."""
    beyond = (means - height) / deviations
    above: FloatArray = deviations * (beyond * ndtr(beyond) + np.exp(-0.5 * beyond**2) / _ROOT)
    return above
