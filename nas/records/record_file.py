"""The records of trials that have ended, in a file of the study's: an ended trial never changes.

Optuna takes milliseconds to read a trial, and reads all of a study or one: half a minute for ten thousand. The file
holds nothing that its database does not, and may be deleted.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nas.records.record import Record, record_of


@dataclass
class RecordFile:
    """`records.jsonl`, one JSON line a trial."""

    path: Path
    _kept: set[int] = field(default_factory=set)

    def read(self) -> dict[int, Record]:
        """The records by their trials' numbers, without lines that are damaged, or of another version."""
        if not self.path.is_file():
            return {}
        records = map(record_of, self.path.read_bytes().split(b"\n"))
        known = {record.trial: record for record in records if record is not None}
        self._kept = set(known)
        return known

    def append(self, records: Mapping[int, Record]) -> None:
        """Append those that were neither read nor kept before; only the study's supervisor does."""
        new = sorted(records.keys() - self._kept)
        if new:
            lines = "".join(f"\n{json.dumps(asdict(records[trial]))}\n" for trial in new)  # apart from a torn one
            with suppress(OSError), self.path.open("a", encoding="utf-8") as file:  # what Optuna has is not lost
                file.write(lines)
                self._kept.update(new)

    def delete(self) -> None:
        """Where the study is made anew."""
        self.path.unlink(missing_ok=True)
