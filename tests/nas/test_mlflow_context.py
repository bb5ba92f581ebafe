"""What MLflow shows beside results: source, saved views, best and last epoch, load of the machine."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.records.recommended import finalists
from nas.records.record import Record
from nas.tracking import system_metrics
from nas.tracking.consistency import FoundRun, best_and_last, compare_runs
from nas.tracking.context import source_tags
from nas.tracking.pyfunc_model import _load_pyfunc
from nas.tracking.system_metrics import SystemSampler, read_samples
from nas.tracking.views import view_key, view_tags
from search_spaces import build, load
from trials import weights
from trials.scores import Epoch


def epoch(number: int, map50_95: float | None) -> Epoch:
    return Epoch(epoch=number, losses={"box_loss": 1.0}, map50_95=map50_95, map50=map50_95, seconds=1.0)


class TestSource:
    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            (["/opt/bin/nas", "search", "--storage", "postgresql://me:secret@host/nas"], "nas search"),
            (["/opt/bin/nas", "--storage=postgresql://me:secret@host/nas"], "nas"),
            (["/home/me/my_search.py", "secret"], "my_search.py"),
            ([""], "python"),
        ],
    )
    def test_source_is_the_command_without_its_options(
        self, arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", arguments)
        tags = source_tags()
        assert tags["mlflow.source.name"] == name
        assert not [text for text in tags.values() if "secret" in text]

    def test_user_without_a_name_is_a_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown() -> str:
            raise KeyError("uid not found")

        monkeypatch.setattr("getpass.getuser", unknown)
        assert source_tags()["mlflow.user"].isdecimal()


class TestViews:
    def state(self, choices: list[str], *, has_latency: bool = True) -> tuple[str, dict[str, object]]:
        tags = view_tags("v9t-digits", "ab" * 16, choices=choices, has_latency=has_latency, began=5)
        envelope = json.loads(tags[f"mlflow.sharedViewState.{view_key('ab' * 16)}"])
        assert (envelope["name"], envelope["createdAt"]) == ("v9t-digits: trials", 5)
        return envelope["state"], json.loads(envelope["state"])

    def test_view_shows_accuracy_and_costs_first(self) -> None:
        _, state = self.state(["2.operator"])
        columns = ["metrics.`score/map50_95`", "metrics.`gflops`", "metrics.`latency_ms`", "tags.`pareto`"]
        assert state["selectedColumns"][:5] == [*columns, "tags.`nas.architecture`"]  # type: ignore[index]
        assert "metrics.`latency_ms`" not in self.state([], has_latency=False)[1]["selectedColumns"]  # type: ignore[operator]

    def test_view_has_the_choices_as_parallel_coordinates(self) -> None:
        charts = self.state(["2.operator", "after-9.operator"])[1]["compareRunCharts"]
        (parallel,) = [chart for chart in charts if chart["type"] == "PARALLEL"]  # type: ignore[attr-defined]
        assert parallel["selectedParams"] == ["2.operator", "after-9.operator"]
        assert parallel["selectedMetrics"] == ["score/map50_95"]

    def test_parallel_coordinates_are_as_wide_as_the_page(self) -> None:
        state: Any = self.state(["2.operator"])[1]
        columns = {section["uuid"]: section["columns"] for section in state["compareRunSections"]}
        shown = {chart["type"]: columns[chart["metricSectionId"]] for chart in state["compareRunCharts"]}
        assert shown == {"PARALLEL": 1, "SCATTER": 2}

    def test_view_of_a_large_space_fits_into_a_tag(self) -> None:
        tags = view_tags("v" * 200, "ab" * 16, choices=[f"{n}.operator" for n in range(900)], has_latency=True, began=0)
        assert max(map(len, tags.values())) <= 5000
        assert tags == view_tags(
            "v" * 200, "ab" * 16, choices=[f"{n}.operator" for n in range(900)], has_latency=True, began=0
        )


class TestEpochs:
    def test_best_epoch_is_not_the_last_one(self) -> None:
        epochs = [epoch(1, None), epoch(2, 0.3), epoch(3, 0.4), epoch(4, 0.4), epoch(5, 0.2)]
        assert best_and_last(epochs) == {
            "best/epoch": 3,
            "best/map50_95": 0.4,
            "best/map50": 0.4,
            "last/epoch": 5,
            "last/map50_95": 0.2,
            "last/map50": 0.2,
        }

    def test_training_without_validation_has_no_best_epoch(self) -> None:
        assert best_and_last([epoch(1, None)]) == {"last/epoch": 1}
        assert best_and_last([]) == {}

    def test_runs_of_earlier_versions_lack_data_sets_and_epochs(self) -> None:
        record = Record(
            trial=3, state="complete", ending="finished", picks={}, summary="stock", fingerprint="f", seconds=1.0
        )
        tags = {"nas.fingerprint": "f", "nas.state": "complete", "nas.ending": "finished"}
        of_epoch = {"train/box_loss": 1.0, "epoch_seconds": 1.0}
        fields = {"status": "FINISHED", "parent": "p", "tags": tags}
        parent = FoundRun(id="p", status="FINISHED")
        metrics = {"latency_spread_ms": 0.0, "seconds": 1.0, **of_epoch}
        old = FoundRun(id="r", trial=3, metrics=metrics, **fields)  # type: ignore[arg-type]
        epochs = {3: [epoch(1, 0.2)]}
        found = [str(one.problem) for one in compare_runs("s", [record], [parent, old], epochs, "d1")]
        assert found == [
            "1 of 1 ended trials' runs lack their data set",
            "1 of 1 ended trials' runs lack their best and last epoch",
        ]
        new = {**metrics, **best_and_last(epochs[3])}
        run = replace(old, metrics=new, data=frozenset({"d1"}))
        assert list(compare_runs("s", [record], [parent, run], epochs, "d1")) == []
        wrong = replace(run, metrics={**new, "best/epoch": 9.0})
        assert [one.problem for one in compare_runs("s", [record], [parent, wrong], epochs, "d1")] == [
            "best/epoch is 9.0, of the trial 1.0"
        ]


class TestFinalists:
    def test_finalists_are_recommended_or_judged_and_each_once(self) -> None:
        records = [
            Record(trial=trial, state="complete", ending="finished", picks={}, map50_95=accuracy, gflops=cost)
            for trial, (accuracy, cost) in enumerate([(0.1, 1.0), (0.5, 2.0), (0.55, 5.0), (0.6, 9.0), (0.05, 9.0)])
        ]
        chosen = finalists(records[:4], ("map50_95", "gflops"), {3, 4}, records)
        assert [record.trial for record in chosen] == [3, 1, 0, 4]
        assert finalists([], ("map50_95", "gflops"), (), records) == []


class Monitor:
    """Stands for MLflow's monitors."""

    def collect_metrics(self) -> None:
        pass

    def aggregate_metrics(self) -> dict[str, float]:
        return {"cpu_utilization_percentage": 50.0}

    def clear_metrics(self) -> None:
        pass


