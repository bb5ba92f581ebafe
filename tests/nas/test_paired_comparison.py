"""Paired comparisons with a reference: oracles of SciPy, laws, and the share of false claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas.algorithms.image_variance import ImageVariances
from nas.algorithms.paired_comparison import (
    Finding,
    compare,
    detectable,
    holm,
    paired_deviation,
    seeds_for,
)

MARGIN = 0.5


def study(*gains: float, seeds: int = 5, seed: int = 0, deviation: float = 0.19) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((1 + len(gains), seeds)) * deviation / np.sqrt(2) + rng.standard_normal(seeds)
    values[1:] += np.array(gains)[:, None]
    return values


def test_one_candidate_is_the_paired_t_test() -> None:
    values = study(0.2)
    (found,) = compare(values, margin=MARGIN)
    oracle = stats.ttest_rel(values[1], values[0], alternative="greater")
    interval = stats.ttest_rel(values[1], values[0]).confidence_interval(0.95)
    assert found.p_better == pytest.approx(oracle.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_two_one_sided_tests_show_equivalence() -> None:
    values = study(0.05)
    (found,) = compare(values, margin=MARGIN)
    differences = values[1] - values[0]
    above = stats.ttest_1samp(differences, -MARGIN, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, MARGIN, alternative="less").pvalue
    assert found.p_equivalent == pytest.approx(max(above, below))
    assert found.finding is Finding.EQUIVALENT


def test_holm_corrects_the_textbook_example() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(values: list[float]) -> None:
    p_values = np.array(values)
    corrected = holm(p_values)
    assert (corrected >= p_values).all()
    assert (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(p_values, kind="stable")]) >= 0).all()


@given(st.floats(-10, 10))
def test_seed_effect_on_all_models_does_not_change_a_comparison(shift: float) -> None:
    values = study(0.3, 0.0, -0.3)
    moved = values + shift * np.arange(values.shape[1])
    for one, other in zip(compare(values, margin=MARGIN), compare(moved, margin=MARGIN), strict=True):
        assert one.difference == pytest.approx(other.difference, abs=1e-9)
        assert one.standard_error == pytest.approx(other.standard_error, abs=1e-9)


def test_findings_name_the_side() -> None:
    found = [each.finding for each in compare(study(1.0, -1.0, 0.0), margin=MARGIN)]
    assert found == [Finding.BETTER, Finding.WORSE, Finding.EQUIVALENT]


def test_standard_error_of_a_noisy_candidate_is_from_its_differences() -> None:
    values = study(0.0, 0.0, 0.0, 0.0)
    values[1] += np.array([1.0, -1.0, 1.0, -1.0, 0.6])
    own = np.var(values[1] - values[0], ddof=1)
    assert compare(values, margin=MARGIN)[0].standard_error == pytest.approx(np.sqrt(own / 5))
    assert compare(values, margin=MARGIN)[0].standard_error > paired_deviation(values) / np.sqrt(5)


def test_few_images_widen_the_interval() -> None:
    values = study(0.3)
    images = ImageVariances(common=np.array([0.04]), interaction=np.array([0.0]), images=10_000)
    (sure,), (unsure,) = compare(values, margin=MARGIN), compare(values, margin=MARGIN, sampled=images)
    assert unsure.low < sure.low < sure.high < unsure.high
    assert unsure.degrees_of_freedom > sure.degrees_of_freedom
    assert unsure.difference == sure.difference


def test_without_any_noise_a_difference_is_certain() -> None:
    same = np.array([[0.5, 0.5], [0.6, 0.6], [0.5, 0.5]])
    better, equal = compare(same, margin=0.05)
    assert (better.finding, better.low, better.high) == (Finding.BETTER, *[pytest.approx(0.1)] * 2)
    assert equal.finding is Finding.EQUIVALENT


@pytest.mark.parametrize("wrong", [np.zeros((1, 5)), np.zeros((3, 1)), np.full((2, 5), np.nan)])
def test_scores_that_cannot_be_compared_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a reference and candidates"):
        compare(wrong, margin=MARGIN)


@pytest.mark.parametrize("candidates", [1, 3, 10])
def test_a_gain_is_claimed_in_at_most_a_twentieth_of_studies_without_one(candidates: int) -> None:
    claims = sum(
        any(each.finding is Finding.BETTER for each in compare(study(*[0.0] * candidates, seed=seed), margin=MARGIN))
        for seed in range(400)
    )
    assert claims <= 28  # 20 are expected at most; more than 28 in 3 % of such runs


@pytest.mark.parametrize(("gain", "candidates"), [(0.3, 1), (0.3, 5), (0.5, 3)])
def test_the_seeds_that_are_promised_to_find_a_gain_find_it(gain: float, candidates: int) -> None:
    seeds = seeds_for(gain, 0.19, candidates=candidates)
    assert seeds is not None
    gains = [gain, *[0.0] * (candidates - 1)]
    found = sum(
        compare(study(*gains, seeds=seeds, seed=seed), margin=MARGIN)[0].finding is Finding.BETTER
        for seed in range(400)
    )
    assert found >= 0.72 * 400
    assert detectable(0.19, seeds, candidates=candidates) <= gain


def test_no_number_of_seeds_finds_a_gain_of_nothing() -> None:
    assert seeds_for(1e-6, 0.19) is None
