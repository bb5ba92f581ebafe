"""Malformed inputs under every command that reads them: no traceback, no hang, no file elsewhere, one status.

    python benchmarks/malformed.py [--count 1000] [--seed 0] [--jobs 2] [--only KIND] [--case N] [--verbose]

A valid study, space, model file, data set, latency table, bench table and checkpoint come from `tests/golden`. Each
case changes one of them (`malformed_inputs.py`), or a value of a command line, and runs one command on it in a process
of its own, with a limit of time and memory. Reported is every case with

- a traceback, or an end by a signal;
- no end within `--limit` seconds;
- a file made, changed or deleted outside the study's folder and the cache, or a mark of executed text;
- an attempt to reach the network;
- a status other than 0 (the change did no harm), 2, or 1 where the command documents it;
- status 2 without a message, or control characters in the output.

Exit status 1 if there is one. `--case N` runs one case again and prints what it printed.
"""

import argparse
import os
import random
import resource
import select
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import malformed_inputs

ROOT = Path(__file__).parents[1]
_ARCHIVE = "2026-11-holdout"
_ORIGIN = "/tmp/golden2"  # noqa: S108 - where the archive was made
_TRACEBACK = 99
_MEMORY = 6 * 2**30

STUDY = "runs/golden-holdout"
_IN_STUDY = (
    *("study.json", "outcome", "holdout.json", "tracking.json", "space.yaml", "study.db", "records.jsonl"),
    *("modules/my_ops.py", "supervisor.lock"),
)
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "space": (
        ("spaces", "FILE"),
        ("search", "--space", "FILE", "--dry-run", "--data", "data/data.yaml", "--epochs", "1"),
    ),
    "model": (
        ("cost", "FILE", "--image-size", "64"),
        ("spaces", "derive", "FILE"),
        ("latency", "predict", "FILE", "--device-name", "golden", "--deploy-size", "64"),
    ),
    "data": (("data", "FILE"), ("search", "--space", "space.yaml", "--dry-run", "--data", "FILE", "--epochs", "1")),
    "study": (
        ("status", "--runs", "runs", "golden-holdout"),
        ("status", "--runs", "runs"),
        ("pareto", "--runs", "runs", "golden-holdout"),
        ("trials", "--runs", "runs", "golden-holdout"),
        ("effects", "--runs", "runs", "golden-holdout"),
        ("trust", "--runs", "runs", "golden-holdout"),
        ("base", "--runs", "runs", "golden-holdout"),
        ("confirm", "--runs", "runs", "golden-holdout", "--seeds", "2"),
        ("export", "--runs", "runs", "golden-holdout", "--trial", "1"),
        ("reproduce", "--runs", "runs", "golden-holdout", "--trial", "1"),
        ("clean", "--runs", "runs", "golden-holdout", "--dry-run"),
        ("spaces", "refine", "golden-holdout", "--runs", "runs"),
        ("resume", "--runs", "runs", "golden-holdout", "--workers", "1"),
    ),
    "latency": (
        ("latency", "import", "FILE"),
        (
            "latency",
            "show",
            "--space",
            "space.yaml",
            "--device-name",
            "golden",
            "--classes",
            "2",
            "--deploy-size",
            "64",
        ),
    ),
    "bench": (("bench", "FILE", "--repeats", "2", "--trials", "5", "--samplers", "random"),),
    "checkpoint": (
        ("yolo", "predict", "model=FILE", "source=data/images/val/7.png", "save=False"),
        ("search", "--space", "v8", "--dry-run", "--weights", "FILE", "--epochs", "1"),
        ("cost", "FILE"),
    ),
}
"""Commands that read each kind of input; `FILE` is the changed file."""

