"""The verdict on real searches, and whether kill -9 in the middle of a confirmation changes it.

    python benchmarks/verdict_real.py DATA [--spaces v8 v9] [--killed v8] [--image-size 96] [--trials 6] [--epochs 4]

One search for each space of the catalog, whose finalists are confirmed by five fresh seeds, on the images of `test:` if
DATA has some. Printed are the verdict as `nas confirm` prints it, the shrinkage of each finalist's gain, and the widths
of the intervals. With the spaces of `--killed`, a copy of the search is confirmed first: once half of the trainings
have finished, its processes are killed in the middle of a training (SIGKILL), and the same command goes on; the two
verdicts must be equal but for durations. The score cache is off. Killed at any time, the same command goes on.
"""

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.records.trial_files import TrialFiles
from nas.study.study import Study

HERE = Path(__file__).parent
COLUMNS = ("space", "architecture", "finding", "search_difference", "difference", "low", "high", "cost_change")


def nas(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from nas.cli import main; main()", *map(str, arguments)]


def search(options: argparse.Namespace, space: str) -> None:
    """Search, or go on with the search."""
    values = {
        "space": space,
        "data": options.data,
        "study": space,
        "runs": options.runs,
        "trials": options.trials,
        "epochs": options.epochs,
        "base-epochs": options.base_epochs,
        "image-size": options.image_size,
        "workers": options.workers,
    }
    flags = [text for name, value in values.items() for text in (f"--{name}", value)]
    subprocess.run(nas("search", *flags), check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)


def confirm(options: argparse.Namespace, space: str, runs: Path) -> dict[str, Any]:
    """Confirm a search, or go on with that; return the verdict."""
    done = subprocess.run(confirm_command(options, space, runs), check=True, env=ENVIRONMENT, stdout=subprocess.PIPE)
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def confirm_command(options: argparse.Namespace, space: str, runs: Path) -> list[str]:
    seeds = ("--seeds", options.seeds, "--top", options.top)
    return nas("confirm", space, "--runs", runs, *seeds, "--format", "json")


def killed_in_the_middle(options: argparse.Namespace, space: str) -> dict[str, Any]:
    """Confirm a copy of a search, with kill -9 of all its processes in the middle; return the verdict."""
    runs = options.runs / "killed"
    if not (runs / space).exists():
        runs.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(runs / "copying", ignore_errors=True)
        shutil.copytree(options.runs / space, runs / "copying")
        (runs / "copying").rename(runs / space)
    if not (runs / f"{space}.killed").exists():
        command = subprocess.Popen(confirm_command(options, space, runs), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        report = wait_for_the_middle(command, runs / f"{space}-confirm")
        processes = [command.pid, *descendants(command.pid)]
        for process in processes:
            os.kill(process, signal.SIGKILL)
        command.wait()
        print(f"{space}: kill -9 of {len(processes)} processes, {report}", flush=True)
        (runs / f"{space}.killed").touch()
    return confirm(options, space, runs)


def descendants(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have (on Linux)."""
    lists = [file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children")]
    children = [int(child) for text in lists for child in text.split()]
    return [*children, *(one for child in children for one in descendants(child))]


def wait_for_the_middle(command: subprocess.Popen[bytes], folder: Path) -> str:
    """Wait until half of the trainings have finished and another one is between two epochs; return how many."""
    while command.poll() is None:
        time.sleep(0.2)
        records = Study.open(folder).records() if (folder / "study.json").exists() else []
        finished = sum(record.finished for record in records)
        running = [record.trial for record in records if record.state == "running"]
        begun = [trial for trial in running if TrialFiles.of(folder, trial).read_epochs()]
        if begun and 2 * finished >= len(records):
            return f"{finished} of {len(records)} trainings finished, another after its first epoch"
    raise SystemExit(f"{folder}: the confirmation ended before it could be killed")


def without_durations(verdict: Any) -> Any:
    """Return a verdict without how long further seeds would take, which is measured."""
    if isinstance(verdict, dict):
        return {key: without_durations(value) for key, value in verdict.items() if key != "seconds"}
    if isinstance(verdict, list):
        return [without_durations(value) for value in verdict]
    return re.sub(r", about [\d.]+ (s|min|h)", "", verdict) if isinstance(verdict, str) else verdict


def rows(space: str, verdict: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"space": space, **one, "architecture": one["summary"]} for one in verdict["finalists"]]


def table(found: Sequence[dict[str, Any]]) -> None:
    print(f"{'space':5}  {'finding':10}  {'search':>7}  {'fresh':>7}  {'interval':>15}  {'width':>5}  architecture")
    for one in found:
        before = "-" if one["search_difference"] is None else f"{one['search_difference']:+.2f}"
        interval = f"{one['low']:+.2f}..{one['high']:+.2f}"
        print(
            f"{one['space']:5}  {one['finding']:10}  {before:>7}  {one['difference']:+7.2f}  {interval:>15}  "
            f"{one['high'] - one['low']:5.2f}  {one['architecture']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an Ultralytics data.yaml")
    parser.add_argument("--spaces", nargs="*", default=["v8", "v9"])
    parser.add_argument("--killed", nargs="*", default=["v8"], help="spaces whose confirmation is also killed")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--base-epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/verdict"), help="folder of the studies")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "verdict-real.csv")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for space in options.spaces:
        began = time.monotonic()
        search(options, space)
        killed = killed_in_the_middle(options, space) if space in options.killed else None
        verdict = confirm(options, space, options.runs)
        print("\n".join(verdict["lines"]))
        if killed is not None:
            equal = without_durations(killed) == without_durations(verdict)
            print(f"the verdict after kill -9 is {'equal to the last digit' if equal else 'ANOTHER ONE'}")
        print(f"{time.monotonic() - began:.0f} s\n", flush=True)
        found += rows(space, verdict)
    table(found)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with options.results.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found)


ENVIRONMENT = {**os.environ, "NAS_NO_CACHE": "1"}

if __name__ == "__main__":
    main()
