"""Check all that needs a GPU, and time it: a table for one CUDA device, in at most eight minutes.

    python -m benchmarks.gpu [--device cuda:0] [--seconds 480] [--only operators,search] [--out FOLDER]

Each check runs in a process of its own, with the environment of a search's worker. Those that time nothing run four at
a time; then the others run one after the other. What one leaves of its time, the next ones may use. FOLDER gets
`gpu.jsonl`, a row a line as it is measured, and `gpu.md`, the table, written anew after each row; `CHECK.log` has what
a check's process has printed. So a run that is killed leaves what it has measured. The exit status is 1 if a row is not
within its limit, or a check was not run. `--device cpu` runs all checks in a small form, which shows that this script
works, and nothing about a GPU.

docs/gpu.md says what each row means.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.update({"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"})

import torch

from benchmarks import gpu_choices, gpu_latency, gpu_operators, gpu_search, gpu_trials
from benchmarks.gpu_check import Check, Place, Row, run
from nas.execution.supervisor import worker_environment
from trials.devices import CPU


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A check, and the seconds of a run of 480 that it is promised.

    Attributes:
        expected: by arithmetic: 10 s to start a process, 0.1 s a step of YOLOv9-t, on 16 cores (docs/gpu.md).
        is_alone: whether no other check may run beside it, since it times something.
    """

    check: Check
    seconds: float
    expected: float
    is_alone: bool = True


def _beside(check: Check, expected: float) -> Timed:
    """Return a check that others may run beside; they share the time that those alone leave."""
    return Timed(check=check, seconds=0.0, expected=expected, is_alone=False)


CHECKS = {
    "card": Timed(check=gpu_operators.card, seconds=15, expected=10),
    "score": _beside(gpu_trials.score, expected=90),
    "search": _beside(gpu_search.search, expected=80),
    "choices": _beside(gpu_choices.choices, expected=70),
    "poison": _beside(gpu_search.poison, expected=70),
    "repeatable": _beside(gpu_trials.repeatable, expected=60),
    "twice": _beside(gpu_trials.twice, expected=45),
    "operators": _beside(gpu_operators.operators, expected=40),
    "contract": _beside(gpu_operators.contract, expected=35),
    "memory": _beside(gpu_search.memory, expected=25),
    "visible": _beside(gpu_search.visible, expected=20),
    "kernels": Timed(check=gpu_operators.kernels, seconds=25, expected=20),
    "images": Timed(check=gpu_trials.images, seconds=30, expected=25),
    "beside": Timed(check=gpu_trials.beside, seconds=50, expected=40),
    "yolo": Timed(check=gpu_trials.yolo, seconds=55, expected=47),
    "latency": Timed(check=gpu_latency.latency, seconds=45, expected=40),
    "estimate": Timed(check=gpu_choices.estimate, seconds=90, expected=80),
}
"""Checks by name, in order; of those that others may run beside the longest first."""
WHOLE = 480.0
LANES = 4
"""Checks that run at once, of those that others may run beside."""
_LEAST_SECONDS = 5.0
_HEAD = "| check | what | figure | ok | note |\n|---|---|---|---|---|\n"


@dataclass
class Report:
    """Rows that are shown and stored as they come."""

    folder: Path
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self._lines, self._table):
            path.unlink(missing_ok=True)

    @property
    def _lines(self) -> Path:
        return self.folder / "gpu.jsonl"

    @property
    def _table(self) -> Path:
        return self.folder / "gpu.md"

    def show(self, row: Row) -> None:
        """Print a row, and append it to both files."""
        with self._lock:
            self._show(row)

    def _show(self, row: Row) -> None:
        self.failed += row.good is False
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        is_new = not self._table.is_file()
        with self._table.open("a", encoding="utf-8") as file:
            file.write(f"{_HEAD if is_new else ''}| {' | '.join(cell.replace('|', '/') for cell in row.cells)} |\n")
        check, what, figure, ok, note = row.cells
        print(f"{check:<10} {what:<52} {figure:>14} {ok:<4} {note}".rstrip(), flush=True)


@dataclass(kw_only=True)
class Checking:
    """A run of checks within a time.

    Attributes:
        seconds: for all of them.
        run: runs a check; `gpu_check.run`.
        clock: returns seconds.
    """

    place: Place
    report: Report
    seconds: float = WHOLE
    run: Callable[[str, Check, Place, float, Callable[[Row], None]], None] = run
    clock: Callable[[], float] = time.monotonic

    def all(self, names: Sequence[str], *, lanes: int = LANES) -> None:
        """Run checks; those for which no time is left are rows that are not good."""
        self._end = self.clock() + self.seconds
        first, beside, alone = (
            [name for name in names if chosen(name)] for chosen in (_is_first, _is_beside, _is_alone)
        )
        for name in first:
            self._one(name, [*beside, *alone])
        if lanes > 1:
            with ThreadPoolExecutor(lanes) as pool:
                list(pool.map(lambda name: self._one(name, alone), beside))
        else:  # in this thread, from which processes can be forked
            for index, name in enumerate(beside):
                self._one(name, [*beside[index + 1 :], *alone])
        for index, name in enumerate(alone):
            self._one(name, alone[index + 1 :])

    def _one(self, name: str, later: Sequence[str]) -> None:
        """Run a check, until the time begins that later ones are promised."""
        promised = sum(CHECKS[each].seconds for each in later) * self.seconds / WHOLE
        began = self.clock()
        limit = self._end - began - promised
        if limit < _LEAST_SECONDS:
            self.report.show(
                Row(check=name, what="not run", good=False, note=f"{self.seconds:g} s were over (--seconds)")
            )
            return
        self.run(name, CHECKS[name].check, self.place, limit, self.report.show)
        self.report.show(Row(check=name, what="whole check", value=self.clock() - began, unit="s"))


def _is_first(name: str) -> bool:
    return name == "card"


def _is_beside(name: str) -> bool:
    return not CHECKS[name].is_alone


def _is_alone(name: str) -> bool:
    return CHECKS[name].is_alone and not _is_first(name)


def _device(text: str) -> str:
    """Return `cpu`, or the number of a GPU that is given as `cuda:0` or `0`."""
    number = text.removeprefix("cuda:")
    if text != CPU and not number.isdecimal():
        raise argparse.ArgumentTypeError(f"cuda:0 or cpu, got {text!r}")
    return text if text == CPU else number


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in CHECKS]:
        raise argparse.ArgumentTypeError(f"no check {', '.join(unknown)} (there are {', '.join(CHECKS)})")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=_device, default="0", help="cuda:0, or cpu for the small form")
    parser.add_argument("--seconds", type=float, default=WHOLE, help="time for all checks")
    parser.add_argument("--only", type=_names, default=list(CHECKS), metavar="NAME,NAME", help=", ".join(CHECKS))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="FOLDER", help="default: runs/gpu")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    is_small = options.device == CPU
    report = Report(out)
    # As a worker: one thread on the CPU; one visible GPU, as many processes that load images as there are cores.
    os.environ.update(worker_environment(options.device, out / "ultralytics", workers=1))
    os.environ["NAS_CACHE"] = str(out / "cache")
    place = Place(device=CPU if is_small else "0", folder=out, is_small=is_small)
    if is_small:
        torch.set_num_threads(1)  # processes are forked
    began = time.monotonic()
    Checking(place=place, report=report, seconds=options.seconds).all(options.only, lanes=1 if is_small else LANES)
    print(f"{time.monotonic() - began:.0f} s, {report.failed} rows not good; {out / 'gpu.md'}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