_LINES: tuple[tuple[str, ...], ...] = (
    ("search", "--dry-run", "--space", "space.yaml", "--data", "data/data.yaml"),
    ("cost", "tiny.yaml"),
    ("data", "data/data.yaml"),
    ("spaces", "v9"),
    ("bench", "table.csv", "--repeats", "1", "--trials", "2", "--samplers", "random"),
    ("latency", "predict", "tiny.yaml"),
    ("latency", "show"),
    ("export", "--runs", "runs", "golden-holdout", "--trial", "1"),
    ("pareto", "--runs", "runs", "golden-holdout"),
    ("trials", "--runs", "runs", "golden-holdout"),
    ("status", "--runs", "runs"),
    ("clean", "--runs", "runs", "golden-holdout", "--dry-run"),
    ("spaces", "derive", "tiny.yaml"),
    ("check", "--model", "tiny.yaml", "--operator", "UIB", "--space", "v9"),
    ("ui", "--host", "127.0.0.1"),
    ("models",),
)
_OPTIONS = (
    *[
        "--space",
        "--scale",
        "--data",
        "--holdout",
        "--weights",
        "--trials",
        "--timeout",
        "--trial-timeout",
        "--trial-memory",
        "--workers",
        "--device",
    ],
    *[
        "--preset",
        "--epochs",
        "--base-epochs",
        "--image-size",
        "--batch",
        "--precision",
        "--seed",
        "--eta",
        "--first-rung",
        "--seeds",
        "--objectives",
    ],
    *[
        "--deploy-size",
        "--latency",
        "--reward",
        "--target-gflops",
        "--target-latency",
        "--sampler",
        "--max-gflops",
        "--max-params",
    ],
    *[
        "--max-latency",
        "--study",
        "--storage",
        "--runs",
        "--refine",
        "--format",
        "--classes",
        "--modules",
        "--trial",
        "--best",
        "--out",
        "--cost",
    ],
    *[
        "--samplers",
        "--repeats",
        "--noise",
        "--permuted",
        "--figure",
        "--jobs",
        "--runtime",
        "--threads",
        "--device-name",
        "--sample",
        "--port",
        "--host",
    ],
    *["--operator", "--model", "--margin", "--top"],
)
_STATUS_1 = {"check", "latency", "doctor", "reproduce"}
"""Commands that document status 1."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One malformed input and the command that reads it.

    Attributes:
        number: with the seed it determines everything else.
        kind: of input.
        change: what was done to the input.
        words: of the command line.
    """

    number: int
    kind: str
    change: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a case ended: its status, what it printed, and what is wrong with that."""

    case: Case
    status: int
    seconds: float
    output: str
    problems: Sequence[str] = field(default_factory=tuple)


def prepare(folder: Path) -> None:
    """Write the valid inputs into a folder."""
    with tarfile.open(ROOT / "tests" / "golden" / f"{_ARCHIVE}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with tarfile.open(ROOT / "tests" / "golden" / "2026-11.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    inputs, older = folder / "inputs", folder / "2026-11"
    (folder / _ARCHIVE).rename(inputs)
    (inputs / "cache" / "latency").mkdir(parents=True)
    shutil.copy(older / "cache" / "latency" / "golden.csv", inputs / "cache" / "latency" / "golden.csv")
    shutil.copy(older / "cache" / "latency" / "golden.csv", inputs / "latency.csv")
    shutil.copy(older / "runs" / "golden-data" / "base" / "weights.pt", inputs / "weights.pt")
    for trial in ("base", "trials/0001"):
        shutil.copy(older / "runs" / "golden-data" / trial / "weights.pt", inputs / STUDY / trial / "weights.pt")
    shutil.rmtree(older)
    _in_fork(lambda: _make_tracking(inputs / "runs"))
    (inputs / "outside").mkdir()
    (inputs / "outside" / "stranger").write_text("name: stranger\n", encoding="utf-8")
    rows = [
        f"yolo5d{d}w{w}_{r},0.8,0.7,0.75,0.{r},0.{r},0.{r}"
        for d in ("1", "33")
        for w in ("5", "1")
        for r in (160, 224, 288)
    ]
    header = "model_name,precision,recall,mAP_0.5,mAP_0.5:0.95,pi4_ort_latency,ov_latency"
    (inputs / "table.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def _make_tracking(runs: Path) -> None:
    """Make MLflow's database, which takes half a minute on one core."""
    from nas.addresses import sqlite  # noqa: PLC0415 - in a process of its own
    from nas.tracking.database import create_database  # noqa: PLC0415 - imports MLflow

    create_database(sqlite(runs / "mlflow.db"))


