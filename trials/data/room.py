"""Room for decoded images in this machine's memory, and on the disk of the cache folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from trials import machine
from trials.costing.layers import IMAGE_CHANNELS

_SHARE_OF_MEMORY = 0.5
_SHARE_OF_DISK = 0.25


def most_bytes(images: int, image_size: int) -> int:
    """Return the bytes of so many decoded images, if all are square."""
    return images * image_size**2 * IMAGE_CHANNELS


@dataclass(frozen=True, kw_only=True)
class Room:
    """Room for decoded images on this machine.

    Attributes:
        memory: bytes that are free; None if they cannot be read.
        disk: bytes that are free where the cache folder lies.
    """

    memory: int | None
    disk: int

    @classmethod
    def of(cls, folder: Path) -> "Room":
        """Return the room that there is now; the folder, or one around it, exists."""
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        return cls(memory=machine.free_memory(), disk=shutil.disk_usage(there).free)

    def in_memory(self, images: int, image_size: int) -> bool:
        """Return whether so many images may be held in memory."""
        return self.memory is None or most_bytes(images, image_size) < _SHARE_OF_MEMORY * self.memory

    def on_disk(self, images: int, image_size: int) -> bool:
        """Return whether so many images may be stored."""
        return most_bytes(images, image_size) < _SHARE_OF_DISK * self.disk
