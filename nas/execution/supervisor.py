"""Worker processes: one per device, watched, started again when they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas import addresses
from nas.execution import exit_causes, recovery
from nas.execution.exit_causes import Death
from nas.execution.watchdog import Watch
from nas.execution.worker import OUTGROWN, PROBLEM, UNFIT
from nas.study.study import Study
from search_spaces.errors import EnvironmentProblem, StudyError
from trials import machine

_TICK_SECONDS = 1.0
_GRACE_SECONDS = 20
_LAST_WORDS_SECONDS = 1.0
_TAIL_BYTES = 2**16
_RESTARTS = 3
"""After so many deaths outside of trials, with no trial that ended in between. Deaths in trials are told as endings,
and watched by the study's fuse."""

WORKER = (sys.executable, "-P", "-m", "nas.execution.worker")
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
    """A place for one worker: its device and its process.

    Attributes:
        watch: over the training that it is working on.
        killed: why it was killed by us.
        vacant: whether its last worker left before the study had ended.
        deaths: of its workers outside of trials, since `ended` trials had ended.
    """

    index: int
    device: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    watch: Watch | None = None
    killed: Death | None = None
    vacant: bool = False
    deaths: int = 0
    ended: int = 0


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
        self._memory = run.trial_memory or machine.memory_share(run.workers)
        self._oom_kills = machine.oom_kills()
        self._orphans: dict[int, int] = {}

    def run(self) -> None:
        """Start workers, watch them, and return when they are done.

        Raises:
            KeyboardInterrupt: after the workers were stopped and their trials put back into the queue.
            EnvironmentProblem: this machine lacks something that trials need, such as room on the disk.
            StudyError: the workers die again and again, or trials break alike.
        """
        recovery.reap(self._study)
        self._orphans = recovery.at_work(self._study)
        self._forget_failures()
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

    def _forget_failures(self) -> None:
        """Let what stopped an earlier run be tried again: whoever resumes a study has done something about it."""
        trials = self._study.trials()
        earlier = next((trial.number for trial in trials if not trial.state.is_finished()), len(trials))
        self._study.set_run(self._study.file.run.model_copy(update={"earlier": earlier}))
        if self._study.base is not None:
            self._study.base.forget_failure()

    def _start(self, slot: _Slot) -> None:
        slot.watch, slot.killed, slot.vacant = None, None, False
        slot.log.parent.mkdir(exist_ok=True)
        memory = ["--memory", str(self._memory)] if self._memory else []
        command = [*WORKER, str(self._study.folder), "--deadline", str(self._deadline), *memory]
        slot.process = spawn(command, _environment(slot, self._study), slot.log)

    def _watch(self) -> bool:
        """Look after the workers; whether any is still at work or was started again."""
        self._end_hung()
        self._bury()
        self._adopt()
        vacant = [slot for slot in self._slots if slot.vacant]
        if vacant and self._work_left():
            self._start(vacant[0])
        return bool(self._orphans) or any(slot.process is not None for slot in self._slots)

    def _adopt(self) -> None:
        """Wait for the workers of a supervisor that was killed, and end the trials that they leave behind.

        They leave by themselves; places that they free are for workers which may have left before for want of one.
        """
        if not self._orphans:
            return
        working = recovery.at_work(self._study)
        gone = {holder for trial, holder in self._orphans.items() if trial not in working}
        if gone:
            self._orphans = {trial: holder for trial, holder in self._orphans.items() if trial in working}
            recovery.reap(self._study, dict.fromkeys(gone))
            for slot in self._slots:
                slot.vacant = slot.vacant or slot.process is None

    def _end_hung(self) -> None:
        """Kill the workers whose trials, or whose training of the stock model, do not get on."""
        working = recovery.working(self._study)
        for slot in self._slots:
            if slot.process is None or (training := working.get(slot.process.pid)) is None:
                continue
            now = time.monotonic()
            if slot.watch is None or slot.watch.training != training:
                slot.watch = Watch(training=training, began=now)
            sign, computed = training.files.read_heartbeat(), machine.cpu_seconds(slot.process.pid)
            why = slot.watch.verdict(now, sign=sign, computed=computed)
            if why is None:
                continue
            _ask_for_last_words(slot.process)
            if recovery.working(self._study).get(slot.process.pid) == training:  # it has not ended at the last moment
                slot.killed = exit_causes.of_hang(why)
                _kill_group(slot.process)
                slot.process.wait()

    def _bury(self) -> None:
        """Take note of the workers that have left, and end the trials that they left behind."""
        left: dict[int, tuple[_Slot, int, Death]] = {}
        for slot in self._slots:
            if slot.process is None or slot.process.poll() is None:
                continue
            process, slot.process = slot.process, None
            _kill_group(process)  # what it had started itself
            code = process.returncode
            left[process.pid] = slot, code, slot.killed or self._death(code)
        for slot, code, _ in left.values():
            if code == UNFIT:  # another worker would be, too
                raise EnvironmentProblem(_problem(slot))
        if not left:
            return
        in_trials = set(recovery.reap(self._study, {number: death for number, (_, _, death) in left.items()}).values())
        for number, (slot, code, death) in left.items():
            slot.vacant = code != 0 or number in in_trials  # a candidate may exit with any code
            if number not in in_trials and code not in {0, OUTGROWN}:
                self._count(slot, death)

    def _death(self, code: int) -> Death:
        before, self._oom_kills = self._oom_kills, machine.oom_kills()
        return exit_causes.of_code(code, oom_killed=self._oom_kills > before)

    def _count(self, slot: _Slot, death: Death) -> None:
        """Count a death outside of a trial.

        Raises:
            StudyError: that was one too many.
        """
        ended = sum(record.ending is not None for record in self._study.records())
        slot.deaths = slot.deaths + 1 if ended == slot.ended else 1
        slot.ended = ended
        if slot.deaths > _RESTARTS:
            told = f"worker {slot.index} died {slot.deaths} times outside of trials ({death.cause})"
            raise StudyError(f"{told}; {_last_words(slot)}")

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
                _kill_group(process)
                process.wait()
        recovery.reap(self._study)


