"""Files of a study in a storage that several machines share."""

import hashlib
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import text

from nas.study.shared_tables import create_tables
from nas.study.storage_retries import RetryingStorage

MOST_BYTES = 10_000_000_000
"""Largest file that is stored; where it is fetched, three times as much memory is needed for a moment."""
_PART_BYTES = 100_000_000
"""Size of the parts of a larger file: PostgreSQL's limit on a value is 1 GiB, and both sides hold a part in memory."""
_AT_ONCE = 50
_PUT = text("""\
INSERT INTO nas_files (study_id, path, machine, size, sha256, content)
VALUES (:study, :path, :machine, :size, :sha256, :content)
ON CONFLICT (study_id, path) DO UPDATE SET machine = excluded.machine, size = excluded.size, sha256 = excluded.sha256,
    content = excluded.content, written = clock_timestamp()""")
_DELETE_PARTS = text("DELETE FROM nas_parts WHERE study_id = :study AND path = :path")
_PUT_PART = text("""\
INSERT INTO nas_parts (study_id, path, number, sha256, content) VALUES (:study, :path, :number, :sha256, :content)""")
_GET = text("""\
SELECT file.path, coalesce(part.content, file.content)
FROM nas_files AS file LEFT JOIN nas_parts AS part
    ON part.study_id = file.study_id AND part.path = file.path AND length(file.content) < file.size
WHERE file.study_id = :study AND file.path = ANY(:paths)
ORDER BY part.number""")
"""A file in parts has no content of its own; earlier versions stored every file as one value."""
_LIST = text("""\
SELECT CAST(txid_snapshot_xmin(txid_current_snapshot()) % 4294967296 AS text), path, machine, size, sha256, written
FROM (SELECT) AS always LEFT JOIN nas_files AS file
    ON study_id = :study AND (:since = '0' OR age(file.xmin) <= age(CAST(CAST(:since AS text) AS xid)))
ORDER BY path""")
"""A row's `xmin` is the transaction that wrote it; `age` compares transactions, whose numbers return to 0."""
_DIGESTS = text("SELECT path, sha256 FROM nas_files WHERE study_id = :study AND path = ANY(:paths)")
_DAMAGED = text("""\
SELECT path FROM nas_files AS file WHERE study_id = :study AND CASE
    WHEN length(content) = size THEN encode(sha256(content), 'hex') <> sha256
    ELSE (SELECT coalesce(sum(length(part.content)), 0) <> file.size
            OR bool_or(encode(sha256(part.content), 'hex') <> part.sha256)
        FROM nas_parts AS part WHERE part.study_id = file.study_id AND part.path = file.path)
    END
ORDER BY path""")
_DELETE = text("DELETE FROM nas_files WHERE study_id = :study AND path = ANY(:paths)")
BEGINNING = "0"
"""Mark before all changes."""


@dataclass(frozen=True, kw_only=True)
class SharedFile:
    """Entry of a listing.

    Attributes:
        machine: id of the machine that wrote it.
        written: when, by the database's clock.
    """

    path: str
    machine: str
    size: int
    sha256: str
    written: datetime


class SharedFiles:
    """Files of one study in the storage: a file is replaced as a whole, by one transaction.

    Args:
        study: Optuna's number of it.
        machine: id of this machine; empty to read only.
    """

    def __init__(self, storage: RetryingStorage, study: int, machine: str = "") -> None:
        self._storage, self._study, self._machine = storage, study, machine
        create_tables(storage)

    def put(self, path: str, content: bytes) -> None:
        """Store a file with a content."""
        self._storage.call(lambda: self._write(path, io.BytesIO(content)))

    def put_file(self, path: str, file: Path) -> None:
        """Store the content of a file of this machine."""
        self._storage.call(lambda: self.put_at_once(path, file))

    def put_at_once(self, path: str, file: Path) -> None:
        """Store the content of a file of this machine by one attempt.

        Raises:
            SQLAlchemyError: the storage does not answer.
        """
        with file.open("rb") as content:
            self._write(path, content)

    def _write(self, path: str, content: BinaryIO) -> None:
        """Write a file by one transaction: as one value, or in parts, of which one at a time is in memory."""
        place = {"study": self._study, "path": path}
        row = {**place, "machine": self._machine}
        with self._storage.engine.begin() as connection:
            first = content.read(_PART_BYTES)
            if len(first) < _PART_BYTES:
                connection.execute(_PUT, {**row, "size": len(first), "sha256": _digest(first), "content": first})
                return
            connection.execute(_PUT, {**row, "size": 0, "sha256": "", "content": b""})  # no other machine writes it now
            connection.execute(_DELETE_PARTS, place)
            size, whole = 0, hashlib.sha256()
            for number, part in enumerate(chain([first], iter(lambda: content.read(_PART_BYTES), b""))):
                connection.execute(_PUT_PART, {**place, "number": number, "sha256": _digest(part), "content": part})
                size += len(part)
                whole.update(part)
            connection.execute(_PUT, {**row, "size": size, "sha256": whole.hexdigest(), "content": b""})

    def get(self, path: str) -> bytes | None:
        """Return the content of a file; None if it is not stored."""
        return dict(self.get_all([path])).get(path)

    def get_all(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of those of some files that are stored, in the order of `paths`."""
        for at in range(0, len(paths), _AT_ONCE):
            some = list(paths[at : at + _AT_ONCE])
            found: dict[str, list[bytes]] = {}
            for path, content in self._storage.rows(_GET, {"study": self._study, "paths": some}):
                found.setdefault(path, []).append(content)
            yield from ((path, b"".join(found[path])) for path in some if path in found)

    def digests(self, paths: Collection[str]) -> dict[str, str]:
        """Return the SHA-256 of those of some files that are stored, by path."""
        return dict(tuple(row) for row in self._storage.rows(_DIGESTS, {"study": self._study, "paths": list(paths)}))

    def listing(self) -> list[SharedFile]:
        """Return all files by path, without their content."""
        return self.changes()[0]

    def changes(self, since: str = BEGINNING) -> tuple[list[SharedFile], str]:
        """Return the files that were written since a mark, without their content, and the mark for the next call.

        The mark is the oldest transaction that had not ended. A time would not do: the server's clock may be set back,
        and a large file is visible long after its transaction began.
        """
        rows = self._storage.rows(_LIST, {"study": self._study, "since": since})
        files = [
            SharedFile(path=path, machine=machine, size=size, sha256=sha256, written=written)
            for _, path, machine, size, sha256, written in rows
            if path is not None
        ]
        return files, rows[0][0]

    def damaged(self) -> list[str]:
        """Return the paths of the files whose content is another one than was stored; the server computes it."""
        return [path for (path,) in self._storage.rows(_DAMAGED, {"study": self._study})]

    def delete(self, paths: Collection[str]) -> None:
        """Delete files; those that are not stored are ignored."""
        if paths:
            self._storage.written(_DELETE, {"study": self._study, "paths": list(paths)})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
