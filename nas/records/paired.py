"""Trainings of one architecture with several seeds, of which the pairs with other architectures' are compared."""

from collections.abc import Sequence

from nas.records.record import Record


def scores_by_repeat(records: Sequence[Record], fingerprint: str) -> dict[int, float]:
    """Return the accuracies of an architecture by the number of the repeat."""
    return {
        record.repeat: record.map50_95
        for record in records
        if record.fingerprint == fingerprint and record.finished and record.map50_95 is not None
    }


def failure(records: Sequence[Record], fingerprint: str) -> str:
    """Return how trainings of an architecture ended that have no score and are not tried again; empty if none did."""
    last = {record.repeat: record for record in records if record.fingerprint == fingerprint}
    failed = [record for record in last.values() if record.ending is not None and not record.finished]
    endings = ", ".join(sorted({str(record.ending) for record in failed}))
    return f"{endings} with {len(failed)} of {len(last)} seeds" if failed else ""
