"""Architectures of a table are told apart by their text, also where they have the same operators in all slots."""

from typing import Any

from nas.records.distinct_summaries import distinct_summaries
from nas.records.record import Record


def record(trial: int, summary: str, picks: dict[str, Any]) -> Record:
    return Record(trial=trial, state="complete", picks=picks, summary=summary, fingerprint=repr(picks))


def uib(*, expansion: int, start: int = 0) -> dict[str, Any]:
    return {"UIB": {"expansion": expansion, "start_dw": start}}


def test_summaries_that_differ_stay_as_they_are() -> None:
    records = [record(0, "stock", {}), record(1, "UIB 3", {"3": uib(expansion=2)})]
    assert distinct_summaries(records) == {0: "stock", 1: "UIB 3"}


def test_shared_summary_begins_with_the_parameters_that_differ() -> None:
    records = [
        record(1, "UIB 3, 4", {"3": uib(expansion=2), "4": uib(expansion=2)}),
        record(2, "UIB 3, 4", {"3": uib(expansion=2), "4": uib(expansion=4)}),
    ]
    assert distinct_summaries(records) == {1: "4 expansion=2: UIB 3, 4", 2: "4 expansion=4: UIB 3, 4"}


def test_only_as_many_parameters_are_named_as_are_needed() -> None:
    records = [record(n, "UIB 3", {"3": uib(expansion=n, start=n % 2)}) for n in (1, 2, 3)]
    assert distinct_summaries(records)[3] == "3 expansion=3: UIB 3"


def test_two_parameters_are_named_where_neither_suffices() -> None:
    pairs = [(2, 0), (2, 3), (4, 0), (4, 3)]
    records = [record(n, "UIB 3", {"3": uib(expansion=e, start=s)}) for n, (e, s) in enumerate(pairs)]
    assert len(set(distinct_summaries(records).values())) == 4


def test_further_seeds_of_one_architecture_share_its_summary() -> None:
    records = [record(n, "UIB 3", {"3": uib(expansion=2)}) for n in (1, 2)]
    assert distinct_summaries(records) == {1: "UIB 3", 2: "UIB 3"}


def test_scaling_factors_are_no_parameters() -> None:
    records = [
        record(1, "UIB 3 · depth 0.67", {"3": uib(expansion=2), "macro": {"depth": 0.67}}),
        record(2, "UIB 3 · depth 1", {"3": uib(expansion=2), "macro": {"depth": 1}}),
    ]
    assert distinct_summaries(records)[1] == "UIB 3 · depth 0.67"
