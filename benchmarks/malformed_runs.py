"""Run a case of `benchmarks/malformed.py` in a process of its own, and find what is wrong with how it ended."""

import os
import re
import resource
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.malformed_cases import Case
from benchmarks.malformed_values import CANARY

_TRACEBACK = 99
_MEMORY = 6 * 2**30
_STATUS_1 = {"check", "latency", "doctor", "reproduce", "fsck"}
"""Commands that document status 1."""
_READ = {"status", "pareto", "trials", "effects", "compare", "watch", "clean", "spaces", "pack", "fsck"}
"""Commands that only read a study: `clean --dry-run`, `fsck` without `--repair`."""
_NOT_COMPARED = ("cache", "temporary", "runs/mlflow.db", "runs/.mlflow.db.lock", "runs/mlartifacts")
"""Beginnings of paths where every command may write."""
_OF_STUDY = ("runs/golden-holdout", "runs/.beginning.lock", "runs/.ultralytics")
"""Beginnings of paths where a command may write that does not only read: the study, and those derived from it."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*[mK]")
"""Colours and cleared lines, which Ultralytics prints while it trains."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a case ended: its status, what it printed, and what is wrong with that."""

    case: Case
    status: int
    seconds: float
    output: str
    problems: Sequence[str] = field(default_factory=tuple)


def snapshot(inputs: Path, words: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return kind, size and time of every file but in the cache and where a command may write: other studies', too."""
    reads = words[0] in _READ and "--repair" not in words
    beginnings = _NOT_COMPARED if reads else (*_NOT_COMPARED, *_OF_STUDY)
    endings = ("-shm", ".torchscript") if words[:2] == ("yolo", "export") else ("-shm",)
    found = {}
    for folder, folders, names in os.walk(inputs):
        here = Path(folder).relative_to(inputs)
        folders[:] = [name for name in folders if not str(here / name).startswith(beginnings)]
        for name in (*names, *folders):
            stat = (Path(folder) / name).lstat()
            is_result = name.endswith(endings) or (name.endswith("-wal") and not stat.st_size)
            if str(here / name).startswith(beginnings) or is_result:
                continue
            times = 0 if Path(folder, name).is_dir() else stat.st_mtime_ns
            found[str(here / name)] = (stat.st_mode, stat.st_size if times else 0, times)
    return found


def run(case: Case, inputs: Path, limit: float) -> Result:
    """Run a case's command in a process of its own, forked from this one."""
    before, began = snapshot(inputs, case.words), time.monotonic()
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        _in_child(case.words, inputs, writer)
    os.close(writer)
    output, ended = _read(reader, began + limit)
    if not ended:
        with_group(process, signal.SIGKILL)
    _, waited = os.waitpid(process, 0)
    with_group(process, signal.SIGKILL)
    os.close(reader)
    status = os.waitstatus_to_exitcode(waited)
    text = output.decode("utf-8", "replace")
    problems = list(_problems(case, status, text, hung=not ended))
    after = snapshot(inputs, case.words)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    problems += [f"outside the study: {', '.join(changed[:5])}"] if changed else []
    return Result(case=case, status=status, seconds=time.monotonic() - began, output=text, problems=tuple(problems))


def with_group(process: int, number: int) -> None:
    """Send a signal to a process and all that it has started."""
    try:
        os.killpg(process, number)
    except ProcessLookupError:
        return


def _read(reader: int, until: float) -> tuple[bytes, bool]:
    """Return what a process prints, and whether it has ended in time."""
    parts = bytearray()
    while (left := until - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            part = os.read(reader, 1 << 16)
            if not part:
                return bytes(parts), True
            parts += part[: max(0, 10_000_000 - len(parts))]
    return bytes(parts), False


def _in_child(words: Sequence[str], inputs: Path, writer: int) -> NoReturn:
    os.setsid()
    for number in (1, 2):
        os.dup2(writer, number)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.closerange(3, 200)
    os.chdir(inputs)
    (inputs / "temporary").mkdir(exist_ok=True)
    os.environ |= {"NAS_CACHE": str(inputs / "cache"), "HOME": str(inputs), "TMPDIR": str(inputs / "temporary")}
    os.environ["MPLCONFIGDIR"] = str(inputs / "temporary")
    tempfile.tempdir = None
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    _forbid_network()
    sys.argv[:] = ["nas", *words]  # in place: Ultralytics has a reference to it
    status = _TRACEBACK
    try:
        from nas.cli import main  # noqa: PLC0415 - imported before the fork

        main()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 - it is what is looked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _forbid_network() -> None:
    stock = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            os.write(2, f"\nREACHED FOR THE NETWORK: {address}\n".encode())
            raise ConnectionRefusedError
        stock(self, address)

    def resolve(host: Any, *_arguments: Any, **_options: Any) -> NoReturn:
        os.write(2, f"\nREACHED FOR THE NETWORK: {host}\n".encode())
        raise socket.gaierror

    def connect_by_libpq(address: str = "", **options: Any) -> NoReturn:
        os.write(2, f"\nREACHED FOR THE NETWORK: {address} {options}\n".encode())
        raise psycopg.OperationalError("no network here")

    socket.socket.connect = connect  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = resolve
    with suppress(ImportError):  # libpq does not connect through Python's sockets
        import psycopg  # noqa: PLC0415 - an extra

        psycopg.connect = connect_by_libpq  # type: ignore[assignment]


def _problems(case: Case, status: int, output: str, *, hung: bool) -> list[str]:
    problems = []
    if hung:
        return ["no end"]
    if status == _TRACEBACK or "Traceback (most recent call last)" in output or "probably ours" in output:
        last = [line for line in output.strip().splitlines() if line.strip()][-1:]
        problems.append(f"traceback: {last[0][:200] if last else ''}")
    elif status not in {0, 2} and not (status == 1 and case.words[:1] and case.words[0] in _STATUS_1):
        problems.append(f"status {status}")
    if "REACHED FOR THE NETWORK" in output:
        problems.append("network")
    if Path(CANARY).exists():
        problems.append("executed text")
    if status == 2 and not output.strip():
        problems.append("status 2 without a message")
    shown = _COLOURS.sub("", output) if case.words[:1] in {("train",), ("yolo",)} else output
    control = {character for character in shown if ord(character) < 32 or 0x7F <= ord(character) < 0xA0} - set("\n\t\r")
    if control:
        problems.append(f"control characters {sorted(control)!r}")
    return problems
