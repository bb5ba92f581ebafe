"""`benchmarks/modules.py` with invented trainings: what is trained, what is skipped, and what the table says."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import modules, modules_table, results_file
from benchmarks.modules_table import Latency, Result
from search_spaces import Architecture
from trials import Budget
from trials.latency import measurement

ROOT = Path(__file__).parents[2]
Run = Callable[..., None]


class Trainings:
    """Invented trainings, whose accuracy depends on the operator and the seed; `last` is the number that is allowed."""

    def __init__(self) -> None:
        self.budgets: list[Budget] = []
        self.last: int | None = None

    def evaluate(self, architecture: Architecture, budget: Budget, folder: Path, *_: object, **__: object) -> object:
        if len(self.budgets) == self.last:
            raise KeyboardInterrupt
        self.budgets.append(budget)
        (folder / "weights.pt").touch()
        gained = {"UIB": 0.05, "DCNv4": -0.05}.get(architecture.summary().split()[0], 0.0)
        noise = 0.002 * (-1) ** budget.seed * (len(architecture.picks) or -1)
        scores = SimpleNamespace(map50_95=0.5 + 0.01 * budget.seed + gained + noise, map50=0.7)
        return SimpleNamespace(scores=scores, coverage=SimpleNamespace(share=0.9))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainings:
    """Replace trainings, and look at one layer of one space."""
    found = Trainings()
    data = SimpleNamespace(name="digits", path=tmp_path / "data.yaml", classes=tuple("0123456789"))
    monkeypatch.setattr("benchmarks.one_training.evaluate", found.evaluate)
    monkeypatch.setattr("benchmarks.modules.datasets.load", lambda _: data)
    monkeypatch.setattr(modules, "PLACES_OF", {("v8", "n"): {"neck": "15"}})
    return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line with results in an empty folder."""

    def typed(command: str, *arguments: str) -> None:
        results = str(tmp_path / "results" / "modules.csv")
        monkeypatch.setattr(sys, "argv", ["modules.py", command, "--results", results, *arguments])
        modules.main()

    return typed


def results(tmp_path: Path) -> list[Result]:
    return results_file.read(tmp_path / "results" / "modules.csv", Result)


def test_every_operator_is_trained_beside_stock_with_every_seed(trainings: Trainings, run: Run, tmp_path: Path) -> None:
    run("train")
    found = results(tmp_path)
    assert [one.choice for one in found[::3]] == ["stock", "UIB", "DCNv4", "DynamicConv"]
    assert [one.seed for one in found] == [0, 1, 2] * 4
    bases, others = trainings.budgets[:3], trainings.budgets[3:]
    assert {(one.epochs, one.weights) for one in bases} == {(24, None)}
    assert {(one.epochs, str(one.weights)[-4:]) for one in others} == {(4, "0.pt"), (4, "1.pt"), (4, "2.pt")}


def test_a_run_that_was_interrupted_goes_on(trainings: Trainings, run: Run, tmp_path: Path) -> None:
    trainings.last = 8
    with pytest.raises(KeyboardInterrupt):
        run("train")
    assert len(results(tmp_path)) == 5
    trainings.last = None
    run("train")
    run("train")
    assert len(trainings.budgets) == 3 + 12
    assert len({one.training for one in results(tmp_path)}) == len(results(tmp_path)) == 12


def test_only_some_are_trained_and_data_that_are_absent_are_named(
    trainings: Trainings, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train", "--only", "15 UIB", "--data", str(tmp_path / "absent.yaml"), "digits", "--seeds", "2")
    assert [one.choice for one in results(tmp_path)] == ["stock", "stock", "UIB", "UIB"]
    assert "absent.yaml: skipped, there is no such file" in capsys.readouterr().err
    run("train", "--only", "nothing")
    assert len(trainings.budgets) == 2 + 4


@pytest.mark.usefixtures("trainings")
def test_table_says_what_is_told_apart_and_what_is_not(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train")
    trained = results(tmp_path)
    unfinished = replace(trained[-1], fingerprint="f" * 12)
    results_file.append(tmp_path / "results" / "modules.csv", [unfinished])
    capsys.readouterr()
    run("table")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| neck")]
    dcn, dynamic, uib = (line.split(" | ") for line in lines)
    assert (dcn[1], dcn[3]) == ("`DCNv4`", "worse")
    assert (dynamic[1], dynamic[3]) == ("`DynamicConv`", "not told apart from stock")
    assert (uib[1], uib[3]) == ("`UIB`", "better")
    assert uib[4].startswith("-")
    assert "; not trained with all seeds yet: 1." in modules_table.text(results(tmp_path), [])


@pytest.mark.usefixtures("trainings")
def test_table_waits_for_three_seeds(run: Run, tmp_path: Path) -> None:
    run("train", "--seeds", "2")
    assert modules_table.text(results(tmp_path), []) == ""


@pytest.mark.usefixtures("trainings")
def test_latency_is_not_measured_on_a_busy_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 2.0, 2.0))
    with pytest.raises(SystemExit, match="the machine is busy"):
        run("latency")


@pytest.mark.usefixtures("trainings")
def test_latency_is_measured_once_and_stands_in_the_table(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(measurement, "PROTOCOL", measurement.Protocol.fixed(3))
    run("train")
    run("latency", "--only", "UIB", "--image-size", "32")
    run("latency", "--only", "UIB", "--image-size", "32")
    (timed,) = results_file.read(tmp_path / "results" / "modules-latency.csv", Latency)
    assert timed.median_ms > 0 < timed.stock_ms
    capsys.readouterr()
    run("table")
    assert " | latency |" in capsys.readouterr().out


def test_page_of_the_documentation_has_the_table_of_the_results() -> None:
    stored = results_file.read(modules.RESULTS, Result)
    written = modules_table.text(stored, results_file.read(modules.latency_file(modules.RESULTS), Latency))
    page = (ROOT / "docs" / "modules.md").read_text(encoding="utf-8")
    assert page.partition(modules_table.BEGIN)[2].partition(modules_table.END)[0].strip() == written.strip()


def test_page_without_the_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A page\n", encoding="utf-8")
    with pytest.raises(ValueError, match="are missing"):
        modules_table.put("", tmp_path / "page.md")


def test_places_have_the_slots_that_they_name() -> None:
    found = modules.candidates(["MMQA", "after-9 LSKA", "13 CARAFE"])
    assert [str(one) for each in found for one in each] == [
        "v8-plus n: stock stock",
        "v8-plus n: backbone, late 8 MMQA",
        "v8-plus n: upsampling 13 CARAFE",
        "v8-plus n: behind the backbone after-9 LSKA",
        "v9-plus t: stock stock",
        "v9-plus t: backbone, late 8 MMQA",
        "v9-plus t: upsampling 13 CARAFE",
        "v9-plus t: behind the backbone after-9 LSKA",
    ]
    assert {place for places in modules.PLACES_OF.values() for place in places} <= set(modules_table.PLACES)
