"""Double-buffered file: overwritten in place, and one of its two halves is intact whenever the writer is killed.

Faster than a new file each time: the kernel needs several times as long for the memory of new pages as for a copy into
existing ones, and renaming a file over another waits for the disk.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from search_spaces.files import as_environment_problems, atomic_path
from trials.training.buffer_halves import DIGEST_LENGTH, Bytes, checksum, make_header, read_halves

_SYNC_SHARE = 0.02


class DoubleBufferedFile:
    """File of a JSON mapping and flat tensors, of which each write replaces the older half.

    A half begins with a header, which is erased before its numbers are overwritten and written after them: a half
    whose writer was killed has none. After a power failure any page of the last write may be missing; then the
    numbers do not match the checksum in the header, and the half before it is whole: it was flushed to the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writes = self._size = 0
        self._written_at = self._sync_seconds = 0.0

    def write(self, state: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        """Overwrite the older half, or write a new file if the size has changed.

        Args:
            state: of JSON values.
            tensors: flat, each of a multiple of 8 bytes.

        Raises:
            EnvironmentProblem: the disk is full; then the half before it is whole.
        """
        numbers = [each.detach().cpu().view(torch.uint8).numpy() for each in tensors]
        self._writes += 1
        rows = [(str(each.dtype).removeprefix("torch."), each.nbytes) for each in tensors]
        header = make_header({"written": self._writes, "rows": rows, "sum": checksum(numbers), "said": state})
        size = len(header) + sum(map(len, numbers))
        start = self._writes % 2 * size
        if size == self._size:
            with as_environment_problems(self.path), self.path.open("r+b") as file:
                self._sync(file)
                _write_half(file, start, header, numbers)
            self._written_at = time.monotonic()
            return
        # Not durable: after a power failure the checksum tells, and the next write waits for this one.
        with atomic_path(self.path, durable=False) as temporary, temporary.open("wb") as file:
            _write_half(file, start, header, numbers)
        self._size, self._written_at = size, time.monotonic()

    def _sync(self, file: BinaryIO) -> None:
        """Flush the half that was written last, before the other one is overwritten: a power failure leaves one.

        Left out where it would take more than 2 % of the time between two writes. Then the kernel decides, which
        writes after some 30 seconds.
        """
        now = time.monotonic()
        if self._sync_seconds > _SYNC_SHARE * (now - self._written_at):
            self._sync_seconds /= 2  # or one slow disk access would be the last
            return
        os.fsync(file.fileno())
        self._sync_seconds = time.monotonic() - now

    def read(self) -> tuple[Any, list[Tensor]] | None:
        """Return the mapping and the tensors of the last complete write; None without a file or an intact half."""
        if not self.path.is_file():
            return None
        halves = read_halves(self.path)
        if not halves:
            return None
        last = max(halves, key=lambda half: half.writes)
        self._writes, self._size = last.writes, last.size
        return last.state, [_tensor(row, getattr(torch, dtype)) for dtype, row in last.rows]


def _write_half(file: BinaryIO, start: int, header: bytes, numbers: Sequence[Bytes]) -> None:
    file.seek(start)
    file.write(bytes(DIGEST_LENGTH))
    file.seek(start + len(header))
    file.writelines(row.data for row in numbers)
    file.seek(start)
    file.write(header)


def _tensor(row: Bytes, dtype: torch.dtype) -> Tensor:
    """Return bytes as a tensor in the same memory; PyTorch cannot take over an empty array."""
    return torch.from_numpy(row).view(dtype) if len(row) else torch.empty(0, dtype=dtype)
