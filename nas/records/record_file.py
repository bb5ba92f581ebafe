"""Cache of the records of ended trials in a file of the study: an ended trial never changes.

Optuna takes milliseconds to read a trial, and reads all of a study or one: half a minute for ten thousand. The file
has nothing that the database does not have, and may be deleted.
"""

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nas.records.record import Record, record_of


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable garbage collection while thousands of records are made, and exempt them from it: none is garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@dataclass
class RecordFile:
    """`records.jsonl`, one JSON line for each ended trial."""

    path: Path
    _stored: set[int] = field(default_factory=set)

    def read(self) -> dict[int, Record]:
        """Return the records by trial number; lines that are damaged or of another version are skipped."""
        if not self.path.is_file():
            return {}
        with _gc_disabled():
            records = map(record_of, filter(None, self.path.read_bytes().split(b"\n")))
            by_trial = {record.trial: record for record in records if record is not None}
        self._stored = set(by_trial)
        return by_trial

    def append(self, records: Mapping[int, Record]) -> None:
        """Append the records that are not in the file; only the study's supervisor calls it."""
        new = sorted(records.keys() - self._stored)
        if new:
            # A newline before each line, too: the last one in the file may be torn.
            lines = "".join(f"\n{json.dumps(records[trial].as_line())}\n" for trial in new)
            with suppress(OSError):  # Optuna's database has them
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(lines)
                self._stored.update(new)

    def delete(self) -> None:
        """Delete the file, when the study is made anew."""
        self.path.unlink(missing_ok=True)
