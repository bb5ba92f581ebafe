"""Kill searches at random moments, resume them, and check that nothing was lost, doubled, or trained twice.

    python -m benchmarks.torture [--kills 50] [--early 20] [--seed 0] [--folder FOLDER] [--postgres]

Two of five kills hit new runs folders within their first ten seconds, a folder each; the others hit one study in its
search, its export and its confirmation. A kill is a signal (SIGKILL, SIGTERM, SIGHUP, SIGINT once or twice, SIGSTOP
followed by SIGCONT or SIGKILL) to the supervisor, to one worker, or to all processes. After each, `nas resume` goes on,
or the same `nas search` where no study exists yet. Four workers train 64-pixel images for up to three epochs, without
the score cache. In the end every trial must have ended, with exactly one ending for each architecture and seed; no
epoch whose checkpoint was written may have been trained again; Optuna, files and MLflow must agree. The trials are
stored in SQLite, or by `--postgres` on a PostgreSQL server, which is started for it, with a database for each runs
folder; then the files that machines share are compared, too, and no process may be left in a session.

The exit status is 1 if something is wrong. The same seed draws the same kills, but machines differ in what these hit.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.noise_data import make_data
from benchmarks.postgres_server import running
from benchmarks.torture_checks import conclude, problems_of_database, problems_of_study, problems_of_trace
from benchmarks.torture_server import problems_on_server

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
WORKERS = 4
BUDGET = ("--image-size", 64, "--deploy-size", 64, "--device", "cpu", "--no-cache", "--workers", WORKERS)
EPOCHS, EARLY_EPOCHS = 3, 1
HANGS_AFTER = 180.0
"""Seconds in which a command must end after a signal that ends it."""
SIGNALS = ("KILL", "KILL", "TERM", "HUP", "INT", "INT INT", "STOP CONT", "STOP KILL")
TARGETS = ("supervisor", "worker", "all")


@dataclass
class Torture:
    """Kills of one benchmark, and what went wrong."""

    folder: Path
    address: Callable[[str], str]
    """Returns the address of the storage of a runs folder, by its name; empty for SQLite in the study's folder."""
    rng: random.Random
    problems: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    early: int = 0

    def start(self, runs: Path, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a command in a runs folder; its output is appended to a file beside that."""
        environment = os.environ | {
            "TORTURE_TRACE": str(runs.with_suffix(".trace")),
            "NAS_NO_CACHE": "1",
            "YOLO_OFFLINE": "true",
            "PYTHONPATH": str(PROCESS.parents[1]),
        }
        command = [sys.executable, str(PROCESS), *map(str, arguments), "--runs", str(runs)]
        with runs.with_suffix(".log").open("ab") as log:
            log.write(f"\n$ nas {' '.join(command[2:])}\n".encode())
            log.flush()
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def search(self, runs: Path, trials: int, epochs: int = EPOCHS) -> list[object]:
        """Return the command that begins the study of a runs folder, or resumes it."""
        if (runs / "s" / "study.json").is_file():
            return ["resume", "s", "--trials", trials]
        address = self.address(runs.name)
        where = ["--storage", address] if address else []
        length = ["--epochs", epochs, "--base-epochs", epochs]
        given = ["--space", self.folder / "space.yaml", "--data", self.folder / "data" / "data.yaml"]
        return ["search", *given, "--study", "s", "--trials", trials, *length, *BUDGET, *where]

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
            for victim in [process.pid, *descendants(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            process.wait()
            return None

    def run_to_end(self, runs: Path, *arguments: object, patience: float = 900.0) -> None:
        """Run a command that nothing disturbs; it must succeed."""
        code = self.wait(self.start(runs, *arguments), runs, patience)
        if code not in {0, None} and not has_no_verdict(runs):
            self.problems.append(f"{runs.name}: nas {arguments[0]} ends with status {code}: {last_line(runs)}")

    def kill_early(self, index: int) -> None:
        """Kill a search within ten seconds of its new runs folder, and run it to its end."""
        runs = self.folder / f"early-{index:02d}"
        process = self.start(runs, *self.search(runs, 1, EARLY_EPOCHS))
        while not runs.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(self.rng.choice([self.rng.uniform(0, 1.5), self.rng.uniform(0, 9.5)]))
        ends = self.kill(process)
        self.early += 1
        if ends:
            self.wait(process, runs, HANGS_AFTER)
            self.run_to_end(runs, *self.search(runs, 1, EARLY_EPOCHS), "--workers", 1)
        elif self.wait(process, runs, 900.0) != 0:  # of a worker's death the supervisor takes care
            self.run_to_end(runs, *self.search(runs, 1, EARLY_EPOCHS), "--workers", 1)
        self.check(runs, "s", kills=1)
        if not self.problems:
            shutil.rmtree(runs)

    def kill_long(self, kills: int) -> None:
        """Kill a study's search, its exports and its confirmation, and run each to its end."""
        runs = self.folder / "long"
        began, exports, confirms = sum(self.kills.values()), max(1, kills // 8), max(1, kills // 3)
        trials = 4

        def search(*, more: bool) -> list[object]:
            nonlocal trials
            trials += 2 * more
            return self.search(runs, trials)

        self._disturb(runs, max(1, kills - exports - confirms), 40.0, lambda ended: search(more=ended))
        self.run_to_end(runs, *search(more=False))
        self.check(runs, "s", sum(self.kills.values()) - began)
        self._disturb(runs, exports, 6.0, lambda _: ["export", "s"])
        self.run_to_end(runs, "export", "s")
        # With one epoch more: nas confirm refuses a budget with which the stock model has learned nothing.
        confirm = ["confirm", "s", "--seeds", 2, "--top", 2, "--epochs", EPOCHS + 1]
        self._disturb(runs, confirms, 40.0, lambda _: confirm)
        self.run_to_end(runs, *confirm)
        # An export or a confirmation that ended too soon for all of its kills leaves them to the search.
        self._disturb(runs, began + kills - sum(self.kills.values()), 40.0, lambda ended: search(more=ended))
        self.run_to_end(runs, *search(more=False))
        for study in ("s", "s-confirm"):
            self.check(runs, study, kills)

    def _disturb(self, runs: Path, kills: int, within: float, command: Callable[[bool], Sequence[object]]) -> None:
        """Run a command again and again until so many kills were made.

        Args:
            within: seconds between two kills, at most.
            command: returns its arguments; called with whether the one before ended without a kill.
        """
        done, ended_by_itself, tries = 0, False, 0
        while done < kills and tries < 3 * kills:
            arguments, killed_here, tries = command(ended_by_itself), 0, tries + 1
            process = self.start(runs, *arguments)
            while done < kills and process.poll() is None:
                if not self._is_running_after_a_while(process, runs, within):
                    break
                ends = self.kill(process)
                done, killed_here = done + 1, killed_here + 1
                if ends:
                    self.wait(process, runs, HANGS_AFTER)
            code = self.wait(process, runs, 900.0)
            ended_by_itself = not killed_here
            if ended_by_itself and code and not has_no_verdict(runs):
                self.problems.append(f"{runs.name}: status {code} without a kill: {last_line(runs)}")
            print(f"{runs.name}: {arguments[0]}: {done} of {kills} kills", flush=True)

    def _is_running_after_a_while(self, process: subprocess.Popen[bytes], runs: Path, within: float) -> bool:
        """Wait until a random moment, of two in three one within seconds of an epoch; return whether it still runs."""
        trace = runs.with_suffix(".trace")
        before = trace.stat().st_size if trace.is_file() else 0
        if self.rng.random() < 2 / 3:
            limit = time.monotonic() + 4 * within
            while (
                process.poll() is None
                and time.monotonic() < limit
                and (not trace.is_file() or trace.stat().st_size == before)
            ):
                time.sleep(0.01)
            within = 3.0
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(0, within))
        return process.poll() is None

    def check(self, runs: Path, study: str, kills: int) -> None:
        """Check a study whose command has ended, after so many kills in its runs folder."""
        found = list(problems_of_study(runs / study))
        for database in (runs / "mlflow.db", runs / study / "study.db"):
            if database.is_file():
                found += problems_of_database(database)
        if address := self.address(runs.name):
            found += problems_on_server(address, runs)
        twice, saved, unsaved = problems_of_trace(runs.with_suffix(".trace"))
        if unsaved > WORKERS * kills:
            found.append(f"{unsaved} epochs were begun and not saved")
        log = runs.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        if "Traceback" in log:
            found.append(f"a traceback in {runs.with_suffix('.log')}")
        self.problems += [f"{runs.name}/{study}: {problem}" for problem in (*found, *twice)]
        state = "; ".join([*found, *twice]) or "right"
        print(f"{runs.name}/{study}: {saved} epochs saved, {unsaved} lost by kills: {state}", flush=True)


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


def main(options: argparse.Namespace) -> int:
    folder = Path(options.folder or tempfile.mkdtemp(prefix="torture-")).absolute()
    os.environ["NAS_CACHE"] = str(folder / "cache")  # where the commands remember the addresses that the checks use
    make_data(folder / "data")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    with ExitStack() as stack:
        server = stack.enter_context(running()) if options.postgres else None
        create = server.create if server else options.storage.format
        torture = Torture(folder, cache(lambda name: create(name=name)), random.Random(options.seed))
        status = run(torture, options)
        if server and torture.problems:
            (folder / "postgres.sql").write_text(server.dump(), encoding="utf-8")
        return status


def run(torture: Torture, options: argparse.Namespace) -> int:
    """Make the kills and print what was found; return the exit status."""
    began = time.monotonic()
    early = options.kills * 2 // 5 if options.early is None else options.early
    for index in range(early):
        torture.kill_early(index)
    if options.kills > early:
        torture.kill_long(options.kills - early)
    print(f"{sum(torture.kills.values())} kills, {torture.early} of them within ten seconds of a new runs folder:")
    for kind, times in sorted(torture.kills.items()):
        print(f"  {times:3} x {kind}")
    print(f"{(time.monotonic() - began) / 60:.0f} min, seed {options.seed}, {len(torture.problems)} problems")
    return conclude(torture.problems, torture.folder, is_temporary=options.folder is None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--early", type=int, help="how many of them in new runs folders; by default two of five")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="for all files; by default a temporary one, deleted if all is right")
    parser.add_argument("--storage", default="", help="address of a storage, with {name} for each runs folder")
    parser.add_argument("--postgres", action="store_true", help="start a PostgreSQL server and store the trials on it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops the server, too
    sys.exit(main(parser.parse_args()))
