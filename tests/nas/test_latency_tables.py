"""Latency in a study: predicted from a device's table in the search, measured on the device afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study import latency_tables
from nas.study.folders import LATENCY_TABLE
from nas.study.study import Study
from nas.workflows import measure_front, reach
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from search_spaces import SearchSpace
from search_spaces.errors import LatencyError, SpecError
from trials import Budget, Costs, Ending, Outcome, Scores
from trials.latency import latency_table, runtimes, timings
from trials.latency.latency_table import LatencyTable
from trials.latency.timings import Timings

from .conftest import SPACE

CLASSES, SIZE = 10, 64


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, formula: Callable[..., Any], space: SearchSpace) -> Timings:
    """Latency table of a device that is a formula."""
    runtime = formula()
    table = LatencyTable(space, CLASSES, SIZE, Timings(profile=runtime.profile, entries={}))
    list(latency_table.record(table, runtime, tmp_path_factory.mktemp("recorded") / "formula.csv"))
    return table.recorded


@pytest.fixture
def at_hand(recorded: Timings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Timings:
    """The table, where `nas latency record` writes it."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    path = latency_tables.path_of("formula")
    path.parent.mkdir(parents=True)
    recorded.write(path)
    return recorded


def score(architecture: Any, _budget: Budget, folder: Path, *_: Any, costs: Costs, **__: Any) -> Outcome:
    """Return an accuracy that rises with the predicted latency, so that all trials are on the front."""
    assert costs.latency_ms is not None
    (folder / "model.yaml").write_text(architecture.to_yaml(CLASSES))
    accuracy = costs.latency_ms / 1000
    scores = Scores(map50_95=accuracy, map50=accuracy, costs=costs)
    return Outcome(architecture=architecture, ending=Ending.FINISHED, costs=costs, scores=scores)


