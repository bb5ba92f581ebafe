"""A database of MLflow that somebody else has filled puts no artifacts outside of the folder of all studies."""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from nas import addresses
from nas.tracking import mlflow_runs
from nas.tracking.artifact_places import limit_of, require_within
from nas.tracking.database import create_database
from search_spaces.errors import EnvironmentProblem

OUTSIDE = "its database puts artifacts outside of"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making it takes seconds."""
    uri = addresses.sqlite(tmp_path_factory.mktemp("all") / "runs" / "mlflow.db")
    create_database(uri)
    return uri


@pytest.fixture(autouse=True)
def _nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(addresses.TRACKING, raising=False)


def runs_of(uri: str, experiment: str) -> mlflow_runs.Runs:
    return mlflow_runs.Runs(uri, experiment, Path("unused"), {"nas.study_id": "1"}, key="nas.study_id")


def folder_of(uri: str) -> Path:
    file = addresses.file_of(uri)
    assert file is not None
    return file.parent


def change(uri: str, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(folder_of(uri) / "mlflow.db")) as database, database:
        database.execute(statement, values)


@pytest.mark.parametrize(
    "place", ["{elsewhere}", "file://{elsewhere}", "{runs}/../elsewhere", "s3://bucket/a", "ftp://h/a"]
)
def test_place_elsewhere_is_refused(place: str, tmp_path: Path) -> None:
    location = place.format(elsewhere=tmp_path / "elsewhere", runs=tmp_path / "runs")
    with pytest.raises(EnvironmentProblem, match=OUTSIDE):
        require_within(tmp_path / "runs", location)
    require_within(None, location)


def test_link_in_the_place_of_artifacts_is_refused(tmp_path: Path) -> None:
    inside, mine = tmp_path / "runs" / "mlartifacts", tmp_path / ".profile"
    inside.mkdir(parents=True)
    (inside / "report.html").symlink_to(mine)
    require_within(tmp_path / "runs", inside.as_uri(), ["trial.yaml", "front/table.csv"])
    with pytest.raises(EnvironmentProblem, match=OUTSIDE):
        require_within(tmp_path / "runs", inside.as_uri(), ["trial.yaml", "report.html"])
    (tmp_path / "runs" / "linked").symlink_to(tmp_path)
    with pytest.raises(EnvironmentProblem, match=OUTSIDE):
        require_within(tmp_path / "runs", f"{tmp_path}/runs/linked/a")


def test_experiment_elsewhere_is_refused_unless_the_database_is_named(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow_runs.client_of(uri).create_experiment("nas/elsewhere", (tmp_path / "elsewhere").as_uri())
    with pytest.raises(EnvironmentProblem, match=OUTSIDE):
        runs_of(uri, "nas/elsewhere")
    monkeypatch.setenv(addresses.TRACKING, uri)
    assert limit_of(uri) is None
    (tmp_path / "note.txt").touch()
    runs_of(uri, "nas/elsewhere").begin("mine").log_artifact(tmp_path / "note.txt")
    assert list((tmp_path / "elsewhere").rglob("note.txt"))


def test_run_elsewhere_gets_no_artifacts(uri: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    runs = runs_of(uri, "nas/inside")
    run = runs.begin("theirs")
    run.log_artifact(tmp_path / "note.txt", "notes")
    assert list((folder_of(uri) / "mlartifacts").rglob("notes/note.txt"))
    change(uri, "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", f"{tmp_path}/elsewhere", run.id)
    found = next(one for one in runs_of(uri, "nas/inside").find() if one.id == run.id)
    with pytest.raises(EnvironmentProblem, match=OUTSIDE):
        found.log_artifact(tmp_path / "note.txt", "notes")
    assert not (tmp_path / "elsewhere").exists()


def test_model_elsewhere_is_not_sent(uri: str, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "weights.pt").touch()
    model = SimpleNamespace(model_id="m-1", artifact_location=f"{tmp_path}/elsewhere")
    with pytest.raises(EnvironmentProblem, match=OUTSIDE):
        runs_of(uri, "nas/inside").send_model(model, tmp_path / "saved")
    assert not (tmp_path / "elsewhere").exists()
