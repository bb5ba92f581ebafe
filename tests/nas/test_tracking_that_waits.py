"""MLflow's real server behind a gate that is away, slow, broken, or closed."""

import base64
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from nas import addresses
from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.tracking import background, tracker
from nas.tracking.background import BackgroundTracker
from nas.tracking.database import create_database
from nas.tracking.tracker import Tracker
from search_spaces.errors import EnvironmentProblem
from trials.scores import Epoch

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated"),  # imported by MLflow 3.17's server
]

REQUEST_SECONDS = 1
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Gate:
    """WSGI application in front of MLflow's.

    Attributes:
        state: `open`; `slow`: answers after its client has stopped waiting; a status such as `500 ...`.
        requests: how many came in each state.
        address: of the server.
        authorization: header without which it refuses; empty asks for none.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self.state, self.address = "open", ""
        self.requests: Counter[str] = Counter()
        self.authorization = ""

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        state = self.state
        if self.authorization and environment.get("HTTP_AUTHORIZATION") != self.authorization:
            state = "401 Unauthorized"
        self.requests[state] += 1
        if state == "slow":
            time.sleep(REQUEST_SECONDS + 0.5)
        elif state != "open":
            start(state, [("Content-Type", "text/plain")])
            return [b"no"]
        return self._application(environment, start)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('server')}/mlflow.db"
    create_database(uri)
    return uri


@pytest.fixture
def gate(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gate]:
    """A gate at `gate.address`."""
    for name, value in {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (tmp_path / "artifacts").as_uri(),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
        addresses.TRACKING: database,  # MLflow's server names it for its children with the first request,
    }.items():
        monkeypatch.setenv(name, value)
    from mlflow.server import app
    from mlflow.tracking._tracking_service import utils
    from werkzeug.serving import make_server

    monkeypatch.setattr(utils, "_tracking_uri", utils._tracking_uri)  # and for this process
    gate = Gate(app)
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(tracker, "_SECONDS_BETWEEN_ATTEMPTS", 0.05)
    gate.address = f"http://127.0.0.1:{server.server_port}"
    yield gate
    server.shutdown()
    thread.join()
    server.server_close()


class Search:
    """Trials that end one after another, each with two epochs, and their records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[Record] = []

    def run_trial(self) -> Sequence[Record]:
        """Run one more trial; return all records."""
        trial = len(self.records)
        files = TrialFiles.of(self.folder, trial)
        files.folder.mkdir(parents=True)
        for number in (1, 2):
            files.write_epoch(Epoch(epoch=number, losses={"box": 1.0}, map50_95=0.1, map50=0.2, seconds=1.0))
        files.outcome.write_text("{}")
        os.utime(files.outcome, (2_000_000_000 - trial, 2_000_000_000 - trial))  # the later ones have ended earlier
        stock = {"picks": {}, "summary": "stock", "role": "stock"} if trial == 0 else {}
        fields = {"picks": {"4": {"UIB": {}}}, "summary": "UIB 4", "fingerprint": f"{trial:012x}", "seconds": 2.0}
        scores = {"map50_95": 0.1 + trial / 100, "map50": 0.2, "gflops": 8.0, "params": 1000, "epochs": 2}
        ended = {"state": "complete", "ending": "finished", **scores}
        self.records = [*self.records, Record(trial=trial, **{**fields, **ended, **stock})]  # type: ignore[arg-type]
        return self.records

    def tracker(self, uri: str) -> Tracker:
        return Tracker(
            uri,
            self.folder,
            experiment=f"nas/{self.folder.parent.name}",
            study="s",
            settings={"space": "v9"},
            objectives=("map50_95", "gflops"),
            commands={"resume": "nas resume s", "export": "nas export s"},
            sync_command="nas sync s",
        )


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path / "s")


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def assert_complete(client: MlflowClient, search: Search) -> None:
    """Assert that MLflow has one run of each trial and all points once, in the order in which the trials ended."""
    experiment = client.get_experiment_by_name(f"nas/{search.folder.parent.name}")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["s", *(f"trial-{record.trial:04d}" for record in search.records)]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name, run in runs.items():
        for metric in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(set(steps)) == sorted(steps), (name, metric)
        if name != "s":
            losses = client.get_metric_history(run.info.run_id, "train/box")
            assert [(point.step, point.timestamp - run.info.start_time) for point in losses] == [(1, 1000), (2, 2000)]
    best = client.get_metric_history(runs["s"].info.run_id, "best_map50_95")
    assert [point.step for point in sorted(best, key=lambda point: point.step)] == [
        number + 1 for number in range(len(search.records))
    ]


