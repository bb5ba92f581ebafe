"""Check all that needs a GPU, and time it: a table for one CUDA device, in at most eight minutes.

    python -m benchmarks.gpu [--device cuda:0] [--seconds 480] [--only operators,search] [--out FOLDER]

Each check runs in a process of its own, with a time limit. FOLDER gets `gpu.jsonl`, a row a line as it is measured, and
`gpu.md`, the table, written anew after each row; `CHECK.log` has what a check's process has printed. So a run that is
killed leaves what it has measured. The exit status is 1 if a row is not within its limit, or a check was not run.
`--device cpu` runs all checks in a small form, which shows that this script works, and nothing about a GPU.

docs/gpu.md says what each row means.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.update({"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"})
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import gpu_latency, gpu_operators, gpu_search, gpu_trials
from benchmarks.gpu_check import Check, Place, Row, run
from trials.devices import CPU


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A check and its time limit, in seconds of a run of 480."""

    check: Check
    seconds: float


CHECKS = {
    "card": Timed(check=gpu_operators.card, seconds=15),
    "operators": Timed(check=gpu_operators.operators, seconds=50),
    "contract": Timed(check=gpu_operators.contract, seconds=25),
    "sampling": Timed(check=gpu_operators.sampling, seconds=15),
    "score": Timed(check=gpu_trials.score, seconds=40),
    "twice": Timed(check=gpu_trials.twice, seconds=40),
    "search": Timed(check=gpu_search.search, seconds=90),
    "memory": Timed(check=gpu_search.memory, seconds=25),
    "images": Timed(check=gpu_trials.images, seconds=25),
    "beside": Timed(check=gpu_trials.beside, seconds=60),
    "yolo": Timed(check=gpu_trials.yolo, seconds=50),
    "latency": Timed(check=gpu_latency.latency, seconds=45),
}
"""Checks by name, in order; their limits add up to 480 s."""
_WHOLE = 480.0
_LEAST_SECONDS = 5.0
_HEAD = "| check | what | figure | ok | note |\n|---|---|---|---|---|\n"


@dataclass
class Report:
    """Rows that are shown and stored as they come."""

    folder: Path
    failed: int = 0

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
        self.failed += row.good is False
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        is_new = not self._table.is_file()
        with self._table.open("a", encoding="utf-8") as file:
            file.write(f"{_HEAD if is_new else ''}| {' | '.join(cell.replace('|', '/') for cell in row.cells)} |\n")
        check, what, figure, ok, note = row.cells
        print(f"{check:<10} {what:<52} {figure:>14} {ok:<4} {note}".rstrip(), flush=True)


def check_all(names: Sequence[str], place: Place, seconds: float, report: Report) -> None:
    """Run checks one after the other; those for which no time is left are rows that are not good."""
    end = time.monotonic() + seconds
    for name in names:
        limit = min(CHECKS[name].seconds * seconds / _WHOLE, end - time.monotonic())
        if limit < _LEAST_SECONDS:
            report.show(Row(check=name, what="not run", good=False, note=f"{seconds:g} s were over (--seconds)"))
            continue
        began = time.monotonic()
        run(name, CHECKS[name].check, place, limit, report.show)
        report.show(Row(check=name, what="whole check", value=time.monotonic() - began, unit="s"))


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
    parser.add_argument("--seconds", type=float, default=_WHOLE, help="time for all checks")
    parser.add_argument("--only", type=_names, default=list(CHECKS), metavar="NAME,NAME", help=", ".join(CHECKS))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="FOLDER", help="default: runs/gpu")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    report = Report(out)
    os.environ["NAS_CACHE"] = str(out / "cache")
    began = time.monotonic()
    check_all(options.only, Place(device=options.device, folder=out), options.seconds, report)
    print(f"{time.monotonic() - began:.0f} s, {report.failed} rows not good; {out / 'gpu.md'}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
