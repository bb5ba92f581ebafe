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


def one_hot(choices: NDArray[np.int64]) -> FloatArray:
    """Return one-hot columns; the product of equal rows is 1."""
    return np.eye(CHOICES)[choices].reshape(len(choices), -1) / np.sqrt(choices.shape[1])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def observed(rng: np.random.Generator) -> Features:
    return Features(rng.random((25, 2)), one_hot(rng.integers(CHOICES, size=(25, SLOTS))))


def test_kernel_falls_with_distance_and_grows_with_equal_choices(observed: Features) -> None:
    covariances = Kernel(np.zeros(6))(*pairwise_distances(observed, observed))
    assert np.allclose(np.diag(covariances), 3.0, atol=1e-5)
    assert np.allclose(covariances, covariances.T)
    assert np.linalg.eigvalsh(covariances).min() > 0
    assert (covariances - np.diag(np.diag(covariances))).max() < 3.0


@pytest.mark.parametrize("logs", [np.zeros(7), np.array([-1.0, 0.5, 0.3, 0.2, -1.5, -2.0, -3.0])])
def test_gradient_of_the_log_marginal_likelihood(
    observed: Features, rng: np.random.Generator, logs: FloatArray
) -> None:
    arguments = (
        pairwise_distances(observed, observed),
        rng.standard_normal(len(observed)),
        rng.random(len(observed)) / 10,
    )
    wrong = check_grad(
        lambda at: _negative_log_marginal_likelihood(at, *arguments)[0],
        lambda at: _negative_log_marginal_likelihood(at, *arguments)[1],
        logs,
    )
    assert wrong < 1e-4 * np.abs(_negative_log_marginal_likelihood(logs, *arguments)[1]).max()


def test_posterior_equals_that_of_scikit_learn(rng: np.random.Generator) -> None:
    """Without categorical features the kernel is a plain Matern-5/2 kernel."""
    continuous, new = rng.random((15, 2)), rng.random((40, 2))
    values = np.sin(3 * continuous[:, 0]) + continuous[:, 1]
    lengthscales, noise = np.array([0.4, 0.9]), 0.05
    theirs = GaussianProcessRegressor(
        ConstantKernel(1.5) * Matern(lengthscales, nu=2.5), alpha=(noise / values.std()) ** 2, optimizer=None
    ).fit(continuous, (values - values.mean()) / values.std())
    kernel = Kernel(np.array([*np.log(lengthscales), 0.0, np.log(1.5), -40.0, -40.0]))
    nothing = np.ones((40, 1))
    ours = Surrogate.with_kernel(kernel, noise, Features(continuous, nothing[:15]), values)
    means, stds = ours.predict(Features(new, nothing))
    expected_means, expected_stds = theirs.predict(new, return_std=True)
    assert means == pytest.approx(values.mean() + values.std() * expected_means, abs=1e-5)
    assert stds == pytest.approx(values.std() * expected_stds, abs=1e-4)


def test_posterior_std_is_small_at_observations_and_large_far_from_them(rng: np.random.Generator) -> None:
    continuous = rng.random((12, 1)) / 2
    one = np.ones((12, 1))
    surrogate = Surrogate.fit(Features(continuous, one), np.sin(6 * continuous[:, 0]), noise=1e-4)
    means, near = surrogate.predict(Features(continuous, one))
    _, far = surrogate.predict(Features(np.array([[3.0]]), one[:1]))
    assert means == pytest.approx(np.sin(6 * continuous[:, 0]), abs=0.01)
    assert far[0] > 10 * near.max()


def test_posterior_means_equal_predictions_at_the_observations(observed: Features, rng: np.random.Generator) -> None:
    values, extra_noise = rng.standard_normal(len(observed)), rng.random(len(observed))
    surrogate = Surrogate.with_kernel(Kernel(np.zeros(6)), 0.3, observed, values, extra_noise)
    assert np.allclose(surrogate.means, surrogate.predict(observed)[0])
    assert not np.allclose(surrogate.means, values, atol=0.1)


