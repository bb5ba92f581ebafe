import csv
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from nas import html_page
from nas.records.front_figure import front_figure
from nas.records.record import COLUMNS, Record, pareto_front_of
from nas.records.trial_files import TrialFiles
from nas.study.folders import REPORT, SYSTEM_METRICS, TRACKING_STATE, tracking_uri
from nas.tracking import database, mlflow_runs, note
from nas.tracking.context import Context, DataInput
from nas.tracking.findings import Findings, JudgedTrial, Stage
from nas.tracking.mlflow_runs import ui_command, ui_environment
from nas.tracking.tracker import Tracker
from search_spaces.errors import EnvironmentProblem
from trials.scores import Epoch

# SQLAlchemy 2.1 on the mappings of MLflow 3.17.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

OBJECTIVES = ("map50_95", "gflops")
UIB = {"4": {"UIB": {"start_kernel": 3, "expansion": 4}}}

Begin = Callable[..., Tracker]


class KilledError(BaseException):
    """Stands for `kill -9`: nothing of ours catches it."""


class Client(MlflowClient):  # type: ignore[misc]
    """MLflow's client; tells what was asked of it, and may die after a call or refuse it."""

    asked: tuple[str, ...] = ()
    dies_after: tuple[str, ...] = ()
    refuses = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found) or name not in vars(MlflowClient):
            return found

        def recorded(*arguments: Any, **named: Any) -> Any:
            if Client.refuses:
                raise MlflowException("the server sleeps")
            answer = found(*arguments, **named)
            Client.asked += (name,)
            if name in Client.dies_after:
                raise KilledError
            return answer

        return recorded


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making it takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('runs')}/mlflow.db"


@pytest.fixture(scope="module")
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri)


