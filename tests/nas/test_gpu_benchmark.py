"""`benchmarks/gpu.py` on the CPU, in its small form: the script works, whatever a GPU would say."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_check, gpu_operators
from benchmarks.gpu_check import Place, Row

ROOT = Path(__file__).parents[2]


def rows_of(check: gpu_check.Check, folder: Path, seconds: float = 60.0) -> list[Row]:
    found: list[Row] = []
    gpu_check.run("it", check, Place(device="cpu", folder=folder), seconds, found.append)
    return found


def failing(_place: Place) -> Iterator[Row]:
    yield Row(what="first", value=1.0)
    raise ValueError("no such kernel")


def dying(_place: Place) -> Iterator[Row]:
    yield Row(what="first", value=1.0)
    os._exit(139)


def hanging(place: Place) -> Iterator[Row]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (place.folder / "child").write_text(str(child.pid), encoding="utf-8")
    yield Row(what="first", value=1.0)
    time.sleep(60)


def test_check_that_raises_leaves_its_rows_and_a_line(tmp_path: Path) -> None:
    first, error = rows_of(failing, tmp_path)
    assert (first.what, first.good, first.check) == ("first", None, "it")
    assert (error.what, error.good, error.note) == ("ValueError: no such kernel", False, "see it.log")
    assert "Traceback" in (tmp_path / "it.log").read_text()


def test_check_that_dies_leaves_its_rows_and_a_line(tmp_path: Path) -> None:
    first, death = rows_of(dying, tmp_path)
    assert (first.what, death.what, death.good) == ("first", "its process died with 139", False)


def test_check_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    first, limit = rows_of(hanging, tmp_path, seconds=3.0)
    assert (first.what, limit.what, limit.good) == ("first", "time limit", False)
    child = Path("/proc", (tmp_path / "child").read_text())
    for _ in range(100):
        if not child.exists() or "(zombie)" in (child / "status").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the process that the check has started still runs")


@pytest.mark.slow
def test_check_works_in_a_process_that_imports_everything_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: CUDA cannot be used in a forked process."""
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: spawn)
    (row,) = rows_of(gpu_operators.card, tmp_path)
    assert row.what.endswith(f"Python {sys.version.split()[0]}")


def test_report_is_written_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu.Report(tmp_path)
    report.show(Row(check="card", what="memory", value=139.8, unit="GiB"))
    report.show(Row.within("loss", float("nan"), 0.5))
    assert report.failed == 1
    stored = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row["what"] for row in stored] == ["memory", "loss"]
    assert (tmp_path / "gpu.md").read_text().splitlines()[2:] == [
        "| card | memory | 139.8 GiB |  |  |",
        "|  | loss | nan | NO | at most 0.5 |",
    ]
    assert "139.8 GiB" in capsys.readouterr().out


def test_check_without_time_is_not_good(tmp_path: Path) -> None:
    report = gpu.Report(tmp_path)
    gpu.check_all(["card"], Place(device="cpu", folder=tmp_path), 0.0, report)
    assert report.failed == 1


def test_limits_of_all_checks_add_up_to_eight_minutes() -> None:
    assert sum(check.seconds for check in gpu.CHECKS.values()) == 480


@pytest.mark.slow
def test_all_checks_pass_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--seconds", "1800", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert not [row for row in rows if row["good"] is False], done.stdout
    assert {row["check"] for row in rows} == set(gpu.CHECKS)
    assert done.returncode == 0
