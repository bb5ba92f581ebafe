"""Encoding of architectures as the surrogate's features, their costs and their rewards."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.gaussian_process import Features
from nas.algorithms.proposer import Candidates
from nas.samplers.categories import categories_of
from search_spaces import Architecture, JoinedSpace, Space

CostFunction = Callable[[Architecture], Mapping[str, float]]
RewardFunction = Callable[[float, Mapping[str, float]], float]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Encoded architecture.

    Attributes:
        continuous: `(continuous features,)`.
        columns: of the categorical features, those that are not 0.
        weights: in these columns.
        costs: logarithms.
        reward: slope and offset of the reward as a function of accuracy.
        member: name of its member of a joined space, else empty.
    """

    continuous: FloatArray
    columns: IndexArray
    weights: FloatArray
    costs: list[float]
    reward: tuple[float, float]
    member: str


class Encoding:
    """Encoding of the architectures of a space.

    Continuous features are the logarithms of costs and scaling factors; categorical ones are those of `categories`.

    Args:
        space: of the architectures.
        ends: a cheap and an expensive architecture, whose continuous features become 0 and 1.
        figures: returns the costs of an architecture by name, such as `gflops`; all above 0.
        costs: names of the costs among the objectives.
        reward: of an accuracy and costs, more is better; affine in the accuracy. None to search the Pareto front.
    """

    def __init__(
        self,
        space: Space,
        ends: Sequence[Architecture],
        figures: CostFunction,
        costs: Sequence[str],
        reward: RewardFunction | None = None,
    ) -> None:
        self._space, self._figures, self._costs, self._reward = space, figures, tuple(costs), reward
        self._categories = categories_of(space)
        logs = np.array([self._logs(architecture, figures(architecture)) for architecture in ends])
        self._low, extent = logs.min(axis=0), np.ptp(logs, axis=0)
        self._range = np.where(extent > 0, extent, 1.0)
        self._rows: dict[str, _Row] = {}

    def of(self, architectures: Sequence[Architecture]) -> Candidates:
        """Encode architectures, one row each."""
        rows = [self._row(architecture) for architecture in architectures]
        continuous = np.array([row.continuous for row in rows]).reshape(len(rows), len(self._low))
        categorical = np.zeros((len(rows), len(self._categories)))
        for features, row in zip(categorical, rows, strict=True):
            features[row.columns] = row.weights
        costs = np.array([row.costs for row in rows]).reshape(len(rows), len(self._costs))
        rewards = np.array([row.reward for row in rows]).reshape(len(rows), 2) if self._reward else None
        members = np.array([row.member for row in rows]) if isinstance(self._space, JoinedSpace) else None
        return Candidates(Features(continuous, categorical, members), costs, rewards)

    def _row(self, architecture: Architecture) -> "_Row":
        """Encode one architecture; cached, because every proposal encodes the whole history."""
        if architecture.fingerprint not in self._rows:
            figures = self._figures(architecture)
            weights = self._categories.of(architecture)
            offset = self._reward(0.0, figures) if self._reward else 0.0
            slope = self._reward(1.0, figures) - offset if self._reward else 1.0
            self._rows[architecture.fingerprint] = _Row(
                continuous=(self._logs(architecture, figures) - self._low) / self._range,
                columns=np.array(list(weights), dtype=np.intp),
                weights=np.array(list(weights.values()), dtype=np.float64),
                costs=[math.log(figures[name]) for name in self._costs],
                reward=(slope, offset),
                member=self._space.member_name(architecture),
            )
        return self._rows[architecture.fingerprint]

    def _logs(self, architecture: Architecture, figures: Mapping[str, float]) -> FloatArray:
        factors = self._space.factor_values(architecture)
        return np.log(np.array([*figures.values(), *factors.values()], dtype=np.float64))
