"""Kills of machines that work on one study: of processes of one, of all of one, and of machines that never return.

Each machine is a runs folder with a home and a cache of its own, and one worker. The first begins the study, the others
join by `nas worker`; they share a PostgreSQL database and a server of MLflow. A machine whose command was killed types
its own again, at once or after it counts as lost, or never returns and another joins in its place.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.postgres_server import free_port
from benchmarks.torture_checks import problems_of_machines_trace, problems_of_study
from benchmarks.torture_commands import HANGS_AFTER, Commands, kill_all, last_line
from benchmarks.torture_server import problems_on_server

EPOCHS = 4
GRACE = 15.0
"""Seconds without a heartbeat after which a machine counts as lost."""
STEP = 30.0
"""Seconds between two kills, at most."""
RETURNS = 2 / 3
"""Share of the killed machines that return."""
FAILED_JOINS = 20
PATIENCE = 1800.0


@dataclass
class Machine:
    """Machine of a torture.

    Attributes:
        runs: its runs folder.
        process: of its command; None if it is down.
        returns_at: when it types its command again, in seconds of `time.monotonic`.
        is_gone: whether it never returns.
        is_done: whether its command has ended well.
    """

    runs: Path
    process: subprocess.Popen[bytes] | None = None
    returns_at: float = 0.0
    is_gone: bool = False
    is_done: bool = False
    failed_joins: int = 0

    @property
    def home(self) -> Path:
        """Its home, with its cache."""
        return self.runs.with_suffix(".home")

    @property
    def study(self) -> Path:
        """Folder of the study."""
        return self.runs / "s"

    @property
    def has_study(self) -> bool:
        """Whether it has begun or joined the study."""
        return (self.study / "study.json").is_file()

    @property
    def is_running(self) -> bool:
        """Whether its command runs."""
        return self.process is not None and self.process.poll() is None


@dataclass(kw_only=True)
class TortureOfMachines(Commands):
    """Kills of one benchmark on several machines, and what went wrong.

    Attributes:
        number: of machines that work at a time.
        storage: address of an empty database.
        trials: of the study, which gets more as long as there are kills left.
    """

    number: int
    storage: str
    trials: int = 6
    machines: list[Machine] = field(default_factory=list)

    def kill_machines(self, kills: int) -> None:
        """Make so many kills, let the study come to its end, and check it."""
        with _tracking_server(self.folder / "mlflow") as address, self._ended_at_last():
            os.environ["MLFLOW_TRACKING_URI"] = address  # of the commands, and of the checks
            while sum(self.kills.values()) < kills:
                self._keep_at_work()
                if self.is_running_after_a_while(self._trace, STEP, lambda: bool(self._running)):
                    self._kill_one(self.rng.choice(self._running))
                if len(self.problems) > kills:
                    return
            self._finish()
            self._check()

    @contextmanager
    def _ended_at_last(self) -> Iterator[None]:
        """Kill the commands that still run at the end of a `with` block: it was left by an error."""
        try:
            yield
        finally:
            for machine in self.machines:
                if machine.process is not None:
                    kill_all(machine.process)

    def summary(self) -> str:
        """Return what was done."""
        gone = sum(machine.is_gone for machine in self.machines)
        return (
            f"{sum(self.kills.values())} kills on {self.number} machines at a time; "
            f"of {len(self.machines)} in all, {gone} never returned:"
        )

    @property
    def _trace(self) -> Path:
        """File of all machines' epochs, in their order."""
        return self.folder / "epochs.trace"

    @property
    def _there(self) -> list[Machine]:
        return [machine for machine in self.machines if not machine.is_gone]

    @property
    def _running(self) -> list[Machine]:
        return [machine for machine in self.machines if machine.is_running]

    def _keep_at_work(self) -> None:
        """Let machines that are due begin, join or return; if the study has all of its trials, give it more."""
        for machine in self._there:
            if not machine.is_running:
                self._wait_for_end(machine)
        if self.machines and all(machine.is_done for machine in self._there):
            self.trials += self.number
            first, *others = self.rng.sample(self._there, len(self._there))
            self._type(first, "resume", "s", "--trials", self.trials)
            for machine in others:
                machine.returns_at, machine.is_done = time.monotonic() + GRACE, False  # when the number is stored
        if not self.machines or (self.machines[0].has_study and len(self._there) < self.number):
            self.machines.append(Machine(self.folder / f"machine-{len(self.machines) + 1}"))
            self.machines[-1].home.mkdir()
        for machine in self._there:
            if machine.process is None and not machine.is_done and time.monotonic() >= machine.returns_at:
                self._type(machine, *self._command(machine))

    def _command(self, machine: Machine) -> list[object]:
        if machine is not self.machines[0]:
            return ["worker", "s", "--storage", self.storage, "--workers", 1]
        if not machine.has_study:
            return self.search("--workers", 1, "--storage", self.storage, trials=self.trials, epochs=EPOCHS)
        return self.rng.choice([["worker", "s"], ["resume", "s"]])

    def _type(self, machine: Machine, *command: object) -> None:
        machine.is_done = False
        machine.process = self.start(
            machine.runs,
            *command,
            TORTURE_TRACE=self._trace,
            TORTURE_MACHINE=machine.runs.name,
            HOME=machine.home,
            NAS_CACHE=machine.home / "cache",
            NAS_MACHINE_GRACE=GRACE,
        )

    def _kill_one(self, machine: Machine) -> None:
        """Kill processes of a machine at random; if its command ends by that, choose when it returns, if it does."""
        if machine.process is None or not self.kill(machine.process):
            return
        self.wait(machine.process, machine.runs, HANGS_AFTER)
        machine.process = None
        joined = sum(other.has_study for other in self._there)
        if joined > 1 and self.rng.random() > RETURNS:
            machine.is_gone = True
        pause = self.rng.choice([0.0, self.rng.uniform(0, 3 * GRACE)])
        machine.returns_at = time.monotonic() + pause
        fate = "never returns" if machine.is_gone else f"returns in {pause:.0f} s"
        print(f"kill {sum(self.kills.values())}: {machine.runs.name} {fate}", flush=True)

    def _wait_for_end(self, machine: Machine) -> None:
        """Wait for a machine's command, if it has one; it must succeed."""
        if machine.process is not None:
            code = self.wait(machine.process, machine.runs, PATIENCE)
            machine.process = None
            self._note_end(machine, code)

    def _note_end(self, machine: Machine, code: int | None) -> None:
        """Note that a command has ended without a kill that ends it."""
        if code == 0:
            machine.is_done = True
        elif not machine.has_study and machine.failed_joins < FAILED_JOINS:
            machine.failed_joins += 1  # the study is not in the database yet: the first machine was killed
            machine.returns_at = time.monotonic() + GRACE
        else:
            self.problems.append(f"{machine.runs.name}: status {code} without a kill: {last_line(machine.runs)}")
            machine.returns_at = time.monotonic() + GRACE

    def _finish(self) -> None:
        """Let the machines that are there bring the study to its end; one of them tracks it then, for all."""
        for machine in self._there:
            self._wait_for_end(machine)
        tracking = self.rng.choice([machine for machine in self._there if machine.has_study])
        for machine in self._there:
            resume = ["resume", "s", "--trials", self.trials]
            self._type(machine, *(resume if machine is tracking else self._command(machine)))
        for machine in self._there:
            self._wait_for_end(machine)

    def _check(self) -> None:
        found, gone = [], sum(machine.is_gone for machine in self.machines)
        for machine in self._there:
            os.environ["NAS_CACHE"] = str(machine.home / "cache")  # where it remembers the addresses
            on_server = problems_on_server(self.storage, machine.runs, machines=len(self.machines), lost=gone)
            found += [f"{machine.runs.name}: {problem}" for problem in (*on_server, *problems_of_study(machine.study))]
        for machine in self.machines:
            log = machine.runs.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
            if "Traceback" in log:
                found.append(f"a traceback in {machine.runs.with_suffix('.log')}")
        twice, saved, unsaved, lost = problems_of_machines_trace(self._trace)
        kills = sum(self.kills.values())
        if unsaved > kills or lost > kills:
            found.append(f"{unsaved} epochs were begun and not saved, {lost} were saved and lost with their machine")
        self.problems += [*found, *twice]
        state = "; ".join([*found, *twice]) or "right"
        print(f"{saved} epochs saved; lost by kills: {unsaved} unsaved, {lost} saved on a lost machine: {state}")


@contextmanager
def _tracking_server(folder: Path) -> Iterator[str]:
    """Run MLflow's server; yield its address."""
    folder.mkdir()
    port = free_port()
    served = ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *served, "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)
