"""Optuna's storage of a study: open it, create the file and Optuna's study, read its identity."""

import os
import socket
import sqlite3
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nas import addresses
from nas.algorithms.pareto import OBJECTIVES, Direction
from nas.study.folders import storage_file
from nas.study.server_connections import require_private_password_file, server_options, with_server_timeouts
from nas.study.storage_retries import (
    ADVICE,
    NOT_ALLOWED,
    RetryingStorage,
    call_with_backoff,
    machine_problem,
    place_of,
    require_database,
    require_trials,
)
from nas.study.study_file import Identity, StudyFile
from search_spaces.errors import EnvironmentProblem, StudyError, unwrapped

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the command line and the worker's log report trials

_HEARTBEAT_SECONDS, _GRACE_SECONDS = 60, 300
_SQLITE_SECONDS = 60
"""How long SQLite itself waits for a lock."""
_SERVER = (
    "is the server up, and the address right? A password is stored nowhere: give the address with it as "
    f"{addresses.STORAGE} or --storage, or in ~/.pgpass"
)
_DRIVER = "the driver of PostgreSQL: pip install 'nas-for-yolo[postgres]', and an address postgresql://me@host/name"
_UNREADABLE = ("disk I/O error", "disk is full", "locked")
"""Texts of SQLite's errors on a database that may be a whole one."""
_STUDY_ID, _WORKED_ON = "study_id", "folder@{host}"
"""User attributes of Optuna's study: the study's id, and its folder on each machine."""
TRIALS = "trials"
"""User attribute of Optuna's study: its number of trials, for all machines that share it."""


def open_storage(url: str, *, patient: bool = False) -> RetryingStorage:
    """Open a storage; one on a server other than PostgreSQL, where `Machines` has heartbeats, with Optuna's heartbeat.

    A file has the processes of one machine, whose locks say who runs. A heartbeat would take each other's trials for
    dead when the time of day jumps, or when the machine was asleep.

    Args:
        patient: wait for a server that does not answer; else that is an error, for the address may be wrong.

    Raises:
        EnvironmentProblem: it cannot be opened, or a file of passwords is open to others.
        StudyError: it is a file that is missing, empty or damaged, or a database of something else.
    """
    require_private_password_file(url)
    file = storage_file(url)
    options: dict[str, Any] = {"connect_args": {"timeout": _SQLITE_SECONDS}} if file else server_options(url)
    heartbeat: dict[str, Any] = {"heartbeat_interval": _HEARTBEAT_SECONDS, "grace_period": _GRACE_SECONDS}
    if file is not None or addresses.is_postgresql(url):
        heartbeat = {}
    if file is not None:
        require_database(file)
        if os.access(file.parent, os.W_OK):
            require_trials(file)
        else:
            options = {"creator": partial(_read_only, file)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are experimental since Optuna 2
        try:
            driven = addresses.with_driver(url)

            def opened() -> RetryingStorage:
                return with_server_timeouts(RetryingStorage(driven, engine_kwargs=options, **heartbeat))

            return call_with_backoff(opened, place_of(url)) if patient else opened()
        except (ImportError, SQLAlchemyError, OptunaError, RuntimeError) as error:
            if file is not None:
                if problem := machine_problem(error, str(file)):
                    raise problem from None
                raise StudyError(f"{file}: the study's database is damaged: {_first_line(error)} ({ADVICE})") from None
            raise _cannot_be_opened(error, url) from None


def _cannot_be_opened(error: Exception, url: str) -> EnvironmentProblem:
    """Return our error, with its remedy, for a database of a server that cannot be opened."""
    if isinstance(error, ImportError):
        cause, remedy = error.__cause__ or error, _DRIVER
    else:
        cause, remedy = (error.orig if isinstance(error, DBAPIError) else None) or error, _SERVER
    reason = addresses.redact(unwrapped(cause), url)
    return EnvironmentProblem(f"storage: {addresses.without_password(url)} cannot be opened: {reason} ({remedy})")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def reading(path: Path) -> sqlite3.Connection:
    """Return a connection to a file that only reads, also in a folder that cannot be written to."""
    if os.access(path.parent, os.W_OK):
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_SQLITE_SECONDS)
    return _read_only(path)


def _read_only(path: Path) -> sqlite3.Connection:
    """Open a database in a read-only folder, where SQLite cannot create the files that WAL needs."""
    wal = path.with_name(f"{path.name}-wal")
    immutable = "" if wal.is_file() and wal.stat().st_size else "&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro{immutable}", uri=True, check_same_thread=False)


