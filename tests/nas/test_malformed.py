"""Malformed inputs under the commands that read them: a small form of `benchmarks/malformed.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "malformed.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not part of the wheel")


def malformed(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--seed", "7", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_malformed_inputs_end_in_a_line(tmp_path: Path) -> None:
    done = malformed(tmp_path, "--count", "50", "--only", "space", "model", "data", "latency", "bench", "line")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 cases of 50, 0 with a problem" in done.stdout


@pytest.mark.slow
def test_malformed_studies_and_checkpoints_end_in_a_line(tmp_path: Path) -> None:
    done = malformed(tmp_path, "--count", "80", "--only", "study", "checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr
