"""Cases of `benchmarks/malformed.py`: valid inputs, one of them changed, and the command that reads it."""

import os
import random
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import malformed_inputs
from benchmarks.malformed_commands import KINDS, LINES, OPTIONS, READERS, YOLO_ARGUMENTS, YOLO_LINES
from benchmarks.malformed_documents import edit_settings
from benchmarks.malformed_files import edit_text
from benchmarks.malformed_values import ADDRESSES, SCALARS

ROOT = Path(__file__).parents[1]
_ARCHIVE = "2026-11-holdout"
_ORIGIN = "/tmp/golden2"  # noqa: S108 - where the archive was made
STUDY = "runs/golden-holdout"
_IN_STUDY = (
    *("study.json", "outcome", "holdout.json", "tracking.json", "space.yaml", "study.db", "records.jsonl"),
    *("modules/my_ops.py", "supervisor.lock"),
)
_SLOW, _SPARED = {"resume", "confirm", "train", "sync", "report"}, 0.7
"""Commands that take half a minute, and the share of their cases that another command gets."""
_ELSEWHERE = 0.15
"""Share of the cases of studies in which `study.json` names a database or MLflow elsewhere."""
_SETTINGS = 0.6
"""Share of the checkpoints of a training in which its settings are changed, and nothing else."""


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


def prepare(folder: Path, *, kinds: Sequence[str]) -> None:
    """Write the valid inputs into a folder.

    Args:
        kinds: of inputs that are changed; only for some of them MLflow's database and a checkpoint are made.
    """
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
    shutil.copytree(inputs / STUDY, inputs / "runs" / "other")
    shutil.rmtree(older)
    if "study" in kinds:
        _in_fork(lambda: _make_tracking(inputs / "runs"))
    if {"yolo-settings", "yolo-checkpoint", "yolo-line"} & {*kinds}:
        (inputs / "temporary").mkdir()
        shutil.copy(inputs / "weights.pt", inputs / "temporary" / "weights.pt")
        _in_fork(lambda: _make_training_files(inputs))
    _in_fork(lambda: _pack(inputs))
    (inputs / "outside").mkdir()
    shutil.copy(inputs / STUDY / "study.db", inputs / "outside" / "trials.db")
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


def _make_training_files(inputs: Path) -> None:
    """Make a file of all settings of Ultralytics, and the checkpoint of a training with which it can go on."""
    from ultralytics.utils import DEFAULT_CFG_PATH, LOGGER  # noqa: PLC0415 - reads settings where it is imported

    from nas.workflows import yolo_command  # noqa: PLC0415 - in a process of its own, which it leaves changed

    LOGGER.setLevel("ERROR")
    shutil.copy(DEFAULT_CFG_PATH, inputs / "args.yaml")
    os.chdir(inputs)
    os.environ["NAS_CACHE"] = str(inputs / "cache")
    project = inputs.with_name("training")
    short = [word.replace("PROJECT", str(project)) for word in YOLO_LINES[0][4:]]
    yolo_command.run([*YOLO_LINES[0][1:4], *short, "epochs=2", "save_period=1", "name=train"])
    shutil.copy(project / "train" / "weights" / "epoch0.pt", inputs / "temporary" / "last.pt")
    shutil.rmtree(project)


def _pack(inputs: Path) -> None:
    """Pack a copy of the study, which has a place, into an archive."""
    from nas.workflows.pack import pack  # noqa: PLC0415 - in a process of its own

    copy = inputs.with_name("packed")
    shutil.copytree(inputs, copy)
    settle(copy)
    pack(copy / STUDY, inputs / "study.tar.gz")
    shutil.rmtree(copy)


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


