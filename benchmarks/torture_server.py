"""Checks of a PostgreSQL database after any number of kills: whole studies, their files, and no session left."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from nas.study import stored_files
from nas.study.cleaning import trials_with_weights
from nas.study.shared_consistency import compare_database
from nas.study.stored_study import StoredStudy
from nas.study.stored_trials import stored_trials

_SESSIONS = """\
SELECT pid, state, query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
_LOCKS = """\
SELECT pid, locktype, mode FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
    AND backend_type IS DISTINCT FROM 'autovacuum worker'"""
_MACHINES = """\
SELECT study_name, count(*), count(ended) FROM nas_machines JOIN studies USING (study_id) GROUP BY study_name"""
_SECONDS = 10.0
"""The server notices within seconds that a client is dead."""


def problems_on_server(address: str, runs: Path, *, machines: int = 1, lost: int = 0) -> Iterator[str]:
    """Yield what is wrong with the database of a runs folder whose commands have ended.

    Args:
        address: of its database, which holds the studies of this folder and nothing else.
        machines: that have worked on each study.
        lost: how many of them never returned; some may have ended in an orderly way, or before they had begun.
    """
    folders = sorted(file.parent for file in runs.glob("*/study.json"))
    with closing(psycopg.connect(address.replace("+psycopg", ""), autocommit=True)) as database:
        yield from _left_behind(database)
        names = sorted(name for (name,) in database.execute("SELECT study_name FROM studies"))
        if names != [folder.name for folder in folders]:
            yield f"PostgreSQL has the studies {names}, the runs folder {[folder.name for folder in folders]}"
        for name, there, ended in database.execute(_MACHINES):
            if not machines - lost <= ended <= there <= machines:
                right = f"there were {machines}, and {lost} never returned"
                yield f"PostgreSQL: {name} has {there} machines, of which {ended} ended: {right}"
    for folder in folders:
        study = StoredStudy.open(folder)
        try:
            for problem in _problems_of_files(study):
                yield f"PostgreSQL: {folder.name}: {problem}"
        finally:
            study.storage.engine.dispose()


def _left_behind(database: psycopg.Connection[Any]) -> Iterator[str]:
    """Yield sessions and locks of processes that have ended, unless they vanish within seconds."""
    until = time.monotonic() + _SECONDS
    while (left := [*database.execute(_SESSIONS), *database.execute(_LOCKS)]) and time.monotonic() < until:
        time.sleep(0.2)
    if left:
        yield f"sessions or locks are left on the server: {left}"


def _problems_of_files(study: StoredStudy) -> Iterator[str]:
    """Compare the files of ended trainings in the storage with those of a machine, which fetches what others have."""
    if study.shared is None:
        yield "is not shared"
        return
    study.shared.pull()
    found = stored_files.read_all(study.folder)
    records = study.records()
    needed = trials_with_weights(records, study.settings.objectives)
    study.shared.fetch(*(study.files(trial).weights for trial in needed))
    for finding in compare_database(study, stored_trials(study), found, with_weights=frozenset(needed)):
        yield f"{finding.address}: {finding.problem}"
