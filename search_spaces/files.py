"""Files that other processes read: written whole or not at all, and read as what anybody may have damaged."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search_spaces.errors import EnvironmentProblem

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_OF_MACHINE = _NO_ROOM | _NOT_ALLOWED | {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}


def trouble(error: OSError, path: Path | None = None) -> EnvironmentProblem | None:
    """Return the problem of this machine that an error speaks of, with its cure; None if it speaks of none.

    Args:
        path: what was being written, where the error does not name it.
    """
    if error.errno not in _OF_MACHINE:
        return None
    place = path or error.filename or "a file"
    why = error.strerror or os.strerror(error.errno)
    if error.errno in _NO_ROOM:
        cure = "make room there; a search then goes on where it stopped, with nas resume"
    elif error.errno in _NOT_ALLOWED:
        cure = "make it writable for this user, or choose another folder: --runs for studies, NAS_CACHE for the cache"
    else:
        cure = "mend that; a search then goes on where it stopped, with nas resume"
    return EnvironmentProblem(f"{place}: cannot be written: {why} ({cure})")


@contextmanager
def troubles_named(path: Path) -> Iterator[None]:
    """Raise errors of writing a file as problems of this machine.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise trouble(error, path) or error from None


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give another name to write to; at the end that file takes the place of `path`, once it is on the disk.

    No two processes share such a name. After an error the file at `path` is as it was.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    beside = path.with_name(f".{path.name[:64]}.{uuid.uuid4().hex[:12]}.tmp")
    with troubles_named(path):
        try:
            yield beside
            with beside.open("r+b") as file:
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a file that other processes read: there whole, or as it was, whenever this process or the power dies.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    with aside(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def read_json(path: Path) -> Any:
    """Return what a file of JSON says; None if it is not there, torn, or something else."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None


def read_mapping(path: Path) -> dict[str, Any]:
    """Return what a file of JSON says as a mapping; an empty one if it says something else, or cannot be read."""
    try:
        said = read_json(path)
    except OSError:
        return {}
    return said if isinstance(said, dict) else {}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
