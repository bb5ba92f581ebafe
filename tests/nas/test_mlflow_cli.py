"""`nas sync` and `nas ui`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.folders import REPORT
from nas.study.study import Study
from nas.study.tracking_state import TrackingState
from nas.tracking import server
from nas.tracking.mlflow_runs import ui_command, ui_environment
from nas.tracking.server import PagesServer
from search_spaces.errors import EnvironmentProblem, SpecError
from trials import Outcome

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

TrackIn = Callable[[Study, str], None]


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def untracked(
    make_study: Callable[..., Study],
    score: Callable[..., Outcome],
    track_in: TrackIn,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Study:
    """A study that has run while MLflow was away."""
    study = make_study(trials=3)
    track_in(study, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(worker, "evaluate", score)
    Worker(study, deadline=float("inf")).run()
    return study


class TestSync:
    def test_sync_sends_what_is_missing(self, untracked: Study) -> None:
        result = nas("sync", "small", "--runs", untracked.folder.parent, "--format", "json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {"study": "small", "tracking": untracked.file.tracking, "trials": 3}
        assert f"see it with: nas ui --runs {untracked.folder.parent}" in " ".join(result.stderr.split())
        client = MlflowClient(tracking_uri=untracked.file.tracking)
        experiment = client.get_experiment_by_name(f"nas/{untracked.settings.space}")
        runs = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
        assert runs == dict.fromkeys(("small", "trial-0000", "trial-0001", "trial-0002"), "FINISHED")

    def test_sync_without_a_server_is_an_error_in_one_line(
        self, untracked: Study, track_in: TrackIn, caplog: pytest.LogCaptureFixture
    ) -> None:
        track_in(untracked, "http://127.0.0.1:9")
        result = nas("sync", "small", "--runs", untracked.folder.parent)
        assert result.exit_code == 2
        assert result.stderr.count("MLflow cannot be used at http://127.0.0.1:9: ") == 1
        assert "(start that server)" in result.stderr
        assert "MLflow" not in caplog.text

    def test_sync_of_a_running_study_is_refused(self, untracked: Study) -> None:
        held = untracked.supervision_lock
        held.take()
        result = nas("sync", "small", "--runs", untracked.folder.parent)
        held.release()
        assert result.exit_code == 2
        assert "small is running in another process, which sends what is missing itself" in result.stderr


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    """Page of a report, which is made without its contents."""
    monkeypatch.setattr("nas.report.page.page.page", lambda _: "<p>a page</p>")
    return "<p>a page</p>"


class TestReport:
    def test_the_page_of_a_tracked_study_is_sent(self, untracked: Study, page: str, tmp_path: Path) -> None:
        report = ("report", "small", "--runs", untracked.folder.parent)
        assert "MLflow" not in nas(*report).stderr
        assert not (tmp_path / "mlflow.db").exists()
        TrackingState.of(untracked.folder)
        assert "MLflow" not in nas(*report, "--no-mlflow").stderr
        assert "MLflow" not in nas(*report, "--out", tmp_path / "elsewhere.html").stderr
        assert not (tmp_path / "mlflow.db").exists()
        result = nas(*report)
        assert result.exit_code == 0, result.stderr
        assert "MLflow has it; see it with: nas ui" in result.stderr
        client = MlflowClient(tracking_uri=untracked.file.tracking)
        (found,) = client.search_experiments(filter_string="name LIKE 'nas/%'")
        (run,) = client.search_runs([found.experiment_id], "tags.mlflow.runName = 'small'")
        sent = client.download_artifacts(run.info.run_id, "report.html", str(tmp_path))
        assert Path(sent).read_text(encoding="utf-8") == page

    def test_a_server_that_is_away_costs_a_line(self, untracked: Study, page: str, track_in: TrackIn) -> None:
        track_in(untracked, "http://127.0.0.1:9")
        TrackingState.of(untracked.folder)
        report = ("report", "small", "--runs", untracked.folder.parent)
        result = nas(*report)
        assert result.exit_code == 0, result.stderr
        assert "MLflow lacks the page: MLflow cannot be used at http://127.0.0.1:9: " in result.stderr
        assert (untracked.folder / REPORT).read_text(encoding="utf-8") == page
        assert nas(*report, "--mlflow").exit_code == 2

    @pytest.mark.usefixtures("page")
    def test_a_running_search_sends_it_itself(self, untracked: Study, tmp_path: Path) -> None:
        TrackingState.of(untracked.folder)
        with untracked.supervision_lock.held_at_once(AssertionError("it is free")):
            result = nas("report", "small", "--runs", untracked.folder.parent)
        assert result.exit_code == 0, result.stderr
        assert "the search, which runs, sends the page to MLflow" in result.stderr
        assert not (tmp_path / "mlflow.db").exists()


@pytest.fixture
def busy() -> Iterator[int]:
    """A port in use."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


