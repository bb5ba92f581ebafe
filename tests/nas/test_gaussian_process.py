import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from nas.algorithms.arrays import FloatArray
from nas.algorithms.gaussian_process import (
    Features,
    Kernel,
    Surrogate,
    _negative_log_marginal_likelihood,
    pairwise_distances,
)

SLOTS, CHOICES = 6, 3


def picked(choices: NDArray[np.int64]) -> FloatArray:
    """One-hot columns whose product is 1 for equal rows."""
    return np.eye(CHOICES)[choices].reshape(len(choices), -1) / np.sqrt(choices.shape[1])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def seen(rng: np.random.Generator) -> Features:
    return Features(rng.random((25, 2)), picked(rng.integers(CHOICES, size=(25, SLOTS))))


def test_likeness_falls_with_distance_and_grows_with_equal_picks(seen: Features) -> None:
    covariances = Kernel(np.zeros(6))(*pairwise_distances(seen, seen))
    assert np.allclose(np.diag(covariances), 3.0, atol=1e-5)
    assert np.allclose(covariances, covariances.T)
    assert np.linalg.eigvalsh(covariances).min() > 0
    assert (covariances - np.diag(np.diag(covariances))).max() < 3.0


@pytest.mark.parametrize("logs", [np.zeros(7), np.array([-1.0, 0.5, 0.3, 0.2, -1.5, -2.0, -3.0])])
def test_the_gradient_is_that_of_the_likelihood(seen: Features, rng: np.random.Generator, logs: FloatArray) -> None:
    known = pairwise_distances(seen, seen), rng.standard_normal(len(seen)), rng.random(len(seen)) / 10
    wrong = check_grad(
        lambda at: _negative_log_marginal_likelihood(at, *known)[0],
        lambda at: _negative_log_marginal_likelihood(at, *known)[1],
        logs,
    )
    assert wrong < 1e-4 * np.abs(_negative_log_marginal_likelihood(logs, *known)[1]).max()


def test_predictions_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    """With no picks to share, ours is a plain Gaussian process with a Matern kernel."""
    scales, new = rng.random((15, 2)), rng.random((40, 2))
    values = np.sin(3 * scales[:, 0]) + scales[:, 1]
    lengths, noise = np.array([0.4, 0.9]), 0.05
    theirs = GaussianProcessRegressor(
        ConstantKernel(1.5) * Matern(lengths, nu=2.5), alpha=(noise / values.std()) ** 2, optimizer=None
    ).fit(scales, (values - values.mean()) / values.std())
    kernel = Kernel(np.array([*np.log(lengths), 0.0, np.log(1.5), -40.0, -40.0]))
    nothing = np.ones((40, 1))
    ours = Surrogate.with_kernel(kernel, noise, Features(scales, nothing[:15]), values)
    means, deviations = ours.predict(Features(new, nothing))
    expected, spread = theirs.predict(new, return_std=True)
    assert means == pytest.approx(values.mean() + values.std() * expected, abs=1e-5)
    assert deviations == pytest.approx(values.std() * spread, abs=1e-4)


def test_what_was_seen_is_known_and_what_is_far_is_not(rng: np.random.Generator) -> None:
    scales = rng.random((12, 1)) / 2
    one = np.ones((12, 1))
    surrogate = Surrogate.fitted(Features(scales, one), np.sin(6 * scales[:, 0]), noise=1e-4)
    means, near = surrogate.predict(Features(scales, one))
    _, far = surrogate.predict(Features(np.array([[3.0]]), one[:1]))
    assert means == pytest.approx(np.sin(6 * scales[:, 0]), abs=0.01)
    assert far[0] > 10 * near.max()


def test_what_it_thinks_of_the_seen_is_what_it_predicts(seen: Features, rng: np.random.Generator) -> None:
    values, doubts = rng.standard_normal(len(seen)), rng.random(len(seen))
    surrogate = Surrogate.with_kernel(Kernel(np.zeros(6)), 0.3, seen, values, doubts)
    assert np.allclose(surrogate.means, surrogate.predict(seen)[0])
    assert not np.allclose(surrogate.means, values, atol=0.1)


def test_a_harmful_choice_is_known_from_few_trials(rng: np.random.Generator) -> None:
    """It stood in four of twenty architectures, of which no two were alike."""
    choices = rng.integers(1, CHOICES, size=(20, SLOTS))
    choices[:4, 2] = 0
    scales = rng.random((20, 1))
    values = 0.4 + 0.05 * scales[:, 0] - 0.03 * (choices[:, 2] == 0) + 0.002 * rng.standard_normal(20)
    surrogate = Surrogate.fitted(Features(scales, picked(choices)), values, noise=0.002)
    fresh = rng.integers(1, CHOICES, size=(30, SLOTS))
    harmed = fresh.copy()
    harmed[:, 2] = 0
    middle = np.full((30, 1), 0.5)
    better, _ = surrogate.predict(Features(middle, picked(fresh)))
    worse, _ = surrogate.predict(Features(middle, picked(harmed)))
    assert 0.015 < (better - worse).mean() < 0.04


def test_a_power_is_found_that_makes_values_normal(rng: np.random.Generator) -> None:
    """What rises evenly, seen through a root: the square of it is what a smooth process would say."""
    features = Features(rng.random((60, 2)), np.ones((60, 1)))
    evenly = 0.05 + 0.3 * features.scales.sum(axis=1) + 0.01 * np.sin(20 * features.scales[:, 0])
    assert Surrogate.fitted(features, np.sqrt(evenly)).power == 2.0
    assert Surrogate.fitted(features, evenly).power == 1.0
    assert Surrogate.fitted(features, evenly - 0.2).power == 1.0  # no power of what may be negative


def test_doubts_and_deviations_are_of_the_values_not_of_their_power(seen: Features, rng: np.random.Generator) -> None:
    values = 0.5 + 0.01 * rng.standard_normal(len(seen))  # so near one another that a power is a straight line
    doubts = np.where(np.arange(len(seen)) % 2, 0.05, 0.0)
    kernel, new = Kernel(np.zeros(6)), Features(seen.scales + 0.1, seen.picks)
    plain = Surrogate.with_kernel(kernel, 0.002, seen, values, doubts)
    squared = Surrogate.with_kernel(kernel, 0.002, seen, values, doubts, power=2.0)
    for ours, theirs in zip(squared.predict(new), plain.predict(new), strict=True):
        assert ours == pytest.approx(theirs, rel=0.05)
    assert squared.means == pytest.approx(plain.means, abs=1e-3)


def test_noise_is_found_where_equals_differ(rng: np.random.Generator) -> None:
    scales = np.repeat(np.linspace(0, 1, 15), 4)[:, None]
    values = scales[:, 0] + 0.1 * rng.standard_normal(60)
    surrogate = Surrogate.fitted(Features(scales, np.ones((60, 1))), values, noise=0.01)
    within = np.sqrt(values.reshape(15, 4).var(axis=1, ddof=1).mean())
    assert surrogate.noise == pytest.approx(within, rel=0.25)


def test_equal_values_are_no_reason_to_fail() -> None:
    features = Features(np.linspace(0, 1, 5)[:, None], np.ones((5, 1)))
    means, _ = Surrogate.fitted(features, np.full(5, 0.3)).predict(features)
    assert means == pytest.approx(np.full(5, 0.3))