def test_harmful_choice_is_learned_from_few_trials(rng: np.random.Generator) -> None:
    """The harmful choice is in four of twenty architectures, no two of which are equal."""
    choices = rng.integers(1, CHOICES, size=(20, SLOTS))
    choices[:4, 2] = 0
    continuous = rng.random((20, 1))
    values = 0.4 + 0.05 * continuous[:, 0] - 0.03 * (choices[:, 2] == 0) + 0.002 * rng.standard_normal(20)
    surrogate = Surrogate.fit(Features(continuous, one_hot(choices)), values, noise=0.002)
    fresh = rng.integers(1, CHOICES, size=(30, SLOTS))
    harmed = fresh.copy()
    harmed[:, 2] = 0
    middle = np.full((30, 1), 0.5)
    better, _ = surrogate.predict(Features(middle, one_hot(fresh)))
    worse, _ = surrogate.predict(Features(middle, one_hot(harmed)))
    assert 0.015 < (better - worse).mean() < 0.04


@pytest.mark.parametrize(("agree", "transfer"), [(True, 1.0), (False, 0.0)])
def test_members_learn_from_each_other_as_far_as_the_observations_say_so(
    rng: np.random.Generator, *, agree: bool, transfer: float
) -> None:
    """Two members whose choices are worth the same, or the opposite."""
    choices = rng.integers(CHOICES, size=(80, SLOTS))
    members = np.array(["v8n", "v9t"])[np.arange(80) % 2]
    sign = np.where(agree | (members == "v8n"), 1.0, -1.0)
    values = 0.4 + 0.03 * sign * (choices - 1).sum(axis=1) / SLOTS
    own = np.where(members[:, None] == ["v8n", "v9t"], np.sqrt(0.5), 0.0)
    features = Features(rng.random((80, 1)), np.hstack([np.sqrt(0.5) * one_hot(choices), own]), members)
    assert Surrogate.fit(features, values, noise=0.002).transfer == transfer


def test_transfer_weakens_what_members_share_and_nothing_else(observed: Features) -> None:
    members = np.array(["v8n", "v9t"])[np.arange(25) % 2]
    joined = Features(observed.continuous, observed.categorical, members)
    is_same = members[:, None] == members[None, :]
    distances, shared = pairwise_distances(joined, joined, transfer=0.25)
    alone, full = pairwise_distances(observed, observed)
    assert np.array_equal(shared, np.where(is_same, full, 0.25 * full))
    assert np.array_equal(distances[:-1], alone[:-1])
    assert np.linalg.eigvalsh(shared).min() > -1e-12


def test_output_warping_exponent_is_found(rng: np.random.Generator) -> None:
    """Values are the square root of a linear function, so the exponent 2 makes them linear again."""
    features = Features(rng.random((60, 2)), np.ones((60, 1)))
    linear = 0.05 + 0.3 * features.continuous.sum(axis=1) + 0.01 * np.sin(20 * features.continuous[:, 0])
    assert Surrogate.fit(features, np.sqrt(linear)).exponent == 2.0
    assert Surrogate.fit(features, linear).exponent == 1.0
    assert Surrogate.fit(features, linear - 0.2).exponent == 1.0  # values that may be negative are not warped


def test_stds_are_in_the_unit_of_the_values_for_any_exponent(observed: Features, rng: np.random.Generator) -> None:
    values = 0.5 + 0.01 * rng.standard_normal(len(observed))  # so close that a power is nearly linear
    extra_noise = np.where(np.arange(len(observed)) % 2, 0.05, 0.0)
    kernel, new = Kernel(np.zeros(6)), Features(observed.continuous + 0.1, observed.categorical)
    plain = Surrogate.with_kernel(kernel, 0.002, observed, values, extra_noise)
    squared = Surrogate.with_kernel(kernel, 0.002, observed, values, extra_noise, exponent=2.0)
    for one, other in zip(squared.predict(new), plain.predict(new), strict=True):
        assert one == pytest.approx(other, rel=0.05)
    assert squared.means == pytest.approx(plain.means, abs=1e-3)


def test_noise_is_estimated_from_equal_rows(rng: np.random.Generator) -> None:
    continuous = np.repeat(np.linspace(0, 1, 15), 4)[:, None]
    values = continuous[:, 0] + 0.1 * rng.standard_normal(60)
    surrogate = Surrogate.fit(Features(continuous, np.ones((60, 1))), values, noise=0.01)
    within = np.sqrt(values.reshape(15, 4).var(axis=1, ddof=1).mean())
    assert surrogate.noise == pytest.approx(within, rel=0.25)


def test_equal_values_can_be_fitted() -> None:
    features = Features(np.linspace(0, 1, 5)[:, None], np.ones((5, 1)))
    means, _ = Surrogate.fit(features, np.full(5, 0.3)).predict(features)
    assert means == pytest.approx(np.full(5, 0.3))
