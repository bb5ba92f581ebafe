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
from contextlib import suppress
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


def run(folder: Path, options: argparse.Namespace, *, sampler: str, workers: int, sleep: float) -> dict[str, Any]:
    """Let so many workers run on a new study; return what they have done.

    Args:
        folder: a new one, for the study.
        options: `ramp` and `seconds` of the run, `connections` of the server.
        workers: their number.
        sleep: seconds of a training.
    """
    with server(connections=options.connections) as address:
        study = make_study(folder, address)
        processes = min(_PROCESSES, workers)
        shares = [workers // processes + (one < workers % processes) for one in range(processes)]
        command = [sys.executable, "-m", "benchmarks.simulated_workers", str(study.folder), sampler]
        numbers = [str(sleep), str(options.ramp), str(options.seconds)]
        running = [
            subprocess.Popen([*command, str(share), *numbers], stdout=subprocess.PIPE, text=True) for share in shares
        ]
        most, server_cpu = _watch_server(address, running)
        parts = [json.loads(str(each.communicate()[0]).splitlines()[-1]) for each in running]
    asks = [one for part in parts for one in part["asks"]]
    holds = [one for part in parts for one in part["holds"]]
    slept = sum(part["slept"] for part in parts)
    return {
        "sampler": sampler,
        "workers": workers,
        "sleep_s": sleep,
        "ramp_s": options.ramp,
        "max_connections": options.connections,
        "seconds": options.seconds,
        "wanted_per_s": workers / sleep,
        "asks": len(asks),
        "asks_per_s": len(asks) / options.seconds,
        "ask_s": statistics.median(asks) if asks else float("nan"),
        "locked_s": statistics.median(holds) if holds else float("nan"),
        "worker_cpu_s": sum(part["cpu"] for part in parts) / (len(asks) or float("nan")),
        "server_cpu_s": server_cpu / (sum(part["all_asks"] for part in parts) or float("nan")),
        "trained_share": slept / (workers * options.seconds),
        "connections": most,
        "waits": sum(part["waits"] for part in parts),
        "failed": sum(part["failed"] for part in parts),
        "errors": "; ".join(sorted({error for part in parts for error in part["errors"]})),
    }


def _watch_server(address: str, running: Sequence["subprocess.Popen[str]"]) -> tuple[int, float]:
    """Watch a server while processes run.

    Returns:
        Greatest number of connections, without this one's; processor seconds of the server's processes.
    """
    most, backends = 0, sqlalchemy.text("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
    engine = sqlalchemy.create_engine(address)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        postmaster = int(_stat(int(database.execute(sqlalchemy.text("SELECT pg_backend_pid()")).scalar_one()))[1])
        before = _cpu_seconds(postmaster)
        while any(each.poll() is None for each in running):
            most = max(most, len(database.execute(backends).all()) - 1)
            time.sleep(_LOOK_SECONDS)
        seconds = _cpu_seconds(postmaster) - before
    engine.dispose()
    return most, seconds


def _cpu_seconds(server: int) -> float:
    """Return the processor seconds of a server's processes, of those that have ended, too."""
    ticks = sum(map(int, _stat(server)[11:15]))  # its own and its ended children's
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end meanwhile
            fields = _stat(int(folder.name))
            ticks += sum(map(int, fields[11:13])) * (int(fields[1]) == server)
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(process: int) -> list[str]:
    """Return what the system says of a process, from its state on."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


class _Run:
    """Workers of one process.

    Attributes:
        asks: seconds of each ask from the wish for an architecture to its proposal, waiting included.
        holds: seconds for which each of them held the lock of proposals.
        all_asks: their number with those before the measured time.
        slept: seconds of trainings within the measured time.
        waits: calls of the storage that had to wait for the server.
        errors: of workers that failed.
    """

    def __init__(self, study: Study, sleep: float) -> None:
        self.study, self._sleep = study, sleep
        self.asks: list[float] = []
        self.holds: list[float] = []
        self.all_asks = 0
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

            def __init__(self, study: Study, *, deadline: float) -> None:
                super().__init__(study, deadline=deadline)
                take = self._proposal_lock.take

                def timed_take() -> bool:
                    is_taken = take()
                    run._thread.locked = time.perf_counter()
                    return is_taken

                vars(self._proposal_lock)["take"] = timed_take

            def _may_begin(self) -> bool:
                run._thread.wanted = time.perf_counter()
                return time.monotonic() < run.end and super()._may_begin()

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
            self.all_asks += 1
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
    time.sleep(max(0.0, run.begin - time.monotonic()))
    cpu = time.process_time()
    time.sleep(max(0.0, run.end - time.monotonic()))
    cpu = time.process_time() - cpu
    time.sleep(_END_SECONDS)
    found = {"asks": run.asks, "holds": run.holds, "all_asks": run.all_asks, "cpu": cpu}
    found |= {"slept": run.slept, "waits": run.waits}
    print(json.dumps({**found, "failed": len(run.errors), "errors": sorted(set(run.errors))}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
