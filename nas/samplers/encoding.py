"""Architectures as numbers: what the surrogate of accuracy compares them by, and what they cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.algorithms.gaussian_process import Features
from nas.algorithms.proposer import Candidates
from search_spaces import Architecture, SearchSpace

Figures = Callable[[Architecture], Mapping[str, float]]
Rewarded = Callable[[float, Mapping[str, float]], float]

_SAME_OPERATOR = 0.7


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One architecture.

    Attributes:
        picks: two columns for each slot, its operator's and its choice's.
        reward: the slope and the offset by which it follows from accuracy.
    """

    scales: FloatArray
    picks: list[int]
    costs: list[float]
    reward: tuple[float, float]


class Encoding:
    """One space's architectures as numbers.

    Two architectures are alike by the logarithms of their figures and dials, and by their picks: a slot where both have
    the same choice makes them alike in full, one where they have the same operator, set otherwise, by 0.7 of that.

    Args:
        ends: a cheap and a dear architecture, whose figures and dials become 0 and 1.
        figures: what is known of an architecture before it is trained, such as `gflops`; all above 0.
        costs: the names of those that the front is spanned by.
        reward: one number, more is better, of an accuracy and figures; affine in the accuracy. None: the front counts.
    """

    def __init__(
        self,
        space: SearchSpace,
        ends: Sequence[Architecture],
        figures: Figures,
        costs: Sequence[str],
        reward: Rewarded | None = None,
    ) -> None:
        self._space, self._figures, self._costs, self._reward = space, figures, tuple(costs), reward
        self._columns = _columns(space)
        logs = np.array([self._logs(architecture, figures(architecture)) for architecture in ends])
        self._low, extent = logs.min(axis=0), np.ptp(logs, axis=0)
        self._range = np.where(extent > 0, extent, 1.0)
        shares = np.array([_SAME_OPERATOR, 1.0 - _SAME_OPERATOR]) / max(1, len(space.slots))
        self._weights = np.tile(np.sqrt(shares), len(space.slots))
        self._rows: dict[str, _Row] = {}

    def of(self, architectures: Sequence[Architecture]) -> Candidates:
        """Architectures as rows."""
        rows = [self._row(architecture) for architecture in architectures]
        scales = np.array([row.scales for row in rows]).reshape(len(rows), len(self._low))
        picks = np.zeros((len(rows), len(self._columns)))
        columns = np.array([row.picks for row in rows], dtype=np.intp).reshape(len(rows), len(self._weights))
        np.put_along_axis(picks, columns, self._weights[None], axis=1)
        costs = np.array([row.costs for row in rows]).reshape(len(rows), len(self._costs))
        rewards = np.array([row.reward for row in rows]).reshape(len(rows), 2) if self._reward else None
        return Candidates(Features(scales, picks), costs, rewards)

    def _row(self, architecture: Architecture) -> "_Row":
        """Kept: a history is asked for again with every proposal."""
        if architecture.fingerprint not in self._rows:
            figures = self._figures(architecture)
            picks = self._space.choices(architecture).items()
            offset = self._reward(0.0, figures) if self._reward else 0.0
            slope = self._reward(1.0, figures) - offset if self._reward else 1.0
            self._rows[architecture.fingerprint] = _Row(
                scales=(self._logs(architecture, figures) - self._low) / self._range,
                picks=[self._columns[slot, part] for slot, choice in picks for part in (choice.operator, choice)],
                costs=[math.log(figures[name]) for name in self._costs],
                reward=(slope, offset),
            )
        return self._rows[architecture.fingerprint]

    def _logs(self, architecture: Architecture, figures: Mapping[str, float]) -> FloatArray:
        return np.log(
            np.array([*figures.values(), *self._space.factor_values(architecture).values()], dtype=np.float64)
        )


def _columns(space: SearchSpace) -> dict[tuple[str, object], int]:
    """A column for each operator of each slot, and one for each choice."""
    spoken: list[tuple[str, object]] = []
    for slot in space.slots:
        spoken += [(slot.name, operator) for operator in slot.operators]
        spoken += [(slot.name, choice) for choice in slot.choices]
    return {key: column for column, key in enumerate(spoken)}
