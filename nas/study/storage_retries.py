"""Retry calls of Optuna's storage while its database is unavailable; turn other failures into our errors."""

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy import Executable
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

from nas import addresses
from nas.study.fast_storage import FastStorage
from search_spaces.errors import EnvironmentProblem, NasError, StudyError, unwrapped
from search_spaces.files import AGAIN

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 20 * 60.0
"""Time in which a restarted server, or a database that another process copies, is available again."""
_FIRST_SECONDS, _MOST_SECONDS = 0.5, 30.0
_AWAY = ("locked", "busy")
"""Texts of SQLite's operational errors that pass by waiting; SQLite itself has waited a minute before it raises."""
_FULL = ("disk is full", "no space left", "disk full")
_IO_ERROR = "disk i/o error"
_LEAST_BYTES = 2**16
NOT_ALLOWED = ("readonly database", "unable to open database file", "permission denied")
"""Texts of errors where this user may not write; SQLite must write beside a database also to read it."""
_DAMAGED = ("malformed", "not a database", "could not decode", "no such table", "no such column")

ADVICE = (
    "its trials stand in no other file: put a copy of it back, or delete the study with nas clean --all and search "
    "again"
)

_TABLES = {
    *("studies", "study_directions", "study_user_attributes", "study_system_attributes"),
    *("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes"),
    *("trial_intermediate_values", "trial_heartbeats", "version_info", "alembic_version"),
}
"""Tables that Optuna makes anew where one is missing, also for a command that only reads."""

T = TypeVar("T")


