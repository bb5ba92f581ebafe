"""Growth of epochs until a gain is down to a target."""

import numpy as np
import pytest

from nas.algorithms.learning_curve import MOST, exponent_weights, growth


def law(epochs: float, exponent: float, *, level: float = 0.6, scale: float = 1.5) -> float:
    return level - scale * epochs**-exponent


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.5])
def test_factor_brings_the_gain_down_to_the_target(exponent: float) -> None:
    points = [(epochs, law(epochs, exponent)) for epochs in (24, 32, 48, 80, 120)]
    gain = points[1][1] - points[0][1]
    target = gain / 2
    found = growth(points, gain=gain, target=target, noise=1e-5)
    ends = [law(found.factor * epochs, exponent) for epochs in (24, 32)]
    assert ends[1] - ends[0] == pytest.approx(target, rel=0.03)
    assert found.low <= found.factor <= found.high
    assert not found.is_lower_bound


def test_two_points_give_a_lower_bound() -> None:
    """The example of docs/trust.md: three times the epochs for a gain of 3.5 points beside 1.2."""
    found = growth([(24, 0.479), (32, 0.514)], gain=0.035, target=0.012, noise=0.003)
    assert found.factor == pytest.approx(0.035 / 0.012)
    assert found.is_lower_bound
    assert found.low < found.factor < found.high


def test_curve_that_does_not_flatten_gives_the_largest_factor() -> None:
    found = growth([(24, 0.479), (32, 0.514), (48, 0.613)], gain=0.035, target=0.012, noise=0.003)
    assert (found.factor, found.is_lower_bound) == (MOST, True)


def test_noise_widens_the_interval() -> None:
    points = [(epochs, law(epochs, 1.0)) for epochs in (24, 32, 48)]
    sure, vague = (growth(points, gain=0.0156, target=0.004, noise=noise) for noise in (1e-4, 1e-2))
    assert vague.high - vague.low > sure.high - sure.low


def test_gain_below_the_target_needs_no_growth() -> None:
    found = growth([(24, 0.479), (32, 0.484)], gain=0.005, target=0.012, noise=0.003)
    assert (found.factor, found.is_lower_bound) == (1.0, False)


def test_weights_of_a_falling_curve_are_finite() -> None:
    weights = exponent_weights([(24, 0.5), (32, 0.49), (48, 0.48)], 0.003)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)


def test_level_stays_below_one() -> None:
    weights = exponent_weights([(24, 0.90), (32, 0.95), (48, 0.999)], 0.001)
    assert weights.sum() == pytest.approx(1)


def test_no_gain_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        growth([(24, 0.5), (32, 0.5)], gain=0.0, target=0.01, noise=0.003)
