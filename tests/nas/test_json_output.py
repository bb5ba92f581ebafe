"""`--format json` of every command: stdout has JSON and nothing else, whatever libraries print meanwhile."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from typer.core import TyperGroup

from nas.cli import app

RUN = """
import json, os, sys
from nas.cli import _quieten, app
from nas.workflows import outlook
from search_spaces.errors import EstimateError

def untimed(*_, **__):
    raise EstimateError("not timed in this test")

outlook.measure = untimed
_quieten()
for number, command in enumerate(sys.argv[1:]):
    sys.stdout.flush()
    os.dup2(os.open(f"{number}.out", os.O_WRONLY | os.O_CREAT), 1)
    print(f"nas {command}", file=sys.stderr, flush=True)
    sys.argv[:] = ["nas", *command.split(), "--format", "json"]
    try:
        app(sys.argv[1:])
    except SystemExit as ended:
        sys.stdout.flush()
        assert ended.code in (0, 1), f"nas {command}: status {ended.code}"
"""
"""Runs commands in one process, which imports PyTorch once. Stdout is taken where C code writes to it, too."""

DEVICE = "--space space.yaml --deploy-size 64 --classes 2"
TINY = "--space space.yaml --data data/data.yaml --image-size 64 --deploy-size 64 --batch 4 --workers 1"
WITHOUT_TRAINING = (
    "status",
    "status golden-data",
    "pareto golden-data",
    "trials golden-data",
    "base golden-data",
    "watch golden-data --once",
    "fsck golden-data",
    "pack golden-data",
    "unpack golden-data.tar.gz --study copied",
    "compare golden-data copied",
    "effects golden-data",
    "trust golden-data",
    "trust golden-data --measure --dry-run",
    "confirm golden-data --dry-run",
    "ablate golden-data --trial 1 --dry-run",
    "export golden-data --trial 2",
    "sync golden-data",
    "clean golden-data",
    f"search {TINY} --dry-run",
    "cost tiny.yaml",
    "models",
    "check --operator SimAM",
    "data data/data.yaml",
    "doctor",
    "spaces",
    "spaces show space.yaml",
    "bench table.csv --trials 3 --repeats 1 --samplers random",
    "latency show",
    f"latency show {DEVICE} --device-name golden",
    f"latency predict {DEVICE} --device-name golden",
    "latency export exported.csv --device-name golden",
    "latency import exported.csv",
)
LATENCY = "--latency tiny --objectives map50_95,latency_ms"
WITH_TRAINING = (
    f"latency record {DEVICE} --device-name tiny",
    f"latency error {DEVICE} --device-name tiny --candidates 2",
    f"search {TINY} {LATENCY} --study tiny --trials 3 --epochs 30 --base-epochs 60",
    "latency front tiny",
    "resume tiny --trials 4",
    "confirm tiny --seeds 2 --workers 1",
    "ablate tiny --trial 1 --seeds 2 --workers 1",
    "reproduce tiny --trial 1",
    "export tiny --trial 0 --formats onnx,torchscript --check --standalone",
    "train tiny --trial 0 epochs=1 imgsz=64 batch=4 workers=0",
    "report tiny",
)


def with_json(command: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the commands that have `--format`."""
    if isinstance(command, TyperGroup):
        for word, further in command.commands.items():
            yield from with_json(further, f"{name} {word}".strip())
    elif any("--format" in one.opts for one in command.params):
        yield name


def run(folder: Path, commands: tuple[str, ...]) -> dict[str, str]:
    """Run the commands in a folder with studies, and return those whose output is no JSON, with it."""
    environment = {**os.environ, "NAS_HOME": str(folder)}
    environment.pop("NAS_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    printed = {command: (folder / f"{number}.out").read_text() for number, command in enumerate(commands)}
    return {command: text for command, text in printed.items() if not is_json(text, lines=command.startswith("watch"))}


def is_json(text: str, *, lines: bool) -> bool:
    """Return whether a text is one JSON document; `lines`: one in each line, as `nas watch` prints them."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        for document in text.splitlines() if lines else [text]:
            json.loads(document, parse_constant=refuse)
    except ValueError:
        return False
    return bool(text)


def test_every_command_is_among_them() -> None:
    named = set(with_json(typer.main.get_command(app)))
    commands = [f"{command} show" if command == "spaces" else command for command in WITHOUT_TRAINING + WITH_TRAINING]
    assert [name for name in named if not any(f"{command} ".startswith(f"{name} ") for command in commands)] == []


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        ("[]", False, True),
        ("", False, False),
        ("{}\n{}", False, False),
        ("{}\n{}", True, True),
        ('{"a": NaN}', False, False),
        ("note\n[]", False, False),
    ],
)
def test_what_is_no_json_is_found(text: str, lines: bool, expected: bool) -> None:
    assert is_json(text, lines=lines) == expected


def test_commands_without_training(extract_golden: Callable[[str, Path], Path], trained: Path, tmp_path: Path) -> None:
    folder = extract_golden("2026-11", tmp_path)
    (folder / "table.csv").write_bytes(trained.read_bytes())
    assert run(folder, WITHOUT_TRAINING) == {}


@pytest.mark.slow
def test_commands_that_train(extract_golden: Callable[[str, Path], Path], tmp_path: Path) -> None:
    assert run(extract_golden("2026-11", tmp_path), WITH_TRAINING) == {}
