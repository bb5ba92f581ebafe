"""Let a disk become full at random moments of real searches, make room, resume, and check that nothing was lost.

    python -m benchmarks.full_disk [--cases 12] [--seed 0] [--folder FOLDER] [--only KIND ...]

The folder of all studies lies on a file system of its own in memory (tmpfs; only root may mount one). A search of three
small models, trained for three epochs of 64 px, runs there once without trouble. Then, a case each:

- `size`: the file system is smaller than what the search needs, by a random share;
- `moment`: it is filled at a random moment of the search;
- `creation`: it is full, but for some kilobytes, before the search is typed;
- `export`: it is full, but for some kilobytes, when a model is exported;
- `mlflow`: MLflow's database and artifacts alone lie there;
- `cache`: the cache folder alone lies there.

A command must end by itself: with status 2 and one line that names a file and says that the disk is full, or with
status 0 if it could do its work, with such a line if something is missing. No traceback may be printed. When there is
room, the same command is typed again, or `nas resume`: it must succeed. Then Optuna, files and MLflow must agree
(`torture_checks.py`), `nas fsck` must find nothing, no epoch may have been trained twice that was saved, and every
score and loss must be that of the undisturbed search, to the bit.

The exit status is 1 if something is wrong.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.noise_data import make_data
from benchmarks.small_disk import Case, Disk
from benchmarks.torture_checks import conclude, problems_of_database, problems_of_study, problems_of_trace
from benchmarks.torture_commands import PROCESS
from nas.study.stored_study import StoredStudy

MODEL = """\
nc: 2
reg_max: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, C2f, [8, True]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SPPF, [16, 5]]
head:
  - [[3, 4], 1, Detect, [nc]]
"""
SPACE = """\
name: full
base: tiny.yaml
slots:
  - at: {layers: [2]}
    choices: {UIB: {start_kernel: [0, 3], expansion: [2]}}
"""
TRIALS, EPOCHS = 3, 3
KINDS = ("size", "moment", "creation", "export", "mlflow", "cache")
FULL = ("No space left on device", "disk is full", "No space left")
_HANGS_AFTER = 900.0

Scores = dict[str, tuple[object, ...]]
"""By fingerprint: what must be equal to the bit."""


@dataclass
class FullDisk:
    """Cases of one benchmark, and what went wrong."""

    folder: Path
    rng: random.Random
    problems: list[str] = field(default_factory=list)
    expected: Scores = field(default_factory=dict)
    exported: dict[str, bytes] = field(default_factory=dict)
    needs: int = 0
    events: int = 0

    def start(self, case: Case, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command on the studies of a case; its output is appended to a file beside them."""
        variables = {
            "TORTURE_TRACE": str(case.trace),
            "NAS_NO_CACHE": "1",
            "NAS_CACHE": str(self.folder / "cache"),
            "YOLO_OFFLINE": "true",
            "PYTHONPATH": str(PROCESS.parents[1]),
            **environment,
        }
        command = [sys.executable, str(PROCESS), *map(str, arguments), "--runs", str(case.runs)]
        with case.log.open("ab") as log:
            log.write(f"\n$ nas {' '.join(command[2:])}\n".encode())
            log.flush()
            return subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True)

    def search(self, case: Case) -> list[object]:
        """Return the command that begins the study of a case, or resumes it."""
        if (case.study / "study.json").is_file():
            return ["resume", "s"]
        given = ["--space", self.folder / "space.yaml", "--data", self.folder / "data" / "data.yaml", "--study", "s"]
        length = ["--trials", TRIALS, "--epochs", EPOCHS, "--base-epochs", EPOCHS, "--image-size", 64]
        return ["search", *given, *length, "--deploy-size", 64, "--device", "cpu", "--workers", 1, "--no-cache"]

    def status(self, case: Case, process: subprocess.Popen[bytes]) -> int:
        """Return the exit status of a command; that it hangs is a problem."""
        try:
            return process.wait(_HANGS_AFTER)
        except subprocess.TimeoutExpired:
            self.report(case, f"a command still runs after {_HANGS_AFTER:.0f} s")
            process.terminate()
            return process.wait()

    def report(self, case: Case, problem: str) -> None:
        """Count a problem of a case."""
        self.problems.append(f"{case.folder.name}: {problem}")

    def must_succeed(self, case: Case, *arguments: object, **environment: str) -> None:
        """Run a command that has room."""
        if code := self.status(case, self.start(case, *arguments, **environment)):
            self.report(case, f"nas {arguments[0]} ends with status {code}: {case.last_line}")

    def ended_well(self, case: Case, status: int, before: int) -> None:
        """Check how a command ended on a full disk.

        Args:
            before: size of the log when it was started.
        """
        printed = case.log.read_bytes()[before:].decode(errors="replace")
        if status not in {0, 2}:
            self.report(case, f"status {status}: {case.last_line}")
        if status and not any(text in case.last_line for text in FULL):
            self.report(case, f"status {status}, and the last line does not say why: {case.last_line}")
        if "Traceback" in printed:
            self.report(case, "a traceback")
        said = next((line for line in printed.splitlines() if any(text in line for text in FULL)), "nothing is missing")
        print(f"{case.folder.name}: status {status}: {said}", flush=True)

    def undisturbed(self) -> None:
        """Run the search that all others must equal, and learn what room it takes."""
        case = Case(self.folder / "undisturbed", "undisturbed")
        with Disk(case.disk).mounted() as disk:
            began, process = time.monotonic(), self.start(case, *self.search(case))
            while process.poll() is None:
                self.needs = max(self.needs, disk.used)
                time.sleep(0.05)
            seconds, self.events = time.monotonic() - began, events(case)
            self.must_succeed(case, "export", "s", "--out", case.folder / "exported")
            self.exported = contents(case.folder / "exported")
            self.check(case)
            self.expected = scores(case)
        if len(self.expected) != TRIALS:
            self.report(case, f"{len(self.expected)} architectures have scores, {TRIALS} were asked for")
        print(f"{case.folder.name}: {self.needs / 2**20:.1f} MB, {seconds:.0f} s", flush=True)

    def case(self, number: int, kind: str) -> None:
        """Run one case."""
        case = Case(self.folder / f"{number:02d}-{kind}", kind)
        with Disk(case.disk).mounted() as disk:
            before = 0
            if kind == "export":
                self.must_succeed(case, *self.search(case))
                before = case.log.stat().st_size
                disk.leave(self.rng.choice((0, 4, 8, 16, 40, 100)) * 1024)
                command = ["export", "s", "--out", case.disk / "exported"]
                self.ended_well(case, self.status(case, self.start(case, *command)), before)
                disk.make_room()
                self.must_succeed(case, *command)
                if different := differing(contents(case.disk / "exported"), self.exported):
                    self.report(case, f"the export differs from the undisturbed one: {', '.join(different)}")
            else:
                variables = self.fill(case, disk)
                process = self.start(case, *self.search(case), **variables)
                if kind == "moment":
                    self.wait_for_a_moment(case, process)
                    disk.leave(0)
                self.ended_well(case, self.status(case, process), before)
                disk.make_room()
                self.must_succeed(case, *self.search(case), **variables)
            self.check(case)

    def wait_for_a_moment(self, case: Case, process: subprocess.Popen[bytes]) -> None:
        """Wait until a random number of epochs were begun or saved, and a moment more."""
        number = self.rng.randrange(self.events)
        while process.poll() is None and events(case) < number:
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0, 0.3))

    def fill(self, case: Case, disk: Disk) -> Mapping[str, str]:
        """Fill the file system before a search; return environment variables that place something there."""
        if case.kind == "size":
            disk.leave(round(self.needs * self.rng.uniform(0.05, 1.0)))
        elif case.kind != "moment":
            disk.leave(self.rng.choice((0, 4, 8, 16, 40, 100, 200, 400)) * 1024)
        if case.kind == "mlflow":
            return {"MLFLOW_TRACKING_URI": f"sqlite:///{case.disk}/mlflow.db"}
        return {"NAS_CACHE": str(disk.folder / "cache")} if case.kind == "cache" else {}

    def check(self, case: Case) -> None:
        """Check a study that has been run to its end."""
        if not (case.study / "study.json").is_file():
            self.report(case, "no study")
            return
        found = list(problems_of_study(case.study))
        for database in (case.runs / "mlflow.db", case.disk / "mlflow.db", case.study / "study.db"):
            found += problems_of_database(database) if database.is_file() else []
        twice, _, _ = problems_of_trace(case.trace)
        if self.expected and differing(scores(case), self.expected):
            found.append(f"other scores than without trouble: {differing(scores(case), self.expected)}")
        for problem in (*found, *twice):
            self.report(case, problem)
        self.must_succeed(case, "fsck", "s")