class TestUi:
    def test_ui_reports_a_port_in_use_with_the_next_free_one(self, busy: int, tmp_path: Path) -> None:
        result = nas("ui", "--port", busy, "--runs", tmp_path)
        assert result.exit_code == 2
        problem, _, free = result.stderr.strip().rstrip(")").rpartition(" ")
        assert problem == f"port: {busy} is in use (the next free one: --port"
        server.require_free("127.0.0.1", int(free))
        assert not (tmp_path / "mlflow.db").exists()

    def test_ui_refuses_a_host_of_another_machine(self) -> None:
        with pytest.raises(SpecError, match=r"host: cannot listen on 192\.0\.2\.1"):
            server.require_free("192.0.2.1", 5000)

    def test_ui_refuses_the_address_of_a_server(self) -> None:
        with pytest.raises(EnvironmentProblem, match="is a server with pages of its own"):
            PagesServer("http://somewhere:5000", "127.0.0.1", 5000)

    def test_ui_command_line_has_no_password(self) -> None:
        uri = "postgresql://me:s3cret@lab/mlflow"
        assert not [word for word in ui_command(uri, "127.0.0.1", 5000) if "s3cret" in word or "lab" in word]
        assert uri in ui_environment(uri).values()

    @pytest.mark.parametrize(
        ("host", "is_open"),
        [
            ("127.0.0.1", False),
            ("::1", False),
            ("localhost", False),
            ("0.0.0.0", True),  # noqa: S104 - nothing listens
            ("::", True),
            ("", True),
        ],
    )
    def test_ui_warns_where_other_machines_reach_it(self, host: str, is_open: bool) -> None:
        assert server._is_loopback(host) is not is_open

    @pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300, "..", "\x00"])
    def test_ui_refuses_a_host_without_address(self, host: str) -> None:
        with pytest.raises(EnvironmentProblem, match="no address of that name"):
            server._is_loopback(host)

    def test_ui_listens_on_this_machine_alone_by_default(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(server, "create_database", lambda _: None)
        monkeypatch.setattr(server, "ui_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
        options = ("ui", "--no-browser", "--runs", tmp_path, "--port", free_port())
        assert "warning" not in nas(*options).stderr
        assert "other machines reach 0.0.0.0" in nas(*options, "--host", "0.0.0.0").stderr  # noqa: S104 - it ends at once

    def test_ui_opens_a_browser_once_the_server_answers(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        opened: list[str] = []

        def open_page(address: str) -> None:
            opened.append(address)
            os.kill(os.getpid(), signal.SIGTERM)

        (tmp_path / "health").touch()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(server, "create_database", lambda _: None)
        monkeypatch.setattr(server, "ui_command", lambda _uri, host, port: [*SERVER, str(port), "--bind", host])
        monkeypatch.setattr(webbrowser, "open", open_page)
        pages = PagesServer("sqlite://", "127.0.0.1", port := free_port())
        with pytest.raises(KeyboardInterrupt):
            pages.run(open_browser=True)
        assert opened == [pages.address]
        server.require_free("127.0.0.1", port)

    def test_ui_opens_no_browser_without_a_screen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "platform", "linux")
        assert not server._has_screen()

    def test_ui_reports_a_server_that_exits(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(server, "create_database", lambda _: None)
        monkeypatch.setattr(server, "ui_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
        result = nas("ui", "--no-browser", "--runs", tmp_path, "--port", free_port())
        assert result.exit_code == 2
        assert "MLflow's server ended by itself, with status 3" in result.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_signal_ends_the_ui_server_and_its_processes(self, tmp_path: Path, number: signal.Signals) -> None:
        port = free_port()
        options = ["ui", "--no-browser", "--runs", str(tmp_path), "--port", str(port)]
        process = subprocess.Popen([*NAS, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        limit = time.monotonic() + 180
        while not answers(port, "/health") and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.5)
        assert answers(port, "/")
        process.send_signal(number)
        results, errors = process.communicate(timeout=60)
        lines = errors.removeprefix("loading PyTorch ...\n").splitlines()
        assert lines[0] == f"MLflow of {tmp_path} in about ten seconds; Ctrl-C stops it"
        assert lines[1].startswith(f"http://127.0.0.1:{port}/")
        assert len(lines) == 3
        assert lines[2].startswith("[MLflow] Security middleware enabled")  # which says how to let others in
        assert not results
        server.require_free("127.0.0.1", port)


# Tests may run in a shell's background job, which ignores SIGINT, or under nohup, which ignores SIGHUP.
IN_TERMINAL = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from nas.cli import main
main()
"""
NAS = (sys.executable, "-c", IN_TERMINAL)
SERVER = (sys.executable, "-m", "http.server")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def answers(port: int, path: str) -> bool:
    """Whether a server gives a page."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