@pytest.fixture(autouse=True)
def _recorded_client(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.cls is not TestFigure:
        monkeypatch.setattr(html_page, "page", lambda *_, **__: "<html>")  # else five megabytes a time
    monkeypatch.setattr(mlflow_runs, "MlflowClient", Client)
    monkeypatch.setattr(Client, "asked", ())
    monkeypatch.setattr(Client, "dies_after", ())
    monkeypatch.setattr(Client, "refuses", False)


@pytest.fixture
def begin(uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Begin:
    """Return a factory of trackers of one study; each call stands for a new process."""

    def tracker(**changes: Any) -> Tracker:
        given = {
            "experiment": f"nas/{request.node.name}",
            "study": "v9-digits",
            "settings": {"space": "v9", "budget.epochs": "3"},
            "objectives": OBJECTIVES,
            "commands": {"resume": "nas resume v9-digits", "export": "nas export v9-digits --best map"},
        }
        folder = changes.pop("folder", tmp_path / "v9-digits")
        return Tracker(changes.pop("uri", uri), folder, **{**given, **changes})

    return tracker


def running(trial: int, **changes: Any) -> Record:
    fields = {"state": "running", "picks": UIB, "summary": "UIB 4", "fingerprint": f"{trial:012x}"}
    return Record(trial=trial, **{**fields, **changes})


def finished(trial: int, map50_95: float, gflops: float, **changes: Any) -> Record:
    ended = replace(running(trial), state="complete", ending="finished", map50_95=map50_95, map50=0.6, gflops=gflops)
    return replace(
        ended, **{"params": 1_930_000, "latency_ms": 12.34, "latency_spread_ms": 0.5, "seconds": 60.0, **changes}
    )


def stock(trial: int = 0, map50_95: float = 0.4, gflops: float = 8.0) -> Record:
    return finished(trial, map50_95, gflops, picks={}, summary="stock", role="stock")


def train(tracker: Tracker, trial: int, *epochs: int) -> None:
    files = TrialFiles.of(tracker.folder, trial)
    files.folder.mkdir(parents=True, exist_ok=True)
    for number in epochs:
        accuracy = 0.1 * number if number > 1 else None
        losses = {"box_loss": 4.0 - number, "cls_loss": 1.0}
        files.write_epoch(Epoch(epoch=number, losses=losses, map50_95=accuracy, map50=accuracy, seconds=20.0))


def end(tracker: Tracker, trial: int, **texts: str) -> None:
    files = TrialFiles.of(tracker.folder, trial)
    files.folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (files.folder / name.replace("_", ".")).write_text(text, encoding="utf-8")


def parent_of(tracker: Tracker, client: MlflowClient) -> Any:
    return client.get_run(tracker.parent_run_id)


def children_of(tracker: Tracker, client: MlflowClient) -> dict[str, Any]:
    """The children by name; two of one name are a mistake."""
    query = f"tags.`mlflow.parentRunId` = '{tracker.parent_run_id}'"
    runs = client.search_runs([parent_of(tracker, client).info.experiment_id], query)
    children = {run.info.run_name: run for run in runs}
    assert len(children) == len(runs)
    return children


def points(client: MlflowClient, run: Any, metric: str) -> list[tuple[int, Any]]:
    return [(point.step, pytest.approx(point.value)) for point in client.get_metric_history(run.info.run_id, metric)]


def artifact(client: MlflowClient, run: Any, path: str) -> str:
    return Path(client.download_artifacts(run.info.run_id, path)).read_text(encoding="utf-8")


def everything(tracker: Tracker, client: MlflowClient) -> dict[str, Any]:
    """What MLflow shows of a study, without what differs from run to run of the same."""
    contents = {}
    for run in [parent_of(tracker, client), *children_of(tracker, client).values()]:
        tags = {
            name: re.sub(r"viewStateShareKey=nas-\w+", "viewStateShareKey=", text)  # it names the study by its id
            for name, text in run.data.tags.items()
            if not name.endswith(("study_id", "parentRunId"))
        }
        metrics = {
            name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        contents[run.info.run_name] = (run.info.status, tags, run.data.params, metrics, files)
    return contents


class TestParent:
    def test_parent_run_has_the_study(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin(settings={"space": "v9", "long": "x" * 7000})
        run = parent_of(tracker, client)
        assert run.info.run_name == "v9-digits"
        assert run.info.status == "RUNNING"
        assert run.data.tags["nas.study"] == "v9-digits"
        assert run.data.params == {"space": "v9", "long": "x" * 6000}
        assert tracker.page.startswith(f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?")
        experiment = client.get_experiment(run.info.experiment_id)
        assert experiment.name == "nas/test_parent_run_has_the_study"
        assert experiment.artifact_location == (database.sqlite_file(tracker.uri).parent / "mlartifacts").as_uri()  # type: ignore[union-attr]

    def test_steps_are_in_the_order_of_finishing(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        records = [stock(), running(1), finished(2, 0.3, 4.0)]
        tracker.sync(records)
        records[1] = finished(1, 0.5, 12.0)
        tracker.sync(records)
        tracker.sync([*records, finished(3, 0.2, 9.0)])
        run = parent_of(tracker, client)
        # The box is 1 x 16: stock alone covers 0.4 x 8 of it, trial 2 adds 0.3 x 4, trial 1 adds 0.1 x 4.
        assert points(client, run, "hypervolume") == [(1, 0.2), (2, 0.275), (3, 0.3), (4, 0.3)]
        assert points(client, run, "front_size") == [(1, 1), (2, 2), (3, 3), (4, 3)]
        assert points(client, run, "best_map50_95") == [(1, 0.4), (2, 0.4), (3, 0.5), (4, 0.5)]

    def test_hypervolume_is_written_after_the_stock_model_is_measured(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        records = [running(0, role="stock", summary="stock", picks={}), finished(1, 0.3, 4.0)]
        tracker.sync(records)
        assert "hypervolume" not in parent_of(tracker, client).data.metrics
        assert points(client, parent_of(tracker, client), "front_size") == [(1, 1)]
        tracker.sync([stock(), records[1]])
        run = parent_of(tracker, client)
        assert points(client, run, "hypervolume") == [(1, 0.3 * 12 / 16), (2, 0.275)]
        assert points(client, run, "front_size") == [(1, 1), (2, 2)]

    def test_box_of_the_hypervolume_is_constant(self, begin: Begin, client: MlflowClient) -> None:
        begin().sync([stock()])
        again = begin()
        again.sync([replace(stock(), gflops=2.0), finished(1, 0.1, 20.0)])
        assert points(client, parent_of(again, client), "hypervolume") == [(1, 0.2), (2, 0.4 * 14 / 16)]

    def test_empty_front_has_no_best_accuracy(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([replace(stock(), within=False)])
        run = parent_of(tracker, client)
        assert points(client, run, "hypervolume") == [(1, 0.0)]
        assert points(client, run, "front_size") == [(1, 0)]
        assert "best_map50_95" not in run.data.metrics

    def test_note_has_the_front(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([stock(), finished(1, 0.41, 4.0, summary="UIB 4, 6 · DySample 10"), running(2)])
        assert parent_of(tracker, client).data.tags["mlflow.note.content"] == (
            "**1** of 2 architectures are on the front of mAP50-95, GFLOPs. The most accurate is trial 1, "
            "UIB 4, 6 · DySample 10: mAP50-95 0.410, 4.00 GFLOPs; the stock model has mAP50-95 0.400, 8.00 GFLOPs.\n"
            "\n"
            f"[Table of the trials, the most accurate first]({tracker.view.removeprefix('/')})\n"
            "\n"
            "| trial&emsp; | mAP50-95&emsp; | GFLOPs&emsp; | params&emsp; | latency&emsp; | architecture |\n"
            "| --- | --- | --- | --- | --- | --- |\n"
            "| 1 | 0.410 | 4.00 | 1.93 M | 12.3 ms | UIB 4, 6 · DySample 10 |\n"
            "| (0) | 0.400 | 8.00 | 1.93 M | 12.3 ms | stock |\n"
            "\n"
            "**v9-digits** is a search for YOLO architectures; each child run is one trial. "
            "No other is as good as one on the "
            "front in everything and better in something. "
            "Among the children `tags.pareto = 'true'` finds them; the figure is the "
            "artifact `front/front.html`. A trial in brackets is the stock model, off the front.\n"
            "\n"
            "`hypervolume`: the front's share of the box accuracy 0 to 1, GFLOPs 0 to 16 (twice stock).\n"
            "\n"
            "resume:\n"
            "\n"
            "    nas resume v9-digits\n"
            "\n"
            "export:\n"
            "\n"
            "    nas export v9-digits --best map"
        )

    def test_note_with_a_long_front_has_the_commands(self) -> None:
        records = [finished(trial, 0.1 + trial / 1000, trial + 1.0, summary="UIB 4 · " * 20) for trial in range(80)]
        text = note.describe(
            "v9", records, pareto_front_of(records, OBJECTIVES), OBJECTIVES, stock=None, commands={"a": "b"}, room=8000
        )
        assert len(text) <= 8000
        assert text.endswith("    b")
        shown = text.count("\n| ") - 2 - 1
        assert f"{80 - shown} more in the artifact `front/front.csv`" in text

    def test_note_has_means_over_seeds(self) -> None:
        again = [replace(stock(2, map50_95=0.44), repeat=1), finished(1, 0.41, 4.0)]
        records = [stock(), again[1], replace(again[0], fingerprint=stock().fingerprint)]
        text = note.describe(
            "v9", records, pareto_front_of(records, OBJECTIVES), OBJECTIVES, stock=None, commands={}, room=8000
        )
        assert text.startswith(
            "**2** of 2 architectures are on the front of mAP50-95, GFLOPs. The most accurate is trial 0"
        )
        assert "| 0 | 0.420 (mean of 2) | 8.00 |" in text

    def test_artifacts_have_the_front(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        records = [stock(), finished(1, 0.5, 9.0), finished(2, 0.1, 30.0)]
        tracker.sync(records)
        run = parent_of(tracker, client)
        rows = [record.as_row() for record in pareto_front_of(records, OBJECTIVES)]
        assert json.loads(artifact(client, run, "front/front.json")) == rows
        table = list(csv.DictReader(io.StringIO(artifact(client, run, "front/front.csv"))))
        assert list(table[0]) == list(COLUMNS)
        assert [row["trial"] for row in table] == ["1", "0"]
        assert json.loads(table[0]["picks"]) == UIB

    def test_changed_settings_are_tags(self, begin: Begin, client: MlflowClient) -> None:
        begin()
        tracker = begin(settings={"space": "v9", "budget.epochs": "5", "new": "1"})
        run = parent_of(tracker, client)
        assert run.data.params == {"space": "v9", "budget.epochs": "3", "new": "1"}
        assert run.data.tags["settings.budget.epochs"] == "5"
        run = parent_of(begin(), client)
        assert run.data.tags["settings.budget.epochs"] == "3"


class TestContext:
    CONTEXT = Context(
        data=(
            DataInput(name="scenes", digest="d1", place="/data/scenes/data.yaml"),
            DataInput(name="scenes-test", digest="d2", place="/data/scenes/data.yaml", use="evaluation"),
        ),
        sizes=lambda: {"num_rows": 30, "train_images": 20, "val_images": 10},
        choices=lambda: {"4.operator": "stock", "after-9.operator": "stock", "macro.depth": "1"},
        source={"mlflow.user": "someone", "mlflow.source.name": "nas search"},
    )

    def test_runs_have_data_sets_choices_and_source(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin(context=self.CONTEXT)
        train(tracker, 1, 1, 2)
        tracker.sync([stock(), finished(1, 0.5, 7.0)])
        children = children_of(tracker, client)
        for run in [parent_of(tracker, client), *children.values()]:
            found = {one.dataset.name: (one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs}
            assert found == {"scenes": ("d1", "training"), "scenes-test": ("d2", "evaluation")}
            assert (run.data.tags["mlflow.user"], run.info.user_id) == ("someone", "someone")
            (scenes,) = [one.dataset for one in run.inputs.dataset_inputs if one.dataset.name == "scenes"]
            assert mlflow.data.get_source(scenes).uri == "/data/scenes/data.yaml"
            assert json.loads(scenes.profile)["train_images"] == 20
        choices = {"4.operator": "UIB", "after-9.operator": "stock", "macro.depth": "1"}
        assert choices.items() <= children["trial-0001"].data.params.items()
        assert children["trial-0000"].data.params["4.operator"] == "stock"
        metrics = children["trial-0001"].data.metrics
        assert (metrics["best/epoch"], metrics["last/epoch"], metrics["best/map50_95"]) == (2, 2, 0.2)

    def test_trials_of_a_member_have_its_choices_alone(self, begin: Begin, client: MlflowClient) -> None:
        both = {"a/4.operator": "stock", "b/4.operator": "stock", "b/7.operator": "stock"}
        tracker = begin(context=replace(self.CONTEXT, choices=lambda: both))
        train(tracker, 1, 1, 2)
        tracker.sync([replace(stock(), member="a"), replace(finished(1, 0.5, 7.0), member="b")])
        params = {name: run.data.params for name, run in children_of(tracker, client).items()}
        assert params["trial-0000"] == {"member": "a", "a/4.operator": "stock", "architecture": "stock"}
        found = {name: value for name, value in params["trial-0001"].items() if name.endswith("operator")}
        assert found == {"b/4.operator": "UIB", "b/7.operator": "stock"}
        experiment = client.get_experiment(parent_of(tracker, client).info.experiment_id)
        views = [json.loads(text) for key, text in experiment.tags.items() if key.startswith("mlflow.sharedView")]
        charts = [chart for view in views for chart in json.loads(view["state"])["compareRunCharts"]]
        assert [chart["selectedParams"] for chart in charts if chart["type"] == "PARALLEL"] == [["member"]]

    def test_runs_of_an_earlier_version_are_completed(self, begin: Begin, client: MlflowClient) -> None:
        old = begin()
        train(old, 0, 1, 2)
        old.sync([stock()])
        old.finish("FINISHED")
        tracker = begin(context=self.CONTEXT)
        tracker.finish("FINISHED", [stock()])
        run = children_of(tracker, client)["trial-0000"]
        assert {one.dataset.digest for one in run.inputs.dataset_inputs} == {"d1", "d2"}
        assert run.data.params["macro.depth"] == "1"
        Client.asked = ()
        begin(context=self.CONTEXT).finish("FINISHED", [stock()])
        assert not {"log_batch", "log_inputs", "log_metric", "set_experiment_tag"} & set(Client.asked)

    def test_experiment_has_a_view_of_the_study(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin(context=self.CONTEXT)
        key = tracker.view.partition("viewStateShareKey=")[2].partition("&")[0]
        tags = client.get_experiment(parent_of(tracker, client).info.experiment_id).tags
        view = json.loads(tags[f"mlflow.sharedViewState.{key}"])
        assert view["name"] == "v9-digits: trials"
        query = json.loads(view["state"])["searchFilter"]
        tracker.sync([stock(), running(1)])
        found = client.search_runs([parent_of(tracker, client).info.experiment_id], query)
        assert {run.info.run_name for run in found} == {"trial-0000", "trial-0001"}


class TestModels:
    RECORDS = (stock(), finished(1, 0.5, 9.0), finished(2, 0.3, 30.0))

    def train_all(self, tracker: Tracker) -> None:
        for record in self.RECORDS:
            end(tracker, record.trial, outcome_json="{}", weights_pt="numbers", model_yaml="backbone: []")

    def models(self, tracker: Tracker, client: MlflowClient) -> dict[str, Any]:
        found = client.search_logged_models([parent_of(tracker, client).info.experiment_id])
        models = {model.name: model for model in found}
        assert len(models) == len(found)
        return models

    def test_finalists_have_a_model_each(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin(context=TestContext.CONTEXT)
        self.train_all(tracker)
        tracker.sync(self.RECORDS)
        assert not self.models(tracker, client)
        tracker.finish("FINISHED")
        models = self.models(tracker, client)
        assert sorted(models) == ["v9-digits-trial-0000", "v9-digits-trial-0001"]
        model = models["v9-digits-trial-0001"]
        assert (str(model.status), model.tags["pareto"], model.tags["mlflow.user"]) == ("READY", "true", "someone")
        assert model.params["4.operator"] == "UIB"
        metrics = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
        assert metrics["score/map50_95"] == (0.5, "scenes")
        assert metrics["gflops"] == (9.0, None)
        run = children_of(tracker, client)["trial-0001"]
        assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
        assert len(points(client, run, "score/map50_95")) == 1
        info = mlflow.models.Model.load(model.artifact_location.removeprefix("file://"))
        assert info.signature.inputs.inputs[0].shape == (-1, 3, -1, -1)
        assert info.saved_input_example_info["type"] == "ndarray"
        assert not (tracker.folder / "mlflow" / "model").exists()

    @pytest.mark.parametrize("call", ["create_logged_model", "log_model_artifacts", "log_outputs"])
    def test_model_of_a_killed_process_is_completed(
        self, begin: Begin, client: MlflowClient, call: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracker = begin()
        self.train_all(tracker)
        tracker.sync(self.RECORDS)
        monkeypatch.setattr(Client, "dies_after", (call,))
        with pytest.raises(KilledError):
            tracker.finish("FINISHED")
        monkeypatch.setattr(Client, "dies_after", ())
        again = begin()
        again.finish("FINISHED", self.RECORDS)
        models = self.models(again, client)
        assert sorted(models) == ["v9-digits-trial-0000", "v9-digits-trial-0001"]
        assert {str(model.status) for model in models.values()} == {"READY"}

    def test_model_without_weights_is_left_out(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync(self.RECORDS)
        tracker.finish("FINISHED")
        assert tracker.problem is None
        assert not self.models(tracker, client)

    def test_model_is_registered_once_where_it_is_asked_for(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        self.train_all(tracker)
        tracker.sync(self.RECORDS)
        name = "detector of a test"
        assert [tracker.register(record, name) for record in (self.RECORDS[2], self.RECORDS[1], self.RECORDS[2])] == [
            "1",
            "2",
            "1",
        ]
        version = client.get_model_version(name, "2")
        assert version.run_id == children_of(tracker, client)["trial-0001"].info.run_id

    def test_trial_that_mlflow_lacks_is_not_registered(self, begin: Begin) -> None:
        with pytest.raises(EnvironmentProblem, match="MLflow does not have trial 1 yet; nas sync sends it"):
            begin().register(finished(1, 0.5, 9.0), "detector")


class TestFilesOfAStudy:
    def test_report_is_sent_when_it_has_changed(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        for text in ("<html>1", "<html>2", "<html>2"):
            (tracker.folder / REPORT).write_text(text)
            Client.asked = ()
            tracker.sync([])
        assert "log_artifact" not in Client.asked
        assert artifact(client, parent_of(tracker, client), REPORT) == "<html>2"

    def test_load_of_the_machine_is_sent_once(self, begin: Begin, client: MlflowClient) -> None:
        lines = [json.dumps({"step": step, "time": 1000 + step, "values": {"cpu": step / 2}}) for step in range(3)]
        tracker = begin()
        path = tracker.folder / SYSTEM_METRICS
        path.write_text("\n".join(lines[:2]) + "\n")
        tracker.sync([])
        path.write_text("\n".join(lines) + "\n")
        tracker.sync([])
        begin().sync([])
        found = client.get_metric_history(tracker.parent_run_id, "system/cpu")
        assert [(point.step, point.timestamp, point.value) for point in found] == [
            (0, 1000, 0.0),
            (1, 1001, 0.5),
            (2, 1002, 1.0),
        ]


class TestFigure:
    def page(self, begin: Begin, client: MlflowClient, objectives: Sequence[str] = OBJECTIVES) -> str:
        tracker = begin(objectives=objectives)
        tracker.sync([stock(), finished(1, 0.5, 9.0, latency_steady=False), finished(2, 0.1, 99.0)])
        return artifact(client, parent_of(tracker, client), "front/front.html")

    def test_figure_needs_no_network(self, begin: Begin, client: MlflowClient) -> None:
        page = self.page(begin, client)
        assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", page)
        assert len(page) > 1_000_000  # plotly itself is inside

    def test_figure_has_each_trial(self, begin: Begin, client: MlflowClient) -> None:
        page = self.page(begin, client)
        for text in ("trial 1", "UIB 4", "mAP50-95 0.500", "GFLOPs 9.00", "params 1.93 M", "12.3 ms (unsteady)"):
            assert text in page
        assert "2 of 3 architectures are on the front" in page

    def test_figure_shows_an_architecture_once(self) -> None:
        records = [stock(), replace(stock(1, map50_95=0.44), repeat=1, fingerprint=stock().fingerprint)]
        page = front_figure("v9", records, pareto_front_of(records, OBJECTIVES), OBJECTIVES).to_html()
        assert "1 of 1 architectures are on the front" in page
        assert "mAP50-95 0.420 (mean of 2)" in page
        assert "trial 1" not in page

    def test_members_in_one_place_have_one_label(self) -> None:
        best = [finished(3, 0.5, 8.0), finished(1, 0.499, 7.99), finished(2, 0.3, 6.0)]
        (labels,) = (one.text for one in front_figure("v9", [stock(), *best], best, OBJECTIVES).data if one.text)
        assert list(labels) == ["3, 1", "", "2"]

    def test_names_are_no_markup_in_figures_and_notes(self) -> None:
        odd = "<img src=x onerror=alert(1)> | [a](http://x)\x1b"
        records = [stock(), replace(finished(1, 0.5, 7.0), summary=odd)]
        page = front_figure(odd, records, pareto_front_of(records, OBJECTIVES), OBJECTIVES).to_html(full_html=False)
        assert "<img" not in page
        assert "\\u003cimg" not in page  # as JSON in a script, from which Plotly reads HTML
        lines = [f"trial 1: {odd}"]
        text = note.describe("v9", records, records, OBJECTIVES, stock=None, commands={}, findings=lines, room=8000)
        assert "\x1b" not in text
        assert not re.search(r"(?<!\\)(<img|\[a\])", text)

    def test_figure_sends_no_data(self, begin: Begin, client: MlflowClient) -> None:
        assert '"showSendToCloud": false' in self.page(begin, client)

    def test_figure_shows_the_first_cost(self, begin: Begin, client: MlflowClient) -> None:
        assert '"title":{"text":"GFLOPs"},"type":"log"' in self.page(begin, client)
        assert '"title":{"text":"latency in ms"},"type":"linear"' in self.page(
            begin, client, ("map50_95", "latency_ms")
        )
        assert '"title":{"text":"GFLOPs"},"type":"log"' in self.page(begin, client, ("map50_95",))


class TestChild:
    def test_child_run_begins_with_its_architecture(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        proposed = running(1, picks={}, summary="", fingerprint="")
        tracker.sync([replace(running(0), state="waiting"), proposed])
        assert not children_of(tracker, client)
        tracker.sync([replace(running(0), state="waiting"), running(1)])
        assert list(children_of(tracker, client)) == ["trial-0001"]

    def test_child_run_has_tags(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([replace(stock(), state="running", ending=None), running(7)])
        children = children_of(tracker, client)
        child = children["trial-0007"]
        assert child.data.params == {"4.operator": "UIB", "4.UIB.start_kernel": "3", "4.UIB.expansion": "4"}
        assert children["trial-0000"].data.params == {"architecture": "stock"}
        assert children["trial-0000"].data.tags["nas.role"] == "stock"
        tags = {name: text for name, text in child.data.tags.items() if not name.startswith("mlflow.")}
        assert tags.pop("nas.study_id") == parent_of(tracker, client).data.tags["nas.study_id"]
        assert tags == {
            "nas.study": "v9-digits",
            "nas.trial": "7",
            "nas.fingerprint": "000000000007",
            "nas.architecture": "UIB 4",
            "nas.state": "running",
        }

    def test_child_run_has_the_number_of_the_repeat(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([running(0), running(1, fingerprint=f"{0:012x}", repeat=1)])
        tags = {name: child.data.tags for name, child in children_of(tracker, client).items()}
        assert "nas.repeat" not in tags["trial-0000"]
        assert tags["trial-0001"]["nas.repeat"] == "1"

    def test_child_run_has_many_params(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([running(0, picks={str(layer): {"UIB": {"expansion": 4}} for layer in range(120)})])
        assert len(children_of(tracker, client)["trial-0000"].data.params) == 240

    def test_child_run_has_metrics_of_each_epoch(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        train(tracker, 0, 1)
        tracker.sync([running(0)])
        child = children_of(tracker, client)["trial-0000"]
        assert child.info.status == "RUNNING"
        assert points(client, child, "train/box_loss") == [(1, 3.0)]
        assert points(client, child, "epoch_seconds") == [(1, 20.0)]
        assert "map50_95" not in child.data.metrics
        train(tracker, 0, 2, 3)
        asked = len(Client.asked)
        tracker.sync([running(0)])
        assert Client.asked[asked:] == ("log_batch", "log_batch")
        assert points(client, child, "train/box_loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
        assert points(client, child, "map50_95") == points(client, child, "map50") == [(2, 0.2), (3, 0.3)]

    def test_child_run_ends_with_scores_and_artifacts(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([running(0)])
        train(tracker, 0, 1, 2, 3)
        end(tracker, 0, model_yaml="nc: 10\n")
        tracker.sync([finished(0, 0.4, 8.0)])
        child = children_of(tracker, client)["trial-0000"]
        assert child.info.status == "FINISHED"
        assert child.data.tags["nas.state"] == "complete"
        assert child.data.tags["nas.ending"] == "finished"
        assert child.data.tags["pareto"] == "true"
        scores = {"score/map50_95": 0.4, "score/map50": 0.6, "gflops": 8.0, "params": 1_930_000, "seconds": 60.0}
        scores |= {"latency_ms": 12.34, "latency_spread_ms": 0.5}
        assert scores.items() <= child.data.metrics.items()
        assert points(client, child, "epoch_seconds") == [(1, 20.0), (2, 20.0), (3, 20.0)]
        assert artifact(client, child, "model.yaml") == "nc: 10\n"

    @pytest.mark.parametrize(
        ("state", "ending", "status"),
        [("pruned", "stopped", "FINISHED"), ("pruned", "out_of_memory", "FINISHED"), ("fail", "broken", "FAILED")],
    )
    def test_status_of_child_run_follows_its_trial(
        self, begin: Begin, client: MlflowClient, state: str, ending: str, status: str
    ) -> None:
        tracker = begin(experiment="nas/ends")
        end(tracker, 0, error_txt="Traceback")
        tracker.sync([running(0, state=state, ending=ending, detail="what happened", seconds=1.0)])
        child = children_of(tracker, client)["trial-0000"]
        assert child.info.status == status
        assert child.data.tags["nas.ending"] == ending
        assert child.data.tags["nas.detail"] == "what happened"
        assert "pareto" not in child.data.tags
        assert child.data.metrics == {"seconds": 1.0}
        assert child.info.end_time - child.info.start_time >= 1000
        assert artifact(client, child, "error.txt") == "Traceback"

    def test_ending_without_scores_is_not_finished(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([stock(), running(1, ending="finished")])
        assert children_of(tracker, client)["trial-0001"].info.status == "RUNNING"
        assert points(client, parent_of(tracker, client), "front_size") == [(1, 1)]

    def test_dominated_child_run_is_no_longer_pareto(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        records = [stock(), finished(1, 0.3, 4.0)]
        tracker.sync(records)
        asked = len(Client.asked)
        tracker.sync([*records, finished(2, 0.5, 8.0)])
        children = children_of(tracker, client)
        pareto = {name: child.data.tags["pareto"] for name, child in children.items()}
        assert pareto == {"trial-0000": "false", "trial-0001": "true", "trial-0002": "true"}
        # The tag of the one that left; the new child's run, params, scores, tags, end; a point, the note, the files.
        new_child = ["create_run", "log_batch", "log_batch", "log_batch", "set_terminated"]
        assert list(Client.asked[asked:]) == ["log_batch", *new_child, "log_batch", "log_batch", *["log_artifact"] * 3]


class TestContinuing:
    @pytest.fixture
    def story(self) -> list[list[Record]]:
        """A study as its supervisor sees it: stock runs and ends, another is stopped, a third still runs."""
        stopped = running(1, state="pruned", ending="stopped", seconds=5.0)
        return [
            [running(0, picks={}, summary="stock", role="stock")],
            [stock(), stopped, running(2)],
            [stock(), stopped, finished(2, 0.5, 8.0), running(3)],
        ]

    def test_sync_without_changes_makes_no_requests(self, begin: Begin, story: list[list[Record]]) -> None:
        tracker = begin()
        train(tracker, 3, 1)
        for records in story:
            tracker.sync(records)
        asked = len(Client.asked)
        tracker.sync(story[-1])
        assert Client.asked[asked:] == ()

    def test_new_process_continues_the_same_runs(
        self, begin: Begin, client: MlflowClient, story: list[list[Record]]
    ) -> None:
        first = begin()
        train(first, 3, 1, 2)
        for records in story:
            first.sync(records)
        contents, ids = everything(first, client), {run.info.run_id for run in children_of(first, client).values()}
        second = begin()
        second.sync(story[-1])
        assert second.parent_run_id == first.parent_run_id
        assert {run.info.run_id for run in children_of(second, client).values()} == ids
        assert everything(second, client) == contents
        train(second, 3, 3)
        second.sync(story[-1])
        assert [step for step, _ in points(client, children_of(second, client)["trial-0003"], "epoch_seconds")] == [
            1,
            2,
            3,
        ]

    def test_kill_after_any_write_loses_and_duplicates_nothing(
        self, begin: Begin, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun = running(0, picks={}, summary="stock", role="stock")
        story = [[begun], [stock(), running(1)], [stock(), finished(1, 0.5, 8.0)]]

        def live(folder: Path, story: list[list[Record]]) -> Tracker:
            """One process; it takes from the story what it has written."""
            tracker = begin(folder=folder)
            train(tracker, 1, *(() if TrialFiles.of(folder, 1).progress.exists() else (1, 2)))
            end(tracker, 1, model_yaml="nc: 10")
            while story:
                tracker.sync(story[0])
                story.pop(0)
            return tracker

        undisturbed = everything(live(tmp_path / "undisturbed", story.copy()), client)
        # Not after an artifact: that is written in place of itself, the first write of every life to come.
        monkeypatch.setattr(Client, "dies_after", ("create_run", "log_batch", "set_terminated"))
        kills = 0
        while story and kills < 100:
            try:
                tracker = live(tmp_path / "killed", story)
            except KilledError:
                kills += 1
        assert 20 < kills < 100
        assert everything(tracker, client) == undisturbed

    def test_ctrl_c_between_writes_is_recovered_in_the_same_process(
        self, begin: Begin, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracker = begin()
        monkeypatch.setattr(Client, "dies_after", ("create_run",))
        with pytest.raises(KilledError):
            tracker.sync([running(0)])  # the child is there, and nobody here knows of it
        monkeypatch.setattr(Client, "dies_after", ())
        tracker.finish("KILLED")
        child = children_of(tracker, client)["trial-0000"]
        assert child.info.status == "KILLED"
        assert child.data.tags["nas.architecture"] == "UIB 4"

    def test_stale_state_duplicates_nothing(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        records = [stock(), finished(1, 0.3, 4.0)]
        tracker.sync(records[:1])
        stale = (tracker.folder / TRACKING_STATE).read_text(encoding="utf-8")
        tracker.sync(records)
        contents = everything(tracker, client)
        (tracker.folder / TRACKING_STATE).write_text(stale, encoding="utf-8")
        again = begin()
        again.sync(records)
        assert everything(again, client) == contents

    def test_recreated_folder_is_another_study(self, begin: Begin, client: MlflowClient) -> None:
        first = begin()
        first.sync([stock()])
        (first.folder / TRACKING_STATE).unlink()
        second = begin()
        second.sync([stock(map50_95=0.2)])
        assert second.parent_run_id != first.parent_run_id
        assert children_of(first, client)["trial-0000"].data.metrics["score/map50_95"] == 0.4
        assert children_of(second, client)["trial-0000"].data.metrics["score/map50_95"] == 0.2

    def test_deleted_runs_are_written_again(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.sync([stock()])
        contents = everything(tracker, client)
        client.delete_run(tracker.parent_run_id)
        again = begin()
        again.sync([stock()])
        assert again.parent_run_id != tracker.parent_run_id
        assert everything(again, client) == contents

    @pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
    def test_finished_run_can_be_resumed(self, begin: Begin, client: MlflowClient, status: str) -> None:
        tracker = begin(experiment="nas/finishes")
        tracker.sync([stock(), running(1)])
        tracker.finish(status)
        assert parent_of(tracker, client).info.status == status
        statuses = {name: child.info.status for name, child in children_of(tracker, client).items()}
        assert statuses == {"trial-0000": "FINISHED", "trial-0001": "KILLED"}
        again = begin(experiment="nas/finishes")
        assert parent_of(again, client).info.status == status
        again.sync([stock(), running(1)])
        assert parent_of(again, client).info.status == "RUNNING"
        assert children_of(again, client)["trial-0001"].info.status == "RUNNING"
        again.sync([stock(), running(1, state="fail", ending="broken")])
        assert children_of(again, client)["trial-0001"].info.status == "FAILED"

    @pytest.mark.parametrize("detail", ["", "interrupted; its architecture is tried again"])
    def test_interrupted_trial_is_killed_not_failed(self, begin: Begin, client: MlflowClient, detail: str) -> None:
        tracker = begin(experiment="nas/interrupted")
        tracker.sync([running(0)])
        tracker.sync([running(0, state="fail", detail=detail)])
        assert children_of(tracker, client)["trial-0000"].info.status == "KILLED"

    @pytest.mark.parametrize("before", ["FINISHED", "KILLED"])
    def test_resume_without_work_keeps_the_end_time(self, begin: Begin, client: MlflowClient, before: str) -> None:
        tracker = begin(experiment="nas/nothing-to-do")
        tracker.sync([running(0)])
        tracker.sync([stock()])
        tracker.finish(before)
        ended = parent_of(tracker, client).info.end_time
        time.sleep(0.01)
        again = begin(experiment="nas/nothing-to-do")
        again.sync([stock()])
        assert parent_of(again, client).info.status == before
        again.finish("FINISHED")
        assert parent_of(again, client).info.status == "FINISHED"
        assert parent_of(again, client).info.end_time == ended

    def test_training_of_the_stock_model_counts_as_work(self, begin: Begin, client: MlflowClient) -> None:
        tracker = begin()
        tracker.finish("KILLED")
        TrialFiles.of_stock_model(tracker.folder).folder.mkdir()
        again = begin()
        again.sync([])
        assert parent_of(again, client).info.status == "RUNNING"

    @pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"study_id": 1, "finished": 2, "stock": 3}'])
    def test_damaged_state_begins_new_runs(
        self, begin: Begin, client: MlflowClient, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = begin(experiment="nas/torn")
        (first.folder / TRACKING_STATE).write_bytes(text.encode("latin-1"))
        second = begin(experiment="nas/torn")
        second.sync([stock()])
        assert second.parent_run_id != first.parent_run_id
        assert set(children_of(second, client)) == {"trial-0000"}
        assert [record.getMessage() for record in caplog.records] == [
            f"{first.folder / TRACKING_STATE}: cannot be read; the study gets a new run in MLflow"
        ]

    def test_no_temporary_files_are_left(self, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tracker = begin()
        end(tracker, 0, model_yaml="nc: 10\n")
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        monkeypatch.setattr(Client, "dies_after", ("log_artifact",))
        with pytest.raises(KilledError):
            tracker.sync([stock()])
        assert not list(temporary.iterdir())


class TestFindings:
    """What other studies found of this one's trials."""

    FOUND = Findings(
        lines=("Verdict on v9-digits: 5 fresh seeds", "trial 1: better by 1.8 points (0.6 to 3.0)"),
        trials={
            1: JudgedTrial(
                finding="better",
                sentence="trial 1: better by 1.8 points (0.6 to 3.0)",
                seeds=5,
                difference=1.8,
                low=0.6,
                high=3.0,
            )
        },
        tables={"verdict.json": '{"study": "v9-digits"}'},
    )

    @pytest.fixture
    def records(self) -> list[Record]:
        return [stock(), finished(1, 0.5, 7.0), finished(2, 0.3, 6.0)]

    def test_finding_is_in_the_note_and_in_the_runs_of_its_trials(
        self, begin: Begin, client: MlflowClient, records: list[Record]
    ) -> None:
        begin().finish("FINISHED", records)
        tracker = begin(findings=lambda: self.FOUND)
        tracker.send(records, unfinished=False)
        run, children = parent_of(tracker, client), children_of(tracker, client)
        first, second, empty, front, *_ = run.data.tags["mlflow.note.content"].splitlines()
        assert (first.strip(), second.strip(), empty) == (*self.FOUND.lines, "")
        assert front.startswith("**2** of 3 architectures")
        judged = children["trial-0001"]
        assert judged.data.tags["nas.verdict"] == self.FOUND.trials[1].sentence
        assert judged.data.tags["nas.finding"] == "better"
        assert [points(client, judged, f"verdict/{name}") for name in ("difference", "low", "high")] == [
            [(5, 1.8)],
            [(5, 0.6)],
            [(5, 3.0)],
        ]
        assert "nas.verdict" not in children["trial-0002"].data.tags
        assert artifact(client, run, "findings/verdict.json") == self.FOUND.tables["verdict.json"]

    def test_same_findings_are_not_written_twice(
        self, begin: Begin, client: MlflowClient, records: list[Record]
    ) -> None:
        begin(findings=lambda: self.FOUND).finish("FINISHED", records)
        again = begin(findings=lambda: self.FOUND)
        before = everything(again, client)
        Client.asked = ()
        again.finish("FINISHED", records)
        assert "log_batch" not in Client.asked
        assert everything(again, client) == before

    def test_changed_findings_replace_the_earlier_ones(
        self, begin: Begin, client: MlflowClient, records: list[Record]
    ) -> None:
        begin(findings=lambda: self.FOUND).finish("FINISHED", records)
        more = replace(self.FOUND.trials[1], seeds=10, difference=1.5, finding="undecided")
        tracker = begin(findings=lambda: Findings(lines=("another",), trials={1: more}))
        tracker.finish("FINISHED", records)
        judged = children_of(tracker, client)["trial-0001"]
        assert judged.data.tags["nas.finding"] == "undecided"
        assert points(client, judged, "verdict/difference") == [(5, 1.8), (10, 1.5)]
        assert parent_of(tracker, client).data.tags["mlflow.note.content"].startswith("another")
        without = begin()
        without.finish("FINISHED", records)
        assert children_of(without, client)["trial-0001"].data.tags["nas.finding"] == ""
        assert parent_of(without, client).data.tags["mlflow.note.content"].startswith("**2** of 3")

    def test_stage_is_shown_under_its_study(
        self, begin: Begin, client: MlflowClient, records: list[Record], tmp_path: Path
    ) -> None:
        search = begin()
        search.finish("FINISHED", records)
        stage = Stage(kind="confirm", folder=search.folder, purpose="trains the finalists of v9-digits again")
        confirmation = begin(folder=tmp_path / "v9-digits-confirm", study="v9-digits-confirm", stage=stage)
        confirmation.finish("FINISHED", records)
        run = parent_of(confirmation, client)
        assert run.data.tags["mlflow.parentRunId"] == search.parent_run_id
        assert (run.data.tags["nas.stage"], run.data.tags["nas.stage_of"]) == ("confirm", "v9-digits")
        assert "**v9-digits-confirm** trains the finalists of v9-digits again;" in run.data.tags["mlflow.note.content"]
        assert begin().parent_run_id == search.parent_run_id
        again = begin(folder=tmp_path / "v9-digits-confirm", study="v9-digits-confirm", stage=stage)
        assert again.parent_run_id == confirmation.parent_run_id

    def test_stage_of_a_study_that_is_not_tracked_has_its_name(
        self, begin: Begin, client: MlflowClient, tmp_path: Path
    ) -> None:
        stage = Stage(kind="ablate", folder=tmp_path / "gone", purpose="trains a trial again")
        tags = parent_of(begin(stage=stage), client).data.tags
        assert (tags["nas.stage"], tags["nas.stage_of"]) == ("ablate", "gone")
        assert "mlflow.parentRunId" not in tags
        assert not (tmp_path / "gone").exists()

    def test_front_stands_before_remarks_on_scores(self) -> None:
        first, second = finished(1, 0.5, 7.0), finished(2, 0.4, 6.0)
        best = [replace(first, picks={"4": {"UIB": {"expansion": 2}}}), replace(second, picks=UIB)]
        remarks = ["Effects of operators:", "none"]
        text = note.describe("v9", best, best, OBJECTIVES, stock=None, commands={}, remarks=remarks, room=8000)
        assert text.startswith("**2** of 2 architectures")
        assert text.index("| 2 | 0.400") < text.index("Effects of operators:  \nnone  \n\n**v9** is a search")

    def test_long_findings_leave_room_for_the_front(self) -> None:
        lines = [f"trial {number}: {'x' * 100}" for number in range(200)]
        best = [finished(1, 0.5, 7.0)]
        text = note.describe("v9", best, best, OBJECTIVES, stock=None, commands={}, findings=lines, room=8000)
        assert len(text) < 8000
        assert "more in the artifacts `findings/`" in text
        assert "| 1 | 0.500" in text


class TestSending:
    def test_send_writes_all_that_is_missing(
        self, begin: Begin, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(Client, "refuses", True)
        tracker = begin(sync_command="nas sync v9-digits")
        tracker.sync([running(0)])
        train(tracker, 0, 1, 2)
        end(tracker, 0, outcome_json="{}")
        os.utime(TrialFiles.of(tracker.folder, 0).outcome, (1000, 1000))
        tracker.finish("FINISHED", [stock()])
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 2  # once in the beginning, once in the end
        assert messages[0].endswith("the search goes on, and what is missing there is written once it works")
        assert messages[1].endswith("what is missing there (the study's run, trial 0) is sent by: nas sync v9-digits")
        monkeypatch.setattr(Client, "refuses", False)
        later = begin()
        later.send([stock()], unfinished=True)
        parent, child = parent_of(later, client), children_of(later, client)["trial-0000"]
        assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
        assert child.info.end_time == 1_000_000
        assert child.info.end_time - child.info.start_time == 60_000
        assert [step for step, _ in points(client, child, "train/box_loss")] == [1, 2]
        ended = parent.info.end_time
        begin().send([stock()], unfinished=True)
        assert parent_of(later, client).info.end_time == ended

    @pytest.mark.parametrize(("unfinished", "status"), [(True, "KILLED"), (False, "FINISHED")])
    def test_send_ends_the_runs_of_a_killed_process(
        self, begin: Begin, client: MlflowClient, unfinished: bool, status: str
    ) -> None:
        killed = begin(experiment="nas/left")
        killed.sync([stock(), running(1)])
        assert parent_of(killed, client).info.status == "RUNNING"
        end(killed, 0, outcome_json="{}")
        os.utime(TrialFiles.of(killed.folder, 0).outcome, (4e9, 4e9))  # whenever that is: the last sign of life
        begin(experiment="nas/left").send([stock(), running(1)], unfinished=unfinished)
        parent = parent_of(killed, client)
        assert (parent.info.status, parent.info.end_time) == (status, 4_000_000_000_000)
        assert children_of(killed, client)["trial-0001"].info.status == "KILLED"

    def test_send_raises_if_mlflow_cannot_be_used(self, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Client, "refuses", True)
        with pytest.raises(EnvironmentProblem, match=r"MLflow cannot be used at sqlite:.*: the server sleeps"):
            begin().send([stock()], unfinished=False)


class TestNeighbours:
    def test_active_run_of_the_caller_is_unchanged(
        self, begin: Begin, client: MlflowClient, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        theirs = client.create_run(client.create_experiment("theirs"), run_name="theirs")
        monkeypatch.setenv("MLFLOW_RUN_ID", theirs.info.run_id)
        with mlflow.start_run() as active:
            assert active.info.run_id == theirs.info.run_id
            tracker = begin()
            tracker.sync([stock(), running(1)])
            tracker.finish("FINISHED")
            assert mlflow.active_run().info.run_id == theirs.info.run_id
        after = client.get_run(theirs.info.run_id).data
        assert (after.params, after.metrics) == ({}, {})
        assert not {name for name in after.tags if name.startswith("nas.")}
        assert tracker.parent_run_id != theirs.info.run_id
        assert set(children_of(tracker, client)) == {"trial-0000", "trial-0001"}

    def test_global_state_of_mlflow_is_unchanged(
        self, begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        before = mlflow.get_tracking_uri()
        tracker = begin(folder=tmp_path / "study")
        tracker.sync([stock()])
        tracker.finish("FINISHED")
        assert mlflow.get_tracking_uri() == before
        assert mlflow.active_run() is None
        assert [path.name for path in tmp_path.iterdir()] == ["study"]

    def test_environment_of_the_user_is_unchanged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
        monkeypatch.delenv("GIT_PYTHON_REFRESH")
        mlflow_runs._settle_environment()
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
        assert os.environ["GIT_PYTHON_REFRESH"] == "quiet"


class TestFailures:
    @pytest.mark.parametrize(
        ("address", "reason", "advice"),
        [
            ("http://someone:secret@127.0.0.1:9", "refused", "start that server"),
            ("file:///somewhere/mlruns", "filesystem tracking backend", "name one of sqlite"),
            ("sqlite:////proc/nowhere/mlflow.db", "No such file", "make /proc/nowhere a folder"),
            ("nonsense://x", "nonsense", "name one of sqlite"),
        ],
        ids=["a server", "a folder", "a file", "nonsense"],
    )
    def test_invalid_mlflow_address_is_reported_and_the_search_continues(
        self, begin: Begin, address: str, reason: str, advice: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = begin(uri=address)
        tracker.sync([stock()])
        tracker.finish("FINISHED")
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 2
        for line in messages:
            assert reason in line
            assert advice in line
            assert "secret" not in line
            assert "\n" not in line

    def test_tracking_file_that_is_no_database_is_reported(
        self, begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "mlflow.db").write_text("not a database " * 100)
        begin(uri=f"sqlite:///{tmp_path}/mlflow.db")
        assert f"not a database (move {tmp_path}/mlflow.db elsewhere, and another is made)" in caplog.text

    def test_deleted_experiment_is_reported_with_its_restore_command(
        self, begin: Begin, client: MlflowClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.delete_experiment(parent_of(begin(), client).info.experiment_id)
        begin()
        assert re.search(r"python -m mlflow experiments restore --experiment-id \d+; the search goes on", caplog.text)

    def test_experiment_created_by_another_process_is_used(
        self, begin: Begin, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Client.get_experiment_by_name
        answers = [None]

        def late(self: Client, name: str) -> Any:
            return answers.pop() if answers else real(self, name)

        places = client.get_experiment(parent_of(begin(), client).info.experiment_id).artifact_location
        made = client.create_experiment("nas/meanwhile", artifact_location=f"{places}-meanwhile")
        monkeypatch.setattr(Client, "get_experiment_by_name", late)
        assert parent_of(begin(experiment="nas/meanwhile"), client).info.experiment_id == made

    def test_failure_of_any_kind_does_not_end_the_search(
        self, begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def breaks(*_: object, **__: object) -> None:
            raise KeyError("what nobody thought of")

        tracker = begin()
        monkeypatch.setattr(note, "describe", breaks)
        tracker.sync([stock()])
        assert "what nobody thought of" in caplog.text

    def test_unresponsive_server_does_not_end_the_search(
        self, begin: Begin, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = 0.0
        tracker = begin(clock=lambda: now)
        monkeypatch.setattr(Client, "refuses", True)
        tracker.sync([stock()])
        now = 20.0
        tracker.sync([stock()])
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert (
            "the server sleeps; the search goes on, and what is missing there is written once it works" in caplog.text
        )
        monkeypatch.setattr(Client, "refuses", False)
        now = 25.0
        tracker.sync([stock()])
        assert not children_of(tracker, client)  # it is given a pause
        now = 31.0
        tracker.sync([stock()])
        assert children_of(tracker, client)["trial-0000"].info.status == "FINISHED"
        monkeypatch.setattr(Client, "refuses", True)
        tracker.sync([stock(), running(1)])
        assert len(caplog.records) == 2

    def test_finish_does_not_wait_for_an_unresponsive_server(
        self, begin: Begin, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracker = begin(clock=lambda: 0.0)
        monkeypatch.setattr(Client, "refuses", True)
        tracker.sync([stock()])
        monkeypatch.setattr(Client, "refuses", False)
        tracker.sync([stock(), finished(1, 0.5, 7.0)])
        tracker.finish("FINISHED")
        assert set(children_of(tracker, client)) == {"trial-0000", "trial-0001"}
        assert parent_of(tracker, client).info.status == "FINISHED"


class TestAddresses:
    def test_default_tracking_address_is_a_file_in_the_runs_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert tracking_uri(Path("/home/me/runs/nas")) == "sqlite:////home/me/runs/nas/mlflow.db"
        odd = tmp_path / "50% of a b"
        assert database.sqlite_file(tracking_uri(odd)) == odd / "mlflow.db"

    def test_tracking_address_comes_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.lab:5000")
        assert tracking_uri(tmp_path) == "http://mlflow.lab:5000"

    @pytest.mark.parametrize(
        ("address", "root"),
        [
            ("sqlite:////a/mlflow.db", "/a/mlartifacts"),
            ("postgresql://db.lab/mlflow", "/runs/nas/mlartifacts"),
            ("http://mlflow.lab", None),
        ],
    )
    def test_mlflow_artifacts_are_beside_their_database(self, address: str, root: str | None) -> None:
        assert mlflow_runs._artifact_root(address, Path("/runs/nas")) == (Path(root) if root else None)

    @pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
    def test_ui_command_is_accepted_by_mlflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlflow.cli import cli

        _python, *module, ui = (command := ui_command("sqlite:////a b/mlflow.db", "127.0.0.1", 5001))[:4]
        assert (module, ui) == (["-m", "mlflow"], "ui")
        for name, value in ui_environment("sqlite:////a b/mlflow.db").items():
            monkeypatch.setenv(name, value)
        given = cli.get_command(None, ui).make_context(ui, command[4:]).params
        assert given["backend_store_uri"] == given["registry_store_uri"] == "sqlite:////a b/mlflow.db"
        assert (given["host"], given["port"], given["workers"]) == ("127.0.0.1", 5001, "1")
        assert given["artifacts_destination"] == "/a b/mlartifacts"

    def test_ui_command_refuses_the_address_of_a_server(self) -> None:
        with pytest.raises(EnvironmentProblem, match=r"http://mlflow.lab:5000 is a server"):
            ui_command("http://mlflow.lab:5000", "127.0.0.1", 5001)
