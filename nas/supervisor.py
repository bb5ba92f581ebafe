"""Worker processes: one per device, watched, started again when they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nas.study import Study
from search_spaces.errors import StudyError

_TICK_SECONDS = 1.0
_GRACE_SECONDS = 20
_RESTARTS = 3

WORKER = (sys.executable, "-P", "-m", "nas.work")
"""`-P`: a folder called nas or trials where the user works must not stand in for ours."""

_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}
"""No network, no package installed behind the user's back, no progress bars in log files."""


@dataclass
class _Slot:
    """A place for one worker: its device and its process."""

    index: int
    device: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0


class Supervisor:
    """Runs a study's workers until its number of trials is reached.

    Args:
        study: whose supervision this process holds.
        on_tick: called about once a second, for whoever shows or tracks what happens.
    """

    def __init__(self, study: Study, on_tick: Callable[[], None]) -> None:
        self._study, self._on_tick = study, on_tick
        run = study.file.run
        devices = run.device.split(",")
        logs = study.folder / "workers"
        self._slots = [
            _Slot(index=i, device=devices[i % len(devices)], log=logs / f"{i}.log") for i in range(run.workers)
        ]
        self._deadline = time.time() + run.timeout if run.timeout else float("inf")

    def run(self) -> None:
        """Start workers, watch them, and return when they are done.

        Raises:
            KeyboardInterrupt: after the workers were stopped and their trials put back into the queue.
            StudyError: the workers die again and again, or trials break alike.
        """
        self._study.reap(crashed=False)
        if self._study.base is not None:
            self._study.base.forget_failure()
        try:
            for slot in self._slots:
                self._start(slot)
            self._study.enqueue_extremes()
            while self._watch():
                self._on_tick()
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()
            self._on_tick()
        fuse = self._study.fuse(self._study.records())
        if fuse:
            raise StudyError(f"the study stopped: {fuse}")

    def _start(self, slot: _Slot) -> None:
        slot.log.parent.mkdir(exist_ok=True)
        with slot.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which then asks the workers.
            slot.process = subprocess.Popen(
                [*WORKER, str(self._study.folder), "--deadline", str(self._deadline)],
                env=_environment(slot, self._study.folder.parent),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _watch(self) -> bool:
        """Look after the workers; whether any is still at work or was started again."""
        for slot in self._slots:
            if slot.process is None or slot.process.poll() is None:
                continue
            code, slot.process = slot.process.returncode, None
            if code:
                slot.deaths += 1
                self._study.reap(crashed=True)
                if slot.deaths > _RESTARTS:
                    raise StudyError(f"worker {slot.index} died {slot.deaths} times; {_last_words(slot)}")
        living = [slot for slot in self._slots if slot.process is not None]
        idle = [slot for slot in self._slots if slot.process is None and slot.deaths]
        if idle and self._work_left():
            self._start(idle[0])
            return True
        return bool(living)

    def _work_left(self) -> bool:
        records = self._study.records()
        in_time = time.time() < self._deadline
        return in_time and self._study.places(records) > 0 and not self._study.fuse(records)

    def _stop(self) -> None:
        """Ask the workers to stop; kill those that do not within the grace."""
        living = [slot.process for slot in self._slots if slot.process is not None and slot.process.poll() is None]
        for process in living:
            process.send_signal(signal.SIGTERM)
        limit = time.time() + _GRACE_SECONDS
        for process in living:
            try:
                process.wait(max(0.1, limit - time.time()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._study.reap(crashed=False)


def _environment(slot: _Slot, runs: Path) -> dict[str, str]:
    """The worker's environment: one thread for a trial on the CPU, its own GPU otherwise."""
    environment = {**os.environ, **_QUIET, "YOLO_CONFIG_DIR": str(runs / ".ultralytics")}
    if slot.device == "cpu":
        return {**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**environment, "CUDA_VISIBLE_DEVICES": slot.device}


def _last_words(slot: _Slot) -> str:
    """The last line of a worker's log, and where the rest is."""
    lines = slot.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'it said nothing'} (all of it: {slot.log})"
