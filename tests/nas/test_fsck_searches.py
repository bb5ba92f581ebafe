"""Studies of real processes are checked: killed with -9, repaired, resumed; and studies of older versions."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas import html_page
from nas.cli import app
from nas.workflows.fsck import check

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

NAS = "import sys; from nas.cli import main; sys.argv[0] = 'nas'; main()"


@pytest.fixture(autouse=True)
def _no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "page", lambda *_, **__: "<html>")  # else five megabytes a time


def found_in(folder: Path) -> list[str]:
    return [f"{finding.address}: {finding.problem}" for each in check(folder) for finding in each.findings]


def test_finished_study_of_an_older_version_lacks_what_its_archive_left_out(
    extract_golden: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    folder = extract_golden("2026-11-holdout", tmp_path)
    assert found_in(folder / "runs/golden-holdout") == [
        "golden-holdout/trials/0000/weights.pt: missing, and the trial is a best one",
        "golden-holdout/trials/0002/weights.pt: missing, and the trial is a best one",
        "golden-holdout in MLflow: has none of this study's runs",
        "golden-holdout-confirm in MLflow: has none of this study's runs",
    ]


def test_killed_study_of_an_older_version_is_repaired(
    extract_golden: Callable[[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = extract_golden("2026-11", tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    assert found_in(folder / "runs/golden-data") == [
        "golden-data/trials/0003: RUNNING in Optuna, but no process works on it",
        "golden-data in MLflow: has none of this study's runs",
    ]
    result = CliRunner().invoke(app, ["fsck", "golden-data", "--repair", "--runs", str(folder / "runs")])
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    assert found_in(folder / "runs/golden-data") == []


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NAS, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_killed_study_is_found_repaired_and_after_resuming_clean(
    extract_golden: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    folder = extract_golden("2026-11", tmp_path)
    options = ["--epochs", "8", "--base-epochs", "4", "--image-size", "64", "--deploy-size", "64", "--batch", "4"]
    search = ["search", "--space", folder / "space.yaml", "--data", folder / "data/data.yaml", "--study", "s", *options]
    command = [sys.executable, "-c", NAS, *map(str, search), "--trials", "4", "--workers", "1"]
    study = tmp_path / "runs/nas/s"
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        until = time.monotonic() + 500
        while not (study / "trials/0001/progress.jsonl").is_file():
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    while json.loads(run("status", "s", "--format", "json", cwd=tmp_path).stdout)[0]["problem"]:
        time.sleep(0.5)
    time.sleep(5)  # workers end with their supervisor
    found = run("fsck", "s", cwd=tmp_path)
    assert found.returncode == 1, found.stderr
    assert "RUNNING" in found.stdout
    assert run("fsck", "s", "--repair", cwd=tmp_path).returncode == 0
    assert run("resume", "s", cwd=tmp_path).returncode == 0
    again = run("fsck", "s", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "")
