"""MLflow's database: created by one process, complete or missing."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from nas.tracking import database, mlflow_runs
from nas.tracking.database import create_database
from nas.tracking.mlflow_runs import Runs

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

STATEMENTS = (8, 200)
"""After so many statements of its migrations a process is killed."""

KILLED = """
import os, signal, sys
from mlflow import MlflowClient
from sqlalchemy import Engine, event
from nas.tracking.mlflow_runs import Runs
from pathlib import Path

way, folder, *moments = sys.argv[1:]
for moment in moments:
    if (child := os.fork()) == 0:
        left = int(moment)

        def count(*_):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", count)
        at = Path(folder, moment)
        at.mkdir()
        uri = f"sqlite:///{at}/mlflow.db"
        if way == "mlflow":
            MlflowClient(tracking_uri=uri).search_experiments()
        else:
            Runs(uri, "nas/v9", at, {"a": "b"}, key="a")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it came to its end"
"""


def killed(way: str, folder: Path) -> None:
    """Create databases in `folder/<statements>/mlflow.db` in processes that are killed."""
    subprocess.run([sys.executable, "-c", KILLED, way, str(folder), *map(str, STATEMENTS)], check=True, timeout=300)


@pytest.fixture(scope="module")
def half_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files that a process killed within MLflow's migrations can leave."""
    folder = tmp_path_factory.mktemp("half-made")
    killed("mlflow", folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files that a process killed within our creation of a database leaves."""
    folder = tmp_path_factory.mktemp("interrupted")
    killed("nas", folder)
    return folder


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("nas.")]


def opened(folder: Path) -> Runs:
    return Runs(f"sqlite:///{folder}/mlflow.db", "nas/v9", folder, {"nas.study_id": "1"}, key="nas.study_id")


@pytest.mark.parametrize("statements", STATEMENTS)
def test_mlflow_database_is_created_after_a_kill_within_its_creation(
    interrupted: Path, statements: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = interrupted / str(statements)
    assert not (folder / "mlflow.db").exists()
    opened(folder).begin("a study")
    assert not warnings(caplog)
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


@pytest.mark.parametrize("statements", STATEMENTS)
def test_incomplete_mlflow_database_is_renamed(
    half_made: Path, statements: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_made / str(statements)
    before = (folder / "mlflow.db").read_bytes()
    opened(folder).begin("a study")
    made = sqlite3.connect(folder / "mlflow.db").execute("SELECT name FROM runs").fetchall()
    assert made == [("a study",)]
    if before:
        assert warnings(caplog) == [
            f"{folder}/mlflow.db: half-made by a process that was killed; kept as mlflow.db.half-made-1, and made anew"
        ]
        assert (folder / "mlflow.db.half-made-1").is_file()
    caplog.clear()
    opened(folder)
    assert not warnings(caplog)


def test_existing_mlflow_database_is_unchanged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MlflowClient(tracking_uri=uri).create_experiment("theirs")
    opened(tmp_path)
    inode = (tmp_path / "mlflow.db").stat().st_ino
    create_database(uri)
    assert (tmp_path / "mlflow.db").stat().st_ino == inode
    assert {one.name for one in MlflowClient(tracking_uri=uri).search_experiments()} == {"Default", "theirs", "nas/v9"}
    assert not warnings(caplog)


def test_mlflow_database_of_another_version_is_not_incomplete(tmp_path: Path) -> None:
    create_database(f"sqlite:///{tmp_path}/mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of tomorrow'")
    connection.close()
    with pytest.raises(Exception, match="database schema") as problem:
        opened(tmp_path)
    advice = mlflow_runs.advice_on(f"sqlite:///{tmp_path}/mlflow.db", problem.value)
    assert (
        advice
        == f"its tables are of another version of MLflow: python -m mlflow db upgrade sqlite:///{tmp_path}/mlflow.db"
    )
    assert not list(tmp_path.glob("*half-made*"))


def test_database_of_another_program_is_not_renamed_for_mlflow(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments_of_mine (name TEXT)")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.close()
    assert not database._is_half_made(tmp_path / "mlflow.db", {"experiments_of_mine", "alembic_version"})


def test_empty_file_becomes_an_mlflow_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    opened(tmp_path).begin("a study")


@pytest.mark.parametrize("name", ["what?", "50% a#b", "a%20b", "ü", "a%20b/c d/e"])
def test_folder_of_an_mlflow_database_may_have_any_name(tmp_path: Path, name: str) -> None:
    from nas.study.folders import tracking_uri

    runs = tmp_path / name
    create_database(tracking_uri(runs))
    assert {path.name for path in runs.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).parts[0]]


TOGETHER = """
import sys
from pathlib import Path
from nas.tracking.mlflow_runs import Runs
folder, study = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
Runs(f"sqlite:///{folder}/mlflow.db", "nas/v9", folder, {"nas.study_id": study}, key="nas.study_id").begin(study)
"""


def test_concurrent_processes_create_one_mlflow_database(tmp_path: Path) -> None:
    command: Callable[[str], list[str]] = lambda study: [sys.executable, "-c", TOGETHER, str(tmp_path), study]  # noqa: E731
    processes = [
        subprocess.Popen(
            command(study), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for study in ("s1", "s2", "s3")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, problem = process.communicate(timeout=300)
        assert process.returncode == 0, problem
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = (one for one in client.search_experiments() if one.name == "nas/v9")
    assert {run.info.run_name for run in client.search_runs([experiment.experiment_id])} == {"s1", "s2", "s3"}
