"""What accuracy an architecture will have, learned from those that were trained: a Gaussian process, in numbers alone.

Its kernel is a sum of three parts. In the first, two architectures are alike if they are alike in everything, in their
costs and dials as in their picks (Matern 5/2, a length scale for each): it learns curves and interactions. In the
second they share something for every slot in which they have the same choice: it learns that an operator does harm in
one place, from the few trials that have it there, whatever else these are made of. In the third only near neighbours
are alike: it keeps in mind that some architectures are better than all that is smooth about them would say.

What is normal is a power of the accuracy, the one of a few that makes the values likeliest: near the top of what a data
set allows, a point of accuracy is harder to gain, and a power above 1 stretches it there.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1 and chapter 5; Snelson,
Rasmussen and Ghahramani, "Warped Gaussian processes", 2003.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from nas.algorithms.arrays import FloatArray, IndexArray

_JITTER = 1e-8
_AMPLITUDE, _SHARED, _PECULIAR = (0.0, 1.0), (-1.5, 1.0), (-4.0, 1.0)
_LENGTH, _PICKS_LENGTH = (0.0, 1.0), (0.0, 1.0)
_NOISE_SD = 1.5
"""Means and standard deviations of the logarithms of hyperparameters, before anything is seen."""
_NOTHING = -20.0
"""The logarithm of an amplitude that no score can tell from 0."""
_CLOSE = 0.2
"""The length scales of the third part, as a share of the first one's."""
_POWERS, _POWER_SD = (1.0, 1.5, 2.0, 2.5), 1.0
"""Of accuracy, and the standard deviation of their logarithm about 0."""
_LEAST = 1e-3
"""An accuracy below which no power is told from another."""


@dataclass(frozen=True)
class Features:
    """Architectures as numbers, one a row.

    Attributes:
        scales: what may be more or less, such as a dial or the logarithm of a cost, each about 0 to 1.
        picks: one or more columns for every choice of every slot; rows of equal choices have a product of 1, rows that
            agree in nothing one of 0.
    """

    scales: FloatArray
    picks: FloatArray

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, rows: IndexArray) -> "Features":
        return Features(self.scales[rows], self.picks[rows])

    @classmethod
    def joined(cls, first: Self, second: Self) -> "Features":
        """The rows of both."""
        return Features(np.vstack([first.scales, second.scales]), np.vstack([first.picks, second.picks]))


@dataclass(frozen=True)
class Kernel:
    """How alike architectures are.

    Attributes:
        logs: the logarithms of a length scale for each scale, one for the picks, and the three parts' amplitudes.
    """

    logs: FloatArray

    def __call__(self, distances: FloatArray, shared: FloatArray) -> FloatArray:
        """The covariances, of squared distances as `distances` gives them and the share of equal picks."""
        radius = self._radius(distances)
        whole, part, peculiar = np.exp(self.logs[-3:])
        covariances: FloatArray = whole * _matern(radius) + part * shared + peculiar * _matern(radius / _CLOSE)
        return covariances

    def slopes(self, distances: FloatArray, shared: FloatArray, weights: FloatArray) -> FloatArray:
        """The gradient of `(weights * covariances).sum()` by each logarithm."""
        radius = self._radius(distances)
        whole, part, peculiar = np.exp(self.logs[-3:])
        falling = whole * _falling(radius) + peculiar * _falling(radius / _CLOSE) / _CLOSE**2
        lengths = -2.0 * np.exp(-2.0 * self.logs[:-3]) * np.tensordot(distances, weights * falling, 2)
        amplitudes = (
            whole * (weights * _matern(radius)).sum(),
            part * (weights * shared).sum(),
            peculiar * (weights * _matern(radius / _CLOSE)).sum(),
        )
        return np.array([*lengths, *amplitudes])

    def _radius(self, distances: FloatArray) -> FloatArray:
        radius: FloatArray = np.sqrt(5.0 * np.tensordot(np.exp(-2.0 * self.logs[:-3]), distances, 1) + 1e-12)
        return radius

    @property
    def variance(self) -> float:
        """Of one architecture by itself."""
        return float(np.exp(self.logs[-3:]).sum())


def _matern(radius: FloatArray) -> FloatArray:
    likeness: FloatArray = (1.0 + radius + radius**2 / 3.0) * np.exp(-radius)
    return likeness


def _falling(radius: FloatArray) -> FloatArray:
    """The slope of the likeness by a fifth of the squared radius."""
    slope: FloatArray = (-5.0 / 6.0) * (1.0 + radius) * np.exp(-radius)
    return slope


