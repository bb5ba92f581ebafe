"""Which study a folder is: a copy is told from what it was copied from, and becomes a study of its own.

A study has an id, which stands in its `study.json`, in Optuna's study and in MLflow's runs. A folder that was moved is
the same study. A copy gets an id of its own before anything is written, so that it neither goes on in the original's
run in MLflow, nor, where the database is shared, in its trials.
"""

import json
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from nas import addresses
from nas.study.storage import OptunaIdentity
from nas.study.study import Study
from nas.study.study_file import Identity, StudyFile
from search_spaces.errors import StudyError
from search_spaces.files import read_mapping, write_atomically

_TRACKING = "tracking.json"
_MOVED = """\
SELECT experiment_id, artifact_location FROM experiments
WHERE name LIKE 'nas/%' AND artifact_location LIKE 'file:%/mlartifacts' AND artifact_location != ?"""
_MOVE_RUNS = """\
UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)
WHERE experiment_id = ? AND instr(artifact_uri, ?) = 1"""


def settle(study: Study) -> str:
    """Make sure that a study works on nothing of another study's; the caller holds its supervision.

    Returns:
        What was noticed, in words; empty if it is where it was.

    Raises:
        StudyError: its database is another study's; or it is a copy, and shares the database of the original.
    """
    identity, owner = study.file.identity or Identity.of(study.folder), OptunaIdentity(study.storage, study.file)
    original = _original(study.folder, identity, shared=study.shares_storage, name=study.file.name)
    if study.shares_storage:
        _require_alone(study, identity, owner, original)
    elif original is not None:
        return _become_another(study, identity, owner, original)
    ours = {identity.study_id, identity.was} - {""}
    if owner.study_id and ours and owner.study_id not in ours:
        raise StudyError(
            f"{addresses.without_password(study.file.storage)}: holds the trials of another study than "
            f"{study.folder / 'study.json'}; put this study's own database there again"
        )
    study_id = identity.study_id or owner.study_id or _tracked_as(study.folder)
    _write(study, Identity.of(study.folder, study_id=study_id), owner)
    moved = identity.folder != study.folder and not identity.folder.exists()
    return f"{study.name} was moved here from {identity.folder}" if moved else ""


def settle_unless_running(study: Study) -> None:
    """Settle a study whose log alone is written; a process that runs the study has settled it."""
    lock = study.supervision
    if lock.take(wait=False):
        try:
            settle(study)
        finally:
            lock.release()


def _original(folder: Path, identity: Identity, *, shared: bool, name: str) -> Path | None:
    """Return the folder that this one is a copy of; None if it is the study's own, also where it was moved to."""
    before = identity.folder
    if before == folder:
        elsewhere = identity.inode not in {0, folder.stat().st_ino} and identity.host != socket.gethostname()
        return before if elsewhere and not shared else None
    if _is_there(before, identity.study_id, name) and not before.samefile(folder):
        return before
    if shared or not identity.inode or identity.inode == folder.stat().st_ino:
        return None
    # A folder that was moved keeps its inode, unless it went to another file system: the original was moved, too.
    there = next(parent for parent in before.parents if parent.exists())
    return before if there.stat().st_dev == folder.stat().st_dev else None


def _is_there(folder: Path, study_id: str, name: str) -> bool:
    """Whether a folder is this study; one that cannot be read is taken for it."""
    if not (folder / "study.json").exists():
        return False
    try:
        file = StudyFile.read(folder)
    except StudyError:
        return True
    theirs = file.identity.study_id if file.identity else ""
    return theirs == study_id if theirs and study_id else file.name == name


def _require_alone(study: Study, identity: Identity, owner: OptunaIdentity, original: Path | None) -> None:
    """Refuse a copy on one host of a study whose database it shares with the original.

    Another host may work on a copy: that is how several machines share a study.

    Raises:
        StudyError: it is one.
    """
    claimed = owner.folder_here
    if claimed is not None and claimed != study.folder and _is_there(claimed, identity.study_id, study.file.name):
        original = None if claimed.samefile(study.folder) else claimed
    if original is not None:
        raise StudyError(
            f"{study.folder}: a copy of {original}, and would go on with its trials in "
            f"{addresses.without_password(study.file.storage)}; it can be looked at, but not run: run {original}"
        )


def _become_another(study: Study, identity: Identity, owner: OptunaIdentity, original: Path) -> str:
    """Give a copy an id of its own; what it has found stays with it.

    Its database is renamed after its file: if that is cut short, the next attempt goes on with it.
    """
    was = owner.study_id or identity.study_id
    changed = Identity.of(study.folder, was=was)
    study.set_file(study.file.model_copy(update={"identity": changed}))
    _write(study, changed.model_copy(update={"was": ""}), owner)
    return f"{study.name} is a copy of {original}: from here on a study of its own, in MLflow, too"


def _write(study: Study, identity: Identity, owner: OptunaIdentity) -> None:
    owner.claim(identity)
    keep_tracking_own(study.folder, identity.study_id)
    if study.file.identity != identity:
        study.set_file(study.file.model_copy(update={"identity": identity}))


def _tracked_as(folder: Path) -> str:
    """Return the id by which a study of an earlier version is known in MLflow; empty if it is not."""
    return str(read_mapping(folder / _TRACKING).get("study_id", ""))


def keep_tracking_own(folder: Path, study_id: str) -> None:
    """Make a study's `tracking.json` name its own runs in MLflow, and keep what else it says."""
    known = read_mapping(folder / _TRACKING)
    if not {"finished", "stock"} <= known.keys():
        known = {"finished": [], "stock": None}
    if known.get("study_id") != study_id:
        write_atomically(folder / _TRACKING, json.dumps({**known, "study_id": study_id}, indent=1))


def keep_artifacts_own(tracking: str) -> None:
    """Make MLflow's SQLite database name the artifacts beside it, and not those where it was copied or moved from.

    MLflow stores absolute addresses: a copy would put its artifacts among the original's.
    """
    path = addresses.file_of(tracking)
    if path is None or not path.is_file():
        return
    own = (path.absolute().parent / "mlartifacts").as_uri()
    with closing(sqlite3.connect(path, timeout=60)) as database, suppress(sqlite3.DatabaseError), database:
        # MLflow says what is wrong with a database that has no such tables
        moved = database.execute(_MOVED, (own,)).fetchall()
        for experiment, before in moved:
            database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (own, experiment))
            database.execute(_MOVE_RUNS, (own, len(before) + 1, experiment, f"{before}/"))
