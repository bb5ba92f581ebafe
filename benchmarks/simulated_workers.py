"""Many workers on one PostgreSQL server at once: threads of a few processes, whose trainings sleep."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy

from benchmarks.filled_study import make_study, score
from benchmarks.postgres_server import server
from nas.execution import worker
from nas.settings import Sampler
from nas.study import server_connections, storage_retries
from nas.study.study import Study
from search_spaces import Architecture
from trials import Outcome

_PROCESSES = 4
_LOOK_SECONDS = 1.0
_END_SECONDS = 5.0
"""After the measured time, for trainings that end then to be counted."""


def run(folder: Path, options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Let so many workers run on a new study; return what they have done.

    Args:
        folder: a new one, for the study.
        options: `sleep`, `ramp` and `seconds` of the run, `samplers`, `connections` of the server.
        workers: their number.
    """
    with server(connections=options.connections) as address:
        study = make_study(folder, address)
        processes = min(_PROCESSES, workers)
        shares = [workers // processes + (one < workers % processes) for one in range(processes)]
        command = [sys.executable, "-m", "benchmarks.simulated_workers", str(study.folder), options.samplers[0]]
        numbers = [str(options.sleep), str(options.ramp), str(options.seconds)]
        running = [
            subprocess.Popen([*command, str(share), *numbers], stdout=subprocess.PIPE, text=True) for share in shares
        ]
        most = _watch_connections(address, running)
        parts = [json.loads(str(each.communicate()[0]).splitlines()[-1]) for each in running]
    asks = [one for part in parts for one in part["asks"]]
    holds = [one for part in parts for one in part["holds"]]
    slept = sum(part["slept"] for part in parts)
    return {
        "workers": workers,
        "sleep_s": options.sleep,
        "ramp_s": options.ramp,
        "max_connections": options.connections,
        "seconds": options.seconds,
        "asks": len(asks),
        "asks_per_s": len(asks) / options.seconds,
        "ask_s": statistics.median(asks) if asks else float("nan"),
        "locked_s": statistics.median(holds) if holds else float("nan"),
        "trained_share": slept / (workers * options.seconds),
        "connections": most,
        "waits": sum(part["waits"] for part in parts),
        "failed": sum(part["failed"] for part in parts),
        "errors": "; ".join(sorted({error for part in parts for error in part["errors"]})),
    }


def _watch_connections(address: str, running: Sequence["subprocess.Popen[str]"]) -> int:
    """Return the greatest number of connections while processes run, without this one's."""
    most, count = 0, sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    engine = sqlalchemy.create_engine(address)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        while any(each.poll() is None for each in running):
            most = max(most, int(database.execute(count).scalar_one()) - 1)
            time.sleep(_LOOK_SECONDS)
    engine.dispose()
    return most


class _Run:
    """Workers of one process.

    Attributes:
        asks: seconds of each ask from the wish for an architecture to its proposal, waiting included.
        holds: seconds for which each of them held the lock of proposals.
        slept: seconds of trainings within the measured time.
        waits: calls of the storage that had to wait for the server.
        errors: of workers that failed.
    """

    def __init__(self, study: Study, sleep: float) -> None:
        self.study, self._sleep = study, sleep
        self.asks: list[float] = []
        self.holds: list[float] = []
        self.slept = 0.0
        self.waits = 0
        self.errors: list[str] = []
        self._thread = threading.local()
        self._counting = threading.Lock()
        self.begin = self.end = float("inf")

    def work(self, delay: float) -> None:
        """Run trials as a worker after a delay in seconds; note why it fails."""
        run = self
        time.sleep(delay)

        class TimedWorker(worker.Worker):
            """Worker that notes when it wants to ask, and when it holds the lock."""

            def _may_begin(self) -> bool:
                run._thread.wanted = time.perf_counter()
                may = time.monotonic() < run.end and super()._may_begin()
                run._thread.locked = time.perf_counter()
                return may

        try:
            TimedWorker(self.study, deadline=float("inf")).run()
        except Exception as error:  # noqa: BLE001 - it is the result
            self.errors.append(f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")

    def train(self, architecture: Architecture, *_: object, **__: object) -> Outcome:
        """Sleep instead of a training."""
        now, mine, began = time.perf_counter(), self._thread, time.monotonic()
        seconds = max(0.0, min(self._sleep, self.end - began))
        time.sleep(seconds)
        with self._counting:
            if began >= self.begin:
                self.asks.append(now - mine.wanted)
                self.holds.append(now - mine.locked)
            self.slept += max(0.0, began + seconds - max(self.begin, began))
        return score(architecture)


def main(folder: str, sampler: str, workers: str, *durations: str) -> None:
    """Run some workers of a study in this process; print what they have done as a line of JSON, and end.

    They begin one after the other within the ramp, as those of a cluster do, and are measured after it. Those that wait
    for the lock at the end are not waited for.

    Args:
        durations: seconds of a training, of the ramp, and of the measured time.
    """
    sleep, ramp, seconds = map(float, durations)
    number, paused = int(workers), storage_retries.pause
    vars(server_connections)["_IDLE_CONNECTIONS"] = 2 * number  # a worker has one, and another for the lock
    study = Study.open(Path(folder))
    study.is_patient = True
    study.settings = study.settings.model_copy(update={"sampler": Sampler(sampler)})
    run = _Run(study, sleep)

    def pause(wait: float) -> None:
        run.waits += 1
        paused(min(wait, max(0.0, run.end - time.monotonic())))

    vars(storage_retries)["pause"] = pause
    vars(worker)["evaluate"] = run.train
    study.scoring.costs(study.space.stock)  # counts the layers of the space, once in a process
    study.records()
    run.begin = time.monotonic() + ramp
    run.end = run.begin + seconds
    for one in range(number):
        threading.Thread(target=run.work, args=[ramp * one / number], daemon=True).start()
    time.sleep(max(0.0, run.end + _END_SECONDS - time.monotonic()))
    found = {"asks": run.asks, "holds": run.holds, "slept": run.slept, "waits": run.waits}
    print(json.dumps({**found, "failed": len(run.errors), "errors": sorted(set(run.errors))}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
