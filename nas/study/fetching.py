"""Fetch what other machines have of a shared study: what their trials left, and the studies beside it.

Nothing happens in a study of one machine.
"""

from pathlib import Path
from typing import TypeVar

from sqlalchemy import text

from nas import addresses
from nas.study.confirmation import have_in_common
from nas.study.folders import STUDY, study_folder, tracking_uri
from nas.study.shared_definition import Definition, settings_in, write_definition
from nas.study.shared_files import SharedFiles
from nas.study.storage import OptunaIdentity, study_id
from nas.study.storage_retries import RetryingStorage
from nas.study.stored_study import StoredStudy
from nas.study.study_file import Identity, StudyFile
from search_spaces.errors import StudyError
from trials.data.datasets import DIGITS

_NAMES = text("SELECT study_name FROM studies ORDER BY study_id")

Opened = TypeVar("Opened", bound=StoredStudy)


def fetched(study: Opened) -> Opened:
    """Return a study after the files of other machines' trials were fetched, but for weights.

    Of a study that trains models of this one again, and was begun on another machine, a folder is made here.
    """
    if study.shared is None:
        return study
    study.shared.pull()
    names = [str(row[0]) for row in study.storage.rows(_NAMES)]
    for name in names:
        if name.startswith(f"{study.file.name}-") or name == study.settings.confirms:
            _fetch_beside(study, name)
    return study


def _fetch_beside(study: StoredStudy, name: str) -> None:
    """Fetch a study that belongs to another one; make its folder first, if it is one of this search's."""
    folder = study_folder(name, study.folder.parent)
    if not (folder / STUDY).is_file():
        files = SharedFiles(study.storage, study_id(study.storage, name))
        try:
            definition = Definition.read(files, name, addresses.without_password(study.file.storage))
        except StudyError:  # of an earlier version, whose folders were copied
            return
        settings = definition.file.settings
        belongs = settings.confirms is not None or name == study.settings.confirms
        if not belongs or not have_in_common(study.settings, settings):
            return
        folder.mkdir(parents=True, exist_ok=True)
        data = None if settings.data == DIGITS else Path(study.settings.data)
        write_definition(folder, files)
        write_joined(folder, joined_file(folder, definition.file, study.file.storage, data), study.storage)
    beside = StoredStudy.open(folder)
    if beside.shared is not None:
        beside.shared.pull()


def joined_file(folder: Path, there: StudyFile, address: str, data: Path | None) -> StudyFile:
    """Return the `study.json` of a machine that joins a study, without its identity.

    Args:
        folder: of the study on this machine.
        there: the file on the machine where the study was begun.
        address: of the storage, with its password.
        data: path of the data set on this machine; None if it is the same.
    """
    is_local = addresses.file_of(there.tracking) is not None
    tracking = tracking_uri(folder.parent) if is_local else there.tracking
    settings = settings_in(folder, there.settings, data)
    return there.model_copy(update={"settings": settings, "storage": address, "tracking": tracking}).opened(folder)


def write_joined(folder: Path, file: StudyFile, storage: RetryingStorage) -> None:
    """Write the `study.json` of a machine that joins a study; with it the folder is a study."""
    identity = Identity.of(folder, study_id=OptunaIdentity(storage, file).study_id)
    file.model_copy(update={"identity": identity}).write(folder)
