"""Where Optuna keeps a study, and its trials as records."""

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
from sqlalchemy.exc import SQLAlchemyError

from nas import addresses
from nas.algorithms.pareto import OBJECTIVES, Direction
from nas.study.folders import storage_file
from nas.study.storage_retries import CURE, PatientStorage, place_of, require_database
from nas.study.study_file import Identity, StudyFile
from search_spaces.errors import EnvironmentProblem, StudyError

_HEARTBEAT_SECONDS, _GRACE_SECONDS = 60, 300
_SQLITE_SECONDS = 60
"""SQLite waits so long for a lock by itself."""
_PASSWORD = (
    f"a password is stored nowhere: give the address with it as {addresses.STORAGE} or --storage, or in ~/.pgpass"
)
_STUDY_ID, _WORKED_ON = "study_id", "folder@{host}"
"""Attributes of Optuna's study: whose it is, and in which folder each host works on it."""


def opened(url: str) -> RDBStorage:
    """A storage, at which its studies' workers say that they are alive.

    Raises:
        EnvironmentProblem: it cannot be opened.
        StudyError: it is a file that is missing, empty or damaged.
    """
    file = storage_file(url)
    options: dict[str, Any] = {"connect_args": {"timeout": _SQLITE_SECONDS}} if file else {"pool_pre_ping": True}
    if file is not None:
        require_database(file)
        if not os.access(file.parent, os.W_OK):
            options = {"creator": partial(_read_only, file)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are called experimental since Optuna 2
        try:
            return PatientStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=_HEARTBEAT_SECONDS,
                grace_period=_GRACE_SECONDS,
            )
        except (ImportError, SQLAlchemyError, OptunaError, RuntimeError) as error:
            if file is not None:
                raise StudyError(f"{file}: the study's database is damaged: {_first_line(error)} ({CURE})") from None
            told = addresses.hidden(" ".join(str(error).split()), url)
            where = addresses.without_password(url)
            raise EnvironmentProblem(f"storage: {where} cannot be opened: {told} ({_PASSWORD})") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _read_only(path: Path) -> sqlite3.Connection:
    """Open a database in a folder that cannot be written to, where SQLite cannot make the files that WAL asks for."""
    written = path.with_name(f"{path.name}-wal")
    unchanging = "" if written.is_file() and written.stat().st_size else "&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro{unchanging}", uri=True, check_same_thread=False)


def make_file(path: Path) -> None:
    """The file of a storage, in which readers do not wait for a writer.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    try:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("PRAGMA journal_mode=WAL")  # stays in the file
    except sqlite3.Error as error:
        raise EnvironmentProblem(f"storage: {path} cannot be made: {error}") from None


def remove_file(path: Path) -> None:
    """Delete a storage's file, and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def holds_trials(path: Path) -> bool:
    """Whether a SQLite storage has a trial that ever began: then no other is made in its place."""
    if not path.is_file():
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        try:
            return bool(database.execute("SELECT EXISTS (SELECT 1 FROM trials WHERE state != 'WAITING')").fetchone()[0])
        except sqlite3.Error:  # no storage, or half of one: its making was cut short
            return False


def make_study(storage: RDBStorage, file: StudyFile) -> StudyFile:
    """Make Optuna's study; return the study's file, with the identity of what an earlier attempt had made of it.

    Raises:
        StudyError: a study of that name is there, and another folder's.
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
                raise StudyError(
                    f"{addresses.without_password(file.storage)}: a study {file.name!r} is there already, and not this "
                    "folder's; choose another --study"
                )
            identity = identity.model_copy(update={"study_id": owner.study_id})
        owner.claim(identity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # names of objectives, since Optuna 3.2
        made.set_metric_names(["reward"] if settings.reward else list(settings.objectives))
    return file.model_copy(update={"identity": identity})


class OptunaIdentity:
    """Which study a study of Optuna's is, and in which folder this host works on it.

    Raises:
        StudyError: the storage has none of that name.
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
        """Make it that study, which is worked on in that folder on this host."""
        if self.folder_here != identity.folder:
            self._storage.set_study_user_attr(self._study, self._here, str(identity.folder))
        if self.study_id != identity.study_id:
            self._storage.set_study_user_attr(self._study, _STUDY_ID, identity.study_id)


def study_id(storage: RDBStorage, name: str) -> int:
    """Optuna's number of a study.

    Raises:
        StudyError: the database does not have it.
    """
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        raise StudyError(
            f"{place_of(storage.url)}: the database has no study {name!r}; it is another one's, or was begun anew "
            f"({CURE})"
        ) from None
