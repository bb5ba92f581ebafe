"""Names of studies: a default from space and data, with a number if it is taken."""

import re
from itertools import chain, count
from pathlib import Path

from nas import addresses
from nas.settings import Settings
from nas.study.folders import studies, study_folder
from nas.study.study_file import StudyFile
from nas.workflows.request import Request
from search_spaces import SearchSpace
from search_spaces.errors import StudyError
from trials.data.datasets import DataSet


def default_name(request: Request, space: SearchSpace, data: DataSet) -> str:
    """Return the name of a study for which none was given, such as `v9t-digits` or `v9t-digits-fine`."""
    if request.refine is not None:
        return f"{request.refine}-fine"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{space.name}{space.scale}-{data.name}")


def free_name(stem: str, settings: Settings, storage: str | None, runs: Path) -> str:
    """Return the newest study named after `stem` that has these settings, or else the next free name.

    `v9t-digits`, `v9t-digits2`, `v9t-digits3`, as Ultralytics numbers its runs; `v9t-coco8`, `v9t-coco8-2`.

    Args:
        storage: address that was requested; None if none was, and then a study's may be any.
    """
    counting = f"{stem}-" if stem[-1].isdecimal() else stem
    taken = studies(runs)
    for name in taken:
        is_numbered = re.fullmatch(rf"{re.escape(stem)}|{re.escape(counting)}\d+", name)
        if is_numbered and _has(study_folder(name, runs), settings, storage):
            return name
    names = chain([stem], (f"{counting}{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _has(folder: Path, settings: Settings, storage: str | None) -> bool:
    """Return whether a study can be read and has these settings, and this storage if one was requested."""
    try:
        file = StudyFile.read(folder)
    except StudyError:
        return False
    address = None if storage is None else addresses.without_password(storage)
    return not file.settings.differences(settings) and address in {None, addresses.without_password(file.storage)}
