"""Links in a study's folder that lead out of it: a study from elsewhere may bring them, to have files overwritten."""

import os
from collections.abc import Iterator
from pathlib import Path

from search_spaces.errors import StudyError

_NOT_WALKED = {"export", "full"}
"""Folders into which no search writes."""
_MOST_LINES = 5


def require_no_links_out(folder: Path) -> None:
    """Refuse to write into a study of which a file or folder is a link to something elsewhere.

    The study's folder itself may be a link.

    Raises:
        StudyError: names such links, and what they lead to.
    """
    found = list(links_out(folder))
    if not found:
        return
    lines = [
        f"{path}: a link out of the study, to {os.path.realpath(path)}, which a search would write to"
        for path in found[:_MOST_LINES]
    ]
    more = f"and {len(found) - _MOST_LINES} more; " if len(found) > _MOST_LINES else ""
    lines[-1] += f" ({more}put there what it leads to, or remove it; the study's folder as a whole may be a link)"
    raise StudyError("\n".join(lines))


def links_out(folder: Path) -> Iterator[Path]:
    """Yield the links in a study's folder that lead out of it, also those that lead nowhere."""
    root = os.path.realpath(folder)
    for place, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            path = Path(place, name)
            if path.is_symlink() and not os.path.realpath(path).startswith(f"{root}{os.sep}"):
                yield path
        folders[:] = [name for name in folders if Path(place) != folder or name not in _NOT_WALKED]
