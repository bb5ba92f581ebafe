"""Run the commands of README.md and docs/*.md as they are printed, in a new folder, and list those that fail.

    python -m benchmarks.docs [--pages README.md docs/latency.md] [--folder FOLDER] [--files TABLE.csv ...]

The folder gets what the pages assume: a small data set `my/data.yaml`, an article's `article.yaml`, a checkpoint
`yolov9t.pt`, the files that the pages print (`mine.yaml`, `my_ops.py`, `faster.yaml`), and those of `--files`. A study
that a command names is searched before it, if the folder lacks it (`STUDIES`). The commands of a page are run in order.
`--folder` of an earlier call goes on with it: a command that was interrupted there is run first, and none that passed
is run again. The last lines count all of both calls, and name what was not run, with the reason (`NOT_RUN`, or a file
that does not exist), and what was run without the GPU that it asks for.

Searches are short (`SHORTENED`). Where that replaces an option that is printed, the search is also run as printed, with
`--dry-run`. A command that runs until Ctrl-C gets it after `UNTIL_INTERRUPTED` seconds. A command fails if it prints a
traceback, or if its exit status is not 0 (after Ctrl-C: not 0, 1, 130 or SIGINT's).
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import documented, documented_files

ROOT = documented.ROOT
UNTIL_INTERRUPTED = 15
LIMIT_SECONDS = 3600
CACHE = ".cache"
"""Cache folder, inside the folder: nothing that was trained or recorded before is used."""

ON_DIGITS = "--trials 2 --epochs 1 --base-epochs 1 --image-size 64 --workers 1"
"""Options that shorten searches on the built-in data, which has more images than `my/data.yaml`; nothing is learned."""
SHORTENED = {
    "nas search": "--trials 3 --epochs 1 --base-epochs 8 --image-size 96 --workers 1",
    "nas resume": "--trials 3",
    "--longer": "--rounds 1",
    "--epochs 60": "--seeds 2 --top 1 --epochs 2",
    "export v9t-digits --best map --formats onnx,openvino --precision": "--formats onnx --calibration-images 8",
    "confirm v9t-digits --formats": "--seeds 2 --top 1 --epochs 1 --calibration-images 8",
    "nas confirm": "--seeds 2 --top 1",
    "nas ablate": "--seeds 2 --epochs 1",
    "nas yolo train": "epochs=1 imgsz=64",
    "nas train": "epochs=1 imgsz=64 device=cpu",
    "nas bench": "--repeats 2 --trials 20",
    "nas latency error": "--candidates 2",
    "benchmarks.gpu": "--only card,operators",
}
"""Options that shorten commands that would take hours; the first entry of which a command has the key, and of two equal
options the last one, count. Models of `my/data.yaml` learn something: else, most commands refuse to compare them."""

STUDIES = {
    "v9t-digits": "nas search --space v9",
    "v9t-my": "nas search --space v9 --data my/data.yaml",
    "v9t-my2": "nas search --space v9 --data my/data.yaml --study v9t-my2 --seed 1",
    "v9s-my": "nas search --space v9 --scale s --data my/data.yaml",
}
"""Studies that pages name, and the commands that search them."""

REPLACED = {
    "v9s-my-2": "v9t-my2",
    "~/data/data.yaml": "moved/data.yaml",
    "--runs runs/nas": "--runs unpacked",
    "bccd/data.yaml": "my/data.yaml",
    "latency front v9t-my": "latency front v9t-board",
}
"""Parts of commands that stand for another machine, other images, another large search, or one with latencies."""

NOT_RUN = {
    "postgresql://": "needs a PostgreSQL server that several machines reach",
    "nas resume fruit": "its trials are in a database that machines share",
    "benchmarks/recipe.py train": "hours of training",
    "benchmarks/width.py train": "hours of training",
    "benchmarks.modules train": "hours of training",
    "benchmarks.modules latency": "needs an idle machine",
    "benchmarks.modules table": "it rewrites a page",
    "--trial 4 --resume": "needs a full training that was interrupted",
    "resume=FOLDER": "needs a training that was interrupted",
    "--storage ADDRESS": "needs a study whose database has moved",
    "--weights FOLDER": "needs a study that began from checkpoints, moved to another machine",
    "--install-completion": "it changes the user's shell",
    " ...": "an ellipsis stands for options",
}
"""Commands that are not run, and why."""

GPU = r"(?:--)?device[= ](?:cuda:)?0"
"""Options that ask for a GPU, or several."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution of a command.

    Attributes:
        page: page that prints the command.
        status: exit status.
        cpu_seconds: of all its processes: what it would take of one core of an idle machine.
        interrupted: whether it got Ctrl-C.
    """

    page: str
    command: str
    status: int
    seconds: float
    cpu_seconds: float
    output: str
    interrupted: bool

    @property
    def failed(self) -> bool:
        """Whether the command failed."""
        good = {0, 1, 130, -signal.SIGINT} if self.interrupted and _runs_until_interrupted(self.command) else {0}
        return self.status not in good or "Traceback (most recent call last)" in self.output

    def __str__(self) -> str:
        verdict = "FAILED" if self.failed else "ok"
        times = f"{self.seconds:6.1f} s {self.cpu_seconds:6.1f} CPU-s"
        lines = [line for line in self.output.splitlines() if line.strip()][-3:]
        said = f"\n       status {self.status}: {' | '.join(lines)[-600:]}" if self.failed else ""
        return f"{verdict:<7}{times}  {self.page}: {self.command}{said}"


class Log:
    """The executions in a folder, of this call and earlier ones; the last one of a command counts."""

    def __init__(self, folder: Path) -> None:
        self.file, self.running = folder / "executions.jsonl", folder / "running.json"
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        self.executions = {one.command: one for one in (Execution(**json.loads(line)) for line in lines)}

    @property
    def passed(self) -> set[str]:
        """Commands that need not be run again."""
        return {one.command for one in self.executions.values() if not one.failed}

    @property
    def interrupted(self) -> tuple[str, str] | None:
        """Page and command that was running when the last call was ended."""
        if not self.running.exists():
            return None
        page, command = json.loads(self.running.read_text(encoding="utf-8"))
        return page, command

    def execute(self, page: str, command: str, folder: Path) -> None:
        """Run a command, and add it."""
        self.running.write_text(json.dumps([page, command]), encoding="utf-8")
        one = execute(page, command, folder)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(asdict(one))}\n")
        self.running.unlink()
        self.executions[command] = one
        print(one, flush=True)


def main(chosen: argparse.Namespace) -> None:
    """Run all commands; exit with status 1 if one failed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and what they start
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="nas-docs-"))
    documented_files.prepare(folder, chosen.files)
    print(f"in {folder}", flush=True)
    log = Log(folder)
    if log.interrupted:
        log.execute(*log.interrupted, folder)
    pages, not_run = chosen.pages or documented.pages(), {}
    for page in pages:
        for command in documented.commands((ROOT / page).read_text(encoding="utf-8"), documented.SHELL):
            if reason := _not_run(command, folder):
                not_run[f"{page}: {command}"] = reason
                continue
            for line in lines_of(command, folder):
                if line not in log.passed:
                    log.execute(page, line, folder)
    executions = list(log.executions.values())
    _summarize(executions, not_run)
    sys.exit(any(one.failed for one in executions if one.page in pages))


