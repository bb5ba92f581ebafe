"""Commands that a torture starts, kills and waits for."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.noise_data import make_data

PROCESS = Path(__file__).with_name("torture_process.py")
SPACE = """\
name: torture
base: yolov5n.yaml
slots:
  - at: {layers: [5]}
    choices:
      UIB: {start_kernel: [0, 3, 5], mid_kernel: [0, 3, 5], expansion: [2, 4]}
  - at: {layers: [7]}
    choices:
      UIB: {start_kernel: [0, 3, 5], mid_kernel: [0, 3, 5], expansion: [2, 4]}
"""
BUDGET = ("--image-size", 64, "--deploy-size", 64, "--device", "cpu", "--no-cache")
HANGS_AFTER = 180.0
"""Seconds in which a command must end after a signal that ends it."""
SIGNALS = ("KILL", "KILL", "TERM", "HUP", "INT", "INT INT", "STOP CONT", "STOP KILL")
TARGETS = ("supervisor", "worker", "all")


def prepare(folder: Path) -> None:
    """Write the data set and the space of a torture."""
    make_data(folder / "data")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")


@dataclass
class Commands:
    """Commands of one benchmark, the kills among them, and what went wrong."""

    folder: Path
    rng: random.Random
    problems: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    def start(self, runs: Path, *arguments: object, **variables: object) -> subprocess.Popen[bytes]:
        """Start a command in a runs folder; its output is appended to a file beside that.

        Args:
            variables: of its environment, beside the usual ones.
        """
        environment = os.environ | {
            "TORTURE_TRACE": str(runs.with_suffix(".trace")),
            "NAS_NO_CACHE": "1",
            "YOLO_OFFLINE": "true",
            "PYTHONPATH": str(PROCESS.parents[1]),
        }
        environment |= {name: str(value) for name, value in variables.items()}
        command = [sys.executable, str(PROCESS), *map(str, arguments), "--runs", str(runs)]
        with runs.with_suffix(".log").open("ab") as log:
            log.write(f"\n$ nas {' '.join(command[2:])}\n".encode())
            log.flush()
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def search(self, *options: object, trials: int, epochs: int) -> list[object]:
        """Return the command that begins a study."""
        length = ["--trials", trials, "--epochs", epochs, "--base-epochs", epochs]
        given = ["--space", self.folder / "space.yaml", "--data", self.folder / "data" / "data.yaml"]
        return ["search", *given, "--study", "s", *length, *BUDGET, *options]

    def kill(self, process: subprocess.Popen[bytes]) -> bool:
        """Send a random signal to random processes of a command; return whether the command must end by it."""
        target, kind = self.rng.choice(TARGETS), self.rng.choice(SIGNALS)
        workers = list(descendants(process.pid))
        if target == "worker" and not workers:
            target = "supervisor"
        chosen = {"supervisor": [process.pid], "worker": workers and [self.rng.choice(workers)]}
        victims = chosen.get(target) or [process.pid, *workers]
        self.kills[f"SIG{kind.replace(' ', '+')} to {target}"] += 1
        for number, name in enumerate(kind.split()):
            if number:
                time.sleep(self.rng.uniform(0.05, 2.0))
            for victim in victims:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.Signals[f"SIG{name}"])
        return target != "worker" and kind != "STOP CONT"

    def wait(self, process: subprocess.Popen[bytes], runs: Path, seconds: float) -> int | None:
        """Wait for a command; one that should have ended is a problem, and is killed."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.problems.append(f"{runs.name}: a command still runs {seconds:.0f} s later")
            kill_all(process)
            return None

    def run_to_end(self, runs: Path, *arguments: object, patience: float = 900.0) -> None:
        """Run a command that nothing disturbs; it must succeed."""
        code = self.wait(self.start(runs, *arguments), runs, patience)
        if code not in {0, None} and not has_no_verdict(runs):
            self.problems.append(f"{runs.name}: nas {arguments[0]} ends with status {code}: {last_line(runs)}")

    def is_running_after_a_while(self, trace: Path, within: float, is_running: Callable[[], bool]) -> bool:
        """Wait until a random moment, of two in three one within seconds of an epoch; return whether it still runs.

        Args:
            within: seconds until that moment, at most.
            is_running: returns whether there is anything left to wait for.
        """
        before = _size(trace)
        if self.rng.random() < 2 / 3:
            limit = time.monotonic() + 4 * within
            while is_running() and time.monotonic() < limit and _size(trace) == before:
                time.sleep(0.01)
            within = 3.0
        until = time.monotonic() + self.rng.uniform(0, within)
        while is_running() and time.monotonic() < until:
            time.sleep(0.01)
        return is_running()


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a command with all that it has started."""
    for victim in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    process.wait()


def is_running(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a command runs."""
    return process.poll() is None


def descendants(process: int) -> Iterator[int]:
    """Yield the processes that a process has started, directly or not."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    waiting = children.get(process, [])[:]
    while waiting:
        yield (found := waiting.pop())
        waiting += children.get(found, [])


def last_line(runs: Path) -> str:
    """Return the last line that a runs folder's commands printed."""
    return (runs.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]


def has_no_verdict(runs: Path) -> bool:
    """Return whether the last command of a runs folder was a confirmation that came to its end without a verdict.

    Its trainings are whole; images of noise teach a model nothing that could be judged.
    """
    return last_line(runs).startswith("No verdict: ")
