"""Files of a study in a storage that several machines share."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from nas.study.shared_tables import create_tables
from nas.study.storage_retries import RetryingStorage

MOST_BYTES = 1_000_000_000
"""PostgreSQL's limit on a value is 1 GiB."""
_AT_ONCE = 50
_PUT = text("""\
INSERT INTO nas_files (study_id, path, machine, size, sha256, content)
VALUES (:study, :path, :machine, :size, :sha256, :content)
ON CONFLICT (study_id, path) DO UPDATE SET machine = excluded.machine, size = excluded.size, sha256 = excluded.sha256,
    content = excluded.content, written = clock_timestamp()""")
_GET = text("SELECT path, content FROM nas_files WHERE study_id = :study AND path = ANY(:paths)")
_LIST = text("""\
SELECT CAST(txid_snapshot_xmin(txid_current_snapshot()) % 4294967296 AS text), path, machine, size, sha256, written
FROM (SELECT) AS always LEFT JOIN nas_files AS file
    ON study_id = :study AND (:since = '0' OR age(file.xmin) <= age(CAST(CAST(:since AS text) AS xid)))
ORDER BY path""")
"""A row's `xmin` is the transaction that wrote it; `age` compares transactions, whose numbers return to 0."""
_DIGESTS = text("SELECT path, sha256 FROM nas_files WHERE study_id = :study AND path = ANY(:paths)")
_DAMAGED = text("""\
SELECT path FROM nas_files WHERE study_id = :study AND encode(sha256(content), 'hex') <> sha256 ORDER BY path""")
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
        """Store a file."""
        self._storage.written(_PUT, self._row(path, content))

    def put_at_once(self, path: str, content: bytes) -> None:
        """Store a file by one attempt.

        Raises:
            SQLAlchemyError: the storage does not answer.
        """
        with self._storage.engine.begin() as connection:
            connection.execute(_PUT, self._row(path, content))

    def _row(self, path: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        values = {"path": path, "machine": self._machine, "size": len(content), "sha256": digest, "content": content}
        return {"study": self._study, **values}

    def get(self, path: str) -> bytes | None:
        """Return the content of a file; None if it is not stored."""
        return dict(self.get_all([path])).get(path)

    def get_all(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of those of some files that are stored, in the order of `paths`."""
        for at in range(0, len(paths), _AT_ONCE):
            some = list(paths[at : at + _AT_ONCE])
            found = {path: bytes(content) for path, content in self._rows_of(some)}
            yield from ((path, found[path]) for path in some if path in found)

    def _rows_of(self, paths: list[str]) -> Sequence[Any]:
        return self._storage.rows(_GET, {"study": self._study, "paths": paths})

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
