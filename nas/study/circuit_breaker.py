"""When a search should stop by itself: its last architectures failed alike, and the next ones would, too."""

from collections.abc import Sequence
from itertools import takewhile

from nas.records.record import Record

_ALIKE_AT_FIRST, _ALIKE = 3, 6
"""Architectures in a row that fail alike: before any has finished, and after. An operator that breaks every fourth
architecture breaks three in a row once in 64 trials, six once in 4096."""
_OVER_LIMIT = 20


def reason_to_stop(records: Sequence[Record], *, earlier: int = 0) -> str | None:
    """Why no further trial should begin, in words; None if there is no reason.

    Args:
        records: of all trials, in order.
        earlier: so many belong to runs that have ended: their failures were seen by whoever resumed the study.
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
    """What two failed trials have in common if they failed alike; None if the candidate's ending is an ordinary one."""
    match record.ending:
        case "broken":
            return record.detail.partition(":")[0]
        case "crashed":
            return record.ending
        case _:
            return None