def _summarize(executions: Sequence[Execution], not_run: Mapping[str, str]) -> None:
    """Print what failed, what was not run, what lacked a GPU, and what all took."""
    failed = [one for one in executions if one.failed]
    lacked = [] if torch.cuda.is_available() else [one for one in executions if re.search(GPU, one.command)]
    for line in (
        *failed,
        *(f"not run {command} ({reason})" for command, reason in not_run.items()),
        *(f"on CPU  {one.page}: {one.command} (no GPU)" for one in lacked),
    ):
        print(line)
    minutes = sum(one.seconds for one in executions) / 60, sum(one.cpu_seconds for one in executions) / 60
    took = "{:.0f} minutes, {:.0f} of processor time".format(*minutes)
    print(f"{len(executions)} commands, {len(failed)} failed, {len(not_run)} not run; {took}")


def _not_run(command: str, folder: Path) -> str:
    """Return why a command is not run; empty if it is."""
    if reasons := [reason for part, reason in NOT_RUN.items() if part in command]:
        return reasons[0]
    named = re.findall(r"(?<= )[\w-]+\.csv|[\w-]*MMQA[\w-]*\.yaml", command)
    written = re.findall(r"(?:export|>) (\S+)", command)
    return ", ".join(
        f"no {name}: give it with --files" for name in named if name not in written and not (folder / name).exists()
    )


