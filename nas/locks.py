"""File locks that the operating system releases when their process exits, for whatever reason."""

import errno
import fcntl
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from search_spaces.errors import EnvironmentProblem
from search_spaces.files import as_environment_problems

_NOT_PLAIN = {errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV}
_TRIES, _MOMENT_SECONDS = 5, 0.01


class ExclusiveLock(ABC):
    """Lock that one process holds at a time."""

    @abstractmethod
    def take(self, *, wait: bool = True) -> bool:
        """Take the lock; return False if another process holds it and `wait` is False."""

    @abstractmethod
    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""

    def is_lost(self) -> bool:
        """Return whether the lock was taken and is not held any more; that of a file is lost with its process only."""
        return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in a `with` block."""
        self.take()
        try:
            yield
        finally:
            self.release()

    @contextmanager
    def held_at_once(self, otherwise: Exception) -> Iterator[None]:
        """Hold the lock in a `with` block; raise `otherwise` if another process holds it."""
        if not self.take(wait=False):
            raise otherwise
        try:
            yield
        finally:
            self.release()


class Lock(ExclusiveLock):
    """Exclusive lock on a file.

    `flock` needs a local file system; a study's folder is on one (SQLite in WAL mode needs it, too).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def take(self, *, wait: bool = True) -> bool:
        """Take the lock; return False if another process holds it and `wait` is False.

        Raises:
            EnvironmentProblem: no plain file can be opened at its path.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(self.path)
        for _ in range(1 if wait else _TRIES):  # `is_held` holds it for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_MOMENT_SECONDS)
            else:
                self._file = file
                return True
        file.close()
        return False

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _open(path: Path) -> IO[str]:
    """Open the file of a lock; create it if it is missing.

    A pipe or device that lies there would block, and a link may name any file of the user, to which a heartbeat would
    be written.

    Raises:
        EnvironmentProblem: the disk is full, the place cannot be written to, or no plain file lies there.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    with as_environment_problems(path):
        try:
            number = os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno in _NOT_PLAIN:
                raise _no_lock(path) from None
            raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _no_lock(path)
    return open(number, "a", encoding="utf-8")  # noqa: PTH123 - of a number; open while the lock is held


def _no_lock(path: Path) -> EnvironmentProblem:
    return EnvironmentProblem(f"{path}: no plain file, as a lock is (remove it, and type the command again)")


def is_held(path: Path) -> bool:
    """Return whether some process holds the lock of a file; False where no plain file lies."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW  # reading needs no permission to write
    try:
        number = os.open(path, flags)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES, *_NOT_PLAIN}:
            return False
        raise
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(number)
