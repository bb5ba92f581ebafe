"""Which numbers and texts make sense where a user gives one: on the command line and in `nas.search`.

Read before anything is imported that takes long, so that a wrong value is answered at once.
"""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_FILE_NAME_BYTES = 255
"""The longest name of a file or folder on all usual file systems."""
_SHOWN = 40
"""Characters of a wrong value that a message repeats."""
_DIGITS = 30
"""A number of more digits is repeated as so many digits."""
_READ_DIGITS = 4000
"""Python reads no longer numbers."""
_PATH_BYTES = 4000


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that are allowed.

    Attributes:
        above: the least itself is not allowed.
        step: all are multiples of it.
        whole: no fractions.
        unit: what the number counts, for the message.
        spelled: the least and the most as a user writes them, where they have units.
    """

    least: float = 1
    most: float
    above: bool = False
    step: int = 1
    whole: bool = True
    unit: str = ""
    spelled: tuple[str, str] | None = None

    def problem(self, value: object) -> str | None:
        """Say what is wrong with a value, the value itself, and what would be right; None if it is allowed."""
        wrong = self._wrong(value)
        if wrong is None:
            return None
        right = self._near(value) if "multiple" in wrong else self._all()
        return f"input should be {wrong}, got {shown(value)} ({right})"

    def _wrong(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.whole and not isinstance(value, int)):
            return "a whole number" if self.whole else "a number"
        if isinstance(value, float) and not math.isfinite(value):
            return "a finite number"
        if value < self.least or (self.above and value == self.least):
            return f"greater than {self._ends[0]}" if self.above else f"at least {self._ends[0]}"
        if value > self.most:
            return f"at most {self._ends[1]}"
        return None if self.step == 1 or value % self.step == 0 else f"a multiple of {self.step}"

    def _near(self, value: Any) -> str:
        below = value // self.step * self.step
        return " or ".join(str(one) for one in (below, below + self.step) if self.least <= one <= self.most)

    def _all(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        multiples = f", in steps of {self.step}" if self.step > 1 else ""
        least, most = self._ends
        return f"{'above' if self.above else 'from'} {least} to {most}{unit}{multiples}"

    @property
    def _ends(self) -> tuple[str, str]:
        return self.spelled or (_plain(self.least), _plain(self.most))


_COUNT = Range(most=1_000_000)
_EPOCHS = Range(most=100_000)
_PIXELS = Range(least=32, most=8192, step=32, unit="px")
_SECONDS = Range(least=0, above=True, most=36e6, whole=False, spelled=("0", "10000h"))
_PROCESSES = Range(most=1024)
_COST = Range(least=0, above=True, most=1e9, whole=False)

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "trials": _COUNT,
        "epochs": _EPOCHS,
        "base_epochs": Range(least=0, most=100_000),
        "image_size": _PIXELS,
        "deploy_size": _PIXELS,
        "batch": Range(most=4096),
        "seed": Range(least=0, most=2**31 - 1),
        "seeds": Range(most=1000),
        "eta": Range(least=2, most=1000),
        "first_rung": _EPOCHS,
        "workers": _PROCESSES,
        "jobs": _PROCESSES,
        "threads": _PROCESSES,
        "timeout": _SECONDS,
        "trial_timeout": _SECONDS,
        "trial_memory": Range(least=64 * 2**20, most=2**50, spelled=("64M", "1024T")),
        "max_gflops": _COST,
        "max_params": Range(most=10**15),
        "max_latency": _COST,
        "target_gflops": _COST,
        "target_latency": _COST,
        "classes": Range(most=100_000),
        "noise": Range(least=0, most=100, whole=False, unit="points"),
        "repeats": _COUNT,
        "rounds": Range(most=10),
        "sample": _COUNT,
        "candidates": _COUNT,
        "port": Range(most=65_535),
    }
)
"""By the name of the option, whichever command has it.

The seed stays below 2**31, although NumPy takes twice that: repeats and `nas confirm` count up from it. A worker with
less memory than the least cannot even build a model.
"""
ANY_WHOLE = Range(least=-(2**31), most=2**31 - 1)
ANY_NUMBER = Range(least=-1e15, most=1e15, whole=False)

TEXTS = ("space", "scale", "refine", "data", "study", "device", "storage", "latency", "preset")
"""The fields of a request that are texts."""
SWITCHES = ("cache", "from_scratch")
"""The fields of a request that are on or off."""


def problems(given: Mapping[str, Any]) -> list[str]:
    """Check every number and text of a request, by the names of its fields; one line for each that makes no sense."""
    found = {name: _problem(name, value) for name, value in given.items() if value is not None}
    return [f"{flag(name)}: {problem}" for name, problem in found.items() if problem is not None]


def _problem(name: str, value: object) -> str | None:
    if name in RANGES:
        return RANGES[name].problem(value)
    if name in SWITCHES and not isinstance(value, bool):
        return f"input should be True or False, got {shown(value)}"
    return text_problem(value) if name in TEXTS else None


def flag(name: str) -> str:
    """The option's name on the command line, without its dashes."""
    return name.replace("_", "-")


def text_problem(value: object) -> str | None:
    """Say what is wrong with a name, path or address as such; None if nothing is."""
    if not isinstance(value, str):
        return f"input should be a text, got {shown(value)}"
    if not value.strip():
        return f"input should not be empty, got {value!r} (give a value, or leave it out)"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        return f"input should be text in UTF-8 without control characters, got {shown(ascii(value))} (rename it)"
    longest = 0 if "://" in value else max(len(part.encode()) for part in value.split("/"))
    if longest > _FILE_NAME_BYTES or len(value.encode()) > _PATH_BYTES:
        return f"input should be shorter, got {shown(value)} (a name has at most {_FILE_NAME_BYTES} characters)"
    return None


def shown(value: object) -> str:
    """A value as a message repeats it: cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**_DIGITS:
        return f"a number of about {round(value.bit_length() * math.log10(2))} digits"
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
    return repr(cut) if isinstance(value, str) else cut


def whole(text: str) -> object:
    """A whole number from a command line; the text itself if it is none."""
    stripped = text.strip()
    if not stripped.lstrip("+-").isdecimal():
        return text
    if len(stripped) <= _READ_DIGITS:
        return int(stripped)
    return (-1 if stripped.startswith("-") else 1) * 10 ** len(stripped)  # too large in any case


def decimal(text: str) -> object:
    """A number from a command line; the text itself if it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def _plain(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
