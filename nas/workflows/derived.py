"""Create or resume a study that trains some architectures of another one again."""

from collections.abc import Mapping
from typing import Any

from nas._version import __version__
from nas.settings import Settings
from nas.study.folders import SPACE, default_storage, study_folder
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.begin import changed_run, create_or_resume
from search_spaces import space_file


def derived_study(before: Study, name: str, settings: Settings, *, trials: int, changes: Mapping[str, Any]) -> Study:
    """Create or resume a study beside another, with a copy of its space and its latency table.

    Args:
        trials: number of its trainings.
        changes: to the run settings of `before`.

    Raises:
        StudyError: a study of that name exists with other settings, or another process runs it.
        SpecError: more workers than cores.
    """
    folder = study_folder(name, before.folder.parent)
    file = StudyFile(
        name=folder.name,
        settings=settings,
        run=changed_run(before.file.run, {**changes, "trials": trials, "earlier": 0}),
        storage=default_storage(folder) if before.database else before.file.storage,
        tracking=before.file.tracking,
        version=__version__,
    )
    table = before.latency_table
    text = space_file.text(before.folder / SPACE)
    return create_or_resume(folder, file, text, table.recorded if table else None)
