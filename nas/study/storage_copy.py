"""Copy a study's trials into a SQLite file of their own, from a SQLite file or a server."""

import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning

from nas import addresses
from nas.study.storage import create_file, open_storage
from nas.study.stored_study import StoredStudy
from search_spaces.errors import StudyError


def copy_storage(study: StoredStudy, path: Path) -> None:
    """Write a SQLite file with the trials of a study, all their attributes among them.

    Args:
        study: that no process runs.
        path: of the new file.
    """
    if study.database is not None and not study.shares_storage:
        with closing(sqlite3.connect(study.database, timeout=60)) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)
        return
    create_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        target_storage = open_storage(addresses.sqlite(path))
        optuna.copy_study(
            from_study_name=study.file.name,
            from_storage=study.storage,
            to_storage=target_storage,
            to_study_name=study.file.name,
        )
    target_storage.engine.dispose()


def take_over(path: Path, *, old: str, new: str) -> None:
    """Check the SQLite file of an unpacked study, and give Optuna's study in it its new name.

    Args:
        path: of the file.
        old: name of Optuna's study in it.
        new: its name from now on.

    Raises:
        StudyError: the file is damaged, holds other studies, or code of SQLite (triggers, views).
    """
    try:
        with closing(sqlite3.connect(path)) as database, database:
            (problem,) = database.execute("PRAGMA quick_check(1)").fetchone()
            code = database.execute("SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchall()
            names = [name for (name,) in database.execute("SELECT study_name FROM studies")]
            if problem == "ok" and not code and names == [old]:
                database.execute("UPDATE studies SET study_name = ?", (new,))
                return
    except sqlite3.DatabaseError as error:
        raise StudyError(f"{path.name}: no database of a study: {error}") from None
    found = problem if problem != "ok" else repr(code[0][0] if code else ", ".join(names))
    raise StudyError(f"{path.name}: holds {found}, only the study {old!r} is expected")
