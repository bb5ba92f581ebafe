"""Estimated and real time, memory and disk space of short searches.

    python -m benchmarks.estimate [--cases digits-300 bccd-20000] [--bccd ../shared/data/bccd]

Each case is planned with `nas search --dry-run`, then searched with one worker, and the two are compared: wall time,
which on a shared machine depends on what else runs, CPU time of the worker, which does less, and the worker's memory.
The estimated CPU time is the estimated time divided by what the timed steps took for each second of CPU time. Memory
is looked at twice a second: until the second trial has ended, and in later trials. A case of 20,000 images links the
364 of BCCD many times, and trains on few of them.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trials import machine
from trials.data import digit_scenes
from trials.data.image_files import find

RESULTS = Path(__file__).parent / "results" / "estimate.csv"
_NAS = (sys.executable, "-c", "from nas.cli import main; main()")
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Case:
    """Search that is estimated and run.

    Attributes:
        train, val: images; of digit scenes, or of BCCD linked so many times.
        options: of `nas search`.
    """

    train: int
    val: int
    options: tuple[str, ...]
    is_bccd: bool = False


def _options(px: int, epochs: int, base: int, trials: int, *others: str) -> tuple[str, ...]:
    numbers = {"image-size": px, "epochs": epochs, "base-epochs": base, "trials": trials}
    return (*(word for name, value in numbers.items() for word in (f"--{name}", str(value))), *others)


CASES = {
    "digits-96": Case(train=96, val=48, options=_options(64, 2, 2, 3)),
    "digits-300": Case(train=300, val=100, options=_options(64, 2, 1, 3)),
    "digits-300-96px": Case(train=300, val=100, options=_options(96, 2, 1, 3)),
    "digits-600": Case(train=600, val=200, options=_options(64, 2, 1, 4)),
    "digits-300-v8n": Case(train=300, val=100, options=_options(64, 2, 1, 3, "--space", "v8")),
    "bccd-20000": Case(
        train=16_000,
        val=4000,
        options=_options(64, 1, 1, 3, "--fraction", "0.02", "--val-images", "200"),
        is_bccd=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Estimated and real numbers of one case; the fields are columns of the table."""

    case: str
    images: int
    options: str
    estimated_s: float
    least_s: float
    most_s: float
    busy: float
    real_s: float
    estimated_cpu_s: float
    real_cpu_s: float
    cpu_ratio: float
    estimated_worker_mb: float
    worker_mb: float
    later_mb: float
    estimated_disk_mb: float
    disk_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--bccd", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "bccd")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for name in arguments.cases:
        with tempfile.TemporaryDirectory(prefix="nas-estimate-") as folder:
            row = compare(name, CASES[name], Path(folder), arguments.bccd)
        print(json.dumps(asdict(row)), flush=True)
        _write(row, arguments.results)


def compare(name: str, case: Case, folder: Path, bccd: Path) -> Row:
    """Estimate and run a case; return both."""
    data = (
        linked(bccd, folder / "data", case)
        if case.is_bccd
        else digit_scenes.draw(folder, train=case.train, val=case.val)
    )
    environment = {**os.environ, "NAS_HOME": str(folder / "home"), "YOLO_OFFLINE": "true", "NAS_NO_CACHE": "1"}
    environment.pop("NAS_CACHE", None)
    command = [*_NAS, "search", "--data", str(data), "--runs", str(folder / "runs"), "--study", "it"]
    command += ["--workers", "1", "--device", "cpu", *case.options]
    planned = subprocess.run(
        [*command, "--dry-run", "--format", "json"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    plan = json.loads(planned.stdout)
    estimate: dict[str, Any] = plan["estimate"]
    if estimate["seconds"] is None:
        raise RuntimeError(f"{name}: {plan['time']}")
    shutil.rmtree(folder / "home" / "cache" / "images", ignore_errors=True)
    seen = list(_run(command, environment))
    first, last = seen[0], seen[-1]
    least, most = estimate["range"]
    real_cpu, estimated_cpu = last.cpu, estimate["seconds"] / estimate["busy"]
    needs, memory = estimate["needs"], memory_by_half(seen, folder / "runs" / "it")
    return Row(
        case=name,
        images=case.train + case.val,
        options=" ".join(case.options),
        estimated_s=round(estimate["seconds"], 1),
        least_s=round(least, 1),
        most_s=round(most, 1),
        busy=round(estimate["busy"], 2),
        real_s=round(last.at - first.at, 1),
        estimated_cpu_s=round(estimated_cpu, 1),
        real_cpu_s=round(real_cpu, 1),
        cpu_ratio=round(estimated_cpu / real_cpu, 3),
        estimated_worker_mb=round(needs["worker_memory"] / 1e6),
        worker_mb=round(memory[0]),
        later_mb=round(memory[1]),
        estimated_disk_mb=round(needs["disk"] / 1e6),
        disk_mb=round(_size(folder / "runs" / "it", folder / "home" / "cache" / "images") / 1e6),
    )


def linked(bccd: Path, folder: Path, case: Case) -> Path:
    """Link the images and labels of BCCD as often as needed; return the data.yaml."""
    for split, count in (("train", case.train), ("val", case.val)):
        images = find([bccd / "images" / split], bccd)
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            image = Path(images[number % len(images)])
            label = bccd / "labels" / split / f"{image.stem}.txt"
            name = f"{number // len(images):03}-{image.stem}"
            (folder / "images" / split / f"{name}{image.suffix}").symlink_to(image.resolve())
            (folder / "labels" / split / f"{name}.txt").symlink_to(label.resolve())
    file = folder / "data.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [RBC, WBC, Platelets]\n", encoding="utf-8")
    return file


@dataclass(frozen=True, kw_only=True)
class Look:
    """State of the worker at one time: its CPU seconds, and resident bytes, mapped images included."""

    at: float
    cpu: float
    memory: int


def _run(command: list[str], environment: dict[str, str]) -> Iterator[Look]:
    """Run a search; yield what is seen of its worker, twice a second.

    Raises:
        RuntimeError: the search failed.
    """
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        worker = next((child for child in _children(process.pid) if "nas.execution.worker" in _command(child)), None)
        if worker is not None and (cpu := machine.cpu_seconds(worker)):
            yield Look(at=time.time(), cpu=cpu, memory=_resident(worker))
        time.sleep(_LOOK_SECONDS)
    if process.returncode:
        raise RuntimeError(f"the search ended with status {process.returncode}")


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(folder.name))
    return found


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        return ""


def _resident(process: int) -> int:
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGESIZE")


def memory_by_half(seen: list[Look], study: Path) -> tuple[float, float]:
    """Return the most MB of the worker until its second trial has ended, and of its later trials.

    By then it has decoded all images, validated, and trained an architecture that is not the stock model.
    """
    second = (study / "trials" / "0001" / "outcome.json").stat().st_mtime
    halves = [[look.memory for look in seen if (look.at > second) is later] for later in (False, True)]
    first, last = (max(half) / 1e6 for half in halves)
    return first, last


def _size(*folders: Path) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _write(row: Row, results: Path) -> None:
    """Add a row to the table, in place of an earlier one of its case."""
    rows = []
    if results.is_file():
        with results.open(encoding="utf-8", newline="") as file:
            rows = [one for one in csv.DictReader(file) if one["case"] != row.case]
    with results.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(row)), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, asdict(row)])


if __name__ == "__main__":
    main()