def _in_fork(work: Callable[[], None]) -> None:
    """Do something in a process of its own, whose imports no case needs.

    Raises:
        SystemExit: it has failed.
    """
    if (process := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(process, 0)[1]:
        sys.exit("the valid inputs cannot be made")


def settle(inputs: Path) -> None:
    """Write a copy's own place into its files, which name the place where they were made."""
    for path in (path for pattern in ("*.json", "*.yaml") for path in inputs.rglob(pattern)):
        text = path.read_text(encoding="utf-8")
        if _ORIGIN in text:
            path.write_text(text.replace(_ORIGIN, str(inputs)), encoding="utf-8")


def make(number: int, seed: int, inputs: Path, only: str = "") -> Case:
    """Change one input of a copy of the valid ones; the current folder is the copy."""
    draw = random.Random(f"{seed} {number}")
    kinds = (
        "space",
        "space",
        "model",
        "model",
        "data",
        "data",
        "study",
        "study",
        "study",
        "latency",
        "bench",
        "checkpoint",
        "line",
        "line",
    )
    kind = only or draw.choice(kinds)
    if kind == "line":
        return _line(number, draw)
    command = draw.choice(READERS[kind])
    if kind == "study":
        name = draw.choice(_IN_STUDY)
        trial = draw.choice(("base", "trials/0000", "trials/0001", "trials/0002"))
        file = draw.choice(("outcome.json", "progress.jsonl", "model.yaml", "judged.npz", "weights.pt", "lock"))
        path = inputs / STUDY / (f"{trial}/{file}" if name == "outcome" else name)
        if not path.is_file():
            path = inputs / STUDY / "study.json"
        editing = malformed_inputs.edit_text if path.suffix == ".py" else None
        change = editing(draw, path) if editing else malformed_inputs.edit(draw, path)
        return Case(number=number, kind=kind, change=f"{path.relative_to(inputs)}: {change}", words=command)
    path = (
        inputs
        / {
            "space": "space.yaml",
            "model": draw.choice(("tiny.yaml", f"{STUDY}/trials/0001/model.yaml")),
            "data": "data/data.yaml",
            "latency": "latency.csv" if "FILE" in command else "cache/latency/golden.csv",
            "bench": "table.csv",
            "checkpoint": "weights.pt",
        }[kind]
    )
    if kind == "data" and draw.random() < 0.25:
        changed = draw.choice(sorted((inputs / "data").rglob("*.png")) + sorted((inputs / "data").rglob("*.txt")))
        change = f"{changed.relative_to(inputs)}: {malformed_inputs.edit(draw, changed)}"
    else:
        change = f"{path.relative_to(inputs)}: {malformed_inputs.edit(draw, path)}"
    words = tuple(word.replace("FILE", str(path.relative_to(inputs))) for word in command)
    return Case(number=number, kind=kind, change=change, words=words)


def _line(number: int, draw: random.Random) -> Case:
    words = list(draw.choice(_LINES))
    for _ in range(draw.choice((1, 1, 2, 3))):
        value = str(draw.choice(malformed_inputs.SCALARS)).replace("\0", draw.choice(("", "?")))
        kind = draw.choice(("option", "option", "option", "argument", "equals", "lone"))
        match kind:
            case "option":
                words += [draw.choice(_OPTIONS), value]
            case "equals":
                words.append(f"{draw.choice(_OPTIONS)}={value}")
            case "lone":
                words.append(draw.choice((draw.choice(_OPTIONS), value)))
            case _:
                words[draw.randrange(len(words))] = value
    if "ui" in words[:1] or "search" in words[:1]:
        words += ["--no-such-option"] if words[0] == "ui" else ["--dry-run"]  # neither serves nor trains
    return Case(number=number, kind="line", change="", words=tuple(words))


def snapshot(inputs: Path) -> dict[str, tuple[int, int, int]]:
    """Return kind, size and time of every file outside the study, the cache and what a command may write."""
    found = {}
    for folder, folders, names in os.walk(inputs):
        here = Path(folder).relative_to(inputs)
        folders[:] = [name for name in folders if here / name not in {Path("runs"), Path("cache"), Path("temporary")}]
        for name in (*names, *folders):
            stat = (Path(folder) / name).lstat()
            times = 0 if Path(folder, name).is_dir() else stat.st_mtime_ns
            found[str(here / name)] = (stat.st_mode, stat.st_size if times else 0, times)
    return found


def run(case: Case, inputs: Path, limit: float) -> Result:
    """Run a case's command in a process of its own, forked from this one."""
    before, began = snapshot(inputs), time.monotonic()
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
    after = snapshot(inputs)
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

    socket.socket.connect = connect  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = resolve


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
    if Path(malformed_inputs.CANARY).exists():
        problems.append("executed text")
    if status == 2 and not output.strip():
        problems.append("status 2 without a message")
    control = {character for character in output if ord(character) < 32 or 0x7F <= ord(character) < 0xA0} - set(
        "\n\t\r"
    )
    if control:
        problems.append(f"control characters {sorted(control)!r}")
    return problems


def _preload() -> None:
    """Import once what every case needs; processes are forked from this one."""
    os.environ |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "COLUMNS": "200"}
    os.environ |= {"YOLO_CONFIG_DIR": tempfile.mkdtemp(), "NAS_NO_CACHE": "1"}
    import optuna  # noqa: F401, PLC0415
    import torch  # noqa: PLC0415
    import ultralytics.cfg  # noqa: PLC0415
    import ultralytics.data.utils  # noqa: PLC0415
    import ultralytics.nn.tasks  # noqa: F401, PLC0415

    import nas.cli  # noqa: F401, PLC0415
    from nas.tracking import tracker  # noqa: F401, PLC0415
    from nas.workflows import begin, running  # noqa: F401, PLC0415
    from search_spaces import build, space_file  # noqa: F401, PLC0415
    from trials.costing import cost  # noqa: F401, PLC0415

    torch.set_num_threads(1)


