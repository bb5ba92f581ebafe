"""Agreement of two rankings given a third."""

import math

import numpy as np
import pytest
from scipy import stats

from nas.algorithms.rank_agreement import agreement


def test_agreement_that_the_cost_explains_is_removed() -> None:
    rng = np.random.default_rng(0)
    cost = np.arange(60.0)
    first, second = (cost + rng.normal(scale=15, size=60) for _ in range(2))
    found = agreement(first.tolist(), second.tolist(), cost.tolist())
    assert found is not None
    assert found.tau > 0.4
    assert found.partial is not None
    assert found.partial < found.tau - 0.2


def test_partial_coefficient_is_kendalls_formula() -> None:
    first, second, cost = [1.0, 3, 2, 5, 4], [2.0, 1, 3, 5, 4], [1.0, 2, 3, 4, 5]
    found = agreement(first, second, cost)
    xy, xz, yz = (
        float(stats.kendalltau(one, other).statistic) for one, other in ((first, second), (first, cost), (second, cost))
    )
    assert found is not None
    assert found.partial == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))
    assert (found.same, found.inverted) == (8, 2)
    assert found.tau == pytest.approx(0.6)


def test_order_of_cost_leaves_nothing() -> None:
    found = agreement([1, 2, 3, 4], [1, 2, 4, 3], [1, 2, 3, 4])
    assert found is not None
    assert found.partial is None


def test_equal_costs_change_nothing() -> None:
    found = agreement([1, 2, 3, 4], [1, 2, 4, 3], [7, 7, 7, 7])
    assert found is not None
    assert found.partial == found.tau


def test_few_models_or_equal_scores_are_not_compared() -> None:
    assert agreement([1, 2, 3], [1, 2, 3], [1, 2, 3]) is None
    assert agreement([1, 1, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4]) is None


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="of the same models"):
        agreement([1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4])
