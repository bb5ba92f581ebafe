"""Multi-objective asynchronous successive halving (ASHA): which trainings are promoted at a rung.

A rung is an epoch after which every training is validated. A training is promoted if it is on the Pareto front of all
that reached the rung before, or among the first `1 / eta` of them, ranked front by front; inside a front by an
epsilon-net, so that promoted trainings are spread over the costs. A cheap model is thus compared with models that cost
no more. Decisions are asynchronous: no training waits for another.

Sources: Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA, arXiv 1810.05934); Schmucker et
al. 2021, "Multi-objective asynchronous successive halving" (MO-ASHA, its ranking by epsilon-net, arXiv 2106.12639).
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from nas.algorithms.pareto import Direction, Point, pareto_front

_LEAST_GAINS = 3
"""Fewest gains whose mean and standard deviation are used."""


class Stopping(BaseModel):
    """Rungs of a study, and the share of trainings that is promoted at each.

    Attributes:
        eta: reduction factor: about one training in `eta` is promoted, and each rung is `eta` times as far as the last.
        first: the epoch of the first rung.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    eta: Annotated[StrictInt, Field(ge=2)] = 3
    first: Annotated[StrictInt, Field(ge=1)] = 1

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the rungs of trainings of so many epochs, ascending; the last epoch is none of them."""
        rungs, rung = [], self.first
        while rung < epochs:
            rungs.append(rung)
            rung *= self.eta
        return tuple(rungs)


def should_promote(point: Point, others: Sequence[Point], directions: Sequence[Direction], eta: int) -> bool:
    """Return whether a training is promoted at a rung.

    Args:
        point: of the training at the rung, in the order of `directions`: best accuracy so far, and costs.
        others: points of all trainings that reached the rung before, promoted or not.
        eta: reduction factor. While fewer trainings than that have reached the rung, all are promoted.
    """
    count = 1 + len(others)
    if count < eta:
        return True
    points = [point, *others]
    return 0 in pareto_front(points, directions) or 0 in rank(points, directions, count // eta)


def extrapolated(reached: float, gains: Sequence[float]) -> tuple[float, float] | None:
    """Return the extrapolated final accuracy of a stopped training, and its standard deviation.

    Args:
        reached: accuracy at its last rung.
        gains: of each finished training, from that rung to its end.

    Returns:
        None while fewer than three trainings have finished.
    """
    if len(gains) < _LEAST_GAINS:
        return None
    return reached + float(np.mean(gains)), float(np.std(gains, ddof=1))


def rank(points: Sequence[Point], directions: Sequence[Direction], count: int) -> list[int]:
    """Return the indices of the first `count` points: front by front, inside a front by an epsilon-net.

    Of equal points the first ranks higher.
    """
    ranked: list[int] = []
    left = list(range(len(points)))
    while left and len(ranked) < count:
        best = [left[index] for index in pareto_front([points[index] for index in left], directions)]
        ranked += _epsilon_net([points[index] for index in best], best)
        left = [index for index in left if index not in set(best)]
    return ranked[:count]


def _epsilon_net(points: Sequence[Point], indices: Sequence[int]) -> list[int]:
    """Return the indices of a front: the best in the first objective, then always the farthest from those before it."""
    rows = np.array(points, dtype=np.float64)
    extent = np.ptp(rows, axis=0)
    scaled = rows / np.where(extent > 0, extent, 1.0)
    order = [int(np.argmax(scaled[:, 0]))]
    distances = np.full(len(rows), np.inf)
    while len(order) < len(rows):
        distances = np.minimum(distances, np.abs(scaled - scaled[order[-1]]).max(axis=1))
        distances[order] = -1.0
        order.append(int(np.argmax(distances)))
    return [indices[position] for position in order]
