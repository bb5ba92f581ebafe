"""Which trainings are worth going on with: successive halving for a front, in which nobody waits for anybody.

At a rung, an epoch after which every training is validated, one goes on if nothing that was ever seen there is better
than it at no more cost, or if it stands among the first third of all that were: front by front, and inside a front
those first that lie farthest from the ones before them, so that those which go on are spread over the costs. A cheap
model is thus compared with what costs no more than it does.

Sources: Li and others 2020, "A system for massively parallel hyperparameter tuning" (ASHA, arXiv 1810.05934);
Schmucker and others 2021, "Multi-objective asynchronous successive halving" (arXiv 2106.12639).
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from nas.algorithms.pareto import Direction, Point, pareto_front

_TOLD = 3
"""So many gains have a mean and a deviation worth the name."""


class Stopping(BaseModel):
    """When trainings are judged, and how hard.

    Attributes:
        eta: about one of so many goes on at each rung, and each rung lies so many times as far as the one before.
        first: the epoch of the first rung.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    eta: Annotated[StrictInt, Field(ge=2)] = 3
    first: Annotated[StrictInt, Field(ge=1)] = 1

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs after which trainings of so many epochs are judged; the last is none of them."""
        rungs, rung = [], self.first
        while rung < epochs:
            rungs.append(rung)
            rung *= self.eta
        return tuple(rungs)


def should_promote(own: Point, others: Sequence[Point], directions: Sequence[Direction], eta: int) -> bool:
    """Whether a training is worth going on with.

    Args:
        own: its standing at the rung, in the order of `directions`: the best accuracy so far, and the costs.
        others: those of all that stood there before, those that went on among them.
        eta: the first of so many goes on, and the front. While there are fewer, everything does: nothing is known yet.
    """
    count = 1 + len(others)
    if count < eta:
        return True
    points = [own, *others]
    return 0 in pareto_front(points, directions) or 0 in rank(points, directions, count // eta)


def extrapolated(reached: float, gains: Sequence[float]) -> tuple[float, float] | None:
    """The accuracy that a stopped training would have come to, and the standard deviation of that.

    Args:
        reached: where it stood at its last rung.
        gains: by how much each of those that finished rose from that rung to its end.

    Returns:
        None while fewer than three have finished.
    """
    if len(gains) < _TOLD:
        return None
    return reached + float(np.mean(gains)), float(np.std(gains, ddof=1))


def rank(points: Sequence[Point], directions: Sequence[Direction], count: int) -> list[int]:
    """The first so many points: front by front; of a front, each time the one farthest from those before it.

    Of equal points the first counts as nearer to the front.
    """
    first: list[int] = []
    left = list(range(len(points)))
    while left and len(first) < count:
        best = [left[index] for index in pareto_front([points[index] for index in left], directions)]
        first += _spread([points[index] for index in best], best)
        left = [index for index in left if index not in set(best)]
    return first[:count]


def _spread(points: Sequence[Point], indices: Sequence[int]) -> list[int]:
    """The indices of a front, begun with its best in the first objective, then farthest first."""
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
