"""MLflow's SQLite database: created by one process, complete or missing.

MLflow is imported in the functions: `mlflow_runs` sets the environment that it reads then.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from nas.addresses import file_of, sqlite
from nas.locks import Lock
from search_spaces.files import atomic_path, leftovers

_log = logging.getLogger(__name__)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a `sqlite:` address; None for others."""
    path = file_of(uri)
    return path.absolute() if path is not None else None


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """Hold the lock of a SQLite file while it is opened; create it if it is missing."""
    path = sqlite_file(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with Lock(path.with_name(f".{path.name}.lock")).held():
        _complete(path)
        yield
        _drop_stray_folder(uri, path)


def create_database(uri: str) -> None:
    """Create the SQLite file of an address if it is missing; do nothing for other addresses."""
    with locked(uri):
        pass


def _complete(path: Path) -> None:
    """Create a SQLite file with MLflow's tables if it is missing or half-made. The caller holds its lock.

    MLflow's migrations of an empty file take seconds, commit one by one and do not resume: a process killed within
    them leaves a file that cannot be opened again. So they run in a temporary file, which is renamed at the end.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415 - for databases alone

    tables = _tables(path)
    if tables and not _is_half_made(path, tables):
        return
    if tables:
        renamed = _rename_half_made(path)
        _log.warning("%s: half-made by a process that was killed; kept as %s, and made anew", path, renamed.name)
    for leftover in leftovers(path):  # of a killed process, since the lock is held
        leftover.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        store = SqlAlchemyStore(sqlite(temporary), (path.parent / "mlartifacts").as_uri())
        store.engine.dispose()


def _drop_stray_folder(uri: str, path: Path) -> None:
    """Remove the empty folders that MLflow creates for a quoted address: it takes the quoted name for the path."""
    if not uri.startswith("sqlite:///"):
        return
    stray = Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute().parent
    with suppress(OSError):
        for folder in (stray, *stray.parents):
            if folder == path.parent or folder in path.parents:
                return
            folder.rmdir()


def _tables(path: Path) -> set[str]:
    """Return the names of a SQLite file's tables; none if there is no such file.

    SQLite is used directly, since MLflow would try for 100 seconds to open a file that is no database.
    """
    if not path.is_file() or not path.stat().st_size:
        return set()
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _is_half_made(path: Path, tables: set[str]) -> bool:
    """Return whether MLflow's migrations of a new file were interrupted.

    A complete file has an experiment: MLflow creates one as soon as it has created its tables.
    """
    from mlflow.store.db.utils import _get_latest_schema_revision  # noqa: PLC0415 - for databases alone

    rows = {
        "experiments": "SELECT 1 FROM experiments LIMIT 1",
        "_alembic_tmp_experiments": "SELECT 1 FROM _alembic_tmp_experiments LIMIT 1",  # within a migration
    }
    begun = tables & rows.keys()
    if not begun:
        return False
    with closing(sqlite3.connect(path)) as connection:
        if any(connection.execute(rows[table]).fetchone() for table in begun):
            return False
        versions = (
            list(connection.execute("SELECT version_num FROM alembic_version")) if "alembic_version" in tables else []
        )
    return versions != [(_get_latest_schema_revision(),)]


def _rename_half_made(path: Path) -> Path:
    """Rename a SQLite file and its journals; return the new path."""
    number = 1
    while (renamed := path.with_name(f"{path.name}.half-made-{number}")).exists():
        number += 1
    for old, new in zip(_with_journals(path), _with_journals(renamed), strict=True):
        if old.exists():
            old.replace(new)
    return renamed


def _with_journals(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + end) for end in ("-journal", "-wal", "-shm"))]
