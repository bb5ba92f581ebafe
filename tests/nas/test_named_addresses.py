"""A study's file names a database and MLflow; only addresses that the user has named are connected to."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nas import addresses
from nas.cli import app
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.study import storage_retries
from nas.study.named_addresses import remember, require_named
from nas.study.study import Study
from nas.workflows import begin, running
from nas.workflows.derived import derived_study
from nas.workflows.join import join
from search_spaces import cache_folder
from search_spaces.errors import EnvironmentProblem, NasError, StudyError

MakeStudy = Callable[..., Study]


class Server:
    """Server of nothing on this machine: it counts who connects, and hangs up."""

    def __init__(self) -> None:
        self.calls = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    @property
    def database(self) -> str:
        return f"postgresql://me@127.0.0.1:{self.port}/nas"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            self.calls += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    for name in (addresses.STORAGE, addresses.OPTUNA_STORAGE, addresses.TRACKING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(begin, "require_same_data", lambda _: None)


@pytest.fixture
def foreign(make_study: MakeStudy) -> Callable[..., Study]:
    """Return a function that returns a study as somebody else sends it: its file names what it likes."""

    def from_elsewhere(**fields: str) -> Study:
        study = make_study(tracking=addresses.sqlite(Path("mlflow.db")))
        study.storage.engine.dispose()
        path = study.folder / "study.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return Study.open(study.folder)

    return from_elsewhere


def nas(*words: str, study: Study) -> Result:
    return CliRunner().invoke(app, [*words, "--runs", str(study.folder.parent)])


def advice(study: Study, variable: str, address: str) -> str:
    key, verb = {addresses.STORAGE: ("storage", "status"), addresses.TRACKING: ("tracking", "sync")}[variable]
    return (
        f"{study.folder / 'study.json'}: {key}: {address} was not named by you on this machine, and a study from "
        f"elsewhere may name any server or file (to use it, name it once: {variable}={address} nas {verb} small "
        f"--runs {study.folder.parent})"
    )


class TestStorage:
    @pytest.mark.parametrize(
        "command",
        [
            *(("status",), ("pareto",), ("trials",), ("effects",), ("trust",), ("report",), ("watch",), ("resume",)),
            *(("worker",), ("confirm",), ("export", "--best", "map"), ("clean", "--all"), ("fsck",), ("pack",)),
        ],
        ids=" ".join,
    )
    def test_database_that_a_study_from_elsewhere_names_is_not_connected_to(
        self, command: Sequence[str], foreign: Callable[..., Study], server: Server
    ) -> None:
        pytest.importorskip("psycopg")
        study = foreign(storage=server.database)
        verb, *options = command
        result = nas(verb, "small", *options, study=study)
        assert server.calls == 0
        file, _, wanted = advice(study, addresses.STORAGE, server.database).partition(": ")
        assert f"small/{Path(file).name}: {wanted}" in " ".join(result.output.split())
        assert result.exit_code == (1 if verb == "fsck" else 2)

    def test_no_command_of_all_studies_connects_to_it(self, foreign: Callable[..., Study], server: Server) -> None:
        study = foreign(storage=server.database)
        result = nas("status", "--format", "json", study=study)
        (row,) = json.loads(result.stdout)
        assert row["problem"] == advice(study, addresses.STORAGE, server.database)
        assert server.calls == 0

    def test_study_derived_from_it_does_not_connect_to_it(self, foreign: Callable[..., Study], server: Server) -> None:
        study = foreign(storage=server.database)
        settings = study.settings.model_copy(update={"confirms": "small"})
        with pytest.raises(StudyError, match="was not named by you"):
            derived_study(study, "small-confirm", settings, trials=1, changes={})
        assert server.calls == 0

    def test_environment_names_it_once_for_all(
        self, foreign: Callable[..., Study], server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("psycopg")
        study = foreign(storage=server.database)
        monkeypatch.setenv(addresses.STORAGE, server.database.replace("me@", "me:s3cr3t@"))
        for calls in (1, 2):
            assert nas("status", "small", study=study).exit_code == 2  # it hangs up
            assert server.calls == calls
            monkeypatch.delenv(addresses.STORAGE, raising=False)

    @pytest.mark.parametrize("command", [begin.resume, join])
    def test_option_names_it_once_for_all(
        self,
        command: Callable[..., Study],
        foreign: Callable[..., Study],
        server: Server,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        pytest.importorskip("psycopg")
        monkeypatch.setattr(storage_retries, "PATIENCE_SECONDS", 0.0)  # a machine that has joined before would wait
        study = foreign(storage=server.database)
        with pytest.raises(EnvironmentProblem, match=r"cannot be opened|does not answer"):
            command("small", runs=study.folder.parent, storage=server.database)
        assert server.calls == 1
        assert nas("status", "small", study=study).exit_code == 2
        assert server.calls == 2

    def test_file_elsewhere_is_not_opened_unless_it_is_named(
        self, foreign: Callable[..., Study], tmp_path: Path
    ) -> None:
        study = foreign()
        mine = tmp_path / "mine.db"
        (study.folder / "study.db").rename(mine)
        study = foreign_file(study, storage=addresses.sqlite(mine))
        with pytest.raises(StudyError) as caught:
            study.records()
        assert str(caught.value) == advice(study, addresses.STORAGE, addresses.sqlite(mine))
        remember(addresses.sqlite(mine), addresses.STORAGE, study.folder)
        assert len(Study.open(study.folder).records()) == 1

    def test_file_beside_the_studies_needs_no_name_but_a_link_out_of_them_does(
        self, foreign: Callable[..., Study], tmp_path: Path
    ) -> None:
        study = foreign(storage="sqlite:///../shared.db")
        shared, mine = study.folder.parent / "shared.db", tmp_path / "mine.db"
        (study.folder / "study.db").rename(shared)
        opened = Study.open(study.folder)
        assert len(opened.records()) == 1
        opened.storage.engine.dispose()
        shared.rename(mine)
        shared.symlink_to(mine)
        with pytest.raises(StudyError, match="was not named by you"):
            Study.open(study.folder).records()

    def test_folder_of_a_study_that_is_a_link_needs_no_name(
        self, foreign: Callable[..., Study], tmp_path: Path
    ) -> None:
        study = foreign()
        study.folder.rename(tmp_path / "large disk")
        study.folder.symlink_to(tmp_path / "large disk")
        assert len(Study.open(study.folder).records()) == 1

    def test_new_study_remembers_the_address_that_its_user_gave(self, make_study: MakeStudy, tmp_path: Path) -> None:
        study = make_study(storage=addresses.sqlite(tmp_path / "shared.db"))
        assert len(Study.open(study.folder).records()) == 1


def foreign_file(study: Study, **fields: str) -> Study:
    """Return a study whose file names something else."""
    path = study.folder / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return Study.open(study.folder)


class InThisProcess:
    """Stand-in for a supervisor that trains nothing."""

    def __init__(self, study: Study, on_tick: Callable[[Sequence[Record]], None]) -> None:
        self._study, self._on_tick = study, on_tick

    def run(self) -> None:
        self._on_tick(self._study.records())


class TestTracking:
    @pytest.mark.parametrize("kind", ["http", "postgresql", "sqlite"])
    def test_mlflow_that_a_study_from_elsewhere_names_is_not_connected_to(
        self, kind: str, foreign: Callable[..., Study], server: Server, tmp_path: Path
    ) -> None:
        mine = tmp_path / "mine.db"
        named = {"http": server.mlflow, "postgresql": server.database, "sqlite": addresses.sqlite(mine)}[kind]
        study = foreign(tracking=named)
        result = nas("sync", "small", study=study)
        assert result.exit_code == 2
        assert advice(study, addresses.TRACKING, named) in " ".join(result.output.split())
        result = nas("fsck", "small", study=study)
        assert f"in MLflow: was not compared: {study.folder / 'study.json'}: tracking: {named}" in result.output
        with pytest.raises(NasError, match="was not named by you"):
            running.register(study, 0, "mine")
        assert server.calls == 0
        assert not mine.exists()

    def test_search_goes_on_without_it_and_says_so(
        self,
        foreign: Callable[..., Study],
        server: Server,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        study = foreign(tracking=server.mlflow)
        monkeypatch.setattr(running, "Supervisor", InThisProcess)
        running.supervise(study)
        assert server.calls == 0
        wanted = advice(study, addresses.TRACKING, server.mlflow)
        assert caplog.messages == [f"{wanted}; until then it is not tracked in MLflow"]

    def test_environment_names_it_once_for_all(
        self, foreign: Callable[..., Study], server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = foreign(tracking=server.mlflow)
        monkeypatch.setenv(addresses.TRACKING, server.mlflow)
        for _ in range(2):
            before = server.calls
            assert nas("sync", "small", study=study).exit_code == 2  # it hangs up
            assert server.calls > before
            monkeypatch.delenv(addresses.TRACKING, raising=False)

    def test_database_of_trials_is_not_thereby_mlflows(self, foreign: Callable[..., Study], server: Server) -> None:
        study = foreign(tracking=server.database)
        remember(server.database, addresses.STORAGE, study.folder)
        with pytest.raises(StudyError, match="was not named by you"):
            _ = study.tracking


class TestMark:
    def test_no_password_is_remembered_and_none_is_needed(self, tmp_path: Path) -> None:
        remember("postgresql://me:s3cr3t@lab/nas", addresses.STORAGE, tmp_path / "study")
        require_named("postgresql://me@lab/nas", addresses.STORAGE, tmp_path / "study")
        (mark,) = (cache_folder.path() / "addresses").iterdir()
        assert mark.read_bytes() == b""

    @pytest.mark.parametrize(
        "other", ["postgresql://me@lab/nas2", "postgresql://me@evil/nas", "postgresql://me@lab/nas?host=evil"]
    )
    def test_another_address_is_another(self, other: str, tmp_path: Path) -> None:
        remember("postgresql://me@lab/nas", addresses.STORAGE, tmp_path / "study")
        with pytest.raises(StudyError, match="was not named by you"):
            require_named(other, addresses.STORAGE, tmp_path / "study")

    def test_address_in_the_advice_is_quoted(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError) as caught:
            require_named("http://lab/$(touch x)", addresses.TRACKING, tmp_path / "study")
        assert "MLFLOW_TRACKING_URI='http://lab/$(touch x)' nas sync study" in str(caught.value)

    @pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
    def test_name_that_no_file_has_is_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match="was not named by you"):
            require_named(f"sqlite:////{name}", addresses.STORAGE, tmp_path / "study")

    def test_cache_folder_that_is_a_file_is_named_but_the_environment_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "cache").touch()
        with pytest.raises(EnvironmentProblem, match="NAS_CACHE"):
            remember("http://lab", addresses.TRACKING, tmp_path / "study")
        monkeypatch.setenv(addresses.TRACKING, "http://me:s3cr3t@lab")
        require_named("http://me@lab", addresses.TRACKING, tmp_path / "study")


def test_worker_of_a_supervisor_is_given_the_address_of_a_named_storage(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: Callable[..., object]
) -> None:
    from nas.execution import supervisor, worker

    monkeypatch.setattr(worker, "evaluate", score)
    study = make_study(trials=1, storage=addresses.sqlite(tmp_path / "shared.db"))
    process = supervisor._WorkerProcess(index=0, device="cpu", log=study.folder / "workers" / "0.log")
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv(addresses.STORAGE, supervisor._environment(process, study)[addresses.STORAGE])
    opened = Study.open(study.folder)
    Worker(opened, deadline=float("inf")).run()
    assert opened.records()[0].finished
