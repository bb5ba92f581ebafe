"""Malformed inputs under the commands that read them: a small form of `benchmarks/malformed.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "malformed.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not part of the wheel")


def test_files_of_other_studies_and_of_a_study_that_is_only_read_are_compared(tmp_path: Path) -> None:
    from benchmarks.malformed_runs import snapshot

    files = {"golden-holdout/study.db", "golden-holdout/study.db-wal", "golden-holdout/study.db-shm", "other/study.db"}
    for name in files:
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).touch()

    def compared(*words: str) -> set[str]:
        found = {name.removeprefix("runs/") for name in snapshot(tmp_path, words)}
        return {name for name in found if "." in name}

    assert compared("resume", "golden-holdout") == {"other/study.db"}
    assert compared("fsck", "golden-holdout", "--repair") == {"other/study.db"}
    assert compared("status", "golden-holdout") == {"golden-holdout/study.db", "other/study.db"}
    (tmp_path / "runs" / "golden-holdout" / "study.db-wal").write_bytes(b"written")
    assert compared("status", "golden-holdout") == files - {"golden-holdout/study.db-shm"}


def malformed(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--seed", "7", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_malformed_inputs_end_in_a_line(tmp_path: Path) -> None:
    done = malformed(tmp_path, "--count", "24", "--only", "space", "model", "data", "latency", "bench", "line")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 cases of 24, 0 with a problem" in done.stdout


@pytest.mark.slow
def test_malformed_studies_and_checkpoints_end_in_a_line(tmp_path: Path) -> None:
    done = malformed(tmp_path, "--count", "80", "--only", "study", "checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_malformed_inputs_of_ultralytics_command_end_in_a_line(tmp_path: Path) -> None:
    kinds = ("yolo-model", "yolo-data", "yolo-settings", "yolo-checkpoint", "yolo-line")
    done = malformed(tmp_path, "--count", "60", "--only", *kinds)
    assert done.returncode == 0, done.stdout + done.stderr