def spawn(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that writes to a log, in a session of its own.

    Ctrl-C in the terminal reaches the supervisor alone, which then asks the workers.
    """
    command = [*command, "--supervisor", str(os.getpid())]  # with which it dies
    with log.open("ab") as end:
        return subprocess.Popen(command, env=environment, stdout=end, stderr=end, start_new_session=True)


def _environment(slot: _Slot, study: Study) -> dict[str, str]:
    """The worker's environment: one thread for a trial on the CPU, its own GPU otherwise.

    The storage's address stands there with its password, which no file holds.
    """
    environment = {**os.environ, **_QUIET, "YOLO_CONFIG_DIR": str(study.folder.parent / ".ultralytics")}
    if study.shares_storage:
        environment[addresses.STORAGE] = study.file.storage
    if slot.device == "cpu":
        return {**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**environment, "CUDA_VISIBLE_DEVICES": slot.device}


def _ask_for_last_words(process: subprocess.Popen[bytes]) -> None:
    """Let a worker write to its log where it is."""
    process.send_signal(signal.SIGUSR1)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WORDS_SECONDS)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker, and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _problem(slot: _Slot) -> str:
    """Why a worker cannot work here."""
    with slot.log.open("rb") as log:
        log.seek(max(0, slot.log.stat().st_size - _TAIL_BYTES))
        *_, last = ["", *log.read().decode(errors="replace").splitlines()]
    if last.startswith(PROBLEM):
        return last.removeprefix(PROBLEM)
    return f"{slot.log}: worker {slot.index} cannot work here, and could not write why (is the disk full?)"


def _last_words(slot: _Slot) -> str:
    """The last line of a worker's log, and where the rest is."""
    lines = slot.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'it said nothing'} (all of it: {slot.log})"
