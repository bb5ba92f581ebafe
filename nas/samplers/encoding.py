"""Encoding of architectures as the surrogate's features, their costs and their rewards."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.algorithms.gaussian_process import Features
from nas.algorithms.proposer import Candidates
from search_spaces import Architecture, SearchSpace

CostFunction = Callable[[Architecture], Mapping[str, float]]
RewardFunction = Callable[[float, Mapping[str, float]], float]

_SAME_OPERATOR = 0.7
"""Share of a slot that two choices have in common if only their operator is equal."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Encoded architecture.

    Attributes:
        continuous: `(continuous features,)`.
        categorical: indices of the columns that are not 0, two for each slot: of its operator and of its choice.
        costs: logarithms.
        reward: slope and offset of the reward as a function of accuracy.
    """

    continuous: FloatArray
    categorical: list[int]
    costs: list[float]
    reward: tuple[float, float]


class Encoding:
    """Encoding of the architectures of one space.

    Continuous features are the logarithms of costs and scaling factors. Categorical features are weighted one-hot
    columns for the operator and for the choice of each slot, so that the product of two rows is the mean over slots
    of 1 for equal choices, 0.7 for equal operators with other parameters, and 0 for different operators.

    Args:
        space: of the architectures.
        ends: a cheap and an expensive architecture, whose continuous features become 0 and 1.
        figures: returns the costs of an architecture by name, such as `gflops`; all above 0.
        costs: names of the costs among the objectives.
        reward: of an accuracy and costs, more is better; affine in the accuracy. None to search the Pareto front.
    """

    def __init__(
        self,
        space: SearchSpace,
        ends: Sequence[Architecture],
        figures: CostFunction,
        costs: Sequence[str],
        reward: RewardFunction | None = None,
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
        """Encode architectures, one row each."""
        rows = [self._row(architecture) for architecture in architectures]
        continuous = np.array([row.continuous for row in rows]).reshape(len(rows), len(self._low))
        categorical = np.zeros((len(rows), len(self._columns)))
        columns = np.array([row.categorical for row in rows], dtype=np.intp).reshape(len(rows), len(self._weights))
        np.put_along_axis(categorical, columns, self._weights[None], axis=1)
        costs = np.array([row.costs for row in rows]).reshape(len(rows), len(self._costs))
        rewards = np.array([row.reward for row in rows]).reshape(len(rows), 2) if self._reward else None
        return Candidates(Features(continuous, categorical), costs, rewards)

    def _row(self, architecture: Architecture) -> "_Row":
        """Encode one architecture; cached, because every proposal encodes the whole history."""
        if architecture.fingerprint not in self._rows:
            figures = self._figures(architecture)
            choices = self._space.choices(architecture).items()
            offset = self._reward(0.0, figures) if self._reward else 0.0
            slope = self._reward(1.0, figures) - offset if self._reward else 1.0
            self._rows[architecture.fingerprint] = _Row(
                continuous=(self._logs(architecture, figures) - self._low) / self._range,
                categorical=[self._columns[slot, key] for slot, choice in choices for key in (choice.operator, choice)],
                costs=[math.log(figures[name]) for name in self._costs],
                reward=(slope, offset),
            )
        return self._rows[architecture.fingerprint]

    def _logs(self, architecture: Architecture, figures: Mapping[str, float]) -> FloatArray:
        factors = self._space.factor_values(architecture)
        return np.log(np.array([*figures.values(), *factors.values()], dtype=np.float64))


def _columns(space: SearchSpace) -> dict[tuple[str, object], int]:
    """Return the column of each operator and of each choice of each slot."""
    keys: list[tuple[str, object]] = []
    for slot in space.slots:
        keys += [(slot.name, operator) for operator in slot.operators]
        keys += [(slot.name, choice) for choice in slot.choices]
    return {key: column for column, key in enumerate(keys)}
