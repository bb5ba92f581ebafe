"""Addresses that this user has named: of a study's file only these are connected to.

A `study.json` may come from anyone, and names a database and MLflow. libpq and MLflow offer this user's passwords to
whatever server they connect to, and MLflow writes its tables into whatever database it opens. So an address outside of
the folder of all studies counts only if the user has named it: by an option, in the environment, or earlier so. That is
remembered as the text of operators' files is (`search_spaces.operators.modules.trust`): by an empty file in the cache
folder, which neither a folder nor an archive from elsewhere can bring.
"""

import hashlib
import os
import shlex
from contextlib import suppress
from pathlib import Path

from nas import addresses
from nas.study.folders import STUDY, command
from nas.study.study_file import StudyFile
from search_spaces import cache_folder
from search_spaces.errors import EnvironmentProblem, StudyError

_KEYS = {addresses.STORAGE: ("storage", "status"), addresses.TRACKING: ("tracking", "sync")}
"""Key of `study.json` with the address that a variable of the environment names, and a command that connects to it."""


def remember(address: str, variable: str, folder: Path) -> None:
    """Remember an address that the user has named; one within the folder of all studies needs none.

    Args:
        address: with or without its password, which is not stored.
        variable: of the environment that names it: `addresses.STORAGE` or `addresses.TRACKING`.
        folder: of the study.

    Raises:
        EnvironmentProblem: the cache folder cannot be written to.
    """
    if _lies_within(address, folder):
        return
    mark = _mark(address, variable)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise EnvironmentProblem(
            f"{mark.parent}: cannot be written to ({error.strerror}); set NAS_CACHE to a folder that can"
        ) from None


def remember_both(file: StudyFile, folder: Path) -> None:
    """Remember both addresses of a study's file that the user's own call has made, as `remember` does."""
    remember(file.storage, addresses.STORAGE, folder)
    remember(file.tracking, addresses.TRACKING, folder)


def require_named(address: str, variable: str, folder: Path) -> None:
    """Refuse an address of a study's file outside the folder of all studies that the user has not named.

    One that the environment names is remembered, if the cache folder can be written to.

    Args:
        address: absolute, as `StudyFile.read` returns it.
        variable: of the environment that may name it: `addresses.STORAGE` or `addresses.TRACKING`.
        folder: of the study.

    Raises:
        StudyError: the user has not named it; says how that is done.
    """
    if _lies_within(address, folder) or _mark(address, variable).is_file():
        return
    if was_named(address, variable):
        with suppress(EnvironmentProblem):
            remember(address, variable, folder)
        return
    key, verb = _KEYS[variable]
    bare = addresses.without_password(address)
    raise StudyError(
        f"{folder / STUDY}: {key}: {bare} was not named by you on this machine, and a study from elsewhere may name "
        f"any server or file (to use it, name it once: {variable}={shlex.quote(bare)} {command(verb, folder)})"
    )


def was_named(address: str, variable: str) -> bool:
    """Return whether the user has named an address: in the environment of this process, or earlier."""
    return _mark(address, variable).is_file() or _bare(addresses.given(variable)) == _bare(address)


def _lies_within(address: str, folder: Path) -> bool:
    """Return whether an address is a file in the study's folder, or in that of all studies; links are followed."""
    path = addresses.file_of(address)
    if path is None:
        return False
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):  # a NUL in its name
        return False
    return any(real.is_relative_to(os.path.realpath(place)) for place in (folder, folder.parent))


def _bare(address: str) -> str:
    """Return an address as it is compared: without its password; a file's with an absolute path, without options."""
    path = addresses.file_of(address)
    return (
        addresses.without_password(address)
        if path is None
        else addresses.sqlite(Path(os.path.normpath(path.absolute())))
    )


def _mark(address: str, variable: str) -> Path:
    digest = hashlib.sha256(os.fsencode(f"{variable} {_bare(address)}")).hexdigest()
    return cache_folder.path() / "addresses" / digest
