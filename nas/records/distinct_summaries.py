"""Summaries of architectures, with the parameters that differ where several have the same operators in all slots."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nas.records.record import Record

_Parameter = tuple[str, str]
"""Layer or place, and name of a parameter of its operator: `("16", "expansion")`."""


def distinct_summaries(records: Iterable[Record]) -> dict[int, str]:
    """Return the summary of each trial's architecture: `UIB 3, 4`, or `3 expansion=4: UIB 3, 4` where it is shared.

    Only as many parameters are named as distinguish the architectures of one summary. They come first: a narrow
    terminal cuts the end.
    """
    sharing: dict[str, list[Record]] = {}
    for record in records:
        sharing.setdefault(record.summary, []).append(record)
    return {
        record.trial: f"{_prefix(parameters, _values(record.picks))}{summary}"
        for summary, group in sharing.items()
        for parameters in [_distinguishing([_values(record.picks) for record in group])]
        for record in group
    }


def _values(picks: Mapping[str, Any]) -> dict[_Parameter, Any]:
    """Return every parameter of every operator of an architecture; scaling factors are in its summary."""
    return {
        (place, name): value
        for place, operators in picks.items()
        for parameters in operators.values()
        if isinstance(parameters, Mapping)
        for name, value in parameters.items()
    }


def _distinguishing(group: Sequence[Mapping[_Parameter, Any]]) -> list[_Parameter]:
    """Choose parameters that distinguish the members of a group as far as they differ, the most distinctive first."""
    candidates = sorted({parameter for values in group for parameter in values})
    chosen: list[_Parameter] = []

    def classes(parameters: Sequence[_Parameter]) -> int:
        return len({repr([values.get(each) for each in parameters]) for values in group})

    distinct = classes(candidates)
    while classes(chosen) < distinct:
        chosen.append(max(candidates, key=lambda parameter: classes([*chosen, parameter])))
    return chosen


def _prefix(parameters: Sequence[_Parameter], values: Mapping[_Parameter, Any]) -> str:
    named = [f"{place} {name}={values[place, name]}" for place, name in parameters if (place, name) in values]
    return f"{', '.join(named)}: " if named else ""
