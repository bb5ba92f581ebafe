"""Noise between seeds of one architecture."""

import numpy as np
import pytest

from nas.algorithms.paired_comparison import detectable, paired_deviation
from nas.algorithms.seed_noise import SeedNoise, estimate, least_difference


def test_whole_layout_gives_the_deviation_of_a_paired_comparison() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3))
    noise = estimate([{(str(model), seed): values[model, seed] for model in range(4) for seed in range(3)}])
    assert noise is not None
    assert noise.deviation * np.sqrt(2) == pytest.approx(paired_deviation(values))
    assert noise.degrees_of_freedom == 6


def test_effect_of_a_seed_on_all_architectures_is_no_noise() -> None:
    trainings = {(model, seed): 10.0 * seed + ord(model) for model in "abc" for seed in range(3)}
    noise = estimate([trainings])
    assert noise is not None
    assert noise.deviation == pytest.approx(0, abs=1e-9)


def test_single_trainings_say_nothing() -> None:
    assert estimate([{("a", 0): 1.0, ("b", 0): 2.0, ("c", 1): 3.0}]) is None
    assert estimate([{("a", 0): 1.0, ("a", 1): 2.0}]) is None  # a seed's effect, or noise
    assert estimate([]) is None


def test_studies_are_pooled() -> None:
    one, other = ({("a", 0): 0.0, ("a", 1): 0.0, ("b", 0): 0.0, ("b", 1): size} for size in (1.0, 3.0))
    noise = estimate([one, other])
    assert noise is not None
    assert noise.degrees_of_freedom == 2
    assert noise.deviation**2 == pytest.approx((1**2 + 3**2) / 4 / 2)


def test_order_of_trials_changes_no_bit() -> None:
    values = np.random.default_rng(2).normal(size=(5, 3))
    trainings = {(str(model), seed): values[model, seed] for model in range(5) for seed in range(3)}
    assert estimate([trainings]) == estimate([dict(reversed(trainings.items()))])


def test_interval_covers_the_true_deviation() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        values = rng.normal(size=(3, 2)) + rng.normal(size=(1, 2))
        noise = estimate([{(str(model), seed): values[model, seed] for model in range(3) for seed in range(2)}])
        assert noise is not None
        covered += noise.low <= 1 <= noise.high
    assert 0.92 <= covered / 400 <= 0.98


def test_least_difference_falls_with_the_seeds() -> None:
    noise = SeedNoise(deviation=1.0, low=0.5, high=3.0, degrees_of_freedom=3)
    each = [least_difference(noise, seeds) for seeds in (1, 2, 3, 5, 10)]
    assert each == sorted(each, reverse=True)
    assert each[0] == pytest.approx(detectable(np.sqrt(2), 1, freedom=3))