def share(numbers: Sequence[int], options: argparse.Namespace, writer: int) -> None:
    """Run some of the cases; write a line for each to a pipe."""
    with tempfile.TemporaryDirectory(prefix="malformed-") as temporary:
        folder = Path(temporary)
        prepare(folder)
        for number in numbers:
            inputs = folder / "case"
            _remove(inputs)
            shutil.copytree(folder / "inputs", inputs, symlinks=True)
            settle(inputs)
            os.chdir(inputs)
            case = make(number, options.seed, inputs, options.only)
            result = run(case, inputs, options.limit)
            os.write(writer, repr(result_line(result)).encode() + b"\n")
            os.chdir(folder)


def result_line(result: Result) -> tuple[int, str, str, str, int, float, tuple[str, ...], str]:
    """Return a result as a tuple of plain values."""
    case = result.case
    shown = " ".join(repr(word) if not word.isascii() or " " in word else word for word in case.words)
    return (
        case.number,
        case.kind,
        case.change,
        shown,
        result.status,
        result.seconds,
        tuple(result.problems),
        result.output[-6000:],
    )


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def main(options: argparse.Namespace) -> int:
    _preload()
    numbers = [options.case] if options.case is not None else list(range(options.count))
    jobs = min(options.jobs, len(numbers))
    readers = {}
    for job in range(jobs):
        reader, writer = os.pipe()
        if (process := os.fork()) == 0:
            os.close(reader)
            try:
                share(numbers[job::jobs], options, writer)
            except BaseException:  # noqa: BLE001 - the parent counts the results
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writer)
        readers[os.fdopen(reader, encoding="utf-8")] = process
    statuses: Counter[tuple[str, int]] = Counter()
    bad = 0
    while readers:
        for file in select.select(list(readers), [], [])[0]:
            line = file.readline()
            if not line:
                os.waitpid(readers.pop(file), 0)
                continue
            number, kind, change, words, status, seconds, problems, output = eval(line, {"nan": float("nan")})  # noqa: S307 - our own repr
            statuses[kind, status] += 1
            if problems or options.verbose or options.case is not None:
                bad += bool(problems)
                print(
                    f"case {number}: {kind}, {change}\n    nas {words}\n    status {status}, {seconds:.1f} s",
                    flush=True,
                )
                for problem in problems:
                    print(f"    PROBLEM {problem}")
                if options.verbose or options.case is not None:
                    print("    | " + output.strip().replace("\n", "\n    | "))
    total = sum(statuses.values())
    for kind in sorted({kind for kind, _ in statuses}):
        counts = ", ".join(
            f"status {status}: {count}" for (of, status), count in sorted(statuses.items()) if of == kind
        )
        print(f"{kind}: {counts}")
    print(f"{total} cases of {len(numbers)}, {bad} with a problem")
    return int(bool(bad) or total != len(numbers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a case")
    parser.add_argument("--only", default="", choices=["", "line", *READERS])
    parser.add_argument("--case", type=int)
    parser.add_argument("--verbose", action="store_true")
    sys.exit(main(parser.parse_args()))
