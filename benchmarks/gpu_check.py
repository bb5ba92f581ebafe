"""One check of `benchmarks/gpu.py`: its rows, where it runs, and its process."""

import json
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

from benchmarks.noise_data import make_data
from nas.locks import Lock
from trials.data import digit_scenes
from trials.devices import CPU

_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of a check.

    Attributes:
        check: its name; filled in by the process that runs it.
        value: None where there is no figure, such as for an error.
        good: whether the figure is within its limit; None where it has none.
        note: the limit, or what else a reader needs.
    """

    what: str
    value: float | None = None
    unit: str = ""
    good: bool | None = None
    note: str = ""
    check: str = ""

    @classmethod
    def within(cls, what: str, value: float, limit: float, *, unit: str = "", note: str = "") -> "Row":
        """Return the row of a figure that must not exceed a limit; one that is not a number does."""
        text = f"at most {limit:g}"
        return cls(what=what, value=value, unit=unit, good=value <= limit, note=f"{text}; {note}" if note else text)

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Cells of the table: check, what, figure, ok, note."""
        figure = "" if self.value is None else f"{self.value:.4g} {self.unit}".strip()
        return self.check, self.what, figure, {True: "yes", False: "NO", None: ""}[self.good], self.note


@dataclass(frozen=True, kw_only=True)
class Place:
    """Device that is checked, and a folder for the files of all checks.

    Attributes:
        device: `cpu`, or the number of a GPU.
        is_small: whether sizes are those of a test of the script itself.
        end: when the check is ended, by `time.monotonic`.
    """

    device: str
    folder: Path
    is_small: bool = False
    end: float = math.inf

    @property
    def is_on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != CPU

    @property
    def seconds_left(self) -> float:
        """Seconds until the check is ended."""
        return self.end - time.monotonic()

    def data(self, images: int = 192) -> Path:
        """Return a data.yaml: digit scenes, or in the small form a few images of noise."""
        if not self.is_small:
            return digit_scenes.draw(self.folder / "scenes", train=images, val=96)
        folder = self.folder / "noise"
        with Lock(self.folder / "noise.lock").held():
            if not (folder / "data.yaml").is_file():
                make_data(folder, images=16)
        return folder / "data.yaml"

    def make(self, name: str) -> Path:
        """Make an empty folder for one use, also by several processes at once; return it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in count():
            folder = self.folder / f"{name}-{number}"
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
        raise AssertionError("there are numbers without end")


Check = Callable[[Place], Iterator[Row]]
"""Yields a row as soon as it is measured; an exception ends the check, and is a row."""


def run(name: str, check: Check, place: Place, seconds: float, show: Callable[[Row], None]) -> None:
    """Run a check in a process of its own, and show its rows as they come.

    Args:
        seconds: after which it is ended, with all processes that it has started.
        show: called with each row, at last with one for an exception, a death or the time limit, if any.
    """
    rows = place.folder / f"{name}.jsonl"
    rows.unlink(missing_ok=True)
    # A process that is forked after CUDA has started cannot use it; one that is spawned imports PyTorch anew.
    context = multiprocessing.get_context("fork" if place.is_small else "spawn")
    began, read = time.monotonic(), 0
    place = replace(place, end=began + seconds)
    process = context.Process(target=_work, args=(name, check, place, rows))  # type: ignore[attr-defined]  # both have it
    process.start()
    while process.is_alive() and time.monotonic() - began < seconds:
        process.join(_POLL_SECONDS)
        read += _show_new(rows, read, name, show)
    timed_out = process.is_alive()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
    process.kill()  # one that has no group of its own yet
    process.join(10.0)
    _show_new(rows, read, name, show)
    if timed_out:
        show(Row(check=name, what="time limit", value=seconds, unit="s", good=False, note="ended before its last row"))
    elif process.exitcode not in {0, 1}:
        show(Row(check=name, what=f"its process died with {process.exitcode}", good=False, note=f"see {name}.log"))


def _show_new(rows: Path, read: int, name: str, show: Callable[[Row], None]) -> int:
    """Show the whole lines behind the first `read` ones; return their number."""
    text = rows.read_text(encoding="utf-8") if rows.is_file() else ""
    new = text[: text.rfind("\n") + 1].splitlines()[read:]
    for line in new:
        show(replace(Row(**json.loads(line)), check=name))
    return len(new)


def _work(name: str, check: Check, place: Place, rows: Path) -> None:
    """Run a check in this process, which ends with status 1 if it raises."""
    os.setsid()
    log = os.open(place.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    with rows.open("a", encoding="utf-8", buffering=1) as file:
        try:
            for row in check(place):
                file.write(json.dumps(asdict(row)) + "\n")
        except Exception as error:  # noqa: BLE001 - one check must not end the others; the row and the log have it
            os.write(2, traceback.format_exc().encode())
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            file.write(json.dumps(asdict(Row(what=text, good=False, note=f"see {name}.log"))) + "\n")
            sys.exit(1)
