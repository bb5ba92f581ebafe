"""Circuit breaker: stop a search whose last architectures failed for the same reason."""

from collections.abc import Sequence
from itertools import takewhile

from nas.records.record import Record

_ALIKE_AT_FIRST, _ALIKE = 3, 6
"""Consecutive architectures with the same failure, before any has finished and after. An operator that breaks every
fourth architecture breaks three in a row once in 64 trials, six once in 4096."""
_OVER_LIMIT = 20
"""Consecutive architectures over a limit."""


def reason_to_stop(records: Sequence[Record], *, earlier: int = 0) -> str | None:
    """Return why no further trial should begin, as a message; None if there is no reason.

    Args:
        records: of all trials, in order.
        earlier: how many of the trials are ignored: the user who resumed the study knows of their failures.
    """
    ended = [record for record in records[earlier:] if record.ending is not None]
    if not ended:
        return None
    last = ended[-1]
    alike = {r.fingerprint for r in takewhile(lambda record: _fault(record) == _fault(last), reversed(ended))}
    if _fault(last) and len(alike) >= (_ALIKE if any(record.finished for record in records) else _ALIKE_AT_FIRST):
        did = "broke alike" if last.ending == "broken" else "killed their workers"
        return f"{len(alike)} architectures in a row {did}: {last.detail}"
    if len(ended) >= _OVER_LIMIT and {record.ending for record in ended[-_OVER_LIMIT:]} == {"over_limit"}:
        return f"{_OVER_LIMIT} architectures in a row were over a limit: {last.detail}"
    return None


def _fault(record: Record) -> str | None:
    """Return a text that is equal for trials with the same failure; None for an ending that is no failure."""
    match record.ending:
        case "broken":
            return record.detail.partition(":")[0]
        case "crashed":
            return record.ending
        case _:
            return None
