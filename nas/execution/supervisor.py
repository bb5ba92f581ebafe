"""Supervise worker processes: one per device, with a watchdog each, restarted when they exit early."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas import address_space, addresses
from nas.execution import exit_causes, gpus, recovery
from nas.execution.enqueue import enqueue_extremes
from nas.execution.exit_causes import ExitCause
from nas.execution.lost_machines import recover_lost, runs_on_some_machine
from nas.execution.problem_line import PROBLEM
from nas.execution.shared_trials import prepare_stock_models
from nas.execution.watchdog import AwakeClock, Watchdog
from nas.execution.worker import CORRUPTED, LOST, OUTGROWN, UNFIT
from nas.records.record import Record
from nas.study.study import Study
from search_spaces.errors import EnvironmentProblem, StudyError
from trials import machine
from trials.devices import CPU

log = logging.getLogger("nas.supervisor")

_TICK_SECONDS = 1.0
_GRACE_SECONDS = 20
_TRACEBACK_SECONDS = 1.0
_TAIL_BYTES = 2**16
_RESTARTS = 3
"""Restarts of a worker that exits outside of trials, with no trial that ends in between. Exits in trials are stored as
endings and counted by the circuit breaker."""
_PAUSE_SECONDS = 1.0
"""Before the first of these restarts; twice as long before each further one."""

WORKER = (sys.executable, "-P", "-m", "nas.execution.worker")
"""`-P`: a folder called nas or trials in the user's working directory must not be imported."""

_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}
"""No network, no automatic installation of packages, no progress bars in log files."""


@dataclass(eq=False)
class _WorkerProcess:
    """Worker of the study: its device, and the process that runs now.

    Attributes:
        watchdog: of its current training.
        killed: why the supervisor killed it.
        to_restart: whether its last process exited before the study had ended.
        was_late: whether a trial was left to it while its process ran, which may just have found none to take.
        not_before: time by `time.monotonic` at which it may be restarted.
        exits: outside of trials, while the number of ended trials stayed at `ended`.
        lost: why its GPU can be used no more; empty while it can.
    """

    index: int
    device: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    watchdog: Watchdog | None = None
    killed: ExitCause | None = None
    to_restart: bool = False
    was_late: bool = False
    not_before: float = 0.0
    exits: int = 0
    ended: int = 0
    lost: str = ""


