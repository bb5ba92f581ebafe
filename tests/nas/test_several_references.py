"""Paired comparisons with several references: laws, and the share of false claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.algorithms.arrays import FloatArray
from nas.algorithms.paired_comparison import Finding, compare, holm
from nas.algorithms.several_references import before_holm, compare_with_all, compare_with_own

MARGIN = 0.5


def study(*gains: float, seeds: int = 5, seed: int = 0, deviation: float = 0.19) -> FloatArray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((1 + len(gains), seeds)) * deviation / np.sqrt(2) + rng.standard_normal(seeds)
    values[1:] += np.array(gains)[:, None]
    return values


@given(st.integers(0, 50))
def test_one_reference_is_that_of_compare(seed: int) -> None:
    values = study(0.2, -0.1, seed=seed)
    found = compare_with_all(values, [[0], [0]], margin=MARGIN)
    assert found == [(0, one) for one in compare(values, margin=MARGIN)]


def test_candidate_is_better_only_if_it_is_better_than_all_of_its_references() -> None:
    first, candidate = study(1.0)
    values = np.array([first, candidate + study(0.0, seed=1)[0] * 0.1, candidate])
    ((row, found),) = compare_with_all(values, [[0, 1]], margin=MARGIN)
    assert row == 1
    assert found.finding is not Finding.BETTER
    ((row, found),) = compare_with_all(values, [[0]], margin=MARGIN)
    assert (row, found.finding) == (0, Finding.BETTER)


def test_candidates_are_references_of_others() -> None:
    values = study(0.2, -0.1, 0.4)
    found = compare_with_all(values, [[0], [0, 1], [2]], margin=MARGIN)
    beside_first, beside_third = compare(values, margin=MARGIN), compare(values[[2, 1, 3]], margin=MARGIN)
    assert (found[0][1].low, found[0][1].high) == (beside_first[0].low, beside_first[0].high)
    assert (found[2][0], found[2][1].low, found[2][1].high) == (2, beside_third[1].low, beside_third[1].high)


def test_chosen_reference_counts_as_often_as_there_were_others() -> None:
    values = np.vstack([study(0.0), study(-0.1, seed=1)[1:]])
    ((row, found),) = compare_with_all(values, [[0, 1]], margin=MARGIN)
    ((_, alone),) = compare_with_all(values, [[row]], margin=MARGIN)
    assert found.p_better == alone.p_better
    assert found.p_worse == pytest.approx(min(1, 2 * alone.p_worse))
    assert found.p_equivalent == pytest.approx(min(1, 2 * alone.p_equivalent))


def own_findings(values: FloatArray, references: list[list[int]], own: list[int | None]) -> list[Finding | None]:
    overall = [one for _, one in compare_with_all(values, references, margin=MARGIN)]
    found = compare_with_own(values, references, own, overall, margin=MARGIN)
    return [None if one is None else one.finding for one in found]


def test_candidate_may_be_better_than_its_own_reference_alone() -> None:
    values = study(3.0, 1.0)  # two references, of which the second is better than the candidate
    assert own_findings(values, [[0, 1]], [0]) == [Finding.BETTER]


def test_nothing_is_claimed_over_an_own_reference_that_is_not_among_the_others() -> None:
    values = study(-3.0, -1.0)
    assert own_findings(values, [[0]], [1]) == [Finding.UNDECIDED]
    assert own_findings(values, [[0]], [None]) == [None]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_own_reference_comes_first_and_costs_the_other_tests_nothing(
    pairs: list[tuple[float, float]], level: float
) -> None:
    """Oracle: the graphical procedure step by step, each candidate with its share of the level."""
    first, second = np.array([min(pair) for pair in pairs]), np.array([max(pair) for pair in pairs])
    left = set(range(len(pairs)))
    while passed := {one for one in left if second[one] <= level / len(left)}:
        left -= passed
    own = {one for one in left if first[one] <= level / len(left)} | (set(range(len(pairs))) - left)
    assert {one for one, value in enumerate(holm(second)) if value <= level} == set(range(len(pairs))) - left
    assert {one for one, value in enumerate(before_holm(first, holm(second))) if value <= level} == own


def test_both_kinds_of_claims_together_are_false_in_at_most_one_study_of_twenty() -> None:
    """Half of the candidates are as good as the better of two references, half as their own, the worse one."""
    rng, studies, false = np.random.default_rng(0), 1000, 0
    references: list[list[int]] = [[0, 1]] * 4
    truth = np.array([50.0, 47.0, 50.0, 50.0, 47.0, 47.0])
    for _ in range(studies):
        values = truth[:, None] + rng.standard_normal((6, 5)) * 0.2
        overall = [one for _, one in compare_with_all(values, references, margin=MARGIN)]
        own = compare_with_own(values, references, [1, 1, 1, 1], overall, margin=MARGIN)
        claims = [one.finding for one in overall] + [one.finding for one in own[2:] if one]
        false += Finding.BETTER in claims
    assert false <= 0.05 * studies
