"""Gaussian process regression of accuracy on architectures.

The kernel is a sum of three parts, each with an amplitude (outputscale):

    k(x, x') = a_smooth * M(r) + a_additive * s + a_local * M(r / 0.2)

`M` is the Matern-5/2 kernel with one lengthscale per continuous feature (ARD) and one for all categorical ones; `r` is
the scaled distance; `s` is the share of slots with equal choices. The smooth part learns curves and interactions. The
additive part has an effect per slot and choice: it learns from few trials that an operator does harm in one place. The
local part fits what remains: single architectures that are better than their smooth neighbourhood.

Outputs are warped by a power transform `y ** exponent`, then standardised. The exponent comes from a small grid, by
the posterior of the hyperparameters: near the top of what a data set allows, a point of accuracy is harder to gain,
and an exponent above 1 stretches it there.

What architectures of different members of a joined space have in common may say much or nothing about their
accuracies. Their share of equal choices is multiplied by a *transfer* between 0 and 1, from a small grid, by the same
posterior. (A Hadamard product with the matrix that is 1 within members and the transfer between them, which is positive
semidefinite: the intrinsic model of coregionalization, with equal correlations.)

Hyperparameters are maximum a posteriori (MAP) estimates, under normal priors on their logarithms.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1 and chapter 5; Snelson,
Rasmussen and Ghahramani, "Warped Gaussian processes", 2003; Bonilla, Chai and Williams, "Multi-task Gaussian process
prediction", 2007.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from nas.algorithms.arrays import FloatArray, IndexArray, NameArray

_JITTER = 1e-8
_SMOOTH_PRIOR, _ADDITIVE_PRIOR, _LOCAL_PRIOR = (0.0, 1.0), (-1.5, 1.0), (-4.0, 1.0)
_LENGTHSCALE_PRIOR, _CATEGORICAL_PRIOR = (0.0, 1.0), (0.0, 1.0)
_NOISE_PRIOR_STD = 1.5
"""Priors: means and standard deviations of the logarithms of amplitudes, lengthscales and the noise variance."""
_LOG_ZERO = -20.0
"""Logarithm of an amplitude that has no effect."""
_LOCAL_SHARE = 0.2
"""Lengthscales of the local part, as a share of those of the smooth part."""
_EXPONENTS, _EXPONENT_PRIOR_STD = (1.0, 1.5, 2.0, 2.5), 1.0
"""Grid of output warping exponents; their logarithm has a normal prior with mean 0 and this standard deviation."""
_TRANSFERS = (1.0, 0.0)
"""Grid of transfers between members; each is as likely as the others before the trials."""
_LEAST_WARPED = 1e-3
"""Accuracy at which values are clipped before warping."""


@dataclass(frozen=True)
class Features:
    """Features of architectures, one row each.

    Attributes:
        continuous: scaling factors, logarithms of costs; about 0 to 1; `(architectures, continuous features)`.
        categorical: weighted one-hot columns, `(architectures, columns)`. The product of two rows is the share of equal
            choices: 1 if all are equal, 0 if none is.
        members: name of each one's member of a joined space, `(architectures,)`; None of a single space.
    """

    continuous: FloatArray
    categorical: FloatArray
    members: NameArray | None = None

    def __len__(self) -> int:
        return len(self.continuous)

    def __getitem__(self, rows: IndexArray) -> "Features":
        members = None if self.members is None else self.members[rows]
        return Features(self.continuous[rows], self.categorical[rows], members)

    @classmethod
    def concatenate(cls, first: Self, second: Self) -> "Features":
        """Stack the rows of both."""
        continuous = np.vstack([first.continuous, second.continuous])
        categorical = np.vstack([first.categorical, second.categorical])
        if first.members is None or second.members is None:
            return Features(continuous, categorical)
        return Features(continuous, categorical, np.concatenate([first.members, second.members]))


@dataclass(frozen=True)
class Kernel:
    """Covariance function, the sum of a smooth, an additive and a local part.

    Attributes:
        logs: logarithms of a lengthscale for each continuous feature, of one for the categorical features, and of the
            amplitudes of the three parts; `(continuous features + 4,)`.
    """

    logs: FloatArray

    def __call__(self, distances: FloatArray, shared: FloatArray) -> FloatArray:
        """Return the covariances of pairs; both arguments as `pairwise_distances` returns them."""
        radius = self._radius(distances)
        smooth, additive, local = np.exp(self.logs[-3:])
        covariances: FloatArray = smooth * _matern(radius) + additive * shared + local * _matern(radius / _LOCAL_SHARE)
        return covariances

    def gradient(self, distances: FloatArray, shared: FloatArray, weights: FloatArray) -> FloatArray:
        """Gradient of `(weights * covariances).sum()` with respect to `logs`."""
        radius = self._radius(distances)
        smooth, additive, local = np.exp(self.logs[-3:])
        by_distance = (
            smooth * _matern_derivative(radius) + local * _matern_derivative(radius / _LOCAL_SHARE) / _LOCAL_SHARE**2
        )
        lengthscales = -2.0 * np.exp(-2.0 * self.logs[:-3]) * np.tensordot(distances, weights * by_distance, 2)
        amplitudes = (
            smooth * (weights * _matern(radius)).sum(),
            additive * (weights * shared).sum(),
            local * (weights * _matern(radius / _LOCAL_SHARE)).sum(),
        )
        return np.array([*lengthscales, *amplitudes])

    def _radius(self, distances: FloatArray) -> FloatArray:
        radius: FloatArray = np.sqrt(5.0 * np.tensordot(np.exp(-2.0 * self.logs[:-3]), distances, 1) + 1e-12)
        return radius

    @property
    def variance(self) -> float:
        """Prior variance `k(x, x)`."""
        return float(np.exp(self.logs[-3:]).sum())


def _matern(radius: FloatArray) -> FloatArray:
    """Matern-5/2 kernel of `radius = sqrt(5) * distance` (Rasmussen and Williams, equation 4.17)."""
    values: FloatArray = (1.0 + radius + radius**2 / 3.0) * np.exp(-radius)
    return values


def _matern_derivative(radius: FloatArray) -> FloatArray:
    """Derivative of the Matern-5/2 kernel with respect to the squared distance, `radius**2 / 5`."""
    derivative: FloatArray = (-5.0 / 6.0) * (1.0 + radius) * np.exp(-radius)
    return derivative


def pairwise_distances(left: Features, right: Features, transfer: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """Return the squared distances by feature, and the share of equal choices, of all pairs of rows.

    Args:
        transfer: factor of the share where the two are of different members.

    Returns:
        `(continuous features + 1, left, right)`, the last by all categorical features together, and `(left, right)`.
    """
    shared = left.categorical @ right.categorical.T
    if left.members is not None and right.members is not None:
        shared = np.where(left.members[:, None] == right.members[None, :], shared, transfer * shared)
    by_feature = zip(left.continuous.T, right.continuous.T, strict=True)
    continuous = [(one[:, None] - other[None, :]) ** 2 for one, other in by_feature]
    return np.array([*continuous, 2.0 * np.maximum(0.0, 1.0 - shared)]), shared


@dataclass(frozen=True)
class Surrogate:
    """Posterior of a Gaussian process, given observations.

    Attributes:
        kernel: with its hyperparameters.
        noise: standard deviation of the observation noise (between seeds), in the unit of the values.
        exponent: of the output warping.
        transfer: factor of what architectures of different members have in common, 0 to 1.
        means: posterior means at the observed rows, as `predict` returns them, `(observations,)`.
    """

    kernel: Kernel
    noise: float
    exponent: float
    transfer: float
    means: FloatArray
    _observed: Features
    _warp: "_OutputWarp"
    _factor: FloatArray
    _alpha: FloatArray

    @classmethod
    def fit(
        cls,
        observed: Features,
        values: FloatArray,
        noise: float | None = None,
        *,
        extra_noise: FloatArray | None = None,
        additive: bool = True,
    ) -> Self:
        """Fit the hyperparameters (MAP), then condition on the observations.

        Args:
            observed: `(observations, features)`.
            values: one for each row, more is better, `(observations,)`.
            noise: approximate standard deviation between seeds, the mean of its prior.
            extra_noise: further observation noise standard deviation of each value, above 0 where it was extrapolated
                instead of measured; `(observations,)`.
            additive: whether the kernel has its additive part.
        """
        exponents = _EXPONENTS if values.min() > _LEAST_WARPED else (1.0,)
        transfers = (1.0,) if observed.members is None else _TRANSFERS
        fits: list[_MapEstimate] = []
        distances = {transfer: pairwise_distances(observed, observed, transfer) for transfer in transfers}
        for transfer, exponent in product(transfers, exponents):
            start = fits[-1].logs if fits else None  # the optimum before is near
            fits.append(
                _MapEstimate.find(
                    distances[transfer],
                    values,
                    exponent,
                    noise,
                    extra_noise,
                    transfer=transfer,
                    additive=additive,
                    start=start,
                )
            )
        best = min(fits, key=lambda fit: fit.negative_log_posterior)
        return cls.with_kernel(
            Kernel(best.logs[:-1]),
            best.noise,
            observed,
            values,
            extra_noise,
            exponent=best.exponent,
            transfer=best.transfer,
        )

    @classmethod
    def with_kernel(
        cls,
        kernel: Kernel,
        noise: float,
        observed: Features,
        values: FloatArray,
        extra_noise: FloatArray | None = None,
        *,
        exponent: float = 1.0,
        transfer: float = 1.0,
    ) -> Self:
        """Condition on observations with given hyperparameters (Rasmussen and Williams, algorithm 2.1)."""
        warp = _OutputWarp.of(values, exponent, extra_noise)
        noise_variances = (noise * warp.mean_derivative) ** 2 + warp.extra_variances + _JITTER * kernel.variance
        covariances = kernel(*pairwise_distances(observed, observed, transfer))
        factor = cholesky(covariances + np.diag(noise_variances), lower=True)
        alpha = cho_solve((factor, True), warp.values)
        means = warp.unwarp(warp.values - noise_variances * alpha)  # K alpha, since (K + noise) alpha = values
        return cls(kernel, noise, exponent, transfer, means, observed, warp, factor, alpha)

    def condition_on(self, observed: Features, values: FloatArray, extra_noise: FloatArray | None = None) -> Self:
        """Condition on these observations instead, with the same hyperparameters."""
        return self.with_kernel(
            self.kernel, self.noise, observed, values, extra_noise, exponent=self.exponent, transfer=self.transfer
        )

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation of accuracy, without observation noise; both `(candidates,)`."""
        covariances = self.kernel(*pairwise_distances(features, self._observed, self.transfer))
        explained = solve_triangular(self._factor, covariances.T, lower=True)
        variances = np.maximum(self.kernel.variance - (explained**2).sum(axis=0), 1e-10)
        means = self._warp.unwarp(covariances @ self._alpha)
        return means, np.sqrt(variances) / self._warp.derivative(means)


