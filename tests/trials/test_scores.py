import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from search_spaces.errors import ScoreError
from trials import Costs, Ending, Scores

COSTS: dict[str, Any] = {
    "params": 2_000_000,
    "gflops": 8.3,
    "latency_ms": 12.5,
    "latency_spread_ms": 0.5,
    "latency_steady": True,
}


def scores(**changes: Any) -> Scores:
    return Scores(**{"map50_95": 0.25, "map50": 0.5, "costs": Costs(**COSTS), **changes})


@pytest.mark.parametrize("figure", ["params", "gflops", "latency_ms"])
@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan, math.inf])
def test_a_cost_is_a_number_above_0(figure: str, value: float) -> None:
    with pytest.raises(ScoreError) as caught:
        Costs(**{**COSTS, figure: value})
    assert str(caught.value) == f"{figure}: a cost is above 0, got {value}"


def test_a_latency_may_be_unknown() -> None:
    costs = Costs(params=2_000_000, gflops=8.3)
    assert (costs.latency_ms, costs.latency_spread_ms, costs.latency_steady) == (None, None, True)
    assert scores(costs=costs).value("gflops") == 8.3


@pytest.mark.parametrize("figure", ["map50_95", "map50"])
@pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf])
def test_an_accuracy_is_from_0_to_1(figure: str, value: float) -> None:
    with pytest.raises(ScoreError) as caught:
        scores(**{figure: value})
    assert str(caught.value) == f"{figure}: an accuracy is from 0 to 1, got {value}"


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0])
def test_an_accuracy_may_be_0_or_1(value: float) -> None:
    assert scores(map50_95=value, map50=value).map50 == value


@pytest.mark.parametrize(
    ("objective", "value"),
    [("map50_95", 0.25), ("map50", 0.5), ("gflops", 8.3), ("params", 2_000_000.0), ("latency_ms", 12.5)],
)
def test_an_objective_is_read_by_its_name(objective: str, value: float) -> None:
    read = scores().value(objective)
    assert read == value
    assert type(read) is float


def test_scores_are_immutable_values() -> None:
    assert scores() == scores()
    assert len({scores(), scores()}) == 1
    with pytest.raises(FrozenInstanceError):
        scores().map50 = 1.0  # type: ignore[misc]  # that is the point


def test_an_ending_is_stored_as_a_word_and_shown_with_its_advice() -> None:
    assert [ending.value for ending in Ending] == [
        "finished",
        "stopped",
        "over_limit",
        "diverged",
        "out_of_memory",
        "timed_out",
        "crashed",
        "broken",
    ]
    assert all(len(ending.advice.split()) >= 5 for ending in Ending)
    assert len({ending.advice for ending in Ending}) == len(Ending)
