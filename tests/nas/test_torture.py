"""Small forms of `benchmarks/torture.py`: searches, confirmations and machines are killed at random moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks" / "torture.py").is_file(), reason="benchmarks are not beside the tests"
)
needs_postgres = pytest.mark.skipif(
    not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")), reason="Debian's PostgreSQL is not installed"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--kills", "4", "--early", "1", "--seed", "3"), id="sqlite"),
        pytest.param(
            ("--kills", "4", "--early", "1", "--seed", "3", "--postgres"), id="postgresql", marks=needs_postgres
        ),
        pytest.param(("--kills", "4", "--machines", "2", "--seed", "1"), id="machines", marks=needs_postgres),
    ],
)
def test_random_kills_lose_and_double_nothing(options: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torture", *options, "--folder", str(tmp_path / "torture")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 problems" in done.stdout


BEFORE = ["begun 1 first", "saved 1 first", "stored 1 first", "begun 2 first", "saved 2 first"]


@pytest.mark.parametrize(
    ("after", "problems", "numbers"),
    [
        (["begun 2 second", "saved 2 second"], [], (2, 0, 1)),  # lost with its machine before it was stored
        (["begun 3 first"], [], (2, 1, 0)),
        (["begun 2 first"], ["epoch 2 of training t was saved on first, and trained there again"], (2, 1, 0)),
        (
            ["begun 1 second"],
            ["epoch 1 of training t was stored for all machines, and trained again on second"],
            (2, 1, 0),
        ),
        (
            ["begun 2 second", "saved 2 second differs"],
            ["epoch 2 of training t: other losses on second than before"],
            (2, 0, 1),
        ),
    ],
)
def test_epochs_that_machines_train_again_without_need_are_found(
    after: list[str], problems: list[str], numbers: tuple[int, int, int], tmp_path: Path
) -> None:
    from benchmarks.torture_checks import problems_of_machines_trace

    lines = []
    for each in [*BEFORE, *after]:
        event, epoch, machine, *differs = each.split()
        losses = {"box": float(epoch) + len(differs)} if event == "saved" else None
        line = {"event": event, "training": "t", "epoch": int(epoch), "machine": machine, "losses": losses}
        lines.append(json.dumps(line))
    (tmp_path / "trace").write_text("\n".join(lines))
    assert problems_of_machines_trace(tmp_path / "trace") == (problems, *numbers)