@pytest.fixture
def searched(at_hand: Timings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Run a study with predicted latencies."""
    assert at_hand.entries
    space = tmp_path / "small.yaml"
    space.write_text(SPACE)

    def run(**asked: Any) -> Study:
        request = Request(
            space=str(space),
            trials=6,
            base_epochs=0,
            image_size=SIZE,
            deploy_size=SIZE,
            device="cpu",
            workers=1,
            latency="formula",
            objectives=("map50_95", "latency_ms"),
            runs=tmp_path / "runs",
            **asked,
        )
        study = Plan.of(request).begin()
        monkeypatch.setattr(worker, "evaluate", score)
        Worker(study, deadline=float("inf")).run()
        return study

    return run


def test_latency_of_every_candidate_is_predicted(
    searched: Callable[..., Study], recorded: Timings, space: SearchSpace
) -> None:
    study = searched()
    table = LatencyTable(space, CLASSES, SIZE, recorded)
    records = study.records()
    assert [record.ending for record in records] == ["finished"] * 6
    predicted = [table.predict(study.architecture(record)) for record in records]
    assert [record.latency_ms for record in records] == pytest.approx(predicted)
    assert len({record.latency_ms for record in records}) > 1


def test_no_architecture_over_a_latency_limit_is_proposed(
    searched: Callable[..., Study], recorded: Timings, space: SearchSpace
) -> None:
    table = LatencyTable(space, CLASSES, SIZE, recorded)
    least, most = table.reach_ms()
    limit = least + (most - least) / 4
    study = searched(max_latency=limit)
    rest = [record for record in study.records() if record.role != "stock"]
    assert len(rest) == 5
    assert all((record.latency_ms or 0) <= limit for record in rest)


def test_latency_limit_that_no_architecture_reaches_is_refused(
    searched: Callable[..., Study], recorded: Timings, space: SearchSpace
) -> None:
    least, most = LatencyTable(space, CLASSES, SIZE, recorded).reach_ms()
    expected = f"max-latency: outside what the space can reach, got 1000 \\(from {least:.4g} to {most:.4g} at 64 px\\)"
    with pytest.raises(SpecError, match=expected):
        searched(max_latency=1000.0)


def test_limit_without_a_table_is_checked_on_one_thread_with_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers measure their trials on one thread."""
    threads, seen = torch.get_num_threads(), list[int]()

    def measure(*_: object) -> Costs:
        seen.append(torch.get_num_threads())
        return Costs(params=1, gflops=1.0, latency_ms=float(len(seen)))

    monkeypatch.setattr(reach, "measure_costs", measure)
    space = tmp_path / "small.yaml"
    space.write_text(SPACE)
    request = Request(
        space=str(space), image_size=SIZE, deploy_size=SIZE, device="cpu", max_latency=9.0, runs=tmp_path / "runs"
    )
    progress: list[tuple[int, int]] = []
    torch.set_num_threads(2)
    try:
        with pytest.raises(SpecError, match=r"max-latency: .* got 9 \(from 1 to 2 at 64 px\)"):
            Plan.of(request, measuring=lambda done, total: progress.append((done, total)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert (seen, progress) == ([1, 1], [(0, 2), (1, 2)])


def test_study_has_a_copy_of_its_latency_table(searched: Callable[..., Study]) -> None:
    study = searched()
    latency_tables.path_of("formula").unlink()
    again = Study.open(study.folder)
    assert again.latency_table is not None
    assert again.latency_table.predict(again.space.stock) == pytest.approx(study.records()[0].latency_ms)


def test_front_is_measured_after_the_search(
    searched: Callable[..., Study], formula: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, device = searched(), formula()
    monkeypatch.setattr(runtimes, "open_runtime", lambda *_, **__: device)
    measured = dict(measure_front.measure_front(study))
    front = {record.trial for record in study.front()}
    assert set(measured) == front | {0}
    assert {record.trial: record.measured_ms for record in study.records() if record.measured_ms is not None} == {
        trial: checked.measured_ms for trial, checked in measured.items()
    }
    device.asked.clear()
    assert list(measure_front.measure_front(study)) == []  # once
    assert device.asked == []


def test_front_is_not_measured_on_another_device(
    searched: Callable[..., Study], formula: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = searched()
    assert not measure_front.is_device(study.latency_table)
    monkeypatch.setattr(runtimes, "open_runtime", lambda *_, **__: formula(version="2"))
    with pytest.raises(LatencyError, match="of another device profile: this one has version '2', not '1'"):
        list(measure_front.measure_front(study))


class TestIncompleteTable:
    """Table without one entry, as after a recording for another number of classes."""

    @pytest.fixture
    def lacking(self, at_hand: Timings) -> Timings:
        key, *_ = [key for key, timing in at_hand.entries.items() if "UIB" in timing.description]
        rest = {other: timing for other, timing in at_hand.entries.items() if other != key}
        Timings(profile=at_hand.profile, entries=rest).write(latency_tables.path_of("formula"))
        return at_hand

    @pytest.fixture
    def device(self, formula: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
        """Runtime of this machine, which is the device."""
        here = formula()
        monkeypatch.setattr(runtimes, "open_runtime", lambda *_, **__: here)
        monkeypatch.setattr(latency_tables, "BACKENDS", {here.profile.runtime: None})
        return here

    def test_incomplete_table_is_refused_on_another_machine_with_the_command(
        self, lacking: Timings, space: SearchSpace
    ) -> None:
        with pytest.raises(SpecError) as caught:
            latency_tables.table_of(space, CLASSES, SIZE, "formula")
        found = str(caught.value)
        assert found.startswith(f"latency: the table formula lacks 1 of the {len(lacking.entries)} entries")
        profile = lacking.profile
        assert found.endswith(
            f"(there: nas latency record --space {space.name} --scale {space.scale} --classes {CLASSES} "
            f"--deploy-size {SIZE} --runtime {profile.runtime} --threads {profile.threads} --device-name formula)"
        )

    def test_incomplete_table_is_completed_on_the_device_before_the_search(
        self, lacking: Timings, device: Any, searched: Callable[..., Study]
    ) -> None:
        study = searched()
        assert [record.ending for record in study.records()] == ["finished"] * 6
        assert len(device.asked) == 1
        assert latency_tables.read("formula").entries.keys() == lacking.entries.keys()
        assert timings.read(study.folder / LATENCY_TABLE).entries.keys() == lacking.entries.keys()
        device.asked.clear()
        searched()  # the study is there, with a table of its own
        assert device.asked == []

    @pytest.mark.usefixtures("lacking", "device")
    def test_latency_limit_is_checked_when_the_table_is_complete(
        self, searched: Callable[..., Study], tmp_path: Path
    ) -> None:
        with pytest.raises(SpecError, match="max-latency: outside what the space can reach, got 1000"):
            searched(max_latency=1000.0)
        assert not (tmp_path / "runs").exists()

    @pytest.mark.usefixtures("lacking")
    def test_layer_that_cannot_be_timed_ends_the_search(self, device: Any, searched: Callable[..., Study]) -> None:
        device.refuses = "UIB"
        with pytest.raises(LatencyError, match=r"^latency: 1 layers of small cannot be timed alone, such as: .*UIB"):
            searched()

    @pytest.mark.usefixtures("lacking", "device")
    def test_dry_run_reports_an_incomplete_table_and_times_nothing(self, device: Any, tmp_path: Path) -> None:
        (tmp_path / "small.yaml").write_text(SPACE)
        command = ["search", "--space", str(tmp_path / "small.yaml"), "--latency", "formula", "--image-size", "64"]
        sizes = ["--deploy-size", "64", "--device", "cpu", "--runs", str(tmp_path / "runs"), "--dry-run"]
        result = CliRunner().invoke(app, [*command, *sizes, "--workers", "1"])
        assert result.exit_code == 0, result.output
        assert "predicted for formula; 1 layers that its table lacks are timed first" in result.output
        assert device.asked == []


@pytest.mark.usefixtures("at_hand")
def test_unknown_device_is_refused() -> None:
    with pytest.raises(SpecError, match=r"no latency table of 'formular' .*did you mean 'formula'"):
        latency_tables.read("formular")


class TestCommand:
    def test_latency_front_shows_the_measured_latencies(
        self, searched: Callable[..., Study], formula: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study, device = searched(), formula()
        monkeypatch.setattr(runtimes, "open_runtime", lambda *_, **__: device)
        command = ["latency", "front", study.name, "--runs", str(study.folder.parent), "--format", "csv"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        heading, *rows = result.stdout.splitlines()
        assert heading == "trial,predicted_ms,measured_ms,error_percent,summary"
        assert len(rows) == len({record.trial for record in study.front()} | {0})

    def test_latency_front_is_refused_while_the_study_runs(self, searched: Callable[..., Study]) -> None:
        study = searched()
        with study.supervision_lock.held():
            result = CliRunner().invoke(app, ["latency", "front", study.name, "--runs", str(study.folder.parent)])
        assert result.exit_code == 2

    def test_latency_front_of_a_study_without_predictions_is_refused(self, make_study: Callable[..., Study]) -> None:
        with pytest.raises(SpecError, match="small: the search had no latency table"):
            list(measure_front.measure_front(make_study()))
