"""Validation batches, which are the same each time: put together once, and held as bytes on the GPU or in memory."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import DataLoader

from trials.data.image_cache import CachedImages
from trials.data.room import most_bytes

_MOST_IN_MEMORY = 512 * 2**20
"""Most bytes of batches in main memory; larger ones are put together anew for every validation."""
_ON_GPU = 2
"""Data sets of which a process holds batches on a GPU: in a confirmation that of `val` and that of the images that
judge."""
_SHARE_OF_GPU, _SHARE_OF_FREE = 0.01, 0.1
"""Most that each of them takes, of all memory of the GPU and of what is free. A batch that was chosen by measured
memory leaves 15 % to all processes that share the GPU, which may be four or more."""


class ValidationBatches:
    """Validation batches of a data set.

    Args:
        dataset: whose images are not augmented.
        batch: images in each.
        pinned: whether they lie in memory that is copied to a GPU while this process goes on.
        device: on which they lie; None for main memory.
    """

    def __init__(
        self, dataset: CachedImages, batch: int, *, pinned: bool = False, device: torch.device | None = None
    ) -> None:
        self.dataset, self.batch_size = dataset, batch
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_size=batch, collate_fn=dataset.collate_fn, pin_memory=pinned
        )
        self._batches: list[Mapping[str, Any]] = [one if device is None else _moved(one, device) for one in loader]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield copies, since the validator writes into them; it replaces tensors, and changes none."""
        return (dict(batch) for batch in self._batches)


def _moved(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}


def fit_in_memory(images: int, image_size: int) -> bool:
    """Return whether the batches of so many images are together small enough to be held in main memory."""
    return most_bytes(images, image_size) <= _MOST_IN_MEMORY


def fit_on_gpu(images: int, image_size: int, *, free: int, whole: int) -> bool:
    """Return whether they are small enough to be held on a GPU.

    Args:
        free: bytes of its memory that are free.
        whole: all its bytes.
    """
    return most_bytes(images, image_size) <= min(_SHARE_OF_GPU * whole, _SHARE_OF_FREE * free)


@lru_cache(maxsize=8)
def in_memory(dataset: CachedImages, batch: int, *, pinned: bool = False) -> ValidationBatches:
    """Return the validation batches of a data set; put together once per process."""
    return ValidationBatches(dataset, batch, pinned=pinned)


@lru_cache(maxsize=_ON_GPU)
def on_device(dataset: CachedImages, batch: int, device: torch.device) -> ValidationBatches:
    """Return the validation batches of a data set on a device; those of the last two data sets stay there."""
    return ValidationBatches(dataset, batch, device=device)