class Supervisor:
    """Runs a study's workers until its number of trials is reached.

    Args:
        study: whose supervision lock this process holds.
        on_tick: called about once a second with the records of all trials, to display and track progress.
    """

    def __init__(self, study: Study, on_tick: Callable[[Sequence[Record]], None]) -> None:
        self._study, self._on_tick = study, on_tick
        run = study.file.run
        devices = run.device.split(",")
        logs = study.folder / "workers"
        self._workers = [
            _WorkerProcess(index=i, device=devices[i % len(devices)], log=logs / f"{i}.log") for i in range(run.workers)
        ]
        self._deadline = time.monotonic() + run.timeout if run.timeout else float("inf")
        self._memory = run.trial_memory or machine.memory_share(run.workers)
        self._oom_kills = machine.oom_kills()
        self._clock = AwakeClock()
        self._orphans: dict[int, int] = {}
        self._looked_at = -float("inf")

    def run(self) -> None:
        """Start workers, watch them, and return when they are done.

        Raises:
            KeyboardInterrupt: after the workers were stopped and their trials enqueued again.
            EnvironmentProblem: this machine lacks something that trials need, such as disk space.
            StudyError: a worker exits too often outside of trials, or the circuit breaker stops the study.
        """
        self._look_at_gpus()
        before = recovery.processes_by_trial(self._study)
        recovery.recover(self._study)
        self._orphans = before | recovery.processes_by_trial(self._study)  # one may exit, or begin a trial, meanwhile
        self._reset_failures()
        try:
            for worker in self._workers if self._work_left(self._study.records()) else ():
                self._start(worker)
            if not self._study.settings.members:  # else workers do, who know which members are left out
                with self._study.proposal_lock.held():  # several machines may begin at once
                    enqueue_extremes(self._study, self._study.records())
            while (records := self._watch()) is not None:
                self._on_tick(records)
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()
            records = self._study.records()
            self._on_tick(records)
        reason = self._study.reason_to_stop(records)
        if reason:
            raise StudyError(f"the study stopped: {reason}")

    def _look_at_gpus(self) -> None:
        """Log a line for each GPU that other processes use.

        Raises:
            EnvironmentProblem: `CUDA_VISIBLE_DEVICES` shows fewer GPUs than the study was to use.
        """
        value = os.environ.get(gpus.VARIABLE)
        names = [gpus.name_of(worker.device, value) for worker in self._workers if worker.device != CPU]
        for line in gpus.lines_on_use(names, gpus.memory_of_cards() if names else ()):
            log.warning("%s", line)

    def _reset_failures(self) -> None:
        """Ignore the failures that stopped an earlier run: the user who resumes the study knows of them."""
        trials = self._study.optuna_trials()
        earlier = next((trial.number for trial in trials if not trial.state.is_finished()), len(trials))
        self._study.set_run(self._study.file.run.model_copy(update={"earlier": earlier}))
        prepare_stock_models(self._study)

    def _start(self, worker: _WorkerProcess) -> None:
        worker.watchdog, worker.killed, worker.to_restart, worker.was_late = None, None, False, False
        worker.log.parent.mkdir(exist_ok=True)
        memory = ["--memory", str(self._memory)] if self._memory else []
        command = [*WORKER, str(self._study.folder), "--deadline", str(self._deadline), *memory]
        worker.process = spawn(command, _environment(worker, self._study), worker.log)

    def _watch(self) -> Sequence[Record] | None:
        """Kill hung workers, recover the trials of those that have exited, restart one.

        Returns:
            Records of all trials, read once the trials were recovered; None if no worker runs.
        """
        self._kill_hung()
        exits = self._collect_exited()
        self._recover_orphans()
        self._recover_lost_machines()
        records = self._study.records()
        for worker, cause in exits:
            _count_exit(worker, cause, records)
        self._call_for_waiting(records)
        now, is_work_left = time.monotonic(), self._work_left(records)
        lost = [worker.lost for worker in self._workers if worker.lost]
        if is_work_left and len(lost) == len(self._workers):
            raise EnvironmentProblem("; ".join(dict.fromkeys(lost)))
        to_restart = [worker for worker in self._workers if worker.to_restart and not worker.lost and is_work_left]
        ready = [worker for worker in to_restart if worker.not_before <= now]
        if ready:
            self._start(ready[0])
        running = bool(self._orphans or to_restart) or any(worker.process is not None for worker in self._workers)
        return records if running or self._waits_for_others(records) else None

    def _recover_lost_machines(self) -> None:
        """Retry the trials of machines that are lost, looking at the machines as often as they store a heartbeat.

        Their trials counted as running, so workers may have exited for want of trials. One that was lost before it had
        an architecture is not in the queue: another is proposed instead.
        """
        shared, now = self._study.shared, time.monotonic()
        if shared is not None and now - self._looked_at >= shared.machines.beat_seconds:
            self._looked_at = now
            if recover_lost(self._study):
                self._call_all()

    def _call_for_waiting(self, records: Sequence[Record]) -> None:
        """Let a worker that had exited for want of trials be restarted, if some are in the queue of all machines."""
        waiting = sum(record.state == "waiting" for record in records)
        if self._study.shared is None or not waiting:
            return
        trials = len(recovery.processes_by_trial(self._study))
        free = sum(worker.process is not None for worker in self._workers) - trials
        for worker in self._workers:
            worker.to_restart = worker.to_restart or (worker.process is None and free < waiting)

    def _waits_for_others(self, records: Sequence[Record]) -> bool:
        """Return whether trials run on other machines, of which one may be lost: this machine would retry its trial."""
        if self._study.shared is None or time.monotonic() > self._deadline or self._study.reason_to_stop(records):
            return False
        runs = any(record.state == "running" for record in records)
        return runs and runs_on_some_machine(self._study)

    def _recover_orphans(self) -> None:
        """Recover the trials of workers whose supervisor was killed, when these exit.

        They exit by themselves. A trial that is enqueued again may need a worker that had exited for want of trials.
        """
        if not self._orphans:
            return
        processes = recovery.processes_by_trial(self._study)
        exited = {process for trial, process in self._orphans.items() if trial not in processes}
        if exited:
            self._orphans = {trial: process for trial, process in self._orphans.items() if trial in processes}
            recovery.recover(self._study, dict.fromkeys(exited))
            self._call_all()

    def _call_all(self) -> None:
        """Let workers that have exited for want of trials be restarted, also those that are just about to."""
        for worker in self._workers:
            worker.to_restart = worker.to_restart or worker.process is None
            worker.was_late = worker.process is not None

    def _kill_hung(self) -> None:
        """Kill the workers whose training makes no progress."""
        trainings, now = recovery.trainings_by_process(self._study), self._clock.read()
        for worker in self._workers:
            if worker.process is None or (training := trainings.get(worker.process.pid)) is None:
                continue
            if worker.watchdog is None or worker.watchdog.training != training:
                worker.watchdog = Watchdog(training=training, began=now)
            heartbeat, cpu_seconds = training.files.read_heartbeat(), machine.cpu_seconds(worker.process.pid)
            reason = worker.watchdog.reason_to_kill(now, heartbeat=heartbeat, cpu_seconds=cpu_seconds)
            if reason is None:
                continue
            _request_traceback(worker.process)
            if recovery.trainings_by_process(self._study).get(worker.process.pid) == training:  # else it has just ended
                worker.killed = exit_causes.from_hang(reason)
                _kill_group(worker.process)
                try:
                    worker.process.wait(_GRACE_SECONDS)
                except subprocess.TimeoutExpired:  # in a driver's code, which no signal interrupts
                    worker.process = None
                    self._leave_lost({worker: f"it hangs and cannot be killed, {reason} (dmesg says more)"})

    def _collect_exited(self) -> list[tuple[_WorkerProcess, ExitCause]]:
        """Find the workers that have exited, and recover their trials.

        Returns:
            The workers that failed outside of trials, with the cause.

        Raises:
            EnvironmentProblem: one of them cannot work on this machine.
        """
        exited: dict[int, tuple[_WorkerProcess, int, ExitCause]] = {}
        for worker in self._workers:
            if worker.process is None or worker.process.poll() is None:
                continue
            process, worker.process = worker.process, None
            _kill_group(process)  # its child processes
            code = process.returncode
            exited[process.pid] = worker, code, worker.killed or self._cause(worker, code)
        for worker, code, _ in exited.values():
            if code == UNFIT:  # so would be another worker
                raise EnvironmentProblem(_problem(worker))
        if not exited:
            return []
        causes = {number: None if code == LOST else cause for number, (_, code, cause) in exited.items()}
        in_trials = set(recovery.recover(self._study, causes).values())
        for number, (worker, code, _) in exited.items():
            # a candidate may exit with any code
            worker.to_restart = code != 0 or number in in_trials or worker.was_late
        self._leave_lost({worker: cause.text for worker, code, cause in exited.values() if code == LOST})
        return [
            (worker, cause)
            for number, (worker, code, cause) in exited.items()
            if number not in in_trials and code not in {0, OUTGROWN, LOST}
        ]

    def _leave_lost(self, reasons: Mapping[_WorkerProcess, str]) -> None:
        """Start the workers of lost GPUs no more; the others train what these leave.

        Args:
            reasons: by worker, as phrases.
        """
        for worker, reason in reasons.items():
            worker.lost = f"worker {worker.index} on device {worker.device}: {reason}"
            log.warning("%s; it is not started again in this run", worker.lost)
        if reasons:
            self._call_all()

    def _cause(self, worker: _WorkerProcess, code: int) -> ExitCause:
        if code in {CORRUPTED, LOST}:
            return exit_causes.from_gpu(_problem(worker))
        before, self._oom_kills = self._oom_kills, machine.oom_kills()
        return exit_causes.from_code(code, oom_killed=self._oom_kills > before)

    def _work_left(self, records: Sequence[Record]) -> bool:
        in_time = time.monotonic() < self._deadline
        return in_time and self._study.remaining_trials(records) > 0 and not self._study.reason_to_stop(records)

    def _stop(self) -> None:
        """Ask the workers to stop; kill those that do not within the grace period."""
        processes = [w.process for w in self._workers if w.process is not None and w.process.poll() is None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        limit = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            try:
                process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill_group(process)
                process.wait()
        recovery.recover(self._study)


def _count_exit(worker: _WorkerProcess, cause: ExitCause, records: Sequence[Record]) -> None:
    """Count an exit outside of a trial; the next restart waits, each time twice as long.

    Raises:
        EnvironmentProblem: it had too little memory to load PyTorch, and so would have another.
        StudyError: the worker has used up its restarts.
    """
    ended = sum(record.ending is not None for record in records)
    worker.exits = worker.exits + 1 if ended == worker.ended else 1
    worker.ended = ended
    worker.not_before = time.monotonic() + _PAUSE_SECONDS * 2 ** (worker.exits - 1)
    kind, _, reason = _last_log_line(worker).partition(": ")
    if kind == ImportError.__name__ and (problem := address_space.problem(ImportError(reason))):
        raise EnvironmentProblem(f"worker {worker.index}: {problem}; {_whole_log(worker)}")
    if worker.exits > _RESTARTS:
        died = f"worker {worker.index} died {worker.exits} times outside of trials ({cause.text})"
        raise StudyError(f"{died}; {_last_log_line(worker)} {_whole_log(worker)}")


def spawn(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a new session, with a log file: Ctrl-C in the terminal reaches the supervisor only."""
    command = [*command, "--supervisor", str(os.getpid())]  # with which it dies
    with log.open("ab") as end:
        return subprocess.Popen(command, env=environment, stdout=end, stderr=end, start_new_session=True)


def _environment(worker: _WorkerProcess, study: Study) -> dict[str, str]:
    """Return the environment of a worker of a study, with the storage's address and its password."""
    config, run = study.folder.parent / ".ultralytics", study.file.run
    environment = worker_environment(
        worker.device, config, workers=run.workers, deterministic=study.settings.budget.deterministic
    )
    return environment | ({addresses.STORAGE: study.file.storage} if study.shares_storage else {})


def worker_environment(device: str, config: Path, *, workers: int, deterministic: bool = False) -> dict[str, str]:
    """Return the environment of a process that trains: one thread on the CPU, or one GPU and a share of the cores.

    Args:
        config: folder for the settings that Ultralytics writes.
        workers: processes of this machine that train at once.
        deterministic: whether a GPU is to use kernels that repeat to the bit.
    """
    environment = {**os.environ, **_QUIET, "YOLO_CONFIG_DIR": str(config)}
    if device == "cpu":
        return {**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", gpus.VARIABLE: ""}
    threads = str(max(1, machine.cores() // workers))  # and as many processes load images
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if deterministic:
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when CUDA starts
    return {**environment, gpus.VARIABLE: gpus.name_of(device, os.environ.get(gpus.VARIABLE))}


def _request_traceback(process: subprocess.Popen[bytes]) -> None:
    """Let a worker write its traceback to its log."""
    process.send_signal(signal.SIGUSR1)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_TRACEBACK_SECONDS)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and its child processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _problem(worker: _WorkerProcess) -> str:
    """Return why a worker cannot work on this machine, from the last line of its log."""
    with worker.log.open("rb") as log:
        log.seek(max(0, worker.log.stat().st_size - _TAIL_BYTES))
        *_, last = ["", *log.read().decode(errors="replace").splitlines()]
    if last.startswith(PROBLEM):
        return last.removeprefix(PROBLEM)
    return f"{worker.log}: worker {worker.index} cannot work here, and could not write why (is the disk full?)"


def _last_log_line(worker: _WorkerProcess) -> str:
    lines = worker.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"


def _whole_log(worker: _WorkerProcess) -> str:
    return f"(all of it: {worker.log})"