def call_with_backoff(
    call: Callable[[], T],
    place: str,
    *,
    sleep: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call until the storage answers, with exponential backoff.

    Args:
        call: one transaction, which changes nothing if it fails.
        place: of the storage, for messages; without a password.

    Raises:
        EnvironmentProblem: it has not answered for `PATIENCE_SECONDS`, has no room, or cannot be written to.
        StudyError: it is damaged.
    """
    began, seconds, warned = clock(), _FIRST_SECONDS, False
    while True:
        try:
            result = call()
        except LookupError as error:
            # SQLAlchemy raises the class itself for a word that is none of an enumeration, Optuna its `KeyError`
            if type(error) is not LookupError:
                raise
            raise StudyError(f"{place}: the study's database is damaged: {unwrapped(error)} ({ADVICE})") from None
        except (SQLAlchemyError, StorageInternalError) as error:
            reason = _reason(_transient_cause(error, place))
            waited = clock() - began
            if waited >= PATIENCE_SECONDS:
                raise EnvironmentProblem(
                    f"storage: {place} does not answer for {waited / 60:.0f} min: {reason} (start it, {AGAIN})"
                ) from None
            if not warned:
                minutes = PATIENCE_SECONDS / 60
                log.warning("storage: %s does not answer: %s; waiting for it, up to %.0f min", place, reason, minutes)
            warned = True
            (sleep or pause)(seconds)
            seconds = min(2 * seconds, _MOST_SECONDS)
        else:
            if warned:
                log.warning("storage: %s answers again after %.0f s", place, clock() - began)
            return result


def _transient_cause(error: SQLAlchemyError | StorageInternalError, place: str) -> SQLAlchemyError:
    """Return the database's error if waiting may help; else raise our error for it, or `error` itself."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, SQLAlchemyError):
        raise error
    if not _passes(cause):
        raise _problem(cause, place) or error from None
    return cause


def pause(seconds: float) -> None:
    """Sleep; tests replace it."""
    time.sleep(seconds)


def place_of(url: str) -> str:
    """Return the place of a storage for messages, without a password."""
    return str(addresses.file_of(url) or addresses.without_password(url)).replace("+psycopg://", "://", 1)


def _passes(error: SQLAlchemyError) -> bool:
    """Return whether waiting may help."""
    if isinstance(error, PendingRollbackError):  # Optuna went on in a transaction whose connection was lost
        return True
    if not isinstance(error, DBAPIError):
        return False
    text = str(error.orig).lower()
    if "sqlite" in type(error.orig).__module__:
        return isinstance(error, OperationalError) and any(word in text for word in _AWAY)
    lasting = any(word in text for word in (*_FULL, *NOT_ALLOWED))
    return error.connection_invalidated or (isinstance(error, OperationalError | InterfaceError) and not lasting)


def _problem(error: SQLAlchemyError, place: str) -> NasError | None:
    """Return our error, with its remedy, for a failure that waiting does not help; None if we have none."""
    text = _reason(error).lower()
    if any(word in text for word in _FULL) or (_IO_ERROR in text and _is_full(Path(place))):
        remedy = f"make room there, {AGAIN}"
        return EnvironmentProblem(f"{place}: cannot be written: the disk is full ({remedy})")
    if any(word in text for word in NOT_ALLOWED):
        return EnvironmentProblem(f"{place}: cannot be written ({_reason(error)}; make it writable for this user)")
    if isinstance(error, DatabaseError) and any(word in text for word in _DAMAGED):
        return StudyError(f"{place}: the study's database is damaged: {_reason(error)} ({ADVICE})")
    if _IO_ERROR in text:
        return EnvironmentProblem(f"{place}: cannot be read or written: {_reason(error)}")
    return None


def machine_problem(error: Exception, place: str) -> EnvironmentProblem | None:
    """Return why this machine cannot open a storage that is not damaged, such as a full disk; None for other errors."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, SQLAlchemyError):
        return None
    if _passes(cause):
        return EnvironmentProblem(f"{place}: cannot be read: {_reason(cause)} (end the other program that holds it)")
    problem = _problem(cause, place)
    return problem if isinstance(problem, EnvironmentProblem) else None


def _is_full(path: Path) -> bool:
    """Return whether a disk has no room for the file that SQLite needs beside a database, also to read it."""
    with suppress(OSError):
        return shutil.disk_usage(path.parent).free < _LEAST_BYTES
    return False


def _reason(error: SQLAlchemyError) -> str:
    """Return the database driver's message in one line."""
    return unwrapped(error.orig if isinstance(error, DBAPIError) else error)[:200]


def require_database(path: Path) -> None:
    """Refuse a file that SQLite would replace by an empty database.

    Raises:
        StudyError: it is missing or empty.
    """
    if not path.is_file() or path.stat().st_size == 0:
        what = "empty" if path.is_file() else "missing"
        raise StudyError(f"{path}: the study's database is {what}: {ADVICE}")


def require_trials(path: Path) -> None:
    """Refuse a database of something else, or one that has lost a table: Optuna would make its tables in it.

    A study from elsewhere may name any file as its database.

    Raises:
        StudyError: it is one.
    """
    tables, has_study = _tables(path)
    if tables and "studies" not in tables:
        raise StudyError(f"{path}: a database of something else, with no trials of Optuna in it: {ADVICE}")
    if has_study and (lost := _TABLES - tables):  # one without a study may be half-made
        raise StudyError(
            f"{path}: the study's database is damaged, it has no table {', '.join(sorted(lost))}: {ADVICE}"
        )


def _tables(path: Path) -> tuple[set[str], bool]:
    """Return the names of a database's tables, and whether it holds a study.

    None and False for a file that cannot be read, which Optuna's error describes.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            has_study = "studies" in tables and database.execute("SELECT 1 FROM studies LIMIT 1").fetchone() is not None
            return tables, has_study
    except sqlite3.Error:
        return set(), False


def _with_backoff(name: str) -> Callable[..., Any]:
    """Return a method of Optuna's storage or of ours, which is one transaction, called with backoff."""

    def method(self: "RetryingStorage", *arguments: Any, **named: Any) -> Any:
        call = getattr(super(RetryingStorage, self), name)
        return call_with_backoff(lambda: call(*arguments, **named), place_of(self.url))

    method.__name__ = name
    return method


class RetryingStorage(FastStorage):
    """Optuna's storage in a database; every call waits while the database is unavailable."""

    def call(self, transaction: Callable[[], T]) -> T:
        """Call a transaction of our own with backoff."""
        return call_with_backoff(transaction, place_of(self.url))

    def rows(self, query: Executable, values: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the rows of a query."""

        def read() -> list[Any]:
            with self.engine.connect() as connection:
                return list(connection.execute(query, values))

        return self.call(read)

    def written(self, statement: Executable, values: Mapping[str, Any]) -> list[Any]:
        """Execute a statement that writes, in a transaction; return the rows that it returns."""

        def write() -> list[Any]:
            with self.engine.begin() as connection:
                found = connection.execute(statement, values)
                return list(found) if found.returns_rows else []

        return self.call(write)

    create_new_study = _with_backoff("create_new_study")
    delete_study = _with_backoff("delete_study")
    get_all_studies = _with_backoff("get_all_studies")
    get_study_directions = _with_backoff("get_study_directions")
    get_study_id_from_name = _with_backoff("get_study_id_from_name")
    get_study_name_from_id = _with_backoff("get_study_name_from_id")
    get_study_system_attrs = _with_backoff("get_study_system_attrs")
    get_study_user_attrs = _with_backoff("get_study_user_attrs")
    set_study_system_attr = _with_backoff("set_study_system_attr")
    set_study_user_attr = _with_backoff("set_study_user_attr")
    create_new_trial = _with_backoff("create_new_trial")
    get_all_trials = _with_backoff("get_all_trials")
    get_trial = _with_backoff("get_trial")
    get_trial_id_from_study_id_trial_number = _with_backoff("get_trial_id_from_study_id_trial_number")
    set_trial_intermediate_value = _with_backoff("set_trial_intermediate_value")
    set_trial_param = _with_backoff("set_trial_param")
    set_trial_state_values = _with_backoff("set_trial_state_values")
    set_trial_system_attr = _with_backoff("set_trial_system_attr")
    set_trial_user_attr = _with_backoff("set_trial_user_attr")
    record_heartbeat = _with_backoff("record_heartbeat")
    _create_new_trial = _with_backoff("_create_new_trial")  # what Optuna's cache around a storage calls
    _get_best_trial_id = _with_backoff("_get_best_trial_id")
    _get_stale_trial_ids = _with_backoff("_get_stale_trial_ids")
    _get_trials = _with_backoff("_get_trials")
    _set_trial_param = _with_backoff("_set_trial_param")
    store = _with_backoff("store")
    read_trials = _with_backoff("read_trials")
    read_attributes = _with_backoff("read_attributes")
    rung_values = _with_backoff("rung_values")