def events(case: Case) -> int:
    """Return how many epochs were begun or saved."""
    return case.trace.read_bytes().count(b"\n") if case.trace.is_file() else 0


def scores(case: Case) -> Scores:
    """Return what must be equal of all trials that have ended."""
    study = StoredStudy.open(case.study)
    found: Scores = {}
    for record in study.records():
        if record.ending is not None:
            losses = tuple(str(dict(epoch.losses)) for epoch in study.files(record.trial).read_epochs())
            found[record.fingerprint] = (record.ending, record.map50_95, record.map50, record.gflops, losses)
    study.storage.engine.dispose()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Return what an export must hold, but for what depends on its place.

    Of the weights these are the values of all tensors. Beside them lie the folder of the training, and a checksum of
    the archive, of which the first part of all names is random.
    """
    with zipfile.ZipFile(folder / "weights.pt") as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    tensors = {name: member for name, member in members.items() if name.startswith("data/")}
    return {**tensors, **{name: (folder / name).read_bytes() for name in ("data.yaml", "model.yaml")}}


def differing(found: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """Return the keys whose values differ or are missing."""
    return [key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]


def main(options: argparse.Namespace) -> int:
    folder = Path(options.folder or tempfile.mkdtemp(prefix="full-disk-")).absolute()
    make_data(folder / "data", images=8)
    (folder / "tiny.yaml").write_text(MODEL, encoding="utf-8")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    benchmark = FullDisk(folder, random.Random(options.seed))
    benchmark.undisturbed()
    for number in range(options.cases):
        benchmark.case(number, options.only[number % len(options.only)])
    print(f"{options.cases} cases, seed {options.seed}, {len(benchmark.problems)} problems")
    return conclude(benchmark.problems, folder, is_temporary=options.folder is None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="for all files; by default a temporary one, deleted if all is right")
    parser.add_argument("--only", nargs="+", default=KINDS, choices=KINDS)
    sys.exit(main(parser.parse_args()))
