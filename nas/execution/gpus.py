"""GPUs as CUDA names them: `CUDA_VISIBLE_DEVICES` in all its forms, and memory that other processes hold.

Nothing here starts CUDA: a process that does so holds some hundred megabytes on the card.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from search_spaces.errors import EnvironmentProblem

VARIABLE = "CUDA_VISIBLE_DEVICES"
_GPU, _MIG = "GPU-", "MIG-"
_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.used,memory.total", "--format=csv,noheader,nounits")
_MUCH = 0.1
"""Share of a GPU's memory, used by others, from which on a line says so."""


def visible(value: str | None) -> tuple[str, ...] | None:
    """Return the names of the GPUs that a value of `CUDA_VISIBLE_DEVICES` lets a process see; None for all.

    As CUDA and PyTorch read it (`torch/cuda/__init__.py`, `_parse_visible_devices`): indices, of which text behind the
    digits is ignored; or names that all begin with `GPU-`, or all with `MIG-`. The first one that is neither, such as
    -1, ends the list. A list that names one twice is empty.
    """
    if value is None:
        return None
    names: list[str] = []
    prefix = next((kind for kind in (_GPU, _MIG) if value.startswith(kind)), None)
    for each in value.split(","):
        index = re.match(r"\s*\+?(\d+)", each)
        name = str(int(index[1])) if index and prefix is None else each
        if (prefix is None and index is None) or (prefix is not None and not each.startswith(prefix)):
            break
        if name in names:
            return ()
        names.append(name)
    return tuple(names)


def count(found: int, value: str | None) -> int:
    """Return how many GPUs `--device` may name.

    A process sees one MIG instance however many are listed (CUDA, "only enumeration of a single MIG instance is
    supported"), but each worker gets one of its own.

    Args:
        found: GPUs that PyTorch sees in this process.
        value: of `CUDA_VISIBLE_DEVICES`.
    """
    names = visible(value) or ()
    return len(names) if found and names and names[0].startswith(_MIG) else found


def name_of(index: str, value: str | None) -> str:
    """Return the name by which a worker is given a GPU.

    Args:
        index: of the GPU among those that this process sees.
        value: the process's `CUDA_VISIBLE_DEVICES`, which Slurm and Ray set.

    Raises:
        EnvironmentProblem: this process does not see so many.
    """
    names = visible(value)
    if names is None:
        return index
    if int(index) >= len(names):
        raise EnvironmentProblem(
            f"device: no GPU {index} here, {VARIABLE}={value!r} shows {len(names) or 'none'} (unset it, or give "
            f"--device {','.join(map(str, range(len(names)))) or 'cpu'})"
        )
    return names[int(index)]


@dataclass(frozen=True, kw_only=True)
class CardMemory:
    """Memory of a GPU, in MiB, as `nvidia-smi` prints it."""

    index: str
    uuid: str
    name: str
    used: int
    total: int

    @classmethod
    def read(cls, text: str) -> tuple[Self, ...]:
        """Read the output of `nvidia-smi`; lines without figures, such as `[N/A]`, are left out."""
        cards = []
        for line in text.splitlines():
            parts = [part.strip() for part in line.split(",")]
            if len(parts) == 5 and parts[3].isdecimal() and parts[4].isdecimal():
                cards.append(cls(index=parts[0], uuid=parts[1], name=parts[2], used=int(parts[3]), total=int(parts[4])))
        return tuple(cards)

    def is_called(self, name: str) -> bool:
        """Return whether a name of `CUDA_VISIBLE_DEVICES` means this card: its index, or the beginning of its UUID."""
        return name == self.index or (name.startswith(_GPU) and self.uuid.startswith(name))


def lines_on_use(names: Sequence[str], cards: Sequence[CardMemory]) -> Iterator[str]:
    """Yield a line for each GPU of which other processes hold more than a tenth."""
    for name in dict.fromkeys(names):
        for card in cards:
            if card.is_called(name) and card.used > _MUCH * card.total:
                used, total = card.used / 1024, card.total / 1024
                yield (
                    f"GPU {name} ({card.name}): other processes hold {used:.1f} of {total:.1f} GiB; a trial that needs "
                    "more than the rest ends as out_of_memory (nvidia-smi shows them)"
                )


def memory_of_cards() -> tuple[CardMemory, ...]:
    """Return the memory of this machine's GPUs; nothing where `nvidia-smi` is missing or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        return CardMemory.read(subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=20).stdout)
    return ()
