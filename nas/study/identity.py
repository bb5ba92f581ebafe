"""Identity of a study: distinguish a moved folder, which is the same study, from a copy, which becomes another.

A study has an id in its `study.json`, in Optuna's study and in MLflow's runs. A copy gets a new id before anything is
written, so that it continues neither the original's run in MLflow nor, in a shared database, its trials.
"""

import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from nas import addresses
from nas.study.folders import STUDY, TRACKING_STATE
from nas.study.storage import OptunaIdentity
from nas.study.study import Study
from nas.study.study_file import Identity, StudyFile
from nas.study.tracking_state import TrackingState
from search_spaces.errors import StudyError
from search_spaces.files import read_mapping

_MOVED = """\
SELECT experiment_id, artifact_location FROM experiments
WHERE name LIKE 'nas/%' AND artifact_location LIKE 'file:%/mlartifacts' AND artifact_location != ?"""
_MOVE_RUNS = """\
UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)
WHERE experiment_id = ? AND instr(artifact_uri, ?) = 1"""
_MOVE_MODELS = """\
UPDATE logged_models SET artifact_location = ? || substr(artifact_location, ?)
WHERE experiment_id = ? AND instr(artifact_location, ?) = 1"""


def verify(study: Study) -> str:
    """Verify that a study uses no other study's trials and runs; give a copy a new id. The caller holds its lock.

    Returns:
        A message if the folder was moved or copied; else an empty text.

    Raises:
        StudyError: its database is another study's; or it is a copy that shares the database of the original.
    """
    identity, owner = study.file.identity or Identity.of(study.folder), OptunaIdentity(study.storage, study.file)
    original = _original(study.folder, identity, shared=study.shares_storage, name=study.file.name)
    if addresses.is_postgresql(study.file.storage):
        pass  # a copy is another machine of the same study
    elif study.shares_storage:
        _require_alone(study, identity, owner, original)
    elif original is not None:
        return _become_another(study, identity, owner, original)
    accepted_ids = {identity.study_id, identity.was} - {""}
    if owner.study_id and accepted_ids and owner.study_id not in accepted_ids:
        raise StudyError(
            f"{addresses.without_password(study.file.storage)}: holds the trials of another study than "
            f"{study.folder / STUDY}; put this study's database there again"
        )
    study_id = identity.study_id or owner.study_id or _tracked_as(study.folder)
    _write(study, Identity.of(study.folder, study_id=study_id), owner)
    moved = identity.folder != study.folder and not identity.folder.exists()
    return f"{study.name} was moved here from {identity.folder}" if moved else ""


def is_copy(study: Study) -> bool:
    """Return whether a study is a copy that has not become another study yet."""
    identity = study.file.identity or Identity.of(study.folder)
    return _original(study.folder, identity, shared=study.shares_storage, name=study.file.name) is not None


def verify_unless_running(study: Study) -> None:
    """Verify a study, unless its supervisor is running, which has verified it."""
    lock = study.supervision_lock
    if lock.take(wait=False):
        try:
            verify(study)
        finally:
            lock.release()


def _original(folder: Path, identity: Identity, *, shared: bool, name: str) -> Path | None:
    """Return the folder of which this one is a copy; None if it is no copy, also if it was moved."""
    before = identity.folder
    if before == folder:
        elsewhere = identity.inode not in {0, folder.stat().st_ino} and identity.host != socket.gethostname()
        return before if elsewhere and not shared else None
    if _is_study(before, identity.study_id, name) and not before.samefile(folder):
        return before
    if shared or not identity.inode or identity.inode == folder.stat().st_ino:
        return None
    # A moved folder keeps its inode unless it went to another file system. So this is a copy, and the original moved.
    existing = next(parent for parent in before.parents if parent.exists())
    return before if existing.stat().st_dev == folder.stat().st_dev else None


def _is_study(folder: Path, study_id: str, name: str) -> bool:
    """Return whether a folder is this study; True if its file cannot be read."""
    if not (folder / STUDY).exists():
        return False
    try:
        file = StudyFile.read(folder)
    except StudyError:
        return True
    stored = file.identity.study_id if file.identity else ""
    return stored == study_id if stored and study_id else file.name == name


def _require_alone(study: Study, identity: Identity, owner: OptunaIdentity, original: Path | None) -> None:
    """Refuse a copy that shares the database of the original on the same machine.

    On another machine a copy is allowed: that is how several machines share a study.

    Raises:
        StudyError: it is such a copy.
    """
    claimed = owner.folder_here
    if claimed is not None and claimed != study.folder and _is_study(claimed, identity.study_id, study.file.name):
        original = None if claimed.samefile(study.folder) else claimed
    if original is not None:
        raise StudyError(
            f"{study.folder}: a copy of {original}, and would go on with its trials in "
            f"{addresses.without_password(study.file.storage)}; it can be looked at, but not run: run {original}"
        )


def _become_another(study: Study, identity: Identity, owner: OptunaIdentity, original: Path) -> str:
    """Give a copy a new id; it keeps its trials.

    The database is written after the file: if the process is killed in between, the next attempt continues here.
    """
    was = owner.study_id or identity.study_id
    changed = Identity.of(study.folder, was=was)
    study.set_file(study.file.model_copy(update={"identity": changed}))
    _write(study, changed.model_copy(update={"was": ""}), owner)
    return f"{study.name} is a copy of {original}: from here on another study, in MLflow, too"


def _write(study: Study, identity: Identity, owner: OptunaIdentity) -> None:
    owner.claim(identity)
    TrackingState.set_study_id(study.folder, identity.study_id)
    if study.file.identity != identity:
        study.set_file(study.file.model_copy(update={"identity": identity}))


def _tracked_as(folder: Path) -> str:
    """Return the id of an earlier version's study in MLflow; empty if it has none."""
    return str(read_mapping(folder / TRACKING_STATE).get("study_id", ""))


def relocate_artifacts(tracking: str) -> None:
    """Make MLflow's SQLite database refer to the artifacts beside it, after it was moved or copied.

    MLflow stores absolute addresses: a copied database would put its artifacts among the original's.
    """
    path = addresses.file_of(tracking)
    if path is None or not path.is_file():
        return
    beside = (path.absolute().parent / "mlartifacts").as_uri()
    with closing(sqlite3.connect(path, timeout=60)) as database, suppress(sqlite3.DatabaseError), database:
        # a database without these tables is left to MLflow, which raises a better error
        moved = database.execute(_MOVED, (beside,)).fetchall()
        for experiment, before in moved:
            location = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
            database.execute(location, (beside, experiment))
            for move in (_MOVE_RUNS, _MOVE_MODELS):
                database.execute(move, (beside, len(before) + 1, experiment, f"{before}/"))
