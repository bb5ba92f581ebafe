"""Links in a study's folder that lead out of it: a study from elsewhere may bring them, to have files overwritten."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from search_spaces.errors import StudyError

_NOT_WALKED = {"export", "full"}
"""Folders into which no search writes; `require_writable_within` looks at them before an export or a full training."""
_MOST_LINES = 5


def require_no_links_out(folder: Path) -> None:
    """Refuse to write into a study of which a file or folder is a link to something elsewhere.

    The study's folder itself may be a link.

    Raises:
        StudyError: names such links, and what they lead to.
    """
    _refuse(list(links_out(folder)), "a search would write to")


def require_writable_within(folder: Path, written: Path) -> None:
    """Refuse to write into a folder of a study if it, one above it or anything in it is a link out of the study.

    Args:
        folder: of the study.
        written: a folder within it, which need not exist.

    Raises:
        StudyError: names such links, and what they lead to.
    """
    parts = written.relative_to(folder).parts
    above = [folder.joinpath(*parts[: number + 1]) for number in range(len(parts))]
    found = [path for path in above if _leads_out(path, os.path.realpath(folder))]
    _refuse(found or list(_links_in(written, os.path.realpath(folder))), "would be written to")


def _refuse(found: Sequence[Path], purpose: str) -> None:
    if not found:
        return
    lines = [
        f"{path}: a link out of the study, to {os.path.realpath(path)}, which {purpose}" for path in found[:_MOST_LINES]
    ]
    more = f"and {len(found) - _MOST_LINES} more; " if len(found) > _MOST_LINES else ""
    lines[-1] += f" ({more}put there what it leads to, or remove it; the study's folder as a whole may be a link)"
    raise StudyError("\n".join(lines))


def links_out(folder: Path) -> Iterator[Path]:
    """Yield the links in a study's folder that lead out of it, also those that lead nowhere."""
    return _links_in(folder, os.path.realpath(folder), not_walked=_NOT_WALKED)


def _links_in(walked: Path, root: str, *, not_walked: Collection[str] = ()) -> Iterator[Path]:
    for place, folders, files in os.walk(walked):
        for name in sorted((*folders, *files)):
            if _leads_out(path := Path(place, name), root):
                yield path
        folders[:] = [name for name in folders if Path(place) != walked or name not in not_walked]


def _leads_out(path: Path, root: str) -> bool:
    return path.is_symlink() and not os.path.realpath(path).startswith(f"{root}{os.sep}")
