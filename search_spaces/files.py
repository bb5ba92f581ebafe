"""Files that several processes read: written atomically, and read although anybody may have damaged them."""

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search_spaces.errors import EnvironmentProblem, SpecError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_OF_MACHINE = _NO_ROOM | _NOT_ALLOWED | {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}

AGAIN = "and type the same command again; nothing that was finished is lost"
"""What to do when a problem of the machine is solved: right for a study that was begun, and for one that was not."""

_TEMPORARY = ".tmp"
_TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{12}\.tmp(?:-\w+)?")

NAME_BYTES = 255
"""Longest name of a file or folder on all common file systems."""
PATH_BYTES = 4000


def environment_problem(error: OSError, path: Path | None = None) -> EnvironmentProblem | None:
    """Return an error of this machine, such as a full disk, as a problem with its remedy; None for any other error.

    Args:
        path: file that was being written, where the error does not name it.
    """
    why = error.strerror or os.strerror(error.errno or 0)
    is_limited = error.errno == errno.EFBIG and why == os.strerror(errno.EFBIG)  # `read_plain` has other words
    if error.errno not in _OF_MACHINE and not is_limited:
        return None
    place = path or error.filename or "a file"
    if error.errno in _NO_ROOM:
        remedy = f"make room there, {AGAIN}"
    elif is_limited:
        remedy = f"this shell, by ulimit -f, or the file system limits the size of files: solve that, {AGAIN}"
    elif error.errno in _NOT_ALLOWED:
        remedy = "make it writable for this user, or choose another folder: --runs for studies, NAS_CACHE for the cache"
    else:
        remedy = f"solve that, {AGAIN}"
    return EnvironmentProblem(f"{place}: cannot be written: {why} ({remedy})")


@contextmanager
def as_environment_problems(path: Path) -> Iterator[None]:
    """Raise errors of this machine while a file is written as problems with a remedy.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise environment_problem(error, path) or error from None


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; at the end rename that file to `path`.

    The temporary name is unique for each process and call. After an error the file at `path` is as it was, and the
    temporary file is deleted. A killed process leaves its temporary file, one of the `leftovers`.

    Args:
        durable: flush file and folder to the disk (fsync), so that after a power failure the file is whole as well.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    temporary = path.with_name(f"{_prefix(path)}{uuid.uuid4().hex[:12]}{_TEMPORARY}")
    with as_environment_problems(path):
        try:
            yield temporary
            if durable:
                with temporary.open("r+b") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync_folder(path.parent)


def require_place(path: Path, name: str) -> None:
    """Refuse the path of a file to write that is a folder, or whose folder does not exist, before any work is done.

    Args:
        path: as the user gave it.
        name: of the option, for the message.

    Raises:
        SpecError: it is.
    """
    if path.is_dir():
        raise SpecError(f"{name}: a file is expected, got the folder '{path}' (name a file in it)")
    if not path.absolute().parent.is_dir():
        raise SpecError(f"{name}: no folder to write it to, got '{path}' (make {path.parent} first)")


def leftovers(path: Path) -> list[Path]:
    """Return the temporary files of `path`, and SQLite's journals of them: of killed processes, if none is writing."""
    prefix = _prefix(path)
    names = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    return [each for each in names if each.name.startswith(prefix) and _TEMPORARY in each.name[len(prefix) :]]


def is_temporary(name: str) -> bool:
    """Return whether a file's name is that of a temporary file of `atomic_path`, or of SQLite's journal of one."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def _prefix(path: Path) -> str:
    return f".{path.name[:64]}."


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that other processes read: if this process or the power fails, the file is new or as it was.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


YAML_BYTES = 2 * 2**20
"""Largest YAML file that is read: PyYAML takes seconds for a megabyte."""
TABLE_BYTES = 256 * 2**20
"""Largest table, list or JSON file that is read: a list of a million images has a hundred megabytes."""


def read_plain(path: Path, *, most: int = TABLE_BYTES) -> bytes:
    """Return the content of a file that may come from anyone: never of a pipe or device, which may have no end.

    Args:
        most: largest size in bytes.

    Raises:
        OSError: it cannot be read, is no plain file, or larger; `strerror` says which.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
    with open(number, "rb") as file:  # noqa: PTH123 - of a number
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"no plain file, but {_kind(mode)}", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MB", str(path))
    return content


def read_plain_text(path: Path, *, most: int = TABLE_BYTES, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a file that may come from anyone, with the line ends of Linux; as `read_plain`.

    Raises:
        OSError: as `read_plain`.
        UnicodeDecodeError: it is no text.
    """
    text = read_plain(path, most=most).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _kind(mode: int) -> str:
    """Return what a file is that is no plain one, in words."""
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((words for is_kind, words in kinds if is_kind(mode)), "a device")


SPECIAL = "no plain file (a pipe or device may have no end)"
"""Reason why what `is_special` finds is not opened."""


def is_special(path: Path) -> bool:
    """Return whether there is a pipe, a device or a socket."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_plain(path: Path) -> bool:
    """Return whether there is a plain file; False also for a path that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a folder that may not be searched, a NUL
        return False


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; False also for a path that none can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # as for a plain file
        return False


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing, torn, not JSON, or no plain file of a usual size."""
    try:
        return json.loads(read_plain(path))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.ENXIO}:
            return None
        raise


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; an empty one if the file holds anything else, or cannot be read."""
    try:
        document = read_json(path)
    except OSError:
        return {}
    return document if isinstance(document, dict) else {}


def path_problem(path: str) -> str:
    """Return why no file can have this path; empty if one can."""
    if "\0" in path:
        return "a NUL character in it"
    if len(os.fsencode(path)) > PATH_BYTES or any(len(os.fsencode(part)) > NAME_BYTES for part in path.split("/")):
        return "too long for a file's name"
    return ""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_durable_folder(folder: Path) -> None:
    """Create a folder unless it exists, and flush its name to the disk: its files are durable only if it is.

    The folder around it is flushed, too: it may have been created a moment ago.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for around in (folder.parent, folder.parent.parent):
        _sync_folder(around)


def sync_file(path: Path) -> None:
    """Flush a file that is appended to, if there is one, to the disk."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flush the names of a folder's files to the disk (fsync), where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
