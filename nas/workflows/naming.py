"""Names of studies: a default from space and data, with a number if it is taken."""

import re
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from nas import addresses
from nas.settings import Settings
from nas.study.folders import studies, study_folder
from nas.study.study_file import StudyFile
from nas.study.trained_again import calibration_of, search_of_calibration
from nas.workflows.calibrate import calibration_settings, without_calibrated
from nas.workflows.request import Request
from search_spaces import Space
from search_spaces.errors import StudyError
from trials.data.datasets import DataSet


def default_name(request: Request, space: Space, data: DataSet) -> str:
    """Return the name of a study for which none was given, such as `v9t-digits` or `v9t-digits-fine`."""
    if request.refine is not None:
        return f"{request.refine}-fine"
    ending = "-stock" if request.stock_only else ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{space.name}{space.scale}-{data.name}{ending}")


def free_name(stem: str, settings: Settings, storage: str | None, runs: Path) -> str:
    """Return the newest study named after `stem` that has these settings, or else the next free name.

    `v9t-digits`, `v9t-digits2`, `v9t-digits3`, as Ultralytics numbers its runs; `v9t-coco8`, `v9t-coco8-2`.

    Args:
        storage: address that was requested; None if none was, and then a study's may be any.
    """
    taken = studies(runs)
    for name in taken:
        if _is_numbered(name, stem) and _has(study_folder(name, runs), settings, storage):
            return name
    return next(name for name in _names(stem) if name not in taken)


def name_to_calibrate(stem: str, settings: Settings, storage: str | None, runs: Path) -> str:
    """Return the name of a search that is calibrated first.

    The newest whose calibration has these settings, or else the next of which neither search nor calibration exists. A
    search beside it that no calibration of these settings can have led to is another one.

    Args:
        settings: of the search before its calibration.
        storage: address that was requested; None if none was.
    """
    taken = studies(runs)
    for calibration in taken:
        name = search_of_calibration(calibration)
        if name is None or not _is_numbered(name, stem):
            continue
        before = calibration_settings(settings, name)
        search = study_folder(name, runs)
        is_other = name in taken and not _has(search, settings, storage, but_calibrated=True)
        if _has(study_folder(calibration, runs), before, storage) and not is_other:
            return name
    return next(name for name in _names(stem) if not {name, calibration_of(name)} & set(taken))


def _names(stem: str) -> Iterator[str]:
    """Yield the names after a stem, the first without a number."""
    return chain([stem], (f"{_counting(stem)}{number}" for number in count(2)))


def _is_numbered(name: str, stem: str) -> bool:
    return re.fullmatch(rf"{re.escape(stem)}|{re.escape(_counting(stem))}\d+", name) is not None


def _counting(stem: str) -> str:
    """Return what stands before the number."""
    return f"{stem}-" if stem[-1].isdecimal() else stem


def _has(folder: Path, settings: Settings, storage: str | None, *, but_calibrated: bool = False) -> bool:
    """Return whether a study can be read and has these settings, and this storage if one was requested.

    Args:
        but_calibrated: whether the settings that a calibration sets may differ.
    """
    try:
        file = StudyFile.read(folder)
    except StudyError:
        return False
    address = None if storage is None else addresses.without_password(storage)
    found = file.settings
    if but_calibrated:
        found, settings = without_calibrated(found), without_calibrated(settings)
    return not found.differences(settings) and address in {None, addresses.without_password(file.storage)}
