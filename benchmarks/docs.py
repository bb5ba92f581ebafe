"""Run the commands of README.md and docs/*.md as they are printed, in a new folder, and list those that fail.

    python -m benchmarks.docs [--pages README.md docs/latency.md] [--folder FOLDER] [--files TABLE.csv ...]

The folder gets what the pages assume: a small data set `my/data.yaml`, an article's `article.yaml`, a checkpoint
`yolov9t.pt`, the files that the pages print (`mine.yaml`, `my_ops.py`, `faster.yaml`), and those of `--files`. A study
that a command names is searched before it, if the folder lacks it (`STUDIES`). The commands of a page are run in order;
those that passed in the same folder are not run again. A command is skipped if it names a file that does not exist, or
takes hours with any options.

A search is run twice: as printed with `--dry-run`, then with options that make it short (`SHORTENED`). A command with
`--device 0` is run with `--device cpu` where there is no GPU. A command that runs until Ctrl-C gets it after
`UNTIL_INTERRUPTED` seconds. A command fails if it prints a traceback, or if its exit status is not 0 (after Ctrl-C: not
0, 1, 130 or SIGINT's).
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ultralytics import YOLO

from benchmarks import documented, forked
from trials.data import digit_scenes

ROOT = documented.ROOT
UNTIL_INTERRUPTED = 15
LIMIT_SECONDS = 900
CHECKPOINT = "yolov9t.pt"
"""Written last: a folder that has it is complete."""
CACHE = ".cache"
"""Cache folder, inside the folder: nothing that was trained or recorded before is used."""

DIGITS = "nas search --space v9 --"
"""Searches on the built-in data, which has more images than `my/data.yaml`."""
SHORTENED = {
    DIGITS: "--trials 2 --epochs 1 --base-epochs 3 --image-size 96",
    "nas search": "--trials 3 --epochs 1 --base-epochs 8 --image-size 96",
    "nas resume": "--trials 3",
    "--longer": "--rounds 1",
    "--epochs 60": "--seeds 2 --top 1 --epochs 2",
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
}
"""Parts of commands that stand for another machine, or for another large search."""

SKIPPED = {
    "benchmarks/recipe.py train": "hours of training",
    "nas resume fruit": "its trials are in a database that machines share",
    "--install-completion": "it changes the user's shell",
    " ...": "an ellipsis stands for options",
}
"""Commands that are not run, and why."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution of a command.

    Attributes:
        page: page that prints the command.
        status: exit status; None if it was stopped after `LIMIT_SECONDS`.
        cpu_seconds: of all its processes: what it would take of one core of an idle machine.
    """

    page: str
    command: str
    status: int | None
    seconds: float
    cpu_seconds: float
    output: str
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Whether the command failed."""
        good = {0, 1, 130, -signal.SIGINT} if self.interrupted else {0}
        return self.status not in good or "Traceback (most recent call last)" in self.output


