"""File locks that the operating system releases when their process exits, for whatever reason."""

import fcntl
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
        """Take the lock; return False if another process holds it and `wait` is False."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a")
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


def is_held(path: Path) -> bool:
    """Return whether some process holds the lock of a file."""
    try:
        file = path.open("rb")  # reading needs no permission to write
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