def pairwise_distances(left: Features, right: Features) -> tuple[FloatArray, FloatArray]:
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
        power: of the values, which is normal.
        means: of the accuracies of what it has seen, as `predict` gives them.
    """

    kernel: Kernel
    noise: float
    power: float
    means: FloatArray
    _seen: Features
    _normal: "_Normal"
    _factor: FloatArray
    _weights: FloatArray

    @classmethod
    def fitted(
        cls,
        seen: Features,
        values: FloatArray,
        noise: float | None = None,
        *,
        doubts: FloatArray | None = None,
        additive: bool = True,
    ) -> Self:
        """One whose hyperparameters make the values likeliest, given what is usual for such.

        Args:
            values: one for each row, more is better.
            noise: the standard deviation between seeds, if it is about known.
            doubts: a further standard deviation of each value, where it was not measured but foreseen.
            additive: whether the kernel has its second part.
        """
        powers = _POWERS if values.min() > _LEAST else (1.0,)
        compared = pairwise_distances(seen, seen)
        fits: list[_Fit] = []
        for power in powers:  # each begins where the one before ended, which is near
            begin = fits[-1].logs if fits else None
            fits.append(_Fit.of(compared, values, power, noise, doubts, additive=additive, begin=begin))
        best = min(fits, key=lambda fit: fit.unlikeliness)
        return cls.with_kernel(Kernel(best.logs[:-1]), best.noise, seen, values, doubts, power=best.power)

    @classmethod
    def with_kernel(
        cls,
        kernel: Kernel,
        noise: float,
        seen: Features,
        values: FloatArray,
        doubts: FloatArray | None = None,
        *,
        power: float = 1.0,
    ) -> Self:
        """One with hyperparameters that were found before."""
        normal = _Normal.of(values, power, doubts)
        uncertain = (noise * normal.slope) ** 2 + normal.doubted + _JITTER * kernel.variance
        factor = cholesky(kernel(*pairwise_distances(seen, seen)) + np.diag(uncertain), lower=True)
        weights = cho_solve((factor, True), normal.values)
        means = normal.meant(normal.values - uncertain * weights)  # the covariances times the weights, without them
        return cls(kernel, noise, power, means, seen, normal, factor, weights)

    def given(self, seen: Features, values: FloatArray, doubts: FloatArray | None = None) -> Self:
        """One with the same hyperparameters that has seen something else."""
        return self.with_kernel(self.kernel, self.noise, seen, values, doubts, power=self.power)

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray]:
        """The mean and the standard deviation of the accuracy of each row, without the noise of one more training."""
        covariances = self.kernel(*pairwise_distances(features, self._seen))
        explained = solve_triangular(self._factor, covariances.T, lower=True)
        variances = np.maximum(self.kernel.variance - (explained**2).sum(axis=0), 1e-10)
        means = self._normal.meant(covariances @ self._weights)
        return means, np.sqrt(variances) / self._normal.slopes(means)


@dataclass(frozen=True)
class _Normal:
    """Values as a normal process has them: a power of them, with a mean of 0 and a standard deviation of 1."""

    power: float
    center: float
    unit: float
    values: FloatArray
    doubted: FloatArray
    slope: float

    @classmethod
    def of(cls, values: FloatArray, power: float, doubts: FloatArray | None) -> Self:
        raised = values if power == 1.0 else np.maximum(values, _LEAST) ** power
        center, unit = float(raised.mean()), float(raised.std()) or 1.0
        slopes = _slopes(values, power) / unit
        doubted = np.zeros(len(values)) if doubts is None else (doubts * slopes) ** 2
        slope = float(_slopes(values.mean(), power)) / unit
        return cls(power, center, unit, (raised - center) / unit, doubted, slope)

    def meant(self, normal: FloatArray) -> FloatArray:
        """The values that these stand for."""
        raised = self.center + self.unit * normal
        return raised if self.power == 1.0 else np.maximum(raised, _LEAST**self.power) ** (1.0 / self.power)

    def slopes(self, values: FloatArray) -> FloatArray:
        """By how much the normal value rises with the value."""
        slopes: FloatArray = _slopes(values, self.power) / self.unit
        return slopes


def _slopes(values: Any, power: float) -> Any:
    return power * np.maximum(values, _LEAST) ** (power - 1.0)


@dataclass(frozen=True)
class _Fit:
    """The likeliest hyperparameters for one power of the values.

    Attributes:
        logs: of all hyperparameters, as they were looked for.
        unlikeliness: the negative logarithm of the values' likelihood, and of that of the hyperparameters.
    """

    logs: FloatArray
    noise: float
    power: float
    unlikeliness: float

    @classmethod
    def of(
        cls,
        compared: tuple[FloatArray, FloatArray],
        values: FloatArray,
        power: float,
        noise: float | None,
        doubts: FloatArray | None,
        *,
        additive: bool,
        begin: FloatArray | None,
    ) -> Self:
        normal = _Normal.of(values, power, doubts)
        usual = 2.0 * np.log(max(noise * normal.slope, 1e-3)) if noise is not None else -6.0
        shared = _SHARED if additive else (_NOTHING, _SHARED[1])
        lengths = [_LENGTH] * (len(compared[0]) - 1)
        logs = [*lengths, _PICKS_LENGTH, _AMPLITUDE, shared, _PECULIAR, (usual, _NOISE_SD)]
        middle, spread = np.array(logs).T

        def unlikeliness(logs: FloatArray) -> tuple[float, FloatArray]:
            off = (logs - middle) / spread
            here, slopes = _negative_log_marginal_likelihood(logs, compared, normal.values, normal.doubted)
            return here + 0.5 * float(off @ off), slopes + off / spread

        bounds = [(low - 4.0, low + 4.0) for low in middle]
        at = middle if begin is None else begin
        found = minimize(unlikeliness, at, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
        stretched = float(np.log(normal.slopes(values)).sum())  # a density of the values themselves, for every power
        told = found.fun - stretched + 0.5 * (np.log(power) / _POWER_SD) ** 2
        within = float(np.exp(found.x[-1] / 2.0)) / normal.slope
        return cls(found.x, within, power, float(told))


def _negative_log_marginal_likelihood(
    logs: FloatArray, compared: tuple[FloatArray, FloatArray], values: FloatArray, doubted: FloatArray
) -> tuple[float, FloatArray]:
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
