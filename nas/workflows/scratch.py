"""Folders for what a command writes while it runs; those of killed commands are deleted by the next one."""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.locks import Lock, is_held

_LOCK = "nas.lock"
"""Held as long as the command runs; a folder without it is another program's."""
_YOUNG_SECONDS = 60.0
"""A lock's file is there a moment before it is held."""


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Make an empty folder that is deleted with the end of the `with` block, or of a later one if this is killed.

    Args:
        purpose: in a word, for its name.
    """
    _delete_abandoned(Path(tempfile.gettempdir()))
    outer = Path(tempfile.mkdtemp(prefix=f"nas-{purpose}-"))
    lock = Lock(outer / _LOCK)
    lock.take()
    try:
        inner = outer / purpose
        inner.mkdir()
        yield inner
    finally:
        lock.release()
        shutil.rmtree(outer, ignore_errors=True)


def _delete_abandoned(place: Path) -> None:
    """Delete this user's folders whose command was killed."""
    for folder in place.glob("nas-*"):
        with suppress(OSError):  # it may vanish meanwhile
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    found, lock = folder.lstat(), folder / _LOCK
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and lock.is_file()
    return is_ours and time.time() - found.st_mtime > _YOUNG_SECONDS and not is_held(lock)