def lines_of(command: str, folder: Path) -> Iterator[str]:
    """Yield a command as printed, changed only as far as this machine and its time require, after what it needs.

    Each line is made when those before it have been run: it may name what they wrote.
    """
    line = documented.with_study(documented.filled(command))
    for part, meant in REPLACED.items():
        line = line.replace(part, meant)
    if "latency" in line:
        line = line.replace("--space v9", "--space few.yaml")
    if "v9t-digits" not in line:
        line = re.sub(r"--trial \d+", "--trial 2", line)  # the short searches have three
    for study, search in STUDIES.items():
        is_there = (folder / "runs" / "nas" / study).exists()
        if re.search(rf"\b{study}\b(?!-)", line) and not is_there and not line.startswith("nas unpack"):
            yield _shortened(search)
    line = _resolved(line, folder).replace("--latency DEVICE", f"--latency {_device(folder)}")
    if line.startswith("make search"):
        line = "nas search --space v9"
    elif re.search(r"--device (cuda:)?0", line) and not torch.cuda.is_available():
        line += " --device cpu"
    short = _shortened(line)
    added = re.findall(r"--[\w-]+", short.removeprefix(line))
    if "nas search" in line and any(re.search(rf"{option}\b", line) for option in added):
        yield f"{line} --dry-run"
    yield short


def _shortened(command: str) -> str:
    """Return a command with options that make it short; the search of the first page stays as printed."""
    if command == "nas search --space v9" or "--help" in command or "--dry-run" in command:
        return command
    keys = [key for key in SHORTENED if key in command]
    flags = [SHORTENED[key] for key in ("--epochs 60", *keys) if key in keys][:1]
    if "nas search" in command and not re.search(r"--(data|refine|latency)\b", command):
        flags = [ON_DIGITS]
    if "nas yolo train" in command and "data=" not in command:
        flags.append("data=my/data.yaml")
    return " ".join([command, *flags])


def _resolved(command: str, folder: Path) -> str:
    """Return a command with `.../` replaced by the folder of the newest matching file of a study."""
    for elided in re.findall(r"[\w/]*\.\.\./[\w.]+", command):
        found = sorted(folder.rglob(f"runs/nas/**/{Path(elided).name}"), key=lambda path: path.stat().st_mtime)
        exported = [path for path in found if "export" in path.parts] or found
        if exported:
            command = command.replace(elided, str(exported[-1].relative_to(folder)))
    return command


def _device(folder: Path) -> str:
    """Return the device whose latency table was recorded last."""
    tables = sorted((folder / CACHE / "latency").glob("*"), key=lambda path: path.stat().st_mtime)
    return tables[-1].stem if tables else "DEVICE"


def execute(page: str, command: str, folder: Path) -> Execution:
    """Run a line of a shell, and send it Ctrl-C when its time has passed."""
    started, cpu_before = time.monotonic(), _cpu_seconds()
    process = subprocess.Popen(
        ["/bin/bash", "-c", f"{command}\nexit $?"],  # a second line: else bash is replaced by the command
        cwd=folder,
        env={**os.environ, "NAS_CACHE": str(folder.absolute() / CACHE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    interrupted = False
    try:
        output, _ = process.communicate(
            timeout=UNTIL_INTERRUPTED if _runs_until_interrupted(command) else LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        interrupted = True
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches every process of a terminal's foreground group
        output, _ = process.communicate(timeout=60)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        raise
    return Execution(
        page=page,
        command=command,
        status=process.returncode,
        seconds=time.monotonic() - started,
        cpu_seconds=_cpu_seconds() - cpu_before,
        output=output,
        interrupted=interrupted,
    )


def _runs_until_interrupted(command: str) -> bool:
    return command.startswith("nas ui")


def _cpu_seconds() -> float:
    """Return the processor time of all processes that this one has started and waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="*", help="pages, relative to the project; all of them if left out")
    parser.add_argument("--folder", type=Path, help="where to run; a new temporary folder if left out")
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="copied into it: tables for `nas bench`")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main(options())
    except KeyboardInterrupt:
        sys.exit("stopped: --folder with the folder that is named above goes on")