def make(number: int, seed: int, inputs: Path, only: Sequence[str] = ()) -> Case:
    """Change one input of a copy of the valid ones; the current folder is the copy."""
    draw = random.Random(f"{seed} {number}")
    kind = draw.choice(only or KINDS)
    if kind == "line":
        return _line(number, draw)
    if kind == "yolo-line":
        return _yolo_line(number, draw, inputs)
    command = draw.choice(READERS[kind])
    if command[0] in _SLOW and draw.random() < _SPARED:
        command = READERS[kind][0]
    if kind == "study" and draw.random() < _ELSEWHERE:
        key, address = draw.choice(("storage", "tracking")), draw.choice(ADDRESSES)
        change = malformed_inputs.set_value(inputs / STUDY / "study.json", key, address)
        return Case(number=number, kind=kind, change=change, words=command)
    if kind == "study":
        name = draw.choice(_IN_STUDY)
        trial = draw.choice(("base", "trials/0000", "trials/0001", "trials/0002"))
        file = draw.choice(("outcome.json", "progress.jsonl", "model.yaml", "judged.npz", "weights.pt", "lock"))
        path = inputs / STUDY / (f"{trial}/{file}" if name == "outcome" else name)
        if not path.is_file():
            path = inputs / STUDY / "study.json"
        editing = edit_text if path.suffix == ".py" else None
        change = editing(draw, path) if editing else malformed_inputs.edit(draw, path)
        return Case(number=number, kind=kind, change=f"{path.relative_to(inputs)}: {change}", words=command)
    files = {
        "space": "space.yaml",
        "model": draw.choice(("tiny.yaml", f"{STUDY}/trials/0001/model.yaml")),
        "data": "data/data.yaml",
        "latency": "latency.csv" if "FILE" in command else "cache/latency/golden.csv",
        "bench": "table.csv",
        "checkpoint": "weights.pt",
        "archive": "study.tar.gz",
        "settings": "args.yaml",
    }
    is_yolo_checkpoint = kind == "yolo-checkpoint"
    path = inputs / (_checkpoint(draw, command) if is_yolo_checkpoint else files[kind.removeprefix("yolo-")])
    if path.name == "last.pt" and draw.random() < _SETTINGS:
        change = f"{path.relative_to(inputs)}: {edit_settings(draw, path)}"
    elif kind.endswith("data") and draw.random() < 0.25:
        changed = draw.choice(sorted((inputs / "data").rglob("*.png")) + sorted((inputs / "data").rglob("*.txt")))
        change = f"{changed.relative_to(inputs)}: {malformed_inputs.edit(draw, changed)}"
    else:
        change = f"{path.relative_to(inputs)}: {malformed_inputs.edit(draw, path)}"
    words = tuple(word.replace("FILE", str(path.relative_to(inputs))) for word in _placed(command, inputs))
    return Case(number=number, kind=kind, change=change, words=words)


def _checkpoint(draw: random.Random, command: Sequence[str]) -> str:
    """Return which checkpoint a command reads: one with which a training goes on, or one of weights alone."""
    goes_on = any(word.startswith("resume") for word in command)
    return "temporary/last.pt" if goes_on else draw.choice(("temporary/last.pt", "temporary/weights.pt"))


def _placed(words: Sequence[str], inputs: Path) -> list[str]:
    """Return a command with the folder into which Ultralytics writes."""
    return [word.replace("PROJECT", str(inputs / "temporary" / "yolo")) for word in words]


def _yolo_line(number: int, draw: random.Random, inputs: Path) -> Case:
    """Change values of a command line of Ultralytics' command; a training stays one epoch long."""
    words = _placed(draw.choice(YOLO_LINES), inputs)
    for _ in range(draw.choice((1, 1, 2, 3))):
        key, value = draw.choice(YOLO_ARGUMENTS), str(draw.choice(SCALARS)).replace("\0", "")
        is_address = "://" in value  # what the user types may be fetched
        is_long = key in {"epochs", "time"} and value[:1].isdigit()
        value = "x" if is_address or is_long else value
        match draw.choice(("add", "add", "add", "lone", "place")):
            case "add":
                words.append(f"{key}={value}")
            case "lone":
                words.append(draw.choice((key, value)))
            case _:
                at = draw.randrange(2, len(words))
                words[at] = f"{words[at].partition('=')[0]}={value}"
    return Case(number=number, kind="yolo-line", change="", words=tuple(words))


def _line(number: int, draw: random.Random) -> Case:
    words = list(draw.choice(LINES))
    for _ in range(draw.choice((1, 1, 2, 3))):
        value = str(draw.choice(SCALARS)).replace("\0", draw.choice(("", "?")))
        kind = draw.choice(("option", "option", "option", "argument", "equals", "lone"))
        match kind:
            case "option":
                words += [draw.choice(OPTIONS), value]
            case "equals":
                words.append(f"{draw.choice(OPTIONS)}={value}")
            case "lone":
                words.append(draw.choice((draw.choice(OPTIONS), value)))
            case _:
                words[draw.randrange(len(words))] = value
    if "ui" in words[:1] or "search" in words[:1]:
        words += ["--no-such-option"] if words[0] == "ui" else ["--dry-run"]  # neither serves nor trains
    return Case(number=number, kind="line", change="", words=tuple(words))
