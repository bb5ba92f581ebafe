"""How many workers a storage carries: times of ask and tell, simulated workers, connections.

    python -m benchmarks.scale rates --csv rates.csv [--storages sqlite postgresql] [--finished 10 100 1000 10000]
    python -m benchmarks.scale rates --csv running.csv --storages postgresql --finished 1000 --running 10 100 1000
    python -m benchmarks.scale workers --csv workers.csv [--workers 10 100 1000] [--sleep 20] [--seconds 60]
    python -m benchmarks.scale workers --workers 100 300 1000 --sleep 10 10 30 --ramp 30 --connections 2500

`rates` fills a study with trials and lets one worker, in a process of its own, propose and end some more. An ask is all
that a worker does between two trainings to get an architecture; a tell is all that it does to end a trial; a tick, what
a supervisor does every second. The training itself is a formula. Statements are those sent to the database: to a server
each of them costs a round trip. Connections are those that the worker holds while it trains.

`workers` lets many workers run at once, as threads of a few processes, whose trainings sleep. The threads of a process
share what they have read of the trials. More workers than the storage carries wait: then the asks a second are its
most, and its processor seconds an ask, of the workers' processes and of the server, say what limits them. PostgreSQL is
Debian's, started on a free port with its usual settings.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")

from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from benchmarks import simulated_workers
from benchmarks.filled_study import fill, make_study, remove_trials, score
from benchmarks.postgres_server import server
from nas.execution import recovery, worker
from nas.settings import Sampler
from nas.study.study import Study
from search_spaces import Architecture
from trials import Outcome

_Moment = tuple[float, float, int]
_ASKS = 6
"""Trials of each measurement; the first one reads all that is stored, the median is of the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rates", "workers", "measure"))
    parser.add_argument("--folder", type=Path, help="by default a temporary one")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--storages", nargs="+", choices=("sqlite", "postgresql"), default=("sqlite", "postgresql"))
    parser.add_argument("--samplers", nargs="+", default=[sampler.value for sampler in Sampler])
    parser.add_argument("--finished", nargs="+", type=int, default=(10, 100, 1000, 10000))
    parser.add_argument("--running", nargs="+", type=int, default=(0,))
    parser.add_argument("--workers", nargs="+", type=int, default=(10, 100, 1000))
    parser.add_argument(
        "--sleep",
        nargs="+",
        type=float,
        default=(20.0,),
        help="seconds of a training, one, or one for each of --workers",
    )
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds within which simulated workers begin")
    parser.add_argument("--seconds", type=float, default=60.0, help="for which they are measured after that")
    parser.add_argument("--connections", type=int, default=100, help="max_connections of the server")
    parser.add_argument("--label", default="", help="first column of the table, such as `before`")
    options = parser.parse_args()
    if options.what == "measure":
        print(json.dumps(measure(options.folder, Sampler(options.samplers[0]))))
        return
    if options.what == "workers":
        with tempfile.TemporaryDirectory() as folder:
            sleeps = options.sleep * (len(options.workers) // len(options.sleep))
            runs = product(options.samplers, zip(options.workers, sleeps, strict=True))
            for index, (sampler, (number, sleep)) in enumerate(runs):
                study = Path(options.folder or folder).absolute() / f"workers-{index}"
                report(options, simulated_workers.run(study, options, sampler=sampler, workers=number, sleep=sleep))
        return
    rates(options)


def rates(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for storage in options.storages:
            address = stack.enter_context(server()) if storage == "postgresql" else None
            study = make_study(folder.absolute() / f"rates-{storage}", address)
            for finished in options.finished:
                for running in options.running:
                    fill(study, finished, running)
                    for sampler in options.samplers:
                        remove_trials(study, finished + running)
                        row = {"storage": storage, "sampler": sampler, "finished": finished, "running": running}
                        measured = _in_a_process(study.folder, sampler)
                        report(options, ({"version": options.label} if options.label else {}) | row | measured)


def _in_a_process(folder: Path, sampler: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "measure", "--folder", str(folder), "--samplers", sampler]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(options: argparse.Namespace, row: Mapping[str, Any]) -> None:
    """Print a row, and append it to the table."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()}
    print("  ".join(f"{key} {value}" for key, value in shown.items()), flush=True)
    if options.csv is not None:
        exists = options.csv.is_file()
        with options.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if not exists:
                writer.writeheader()
            writer.writerow(shown)


def measure(folder: Path, sampler: Sampler) -> dict[str, float]:
    """Let a worker run a few trials; return what its asks and tells take, and a supervisor's tick beside it."""
    began = time.perf_counter()
    study = Study.open(folder)
    study.settings = study.settings.model_copy(update={"sampler": sampler})
    statements = count_statements(study)
    moments: dict[str, list[_Moment]] = {"ask": [], "train": [], "tell": []}
    opened = time.perf_counter() - began
    held: list[int] = []

    def mark(name: str) -> None:
        moments[name].append((time.perf_counter(), time.process_time(), statements()))

    class TimedWorker(worker.Worker):
        """Worker that runs a few trials, and notes when it asks."""

        def _may_begin(self) -> bool:
            mark("ask")
            return len(moments["ask"]) <= _ASKS and super()._may_begin()

    def train(architecture: Architecture, *_: object, **__: object) -> Outcome:
        mark("train")
        held.append(connections(study))
        mark("tell")
        return score(architecture)

    vars(worker)["evaluate"] = train
    TimedWorker(study, deadline=float("inf")).run()
    ask, tell = _between(moments["ask"], moments["train"]), _between(moments["tell"], moments["ask"][1:])
    return {
        "open_s": opened,
        "first_ask_s": ask[0][0],
        **_summary("ask", ask[1:]),
        **_summary("tell", tell[1:]),
        "tick_s": tick_seconds(folder),
        "connections": max(held),
    }


def _between(begins: Sequence[_Moment], ends: Sequence[_Moment]) -> list[_Moment]:
    """Return seconds, CPU seconds of this process and statements between moments."""
    return [(end[0] - begin[0], end[1] - begin[1], end[2] - begin[2]) for begin, end in zip(begins, ends, strict=False)]


def _summary(name: str, spans: Sequence[_Moment]) -> dict[str, float]:
    seconds, cpu_seconds, counts = zip(*spans, strict=True)
    return {
        f"{name}_s": statistics.median(seconds),
        f"{name}_least_s": min(seconds),
        f"{name}_cpu_s": statistics.median(cpu_seconds),
        f"{name}_statements": int(statistics.median(counts)),
    }


def count_statements(study: Study) -> Callable[[], int]:
    """Return a function that returns how many statements the study's storage has executed."""
    count = 0

    def executed(*_: object) -> None:
        nonlocal count
        count += 1

    event.listen(study.storage.engine, "before_cursor_execute", executed)
    return lambda: count


def connections(study: Study) -> int:
    """Return how many connections to the database this process holds."""
    pool = study.storage.engine.pool
    return pool.checkedin() + pool.checkedout() if isinstance(pool, QueuePool) else 0


def tick_seconds(folder: Path) -> float:
    """Return the median time of what a supervisor reads every second."""
    study, seconds = Study.open(folder), []
    for _ in range(4):
        began = time.perf_counter()
        recovery.trainings_by_process(study)
        study.records()
        study.save_records()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
