"""Loader of training images for a GPU: its processes stay for all epochs, and their number changes no image.

Differences to Ultralytics' `InfiniteDataLoader` (`data/build.py`):

- it reads no image of the next epoch ahead: those would be thrown away, since every epoch is seeded anew;
- its processes are not started anew for each epoch;
- the augmentation of an image follows from the epoch's seed and the image's number, not from the process that draws it.
"""

import shutil
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from trials import machine
from trials.data.image_cache import CachedImages, Draw

MOST_PROCESSES = 8
_AHEAD = 4
"""Batches that each process prepares ahead."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux has it, which PyTorch uses
_SHARE_OF_SHARED = 0.5
"""Most of what is free that all workers of this machine take; each has as large a share of it as of the cores."""


class EpochOrder(Sampler[Draw]):
    """Random order of the images in an epoch, with the seed of each one's augmentation.

    Attributes:
        seed: of the epoch.
    """

    def __init__(self, images: Sized) -> None:
        self._images, self.seed = images, 0

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Draw]:
        """Yield each image once."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.seed))
        return (Draw(image=image, seed=self.seed) for image in order.tolist())


class EpochLoader(DataLoader[Any]):
    """Loader whose epochs are seeded through its `generator`, and begun by `reset`, as those of Ultralytics' loader.

    Args:
        processes: 0 to load in this process.
        pinned: whether batches lie in memory that is copied to a GPU while this process goes on.
    """

    def __init__(self, images: CachedImages, batch: int, *, processes: int, pinned: bool) -> None:
        self._order = EpochOrder(images)
        super().__init__(
            images,
            batch_size=min(batch, len(images)),
            sampler=self._order,
            num_workers=processes,
            persistent_workers=processes > 0,
            prefetch_factor=_AHEAD if processes else None,
            pin_memory=pinned,
            collate_fn=images.collate_fn,
            generator=torch.Generator(),
        )

    def reset(self) -> None:
        """Begin the epoch of the generator's seed."""
        assert self.generator is not None  # noqa: S101 - made above
        self._order.seed = self.generator.initial_seed()

    def close(self) -> None:
        """End the processes; the next epoch would start new ones."""
        iterator: Any = self._iterator
        self._iterator = None
        if iterator is not None and self.num_workers:
            iterator._shutdown_workers()  # noqa: SLF001 - as Ultralytics does; left to the collector they would stay


def processes_for(batches: int, batch_bytes: int = 0) -> int:
    """Return the number of processes that load an epoch: this worker's share of the cores, as far as memory suffices.

    Args:
        batches: of the epoch.
        batch_bytes: most bytes of one, which its process passes on in shared memory; 0 if that is not to count.
    """
    return 0 if batches <= 1 else min(MOST_PROCESSES, torch.get_num_threads(), batches, _with_room_for(batch_bytes))


def _with_room_for(batch_bytes: int) -> int:
    """Return how many processes have room for the batches that they prepare ahead in shared memory.

    A container has 64 MB by default. A process that finds no room dies of a bus error.
    """
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # such as on a system that has it elsewhere
        return MOST_PROCESSES
    share = _SHARE_OF_SHARED * min(1.0, torch.get_num_threads() / machine.cores())
    return int(share * free / max(1, batch_bytes * (_AHEAD + 1)))