@pytest.mark.slow
def test_search_goes_on_whatever_the_server_does_and_everything_arrives_once(
    gate: Gate, search: Search, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate.state = "500 INTERNAL SERVER ERROR"
    tracking = BackgroundTracker(lambda: search.tracker(gate.address), "nas sync s")
    longest = 0.0
    for state in (gate.state, "403 FORBIDDEN", "slow", "open", "slow", "500 INTERNAL SERVER ERROR", "slow", "open"):
        gate.state = state
        before, asked = gate.requests[state], time.monotonic()
        tracking.sync(search.run_trial())
        longest = max(longest, time.monotonic() - asked)
        limit = time.monotonic() + 60.0
        while gate.requests[state] == before:  # a supervisor looks once a second
            assert time.monotonic() < limit
            time.sleep(0.1)
            tracking.sync(search.records)
    tracking.finish("FINISHED")
    assert longest < 0.1
    time.sleep(REQUEST_SECONDS + 1.0)  # slow answers to requests that nobody waits for
    search.tracker(gate.address).send(search.records, unfinished=False)
    assert_complete(MlflowClient(tracking_uri=database), search)
    assert any("the search goes on" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_end_of_a_search_waits_a_bounded_time_and_says_what_is_missing(
    gate: Gate, search: Search, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = BackgroundTracker(lambda: search.tracker(gate.address), "nas sync s")
    search.run_trial()
    tracking.sync(search.run_trial())
    trials = MlflowClient(tracking_uri=database)
    experiment = f"nas/{search.folder.parent.name}"

    def has_sent() -> bool:
        found = trials.get_experiment_by_name(experiment)
        runs = [] if found is None else trials.search_runs([found.experiment_id])
        return sum(run.info.status == "FINISHED" for run in runs) == 2  # the trials', not yet the study's

    wait_until(has_sent)
    gate.state = "slow"
    monkeypatch.setattr(background, "END_SECONDS", 0.3)
    tracking.sync(search.run_trial())
    began = time.monotonic()
    tracking.finish("FINISHED")
    assert time.monotonic() - began < 1.0
    expected = (
        "MLflow has not taken everything within 0 s; what is missing there (the end of the study's run, trial 2) is "
        "sent by: nas sync s"
    )
    assert expected in [record.getMessage() for record in caplog.records]
    gate.state = "open"
    time.sleep(2 * REQUEST_SECONDS + 1.0)
    search.tracker(gate.address).send(search.records, unfinished=False)
    assert_complete(trials, search)


class TestBackground:
    """The thread, without MLflow."""

    def test_newer_records_replace_those_that_wait(self) -> None:
        go_on = threading.Event()
        calls: list[object] = []

        class Slow:
            def sync(self, records: Sequence[Record]) -> None:
                calls.append(len(records))
                assert go_on.wait(10)

            def finish(self, status: str, records: Sequence[Record] | None = None) -> None:
                calls.append((status, len(records or ())))

            def unsent(self, _records: Sequence[Record]) -> str:
                return ""

        tracking = BackgroundTracker(Slow, "nas sync s")
        record = Record(trial=0, state="running", picks={}, summary="", fingerprint="")
        for number in range(1, 50):
            tracking.sync([record] * number)
            if number == 1:
                wait_until(lambda: calls == [1])
        go_on.set()
        tracking.finish("KILLED")
        assert calls[0] == 1
        assert calls[-1] == ("KILLED", 49)
        assert len(calls) <= 3

    def test_failure_of_the_tracker_ends_no_search(self, caplog: pytest.LogCaptureFixture) -> None:
        def breaks() -> Tracker:
            raise KeyError("what nobody thought of")

        tracking = BackgroundTracker(breaks, "nas sync s")
        tracking.sync([])
        tracking.finish("FINISHED")
        assert "what nobody thought of" in caplog.text
        assert "nas sync s" in caplog.text

    def test_without_mlflow_the_end_waits_for_nothing(self) -> None:
        tracking = BackgroundTracker(lambda: None, "nas sync s")
        tracking.sync([])
        tracking.finish("FINISHED")


def test_server_takes_the_password_of_the_environment(
    gate: Gate, search: Search, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.authorization = f"Basic {base64.b64encode(b'me:s3cret').decode()}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    records = search.run_trial()
    refused = search.tracker(gate.address)
    with pytest.raises(EnvironmentProblem, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        refused.send(records, unfinished=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    search.tracker(gate.address).send(records, unfinished=False)
    assert_complete(MlflowClient(tracking_uri=database), search)
    assert gate.requests["401 Unauthorized"]
    assert gate.requests["open"]