def main(chosen: argparse.Namespace) -> None:
    """Run all commands; exit with status 1 if one failed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and what they start
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="nas-docs-"))
    if not (folder / CHECKPOINT).exists():
        prepare(folder, chosen.files)
    print(f"in {folder}", flush=True)
    executions: list[Execution] = []
    log = folder / "done.txt"
    log.touch()
    for page in chosen.pages or documented.pages():
        for command in documented.commands((ROOT / page).read_text(encoding="utf-8")):
            if missing := _missing(command, folder):
                print(f"skipped          {page}: {command} ({missing})", flush=True)
                continue
            for one in run(page, command, folder, done=log.read_text(encoding="utf-8").split("\0")):
                executions.append(one)
                verdict = "FAILED" if one.failed else "ok"
                times = f"{one.seconds:6.1f} s {one.cpu_seconds:6.1f} CPU-s"
                print(f"{verdict:<7}{times}  {one.page}: {one.command}", flush=True)
                if not one.failed:
                    with log.open("a", encoding="utf-8") as file:
                        file.write(f"{one.command}\0")
                else:
                    print(f"       status {one.status}: {_last_lines(one.output)}", flush=True)
    failed = [one for one in executions if one.failed]
    minutes = sum(one.seconds for one in executions) / 60, sum(one.cpu_seconds for one in executions) / 60
    took = "{:.0f} minutes, {:.0f} of processor time".format(*minutes)
    print(f"{len(executions)} commands, {len(failed)} failed; {took}")
    sys.exit(bool(failed))


def _missing(command: str, folder: Path) -> str:
    """Return why a command is skipped; empty if it is not."""
    if reasons := [reason for part, reason in SKIPPED.items() if part in command]:
        return reasons[0]
    named = re.findall(r"(?<= )[\w-]+\.csv|[\w-]*MMQA[\w-]*\.yaml", command)
    written = re.findall(r"(?:export|>) (\S+)", command)
    return ", ".join(
        f"no {name}: give it with --files" for name in named if name not in written and not (folder / name).exists()
    )


def run(page: str, command: str, folder: Path, done: Collection[str] = ()) -> Iterator[Execution]:
    """Run a command as printed, changed only as far as this machine and its time require, after what it needs.

    Args:
        page: that prints it.
        command: as printed.
        folder: where to run it.
        done: lines that are not run again.
    """
    line = documented.with_study(documented.filled(command))
    for part, meant in REPLACED.items():
        line = line.replace(part, meant)
    if "latency" in line:
        line = line.replace("--space v9", "--space mine.yaml")  # a fifth of the layers to time
    if "v9t-digits" not in line:
        line = re.sub(r"--trial \d+", "--trial 2", line)  # the short searches have three
    for study, search in STUDIES.items():
        is_there = (folder / "runs" / "nas" / study).exists()
        if re.search(rf"\b{study}\b(?!-)", line) and not is_there and not line.startswith("nas unpack"):
            yield _execute(page, _shortened(search), folder)
    line = _resolved(line, folder).replace("--latency DEVICE", f"--latency {_device(folder)}")
    if line.startswith("make search"):
        line = "nas search --space v9"
    elif re.search(r"--device (cuda:)?0", line) and not torch.cuda.is_available():
        line += " --device cpu"
    if "nas search" in line and "--dry-run" not in line and _shortened(line) != line:
        yield from (_execute(page, one, folder) for one in [f"{line} --dry-run"] if one not in done)
    yield from (_execute(page, one, folder) for one in [_shortened(line)] if one not in done)


def _shortened(command: str) -> str:
    """Return a command with options that make it short; the search of the first page stays as printed."""
    if command == "nas search --space v9" or "--help" in command or "--dry-run" in command:
        return command
    keys = [key for key in SHORTENED if key in command]
    if "--data" in command or "--scale" in command:
        keys = [key for key in keys if key != DIGITS]
    flags = [SHORTENED[key] for key in ("--epochs 60", *keys) if key in keys][:1]
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


def _execute(page: str, command: str, folder: Path) -> Execution:
    started, cpu_before = time.monotonic(), _cpu_seconds()
    process = subprocess.Popen(
        ["/bin/bash", "-c", f"{command}\nexit $?"],  # a second line: else bash is replaced by the command
        cwd=folder,
        env={**os.environ, "NAS_CACHE": str(folder / CACHE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    interrupted = command.startswith("nas ui")
    try:
        output, _ = process.communicate(timeout=UNTIL_INTERRUPTED if interrupted else LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        interrupted = True
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches every process of a terminal's foreground group
        output, _ = process.communicate(timeout=60)
    return Execution(
        page=page,
        command=command,
        status=process.returncode,
        seconds=time.monotonic() - started,
        cpu_seconds=_cpu_seconds() - cpu_before,
        output=output,
        interrupted=interrupted,
    )


def _cpu_seconds() -> float:
    """Return the processor time of all processes that this one has started and waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_lines(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-600:]


def prepare(folder: Path, given: list[Path]) -> None:
    """Write the files that the pages assume."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as drawn:
        scenes = digit_scenes.draw(Path(drawn).absolute(), train=64, val=16).parent
        for name in ("my", "moved"):
            shutil.copytree(scenes, folder / name)
    pages = ("README.md", "docs/operators.md", "docs/spaces.md")
    readme, operators, spaces = ((ROOT / page).read_text(encoding="utf-8") for page in pages)
    files = {
        "mine.yaml": _block(readme, "yaml"),
        "edge.yaml": _block(spaces[spaces.index("## Several spaces") :], "yaml"),
        "my_ops.py": _block(operators, "python"),
        "faster.yaml": _block(operators, "yaml"),
        "article.yaml": _article(),
        "fork.py": forked.FORK,
        "forked.yaml": forked.MODEL,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "model.yaml").write_text(_article(), encoding="utf-8")
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    for path in given:
        (folder / path.name).write_bytes(path.read_bytes())
    _checkpoint(folder / CHECKPOINT)


def _block(page: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)
    if found is None:
        raise SystemExit(f"no {language} block on the page")
    return found.group(1)


def _article() -> str:
    """Return a model file as articles print them: in YOLOv5's format, with a module of another repository."""
    return """\
nc: 2
anchors: 3
depth_multiple: 0.33
width_multiple: 0.25
backbone:
  - [-1, 1, Conv, [64, 6, 2, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C3, [128]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 6, C3_UIB, [256]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 9, C3, [512]]
  - [-1, 1, Conv, [1024, 3, 2]]
  - [-1, 3, C3, [1024]]
  - [-1, 1, SPPF, [1024, 5]]
head:
  - [-1, 1, Conv, [512, 1, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]
  - [-1, 1, Conv, [256, 1, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 3, C3, [256, False]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 14], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 10], 1, Concat, [1]]
  - [-1, 3, C3, [1024, False]]
  - [[17, 20, 23], 1, Detect, [nc, anchors]]
"""


def _checkpoint(path: Path) -> None:
    """Write a checkpoint in Ultralytics' format, with random weights: nothing is downloaded."""
    YOLO("yolov9t.yaml").save(path)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="*", help="pages, relative to the project; all of them if left out")
    parser.add_argument("--folder", type=Path, help="where to run; a new temporary folder if left out")
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="copied into it: tables for `nas bench`")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(options())
