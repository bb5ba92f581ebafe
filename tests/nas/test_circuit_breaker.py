"""Circuit breaker of a search, on records alone."""

from dataclasses import replace

import pytest

from nas.records.record import Record
from nas.study.circuit_breaker import reason_to_stop


def records(*endings: str) -> list[Record]:
    """Return a record for each ending, each of another architecture; `broken:x` has the error x."""
    found = []
    for number, ending in enumerate(endings):
        name, _, detail = ending.partition(":")
        record = Record(trial=number, state="complete", picks={}, fingerprint=str(number), detail=detail)
        found.append(replace(record, ending=name or None))
    return found


@pytest.mark.parametrize(
    ("endings", "expected"),
    [
        ((), None),
        (("",), None),
        (("crashed:exit 3",) * 2, None),
        (("crashed:exit 3",) * 3, "3 architectures in a row killed their workers: exit 3"),
        (("crashed:1", "crashed:2", "crashed:3"), "3 architectures in a row killed their workers: 3"),
        (("finished",) + ("crashed:exit 3",) * 5, None),
        (("finished",) + ("crashed:exit 3",) * 6, "6 architectures in a row killed their workers: exit 3"),
        (("broken:KeyError",) * 3, "3 architectures in a row broke alike: KeyError"),
        (("broken:KeyError", "broken:TypeError", "broken:KeyError"), None),
        (("broken:KeyError", "broken:KeyError", "crashed:exit 3"), None),
        (("diverged",) * 30, None),
        (("over_limit:slow",) * 19, None),
        (("over_limit:slow",) * 20, "20 architectures in a row were over a limit: slow"),
        (("over_limit:slow",) * 10 + ("diverged",) + ("over_limit:slow",) * 10, None),
    ],
)
def test_circuit_breaker_opens_after_equal_failures(endings: tuple[str, ...], expected: str | None) -> None:
    assert reason_to_stop(records(*endings)) == expected


def test_failures_of_earlier_runs_are_ignored() -> None:
    failed = records(*["crashed:exit 3"] * 5)
    assert reason_to_stop(failed, earlier=2) is not None
    assert reason_to_stop(failed, earlier=3) is None


def test_repeated_failure_of_one_architecture_counts_once() -> None:
    (one,) = records("crashed:exit 3")
    assert reason_to_stop([one] * 5) is None
