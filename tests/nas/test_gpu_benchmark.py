"""`benchmarks/gpu.py` on the CPU, in its small form: the script works, whatever a GPU would say."""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_check, gpu_latency, gpu_operators, gpu_trials
from benchmarks.gpu_check import Place, Row
from benchmarks.pretended_gpu import pretended_gpu
from trials.latency.backends import Backend
from trials.latency.deployed import Deployed
from trials.latency.gpu_iteration import GpuIteration

ROOT = Path(__file__).parents[2]
START_SECONDS = 10
"""To start a process that imports PyTorch, and CUDA."""
CPU_SECONDS = 240
"""CPU time of the small form, which should stay that of a test."""


def rows_of(check: gpu_check.Check, folder: Path, seconds: float = 60.0) -> list[Row]:
    found: list[Row] = []
    gpu_check.run("it", check, Place(device="cpu", folder=folder, is_small=True), seconds, found.append)
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


class Card:
    """Clock that runs of checks advance, by what each takes or by its limit."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.now, self.takes = 0.0, seconds
        self.limits: dict[str, float] = {}

    def run(
        self, name: str, _check: gpu_check.Check, _place: Place, limit: float, _show: Callable[[Row], None]
    ) -> None:
        self.limits[name] = limit
        self.now += min(self.takes[name], limit)

    def check(self, folder: Path, names: Sequence[str], seconds: float = gpu.WHOLE) -> gpu.Report:
        report = gpu.Report(folder)
        place = Place(device="0", folder=folder)
        checking = gpu.Checking(place=place, report=report, seconds=seconds, run=self.run, clock=lambda: self.now)
        checking.all(names, lanes=1)
        return report


def test_check_without_time_is_not_good(tmp_path: Path) -> None:
    card = Card({"card": 1.0})
    assert card.check(tmp_path, ["card"], seconds=1.0).failed == 1
    assert not card.limits


def test_time_that_a_check_leaves_is_that_of_the_next(tmp_path: Path) -> None:
    alone = [name for name, check in gpu.CHECKS.items() if check.is_alone]
    promised = sum(gpu.CHECKS[name].seconds for name in alone)
    card = Card(dict.fromkeys(alone, 1.0))
    assert card.check(tmp_path, alone, seconds=promised).failed == 0
    last = alone[-1]
    assert card.limits[last] == pytest.approx(promised - (len(alone) - 1))
    assert card.limits[last] > gpu.CHECKS[last].seconds


def test_check_that_hangs_leaves_later_ones_what_they_are_promised(tmp_path: Path) -> None:
    names = list(gpu.CHECKS)
    card = Card({**{name: check.seconds for name, check in gpu.CHECKS.items()}, "search": float("inf")})
    card.check(tmp_path, names)
    assert all(card.limits[name] >= gpu.CHECKS[name].seconds for name in names if gpu.CHECKS[name].is_alone)
    assert card.now <= gpu.WHOLE


def test_all_checks_fit_on_a_card_of_the_expected_speed() -> None:
    """Those that run beside others go to the first free lane; what is alone has its own time."""
    checks = gpu.CHECKS.values()
    assert all(check.expected < check.seconds for check in checks if check.is_alone)
    lanes = [0.0] * gpu.LANES
    for check in checks:
        if not check.is_alone:
            lanes[lanes.index(min(lanes))] += check.expected
    assert max(lanes) + sum(check.seconds for check in checks if check.is_alone) <= gpu.WHOLE


def test_latency_fits_on_a_card_of_the_expected_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that layers of 1 ms, models of 8 ms, pauses, and 0.3 s to build each advance; with torch alone."""
    now = [0.0]

    def passing(seconds: float) -> Callable[..., None]:
        return lambda *_: now.__setitem__(0, now[0] + seconds)

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, _stream: object) -> None:
            self.seconds = now[0]

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, end: "Event") -> float:
            return (end.seconds - self.seconds) * 1000

    def prepare(_backend: Backend, deployed: Deployed, _execution: object) -> GpuIteration:
        passing(0.3)()
        kinds = {"one 640 px image": 0.008, "the start of a graph for 1x1x1x1": 0.00002}
        return GpuIteration(passing(kinds.get(deployed.description, 0.001)), "stream")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(gpu_latency, "find_spec", lambda name: name == "torch" or None)
    monkeypatch.setattr(Backend, "prepare", prepare)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: passing(seconds)())
    rows = list(gpu_latency.latency(Place(device="0", folder=tmp_path)))
    assert not [row for row in rows if row.good is False]
    assert 20 < now[0] < gpu.CHECKS["latency"].expected - START_SECONDS


def test_folders_of_several_processes_are_different(tmp_path: Path) -> None:
    place = Place(device="cpu", folder=tmp_path / "new")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(place.make, ["trial"] * 40))
    assert len(set(made)) == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        gpu_operators.card,
        gpu_operators.operators,
        gpu_operators.contract,
        gpu_operators.kernels,
        gpu_trials.twice,
        gpu_trials.repeatable,
        gpu_trials.images,
    ],
)
def test_check_passes_on_a_pretended_gpu(
    check: gpu_check.Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it asks a GPU for nothing that PyTorch does not have, and mixes no devices."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # the check sets it
    with pretended_gpu():
        rows = list(check(Place(device="0", folder=tmp_path, is_small=True)))
    assert rows
    compared = [
        row for row in rows if not row.what.startswith("mAP50-95, ")
    ]  # of two steps an epoch: they may be small
    assert not [row for row in compared if row.good is False]


@pytest.mark.slow
def test_scores_are_compared_on_a_pretended_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the small form, of two steps an epoch, another augmentation changes them too much for the limits."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    with pretended_gpu():
        rows = list(gpu_trials.score(Place(device="0", folder=tmp_path, is_small=True)))
    assert rows[0].good
    assert [row.what for row in rows if row.what.startswith("mAP50-95, ")] == [
        f"mAP50-95, {where}" for where in ("on the CPU", "fp32", "bf16", "fp16")
    ]


@pytest.mark.slow
def test_all_checks_pass_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--seconds", "1800", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert not [row for row in rows if row["good"] is False], done.stdout
    assert {row["check"] for row in rows} == set(gpu.CHECKS)
    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CPU_SECONDS
