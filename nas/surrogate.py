"""What accuracy an architecture will have, learned from those that were trained: a Gaussian process, in numbers alone.

Its kernel is a sum of two parts. In the first, two architectures are alike if they are alike in everything, in their
costs and dials as in their picks (Matern 5/2, a length scale for each): it learns curves and interactions. In the
second they share something for every slot in which they have the same choice: it learns that an operator does harm in
one place, from the few trials that have it there, whatever else these are made of.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1 and chapter 5.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Numbers = NDArray[np.float64]

_SQRT5 = np.sqrt(5.0)
_JITTER = 1e-8
_AMPLITUDE, _SHARED = (0.0, 1.0), (-1.5, 1.0)
_LENGTH, _PICKS_LENGTH = (0.0, 1.0), (0.0, 1.0)
_NOISE_SD = 1.5
"""Means and standard deviations of the logarithms of hyperparameters, before anything is seen."""
_NOTHING = -20.0
"""The logarithm of an amplitude that no score can tell from 0."""


@dataclass(frozen=True)
class Features:
    """Architectures as numbers, one a row.

    Attributes:
        scales: what may be more or less, such as a dial or the logarithm of a cost, each about 0 to 1.
        picks: one or more columns for every choice of every slot; rows of equal choices have a product of 1, rows that
            agree in nothing one of 0.
    """

    scales: Numbers
    picks: Numbers

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, rows: NDArray[np.intp]) -> "Features":
        return Features(self.scales[rows], self.picks[rows])

    @classmethod
    def joined(cls, first: Self, second: Self) -> "Features":
        """The rows of both."""
        return Features(np.vstack([first.scales, second.scales]), np.vstack([first.picks, second.picks]))


@dataclass(frozen=True)
class Kernel:
    """How alike architectures are.

    Attributes:
        logs: the logarithms of a length scale for each scale, one for the picks, and the two parts' amplitudes.
    """

    logs: Numbers

    def __call__(self, distances: Numbers, shared: Numbers) -> Numbers:
        """The covariances, of squared distances as `distances` gives them and the share of equal picks."""
        radius = np.sqrt(5.0 * np.tensordot(np.exp(-2.0 * self.logs[:-2]), distances, 1) + 1e-12)
        likeness = (1.0 + radius + radius**2 / 3.0) * np.exp(-radius)
        covariances: Numbers = np.exp(self.logs[-2]) * likeness + np.exp(self.logs[-1]) * shared
        return covariances

    def slopes(self, distances: Numbers, shared: Numbers, weights: Numbers) -> Numbers:
        """The gradient of `(weights * covariances).sum()` by each logarithm."""
        inverse = np.exp(-2.0 * self.logs[:-2])
        radius = np.sqrt(5.0 * np.tensordot(inverse, distances, 1) + 1e-12)
        falling = np.exp(-radius) * np.exp(self.logs[-2])
        by_distance = weights * (-5.0 / 6.0) * (1.0 + radius) * falling
        lengths = -2.0 * inverse * np.tensordot(distances, by_distance, 2)
        amplitude = (weights * (1.0 + radius + radius**2 / 3.0) * falling).sum()
        return np.array([*lengths, amplitude, (weights * shared).sum() * np.exp(self.logs[-1])])

    @property
    def variance(self) -> float:
        """Of one architecture by itself."""
        return float(np.exp(self.logs[-2]) + np.exp(self.logs[-1]))


def compare(left: Features, right: Features) -> tuple[Numbers, Numbers]:
    """The squared distances by each scale and by picks, and the share of equal picks, of all pairs of rows."""
    shared = left.picks @ right.picks.T
    scales = [(one[:, None] - other[None, :]) ** 2 for one, other in zip(left.scales.T, right.scales.T, strict=True)]
    return np.array([*scales, 2.0 * np.maximum(0.0, 1.0 - shared)]), shared


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process that has seen some architectures.

    Attributes:
        kernel: with the hyperparameters that it was fitted with.
        noise: the standard deviation that two trainings of one architecture differ by, in the unit of the values.
        means: of the accuracies of what it has seen, as `predict` gives them.
    """

    kernel: Kernel
    noise: float
    means: Numbers
    _seen: Features
    _center: float
    _unit: float
    _factor: Numbers
    _weights: Numbers

    @classmethod
    def fitted(
        cls,
        seen: Features,
        values: Numbers,
        noise: float | None = None,
        *,
        doubts: Numbers | None = None,
        additive: bool = True,
    ) -> Self:
        """One whose hyperparameters make the values likeliest, given what is usual for such.

        Args:
            values: one for each row, more is better.
            noise: the standard deviation between seeds, if it is about known.
            doubts: a further standard deviation of each value, where it was not measured but foreseen.
            additive: whether the kernel has its second part.
        """
        unit = float(values.std()) or 1.0
        scaled = (values - values.mean()) / unit
        usual = 2.0 * np.log(max(noise, 1e-3 * unit) / unit) if noise is not None else -6.0
        shared = _SHARED[0] if additive else _NOTHING
        middle = np.array([*[_LENGTH[0]] * seen.scales.shape[1], _PICKS_LENGTH[0], _AMPLITUDE[0], shared, usual])
        spread = np.array(
            [*[_LENGTH[1]] * seen.scales.shape[1], _PICKS_LENGTH[1], _AMPLITUDE[1], _SHARED[1], _NOISE_SD]
        )
        compared, doubted = compare(seen, seen), _squared(doubts, unit, len(seen))

        def unlikeliness(logs: Numbers) -> tuple[float, Numbers]:
            off = (logs - middle) / spread
            here, slopes = _unlikeliness(logs, compared, scaled, doubted)
            return here + 0.5 * float(off @ off), slopes + off / spread

        bounds = [(low - 4.0, low + 4.0) for low in middle]
        found = minimize(unlikeliness, middle, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
        return cls.with_kernel(Kernel(found.x[:-1]), float(np.exp(found.x[-1] / 2.0)) * unit, seen, values, doubts)

    @classmethod
    def with_kernel(
        cls, kernel: Kernel, noise: float, seen: Features, values: Numbers, doubts: Numbers | None = None
    ) -> Self:
        """One with hyperparameters that were found before."""
        center, unit = float(values.mean()), float(values.std()) or 1.0
        uncertain = (noise / unit) ** 2 + _squared(doubts, unit, len(seen)) + _JITTER * kernel.variance
        factor = cholesky(kernel(*compare(seen, seen)) + np.diag(uncertain), lower=True)
        scaled = (values - center) / unit
        weights = cho_solve((factor, True), scaled)
        means = center + unit * (scaled - uncertain * weights)  # the covariances times the weights, without them
        return cls(kernel, noise, means, seen, center, unit, factor, weights)

    def predict(self, features: Features) -> tuple[Numbers, Numbers]:
        """The mean and the standard deviation of the accuracy of each row, without the noise of one more training."""
        covariances = self.kernel(*compare(features, self._seen))
        explained = solve_triangular(self._factor, covariances.T, lower=True)
        variances = np.maximum(self.kernel.variance - (explained**2).sum(axis=0), 1e-10)
        return self._center + self._unit * (covariances @ self._weights), self._unit * np.sqrt(variances)


def _squared(doubts: Numbers | None, unit: float, count: int) -> Numbers:
    return np.zeros(count) if doubts is None else (doubts / unit) ** 2


def _unlikeliness(
    logs: Numbers, compared: tuple[Numbers, Numbers], values: Numbers, doubted: Numbers
) -> tuple[float, Numbers]:
    """The negative logarithm of the likelihood, and its gradient."""
    kernel, noise, count = Kernel(logs[:-1]), np.exp(logs[-1]), len(values)
    covariances = kernel(*compared) + np.diag(noise + doubted + _JITTER * kernel.variance)
    try:
        factor = cholesky(covariances, lower=True)
    except LinAlgError:  # so little noise that equal rows cannot be told apart: not there
        return 1e10, np.zeros_like(logs)
    weights = cho_solve((factor, True), values)
    unlikeliness = 0.5 * float(values @ weights) + float(np.log(np.diag(factor)).sum())
    outer = 0.5 * (cho_solve((factor, True), np.eye(count)) - np.outer(weights, weights))
    return unlikeliness, np.array([*kernel.slopes(*compared, outer), np.trace(outer) * noise])
