"""Operator files that a study brings: Python code, which runs only if this user has let it run on this machine.

A study may come from anyone. What the user has named for a search, or has let run, is remembered by its text
(`search_spaces.operators.modules.trust`), so a study of one's own needs no permission, wherever its folder is moved.
"""

from pathlib import Path

from nas.study.folders import SPACE, command
from search_spaces import joined_file
from search_spaces.errors import SpecError, StudyError
from search_spaces.operators import modules as user_modules
from search_spaces.operators.record import Source


def untrusted(folder: Path) -> list[Source]:
    """Return the operator files of a study's space that this user has not run on this machine.

    Raises:
        SpecError: the study's space cannot be read.
    """
    return user_modules.untrusted(joined_file.modules(folder / SPACE))


def require_trusted(folder: Path) -> None:
    """Refuse the operator files of a study that this user has not run on this machine.

    Raises:
        SpecError: the study's space cannot be read.
        StudyError: names them, and what to type.
    """
    if found := untrusted(folder):
        files = ", ".join(str(source.path) for source in found)
        raise StudyError(
            f"{folder.name}: it brings operators as Python code that you have not run on this machine: {files} (read "
            f"it; to run it, give --trust once: {command('export', folder)} --trust, or with resume, confirm or train)"
        )


def trust(folder: Path) -> None:
    """Let the operator files of a study run from now on: the user has said so.

    Raises:
        StudyError: its space cannot be read.
    """
    try:
        found = untrusted(folder)
    except SpecError as error:
        raise StudyError(f"{folder / SPACE}: {'; '.join(error.mistakes)}") from None
    for source in found:
        user_modules.trust(source)
