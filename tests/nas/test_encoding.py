import math
import random

import numpy as np
import pytest

from nas.samplers.encoding import Encoding
from search_spaces import Architecture, Choice, SearchSpace
from trials.costing.cost import CostTable


@pytest.fixture(scope="module")
def table(space: SearchSpace) -> CostTable:
    return CostTable(space, 2, 64)


@pytest.fixture
def encoding(space: SearchSpace, table: CostTable) -> Encoding:
    ends = [table.extreme(lambda layer: layer.macs, cheapest=cheapest) for cheapest in (True, False)]
    return Encoding(space, ends, lambda one: {"gflops": table.cost(one).gflops}, ("gflops",))


def shared(encoding: Encoding, left: Architecture, right: Architecture) -> float:
    rows = encoding.of([left, right]).features.categorical
    return float(rows[0] @ rows[1])


def test_categorical_features_share_equal_slots(encoding: Encoding, space: SearchSpace) -> None:
    two, four = (Choice.of("DynamicConv", {"kernels": kernels}) for kernels in (2, 4))
    stock = space.stock
    assert shared(encoding, stock, stock) == pytest.approx(1.0)
    assert shared(encoding, stock, space.of({"4": two})) == pytest.approx(2 / 3)
    assert shared(encoding, space.of({"4": two}), space.of({"4": four})) == pytest.approx((0.7 + 2) / 3)
    assert shared(encoding, space.of({"4": two}), space.of({"6": two})) == pytest.approx(1 / 3)


def test_costs_are_logarithms_and_continuous_features_run_from_0_to_1(
    encoding: Encoding, space: SearchSpace, table: CostTable
) -> None:
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(30)]
    candidates = encoding.of(drawn)
    assert candidates.costs[:, 0] == pytest.approx([math.log(table.cost(one).gflops) for one in drawn])
    assert candidates.features.continuous.min() >= -1e-9
    assert candidates.features.continuous.max() <= 1 + 1e-9
    assert np.array_equal(encoding.of(drawn[::-1]).features.categorical, candidates.features.categorical[::-1])
    assert candidates.rewards is None


def test_reward_is_affine_in_accuracy(space: SearchSpace) -> None:
    figures = {"gflops": 2.0}
    encoding = Encoding(space, [space.stock], lambda _: figures, ("gflops",), lambda a, f: a * 0.5 - f["gflops"])
    assert encoding.of([space.stock]).rewards == pytest.approx(np.array([[0.5, -2.0]]))


def test_empty_list_of_architectures_is_encoded_to_no_rows(encoding: Encoding) -> None:
    assert len(encoding.of([])) == 0