@dataclass(frozen=True)
class _OutputWarp:
    """Output warping: a power of the values, standardised to mean 0 and standard deviation 1.

    Standard deviations are carried over by the first-order derivative (delta method).

    Attributes:
        values: warped, `(observations,)`.
        extra_variances: extra observation noise of each value, warped, `(observations,)`.
        mean_derivative: derivative of the warping at the mean value.
    """

    exponent: float
    mean: float
    std: float
    values: FloatArray
    extra_variances: FloatArray
    mean_derivative: float

    @classmethod
    def of(cls, values: FloatArray, exponent: float, extra_noise: FloatArray | None) -> Self:
        raised = values if exponent == 1.0 else np.maximum(values, _LEAST_WARPED) ** exponent
        mean, std = float(raised.mean()), float(raised.std()) or 1.0
        derivatives = _power_derivative(values, exponent) / std
        extra_variances = np.zeros(len(values)) if extra_noise is None else (extra_noise * derivatives) ** 2
        mean_derivative = float(_power_derivative(values.mean(), exponent)) / std
        return cls(exponent, mean, std, (raised - mean) / std, extra_variances, mean_derivative)

    def unwarp(self, warped: FloatArray) -> FloatArray:
        """Return values on the original scale."""
        raised = self.mean + self.std * warped
        least = _LEAST_WARPED**self.exponent
        return raised if self.exponent == 1.0 else np.maximum(raised, least) ** (1.0 / self.exponent)

    def derivative(self, values: FloatArray) -> FloatArray:
        """Derivative of the warping at these values."""
        derivative: FloatArray = _power_derivative(values, self.exponent) / self.std
        return derivative


