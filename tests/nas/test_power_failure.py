"""Contents of the disk after a power failure, by the calls that the kernel gets from a real search.

A file that is put in place by renaming may be empty after a power failure unless it was flushed to the disk (fsync)
before; and neither it nor a new folder needs to be there unless the folder that names it was flushed after.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nas.study.study import Study

CALLS = "rename,renameat,renameat2,mkdir,mkdirat,fsync,fdatasync"
SEARCH = """\
name: tiny
base: yolov5n.yaml
slots:
  - at: {host: C3}
    choices: {UIB: {expansion: [1, 2]}}
"""
LATER_WHOLE = {"checkpoint.bin"}
"""Files that are not flushed when they are put in place: a checksum tells, and the next write waits for this one."""

_LINE = re.compile(r"(?P<thread>\d+) +(?P<call>\w+)\((?P<arguments>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. (?P<call>\w+) resumed>(?P<rest>.*)")
_UNFINISHED = " <unfinished ...>"

Call = tuple[str, str, tuple[Path, ...]]
"""Thread, name and paths of a call that has succeeded."""


def calls(trace: str) -> Iterator[Call]:
    """Yield the calls of a trace of `strace -f -y` in the order in which they have ended."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if resumed := _RESUMED.fullmatch(line):
            line = begun.pop(resumed["thread"]) + resumed["rest"]  # noqa: PLW2901 - the whole line
        found = _LINE.fullmatch(line)
        if found and line.endswith(_UNFINISHED):
            begun[found["thread"]] = line.removesuffix(_UNFINISHED)
        elif found and line.endswith(" = 0"):
            paths = re.findall(r'"(/[^"]*)"|\d+<(/[^>]*)>', found["arguments"])
            yield found["thread"], found["call"], tuple(Path(named or opened) for named, opened in paths)


def not_durable(calls: Sequence[Call], inside: Path) -> Iterator[str]:
    """Yield what a power failure may take of the files that were put in place in a folder.

    Args:
        calls: in order.
        inside: the folder; others hold what can be computed again.
    """
    for index, (thread, call, paths) in enumerate(calls):
        target = paths[-1]
        if not call.startswith(("rename", "mkdir")) or inside not in (target, *target.parents):
            continue
        before = [found for _, name, found in calls[:index] if "sync" in name]
        after = [(by, found) for by, name, found in calls[index + 1 :] if "sync" in name]
        if call.startswith("mkdir"):
            if _has_files(calls, target) and not any(found == (target.parent,) for _, found in after):
                yield f"{target}: the folder that names it was not flushed after it was made"
            continue
        if target.name in LATER_WHOLE:
            continue
        if paths[:1] not in before:
            yield f"{target}: renamed before it was flushed"
        following = next((found for by, found in after if by == thread), None)
        if following != (target.parent,):
            yield f"{target}: its folder was not flushed next"


def _has_files(calls: Sequence[Call], folder: Path) -> bool:
    """Return whether a file was put in place somewhere in a folder."""
    return any(call.startswith("rename") and folder in paths[-1].parents for _, call, paths in calls)


WHOLE = """\
7 mkdir("/runs/s", 0777)            = 0
7 fsync(3</runs>)                   = 0
7 fsync(3</runs/s/.a.json.tmp>)     = 0
8 fsync(4</runs/s/other> <unfinished ...>
7 rename("/runs/s/.a.json.tmp", "/runs/s/a.json") = 0
8 <... fsync resumed>)              = 0
7 fsync(3</runs/s>)                 = 0
"""


@pytest.mark.parametrize(
    ("without", "problem"),
    [
        ("7 fsync(3</runs/s/.a.json.tmp>)     = 0\n", "/runs/s/a.json: renamed before it was flushed"),
        ("7 fsync(3</runs/s>)                 = 0\n", "/runs/s/a.json: its folder was not flushed next"),
        (
            "7 fsync(3</runs>)                   = 0\n",
            "/runs/s: the folder that names it was not flushed after it was made",
        ),
    ],
)
def test_each_missing_flush_is_found_in_a_trace(without: str, problem: str) -> None:
    assert list(not_durable(list(calls(WHOLE)), Path("/runs"))) == []
    assert without in WHOLE
    assert list(not_durable(list(calls(WHOLE.replace(without, ""))), Path("/runs"))) == [problem]


def test_flush_that_has_not_ended_does_not_count() -> None:
    trace = WHOLE.replace("7 fsync(3</runs/s/.a.json.tmp>)     = 0", "9 fsync(3</runs/s/.a.json.tmp> <unfinished ...>")
    trace += "9 <... fsync resumed>) = 0\n"
    assert list(not_durable(list(calls(trace)), Path("/runs"))) == ["/runs/s/a.json: renamed before it was flushed"]


def test_every_commit_of_a_study_is_flushed(make_study: Callable[..., Study]) -> None:
    """SQLite in WAL mode with `synchronous` NORMAL would lose the last trials, though not the file."""
    with make_study().storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.slow
def test_search_and_export_leave_nothing_that_a_power_failure_takes(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    runs, trace = tmp_path / "runs", tmp_path / "trace"
    (tmp_path / "tiny.yaml").write_text(SEARCH)
    small = ["--epochs", "2", "--base-epochs", "2", "--image-size", "64", "--deploy-size", "64", "--device", "cpu"]
    search = ["search", "--space", "tiny.yaml", "--study", "s", "--trials", "2", *small, "--workers", "1", "--no-cache"]
    found: list[Call] = []
    for command in (search, ["export", "s", "--trial", "0"]):
        traced = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-e", f"trace={CALLS}", "-o", str(trace)]
        nas = [sys.executable, "-c", "from nas.cli import main; main()", *command, "--runs", str(runs)]
        environment = {**os.environ, "NAS_CACHE": str(tmp_path / "cache")}
        subprocess.run([*traced, *nas], cwd=tmp_path, env=environment, check=True, capture_output=True)
        found += calls(trace.read_text())
    copies = runs / "mlartifacts"  # which MLflow writes, and does not flush
    assert list(not_durable([call for call in found if copies not in call[-1][-1].parents], runs)) == []
    study = runs / "s"
    placed = [paths[-1] for _, call, paths in found if call.startswith("rename")]
    for training in (study / "base", study / "trials" / "0000", study / "trials" / "0001"):
        outcome = _index(found, "rename", training / "outcome.json")
        assert _index(found, "fsync", training / "progress.jsonl") < outcome  # what it says of the epochs
        assert _index(found, "rename", training / "weights.pt") < outcome
        assert any(paths == (study / "study.db-wal",) for _, _, paths in found[outcome:])  # the trial's end in Optuna
    assert study / "study.json" in placed
    assert study / "export" / "trial-0000" / "weights.pt" in placed


def _index(found: Sequence[Call], name: str, path: Path) -> int:
    """Return the place of the first call of a name that ends with a path."""
    return next(
        index for index, (_, call, paths) in enumerate(found) if call.startswith(name) and paths[-1:] == (path,)
    )
