"""Allowed ranges of numbers, and checks of texts, that a user gives on the command line or to `nas.search`.

Nothing slow is imported here, so that a wrong value is reported at once.
"""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_SHOWN = 40
"""Number of characters of a wrong value that a message repeats."""
_DIGITS = 30
"""Longest number that a message repeats; of a longer one it gives the number of digits."""
_READ_DIGITS = 4000
"""Longest number that is read; Python's own limit is a little higher."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Range of allowed numbers.

    Attributes:
        least: smallest allowed number.
        most: largest allowed number.
        above: whether `least` itself is excluded.
        step: allowed numbers are multiples of it.
        whole: whether fractions are excluded.
        unit: unit of the number, for the message.
        spelled: `least` and `most` as a user writes them with units.
        right: allowed values in words; empty gives the range.
    """

    least: float = 1
    most: float
    above: bool = False
    step: int = 1
    whole: bool = True
    unit: str = ""
    spelled: tuple[str, str] | None = None
    right: str = ""

    def problem(self, value: object, *, typed: str | None = None) -> str | None:
        """Return what is wrong with a value, the value, and the allowed ones; None if it is allowed.

        Args:
            typed: the value as the user typed it, with its unit; None shows the value itself.
        """
        wrong = self._wrong(value)
        if wrong is None:
            return None
        right = self._near(value) if "multiple" in wrong else self._meant_percent(value) or self.right or self._all()
        return f"input should be {wrong}, got {shown(value if typed is None else typed)} ({right})"

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

    def _meant_percent(self, value: Any) -> str:
        """Return the share that is probably meant by a number of per cent without its sign; empty if none is."""
        is_share = self.most < 1 and isinstance(value, int | float)
        return f"did you mean {value:g}%?" if is_share and self._wrong(value / 100) is None else ""

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
_LEAST_SEALED, _MOST_SEALED = 0.05, 0.5
_COST = Range(least=0, above=True, most=1e9, whole=False)

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "trials": _COUNT,
        "epochs": _EPOCHS,
        "holdout": Range(least=_LEAST_SEALED, most=_MOST_SEALED, whole=False, spelled=("5%", "50%")),
        "fraction": Range(least=0, above=True, most=1, whole=False, spelled=("0", "1")),
        "val_images": _COUNT,
        "base_epochs": Range(least=0, most=100_000),
        "image_size": _PIXELS,
        "deploy_size": _PIXELS,
        "batch": Range(most=4096),
        "seed": Range(least=0, most=2**31 - 1),
        "seeds": Range(most=1000),
        "fresh_seeds": Range(least=2, most=1000),
        "trial": Range(least=0, most=2**31 - 1, right="the number of a trial; nas trials STUDY lists them"),
        "eta": Range(least=2, most=1000),
        "first_rung": _EPOCHS,
        "workers": _PROCESSES,
        "workers_per_device": Range(most=64),
        "gpus_per_worker": Range(least=0, most=1, whole=False),
        "jobs": _PROCESSES,
        "threads": _PROCESSES,
        "hours": Range(least=0, above=True, most=10_000, whole=False, unit="h"),
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
        "top": Range(most=1000),
        "margin": Range(least=0, above=True, most=100, whole=False, unit="points"),
        "sample": _COUNT,
        "candidates": _COUNT,
        "port": Range(most=65_535),
    }
)
"""Range of each option by its name, in all commands that have it.

Seeds stay below 2**31, although NumPy accepts up to 2**32: repeats and `nas confirm` count up from the seed. With less
memory than the smallest allowed value a worker cannot even build a model.
"""
ANY_WHOLE = Range(least=-(2**31), most=2**31 - 1)
ANY_NUMBER = Range(least=-1e15, most=1e15, whole=False)


def problems(numbers: Mapping[str, Any]) -> list[str]:
    """Check numbers by the names of their options; return one line for each that is out of range."""
    found = {name: RANGES[name].problem(value) for name, value in numbers.items() if value is not None}
    return [f"{flag(name)}: {problem}" for name, problem in found.items() if problem is not None]


def require(**numbers: Any) -> None:
    """Refuse numbers that are out of the range of the option of their name; None is what is not given.

    Raises:
        SpecError: with every such number.
    """
    from search_spaces.errors import SpecError  # noqa: PLC0415 - the help of a command needs none

    if wrong := problems(numbers):
        raise SpecError(wrong)


def flag(name: str) -> str:
    """Return the name of an option on the command line, without dashes."""
    return name.replace("_", "-")


def text_problem(value: object) -> str | None:
    """Return what is wrong with the text of a name, path or address; None if nothing is."""
    if not isinstance(value, str):
        return f"input should be a text, got {shown(value)}"
    if not value.strip():
        return f"input should not be empty, got {value!r} (give a value, or leave it out)"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        return f"input should be text in UTF-8 without control characters, got {shown(ascii(value))} (rename it)"
    return _length_problem(value)


def _length_problem(value: str) -> str | None:
    """Return whether a path or an address is too long."""
    from search_spaces import files  # noqa: PLC0415 - the help of a command needs none

    too_long = len(value.encode()) > files.PATH_BYTES if "://" in value else files.path_problem(value)
    if not too_long:
        return None
    return f"input should be shorter, got {shown(value)} (a name has at most {files.NAME_BYTES} characters)"


def shown(value: object) -> str:
    """Format a value for a message; cut it if it is long."""
    if isinstance(value, int) and abs(value) >= 10**_DIGITS:
        return f"a number of about {round(value.bit_length() * math.log10(2))} digits"
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
    return repr(cut) if isinstance(value, str) else cut


def whole(text: str) -> object:
    """Read a whole number; return the text itself if it is not one."""
    stripped = text.strip()
    if not stripped.lstrip("+-").isdecimal():
        return text
    if len(stripped) <= _READ_DIGITS:
        return int(stripped)
    return (-1 if stripped.startswith("-") else 1) * 10 ** len(stripped)  # too large in any case


def decimal(text: str) -> object:
    """Read a number; return the text itself if it is not one."""
    try:
        return float(text)
    except ValueError:
        return text


def _plain(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
