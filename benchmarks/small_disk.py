"""File system of a few megabytes in memory, which can be filled, and the folder of a case of `full_disk.py` on it."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LARGE = 256
"""Megabytes of a file system with room."""


class Disk:
    """File system of a few megabytes, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / ".filler"

    @contextmanager
    def mounted(self) -> Iterator["Disk"]:
        """Mount it.

        Raises:
            CalledProcessError: this user may not.
        """
        self.folder.mkdir(parents=True)
        subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={_LARGE}m", "tmpfs", str(self.folder)], check=True)
        try:
            yield self
        finally:
            subprocess.run(["/bin/umount", "--lazy", str(self.folder)], check=True)

    @property
    def used(self) -> int:
        """Bytes that files take."""
        stat = os.statvfs(self.folder)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def leave(self, free: int) -> None:
        """Fill it but for some bytes, which is rounded to whole pages of memory."""
        with self._filler.open("wb") as file:
            while True:
                stat = os.statvfs(self.folder)
                try:
                    os.posix_fallocate(file.fileno(), 0, max(1, stat.f_bfree * stat.f_frsize - free))
                except OSError as error:  # somebody was faster
                    if error.errno != errno.ENOSPC:
                        raise
                else:
                    return

    def make_room(self) -> None:
        """Remove what fills it."""
        self._filler.unlink(missing_ok=True)


@dataclass(frozen=True)
class Case:
    """Folder of a case, which lies on a disk with room."""

    folder: Path
    kind: str

    @property
    def disk(self) -> Path:
        """Where the small file system is mounted."""
        return self.folder / "disk"

    @property
    def runs(self) -> Path:
        """Folder of all studies: there, unless something else lies there alone."""
        return (self.folder if self.kind in {"mlflow", "cache"} else self.disk) / "runs"

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.runs / "s"

    @property
    def log(self) -> Path:
        """Log file of its commands."""
        return self.folder / "log"

    @property
    def trace(self) -> Path:
        """Epochs that were begun and saved."""
        return self.folder / "trace"

    @property
    def last_line(self) -> str:
        """The last line that its commands have printed."""
        return (self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