def create_file(path: Path) -> None:
    """Create the file of a storage, in WAL mode: readers do not wait for a writer.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    try:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("PRAGMA journal_mode=WAL")  # stays in the file
    except sqlite3.Error as error:
        remedy = "make room there, or choose another folder by --runs, and type the command again"
        raise EnvironmentProblem(f"storage: {path} cannot be made: {error} ({remedy})") from None


def remove_file(path: Path) -> None:
    """Delete a storage's file and the files that SQLite writes beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def holds_trials(path: Path) -> bool:
    """Return whether a SQLite storage has a trial that has begun; such a file must not be replaced.

    Raises:
        EnvironmentProblem: it cannot be read, such as on a full disk.
    """
    if not path.is_file():
        return False
    with closing(reading(path)) as database:
        try:
            return bool(database.execute("SELECT EXISTS (SELECT 1 FROM trials WHERE state != 'WAITING')").fetchone()[0])
        except sqlite3.Error as error:
            if problem := unreadable(error, path):
                raise problem from None
            return False  # no storage, or an incomplete one: its creation was interrupted


def unreadable(error: sqlite3.Error, path: Path) -> EnvironmentProblem | None:
    """Return an error of SQLite on a file that may be a whole one, such as on a full disk; None for other errors."""
    if any(word in str(error) for word in NOT_ALLOWED):
        return EnvironmentProblem(f"{path}: cannot be read: {error} (make it and its folder writable for this user)")
    if not any(word in str(error) for word in _UNREADABLE):
        return None
    return EnvironmentProblem(f"{path}: cannot be read: {error} (is the disk full? Make room there)")


def create_study(storage: RDBStorage, file: StudyFile) -> StudyFile:
    """Create Optuna's study; return `file`, with the id that an interrupted creation has stored, if there was one.

    Raises:
        StudyError: the storage has a study of that name, of another folder.
    """
    settings = file.settings
    directions = [Direction.MAXIMIZE] if settings.reward else [OBJECTIVES[name] for name in settings.objectives]
    made = optuna.create_study(
        storage=storage,
        study_name=file.name,
        directions=[StudyDirection[direction.name] for direction in directions],
        load_if_exists=True,
    )
    identity = file.identity
    if identity is not None:
        owner = OptunaIdentity(storage, file)
        if owner.study_id or made.get_trials(deepcopy=False):
            began = any(trial.state.is_finished() for trial in made.get_trials(deepcopy=False))
            if owner.folder_here != identity.folder or began or not owner.study_id:
                raise belongs_to_another(file)
            identity = identity.model_copy(update={"study_id": owner.study_id})
        owner.claim(identity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # names of objectives, since Optuna 3.2
        made.set_metric_names(["reward"] if settings.reward else list(settings.objectives))
    return file.model_copy(update={"identity": identity})


def belongs_to_another(file: StudyFile) -> StudyError:
    """Return the error to raise if a storage has the study of a name, of another folder."""
    shared = addresses.is_postgresql(file.storage)
    join = f", or take part in it: nas worker {file.name} --storage ADDRESS" if shared else ""
    return StudyError(
        f"{addresses.without_password(file.storage)}: a study {file.name!r} is there already, and not this folder's; "
        f"choose another --study{join}"
    )


class OptunaIdentity:
    """Identity that is stored in Optuna's study.

    Attributes:
        study_id: empty in a study of a version that stored none.
        folder_here: folder of the study on this machine; None if this machine has not run it.

    Raises:
        StudyError: the storage has no study of that name.
    """

    def __init__(self, storage: RDBStorage, file: StudyFile) -> None:
        self._storage = storage
        self._study = study_id(storage, file.name)
        attributes = storage.get_study_user_attrs(self._study)
        self._here = _WORKED_ON.format(host=socket.gethostname())
        self.study_id = str(attributes.get(_STUDY_ID, ""))
        folder = attributes.get(self._here)
        self.folder_here = Path(folder) if folder else None

    def claim(self, identity: Identity) -> None:
        """Store a study's id, and its folder on this machine."""
        if self.folder_here != identity.folder:
            self._storage.set_study_user_attr(self._study, self._here, str(identity.folder))
        if self.study_id != identity.study_id:
            self._storage.set_study_user_attr(self._study, _STUDY_ID, identity.study_id)


def study_id(storage: RDBStorage, name: str) -> int:
    """Return Optuna's number of a study.

    Raises:
        StudyError: the database does not have it.
    """
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        raise StudyError(
            f"{place_of(storage.url)}: the database has no study {name!r}; it is another one's, or was begun anew "
            f"({ADVICE})"
        ) from None
