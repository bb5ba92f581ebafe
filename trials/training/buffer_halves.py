"""Halves of a double-buffered file: how one is laid out, and how it is read and checked. Without PyTorch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_HEADER, _MAX_HEADER = 4096, 1 << 24
"""Bytes."""
DIGEST_LENGTH = 64
"""Bytes; a header begins with its digest."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Half:
    """Intact half of a file.

    Attributes:
        writes: number of the write that wrote it.
        size: bytes, header included.
        state: JSON values.
        rows: name of the type, and bytes, of each tensor.
    """

    writes: int
    size: int
    state: Any
    rows: Sequence[tuple[str, Bytes]]


def read_halves(path: Path) -> list[Half]:
    """Return the intact halves of a file."""
    with path.open("rb") as file:
        first = _read_half(file, 0)
        second = _read_half(file, first.size if first else path.stat().st_size // 2)
    return [half for half in (first, second) if half is not None]


def _read_half(file: BufferedReader, start: int) -> Half | None:
    """Read the half that begins at `start`; None if it is not intact."""
    file.seek(start)
    line = file.readline(_MAX_HEADER)
    if line[:DIGEST_LENGTH] != _digest(line[DIGEST_LENGTH:]):
        return None
    header = json.loads(line[DIGEST_LENGTH:])
    rows = [np.empty(length, dtype=np.uint8) for _, length in header["rows"]]
    read = [file.readinto(row.data) for row in rows]
    if read != list(map(len, rows)) or checksum(rows) != header["sum"]:
        return None
    types = [dtype for dtype, _ in header["rows"]]
    return Half(header["written"], len(line) + sum(read), header["said"], list(zip(types, rows, strict=True)))


def make_header(entries: Mapping[str, Any]) -> bytes:
    """Return a digest and JSON in one line, padded so that slightly longer entries give the same length."""
    text = json.dumps(entries).encode()
    length = max(_MIN_HEADER, 1 << (DIGEST_LENGTH + len(text)).bit_length())
    line = text.ljust(length - DIGEST_LENGTH - 1) + b"\n"
    return _digest(line) + line


def checksum(numbers: Sequence[Bytes]) -> int:
    """Return the checksum of the tensors of a half, each of a multiple of 8 bytes."""
    return sum(int(row.view(np.uint64).sum()) for row in numbers)


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest().encode()