class TestSystemMetrics:
    def sample(self, path: Path, lines: int) -> None:
        with SystemSampler(path):
            until = time.monotonic() + 60
            while len(list(read_samples(path))) < lines:
                assert time.monotonic() < until
                time.sleep(0.01)

    def test_samples_of_a_resumed_search_go_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system_metrics, "_monitors", lambda: [Monitor()])
        monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
        path = tmp_path / "system.jsonl"
        self.sample(path, 2)
        first = list(read_samples(path))
        with path.open("a") as file:
            file.write("torn\n")
        self.sample(path, len(first) + 1)
        assert [step for step, _, _ in read_samples(path)] == list(range(len(list(read_samples(path)))))
        assert {values["cpu_utilization_percentage"] for _, _, values in read_samples(path)} == {50.0}

    def test_failure_of_a_monitor_is_reported_and_the_search_continues(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def breaks() -> list[Monitor]:
            raise OSError("no /proc")

        monkeypatch.setattr(system_metrics, "_monitors", breaks)
        with SystemSampler(tmp_path / "system.jsonl") as sampler:
            sampler._thread.join()
        assert "system metrics: no /proc; the search goes on without them" in caplog.text

    def test_environment_of_mlflow_switches_system_metrics_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", raising=False)
        assert not system_metrics.is_enabled_by_environment()
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
        assert system_metrics.is_enabled_by_environment()

    def test_monitors_of_mlflow_give_numbers(self) -> None:
        values = system_metrics._sample(system_metrics._monitors())
        assert 0 <= values["cpu_utilization_percentage"] <= 100
        assert values["system_memory_usage_megabytes"] > 0


def test_model_in_mlflow_returns_what_the_exported_graph_returns(tmp_path: Path) -> None:
    model = build.model(load("v9").stock.document(2), 2)
    weights.keep(model, {}, tmp_path / "weights.pt")
    found = _load_pyfunc(str(tmp_path)).predict(np.full((2, 3, 64, 64), 0.5, np.float32))
    assert (found.shape, found.dtype) == ((2, 6, 84), np.float32)