def _power_derivative(values: Any, exponent: float) -> Any:
    return exponent * np.maximum(values, _LEAST_WARPED) ** (exponent - 1.0)


@dataclass(frozen=True)
class _MapEstimate:
    """Maximum a posteriori estimate of the hyperparameters, for one exponent of the output warping.

    Attributes:
        logs: logarithms of the kernel's hyperparameters, and of the noise variance of warped values.
        noise: standard deviation, in the unit of the values.
        negative_log_posterior: of the hyperparameters, up to a constant that is the same for every exponent.
    """

    logs: FloatArray
    noise: float
    exponent: float
    transfer: float
    negative_log_posterior: float

    @classmethod
    def find(
        cls,
        distances: tuple[FloatArray, FloatArray],
        values: FloatArray,
        exponent: float,
        noise: float | None,
        extra_noise: FloatArray | None,
        *,
        transfer: float,
        additive: bool,
        start: FloatArray | None,
    ) -> Self:
        """Minimise the negative log posterior by L-BFGS-B."""
        warp = _OutputWarp.of(values, exponent, extra_noise)
        noise_mean = 2.0 * np.log(max(noise * warp.mean_derivative, 1e-3)) if noise is not None else -6.0
        additive_prior = _ADDITIVE_PRIOR if additive else (_LOG_ZERO, _ADDITIVE_PRIOR[1])
        lengthscales = [_LENGTHSCALE_PRIOR] * (len(distances[0]) - 1)
        amplitudes = [_SMOOTH_PRIOR, additive_prior, _LOCAL_PRIOR]
        priors = [*lengthscales, _CATEGORICAL_PRIOR, *amplitudes, (noise_mean, _NOISE_PRIOR_STD)]
        prior_means, prior_stds = np.array(priors).T

        def negative_log_posterior(logs: FloatArray) -> tuple[float, FloatArray]:
            z = (logs - prior_means) / prior_stds
            value, gradient = _negative_log_marginal_likelihood(logs, distances, warp.values, warp.extra_variances)
            return value + 0.5 * float(z @ z), gradient + z / prior_stds

        bounds = [(mean - 4.0, mean + 4.0) for mean in prior_means]
        found = minimize(
            negative_log_posterior,
            prior_means if start is None else start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 60},
        )
        # Densities of the values themselves, so that exponents compare (change of variables).
        log_jacobian = float(np.log(warp.derivative(values)).sum())
        posterior = found.fun - log_jacobian + 0.5 * (np.log(exponent) / _EXPONENT_PRIOR_STD) ** 2
        noise_found = float(np.exp(found.x[-1] / 2.0)) / warp.mean_derivative
        return cls(found.x, noise_found, exponent, transfer, float(posterior))


def _negative_log_marginal_likelihood(
    logs: FloatArray, distances: tuple[FloatArray, FloatArray], values: FloatArray, extra_variances: FloatArray
) -> tuple[float, FloatArray]:
    """Negative log marginal likelihood without its constant, and its gradient with respect to `logs`.

    Rasmussen and Williams, equations 2.30 and 5.9.
    """
    kernel, noise, count = Kernel(logs[:-1]), np.exp(logs[-1]), len(values)
    covariances = kernel(*distances) + np.diag(noise + extra_variances + _JITTER * kernel.variance)
    try:
        factor = cholesky(covariances, lower=True)
    except LinAlgError:  # singular: equal rows with almost no noise; keep the optimizer away
        return 1e10, np.zeros_like(logs)
    alpha = cho_solve((factor, True), values)
    likelihood = 0.5 * float(values @ alpha) + float(np.log(np.diag(factor)).sum())
    outer = 0.5 * (cho_solve((factor, True), np.eye(count)) - np.outer(alpha, alpha))
    return likelihood, np.array([*kernel.gradient(*distances, outer), np.trace(outer) * noise])
