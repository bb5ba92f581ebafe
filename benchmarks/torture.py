"""Kill searches at random moments, resume them, and check that nothing was lost, doubled, or trained twice.

    python -m benchmarks.torture [--kills 50] [--early 20] [--seed 0] [--folder FOLDER] [--postgres]
    python -m benchmarks.torture --machines 3 [--kills 20] [--seed 0] [--folder FOLDER]

Two of five kills hit new runs folders within their first ten seconds, a folder each; the others hit one study in its
search, its export and its confirmation. A kill is a signal (SIGKILL, SIGTERM, SIGHUP, SIGINT once or twice, SIGSTOP
followed by SIGCONT or SIGKILL) to the supervisor, to one worker, or to all processes. After each, `nas resume` goes on,
or the same `nas search` where no study exists yet. Four workers train 64-pixel images for up to three epochs, without
the score cache. In the end every trial must have ended, with exactly one ending for each architecture and seed; no
epoch whose checkpoint was written may have been trained again; Optuna, files and MLflow must agree. The trials are
stored in SQLite, or by `--postgres` on a PostgreSQL server, which is started for it, with a database for each runs
folder; then the files that machines share are compared, too, and no process may be left in a session.

With `--machines`, several machines work on one study (`benchmarks/torture_machines.py`).

The exit status is 1 if something is wrong. The same seed draws the same kills, but machines differ in what these hit.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from benchmarks.postgres_server import running
from benchmarks.torture_checks import conclude, problems_of_database, problems_of_study, problems_of_trace
from benchmarks.torture_commands import HANGS_AFTER, Commands, has_no_verdict, is_running, last_line, prepare
from benchmarks.torture_machines import TortureOfMachines
from benchmarks.torture_server import problems_on_server

WORKERS = 4
EPOCHS, EARLY_EPOCHS = 3, 1


@dataclass
class Torture(Commands):
    """Kills of one benchmark on one machine, and what went wrong."""

    address: Callable[[str], str] = lambda _: ""
    """Returns the address of the storage of a runs folder, by its name; empty for SQLite in the study's folder."""
    early: int = 0

    def begin(self, runs: Path, trials: int, epochs: int = EPOCHS) -> list[object]:
        """Return the command that begins the study of a runs folder, or resumes it."""
        if (runs / "s" / "study.json").is_file():
            return ["resume", "s", "--trials", trials]
        address = self.address(runs.name)
        where = ["--storage", address] if address else []
        return self.search("--workers", WORKERS, *where, trials=trials, epochs=epochs)

    def kill_all(self, kills: int, early: int) -> None:
        """Make so many kills, some of them in new runs folders."""
        for index in range(early):
            self.kill_early(index)
        if kills > early:
            self.kill_long(kills - early)

    def summary(self) -> str:
        """Return what was done."""
        return f"{sum(self.kills.values())} kills, {self.early} of them within ten seconds of a new runs folder:"

    def kill_early(self, index: int) -> None:
        """Kill a search within ten seconds of its new runs folder, and run it to its end."""
        runs = self.folder / f"early-{index:02d}"
        process = self.start(runs, *self.begin(runs, 1, EARLY_EPOCHS))
        while not runs.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(self.rng.choice([self.rng.uniform(0, 1.5), self.rng.uniform(0, 9.5)]))
        ends = self.kill(process)
        self.early += 1
        if ends:
            self.wait(process, runs, HANGS_AFTER)
            self.run_to_end(runs, *self.begin(runs, 1, EARLY_EPOCHS), "--workers", 1)
        elif self.wait(process, runs, 900.0) != 0:  # of a worker's death the supervisor takes care
            self.run_to_end(runs, *self.begin(runs, 1, EARLY_EPOCHS), "--workers", 1)
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
            return self.begin(runs, trials)

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
                trace = runs.with_suffix(".trace")
                if not self.is_running_after_a_while(trace, within, partial(is_running, process)):
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


def main(options: argparse.Namespace) -> int:
    folder = Path(options.folder or tempfile.mkdtemp(prefix="torture-")).absolute()
    os.environ["NAS_CACHE"] = str(folder / "cache")  # where the commands remember the addresses that the checks use
    prepare(folder)
    with ExitStack() as stack:
        server = stack.enter_context(running()) if options.postgres or options.machines > 1 else None
        create = server.create if server else options.storage.format
        rng = random.Random(options.seed)
        torture: Torture | TortureOfMachines
        if options.machines > 1:
            torture = TortureOfMachines(folder, rng, number=options.machines, storage=create(name="nas"))
        else:
            torture = Torture(folder, rng, address=cache(lambda name: create(name=name)))
        status = run(torture, options)
        if server and torture.problems:
            (folder / "postgres.sql").write_text(server.dump(), encoding="utf-8")
        return status


def run(torture: Torture | TortureOfMachines, options: argparse.Namespace) -> int:
    """Make the kills and print what was found; return the exit status."""
    began = time.monotonic()
    if isinstance(torture, Torture):
        torture.kill_all(options.kills, options.kills * 2 // 5 if options.early is None else options.early)
    else:
        torture.kill_machines(options.kills)
    print(torture.summary())
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
    parser.add_argument("--machines", type=int, default=1, help="that share one study; more than one have --postgres")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops the server, too
    sys.exit(main(parser.parse_args()))
