"""A file that is written over and over in place, and of which one half is whole whenever its writer dies.

A new file each time costs more: a kernel needs several times as long for the memory of new pages as for a copy into
pages that are there, and to rename a file over another waits for the disk.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.files import atomic_path

_LEAST_HEAD, _MOST_HEAD = 4096, 1 << 24
"""Bytes."""
_DIGEST = 64
"""Letters, with which a head begins."""


class Halves:
    """Long rows of numbers, and what is said of them, written into the two halves of a file in turn.

    A half has a head, which goes before its numbers are written over and comes back after them: what a killed writer
    leaves has none. A power failure may keep any page of what was written last and lose any other; then the sum of the
    numbers is not the one in the head.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = self._size = 0

    def write(self, said: Mapping[str, Any], rows: Sequence[Tensor]) -> None:
        """Write over the older half, or into a file made anew if this takes another room.

        Args:
            said: what JSON can say.
            rows: flat, each of a multiple of 8 bytes.
        """
        numbers = [row.detach().cpu().view(torch.uint8).numpy() for row in rows]
        self._written += 1
        kinds = [(str(row.dtype).removeprefix("torch."), row.nbytes) for row in rows]
        head = _head({"written": self._written, "rows": kinds, "sum": _sum(numbers), "said": said})
        size = len(head) + sum(map(len, numbers))
        anew = size != self._size
        if anew:
            # A sum tells a torn half: nothing waits for the disk.
            with atomic_path(self.path, durable=False) as temporary, temporary.open("wb") as file:
                _put(file, self._written % 2 * size, head, numbers)
            self._size = size
        else:
            with self.path.open("r+b") as file:
                _put(file, self._written % 2 * size, head, numbers)

    def read(self) -> tuple[Any, list[Tensor]] | None:
        """What was said last, and the rows; None if no half is whole, or there is no file."""
        if not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            first = _read(file, 0)
            second = _read(file, first.size if first else self.path.stat().st_size // 2)
        halves = [half for half in (first, second) if half is not None]
        if not halves:
            return None
        last = max(halves, key=lambda half: half.written)
        self._written, self._size = last.written, last.size
        return last.said, last.rows


@dataclass(frozen=True)
class _Half:
    written: int
    size: int
    said: Any
    rows: list[Tensor]


def _put(file: BinaryIO, start: int, head: bytes, numbers: Sequence[NDArray[np.uint8]]) -> None:
    file.seek(start)
    file.write(bytes(_DIGEST))
    file.seek(start + len(head))
    file.writelines(row.data for row in numbers)
    file.seek(start)
    file.write(head)


def _read(file: BufferedReader, start: int) -> _Half | None:
    """The half that begins there, if it is whole."""
    file.seek(start)
    line = file.readline(_MOST_HEAD)
    if line[:_DIGEST] != _digest(line[_DIGEST:]):
        return None
    head = json.loads(line[_DIGEST:])
    rows = [torch.empty(length, dtype=torch.uint8) for _, length in head["rows"]]
    read = [file.readinto(row.numpy().data) for row in rows]
    if read != list(map(len, rows)) or _sum([row.numpy() for row in rows]) != head["sum"]:
        return None
    typed = [row.view(getattr(torch, kind)) for row, (kind, _) in zip(rows, head["rows"], strict=True)]
    return _Half(head["written"], len(line) + sum(read), head["said"], typed)


def _head(entries: Mapping[str, Any]) -> bytes:
    """A line that says how it should read, filled up so that one which says a little more has the same length."""
    text = json.dumps(entries).encode()
    length = max(_LEAST_HEAD, 1 << (_DIGEST + len(text)).bit_length())
    line = text.ljust(length - _DIGEST - 1) + b"\n"
    return _digest(line) + line


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest().encode()


def _sum(numbers: Sequence[NDArray[np.uint8]]) -> int:
    return sum(int(row.view(np.uint64).sum()) for row in numbers)
