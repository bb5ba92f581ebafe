"""Copied and moved studies: each uses its files and no other study's."""

import gc
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas import addresses
from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study import identity
from nas.study.creation import create
from nas.study.folders import default_storage
from nas.study.named_addresses import remember
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows import begin
from search_spaces.errors import SpecError, StudyError
from trials import Outcome

SPACE = "{name: small, base: yolov9t.yaml, slots: [{at: {layers: [10]}, choices: {DySample: {}}}]}"
MakeStudy = Callable[..., Study]


@pytest.fixture(autouse=True)
def _same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "require_same_data", lambda _: None)


@pytest.fixture
def run(score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Callable[[Study], None]:
    def working(study: Study) -> None:
        monkeypatch.setattr(worker, "evaluate", score)
        opened = Study.open(study.folder)
        Worker(opened, deadline=float("inf")).run()
        opened.storage.engine.dispose()  # SQLite writes to its files when they are closed

    return working


@pytest.fixture
def searched(make_study: MakeStudy, run: Callable[[Study], None]) -> Study:
    study = make_study(trials=3)
    run(study)
    study.storage.engine.dispose()
    gc.collect()
    return study


def resumed(folder: Path, trials: int) -> Study:
    return begin.resume(folder.name, runs=folder.parent, trials=trials)


def bytes_of(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def study_id(study: Study) -> str:
    assert study.file.identity is not None
    return study.file.identity.study_id


def as_before(folder: Path, runs: Path) -> None:
    """Turn `study.json` into what an earlier version wrote: absolute addresses, and no identity."""
    path = folder / "study.json"
    fields = json.loads(path.read_text())
    del fields["identity"]
    fields |= {"storage": f"sqlite:///{runs / folder.name / 'study.db'}", "tracking": f"sqlite:///{runs / 'mlflow.db'}"}
    path.write_text(json.dumps(fields))
    with closing(sqlite3.connect(folder / "study.db")) as database, database:
        database.execute("DELETE FROM study_user_attributes WHERE key IN ('study_id') OR key LIKE 'folder@%'")


def test_opens_the_study_of_a_folder_given_as_text(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study()
    monkeypatch.chdir(study.folder.parent)
    for opened in (Study.open(str(study.folder)), Study.open(study.name)):
        assert (opened.folder, opened.file) == (study.folder, study.file)


def test_refuses_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        Study.open(str(tmp_path / "none"))
    assert str(caught.value) == f"{tmp_path / 'none'}: no study there (study.json is missing)"


class TestStudyFile:
    def test_study_file_contains_no_address_of_its_folder(self, make_study: MakeStudy, tmp_path: Path) -> None:
        study = make_study()
        weights = study.folder / "own" / "weights.pt"
        budget = study.settings.budget.model_copy(update={"weights": weights})
        file = study.file.model_copy(
            update={
                "settings": study.settings.model_copy(update={"budget": budget}),
                "tracking": f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}",
            }
        )
        file.write(study.folder)
        fields = json.loads((study.folder / "study.json").read_text())
        assert (fields["storage"], fields["tracking"]) == ("sqlite:///study.db", "sqlite:///../mlflow.db")
        assert fields["settings"]["budget"]["weights"] == "own/weights.pt"
        assert fields["settings"]["budget"]["data"] == str(tmp_path / "data.yaml")  # outside: as it was
        assert StudyFile.read(study.folder) == file

    @pytest.mark.parametrize("earlier", [False, True])
    def test_copied_study_file_refers_to_its_present_neighbours(
        self, searched: Study, tmp_path: Path, *, earlier: bool
    ) -> None:
        if earlier:
            as_before(searched.folder, tmp_path / "runs")
        there = tmp_path / "elsewhere" / "small"
        shutil.copytree(searched.folder, there)
        file = StudyFile.read(there)
        assert file.storage == default_storage(there)
        if earlier:
            assert file.tracking == f"sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}"

    def test_copied_study_file_finds_a_file_that_was_not_copied(self, searched: Study, tmp_path: Path) -> None:
        weights = tmp_path / "runs" / "other" / "weights.pt"
        weights.parent.mkdir()
        weights.touch()
        budget = searched.settings.budget.model_copy(update={"weights": weights})
        settings = searched.settings.model_copy(update={"budget": budget})
        searched.set_file(searched.file.model_copy(update={"settings": settings}))
        there = tmp_path / "elsewhere" / "small"
        shutil.copytree(searched.folder, there)
        assert StudyFile.read(there).settings.budget.weights == weights

    @pytest.mark.parametrize(("data", "moves"), [("digits", True), ("own", False)])
    def test_study_file_finds_the_built_in_data_in_the_present_cache(
        self, make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, *, moves: bool
    ) -> None:
        scenes = Path("digit_scenes-v2-seed0-16+8") / "data.yaml"
        path = tmp_path / "cache" / scenes
        budget = make_study().settings.budget.model_copy(update={"data": path})
        study = make_study("there", budget=budget, data=data if moves else str(path))
        monkeypatch.setenv("NAS_CACHE", str(tmp_path / "another"))
        assert StudyFile.read(study.folder).settings.budget.data == (tmp_path / "another" / scenes if moves else path)


class TestCopy:
    @pytest.mark.parametrize("earlier", [False, True])
    @pytest.mark.parametrize("there", ["runs/small2", "elsewhere/small"])
    def test_copied_study_and_its_original_are_independent(
        self, searched: Study, run: Callable[[Study], None], tmp_path: Path, there: str, *, earlier: bool
    ) -> None:
        if earlier:
            as_before(searched.folder, tmp_path / "runs")
        before = bytes_of(searched.folder)
        shutil.copytree(searched.folder, tmp_path / there)
        copy = resumed(tmp_path / there, trials=5)
        run(copy)
        assert bytes_of(searched.folder) == before
        assert "is a copy of" in copy.remark
        original = resumed(searched.folder, trials=4)
        run(original)
        assert original.remark == ""
        assert study_id(original) != study_id(copy)
        assert [len(one.records()) for one in (original, copy)] == [4, 5]
        assert original.name == "small"
        assert copy.name == Path(there).name

    def test_copied_study_has_other_mlflow_runs(self, searched: Study, tmp_path: Path) -> None:
        tracking = searched.folder / "tracking.json"
        identity.verify(searched)
        stored = json.loads(tracking.read_text()) | {"finished": [0, 1], "stock": {"gflops": 1.0}}
        tracking.write_text(json.dumps(stored))
        shutil.copytree(searched.folder, tmp_path / "runs" / "copy")
        copy = resumed(tmp_path / "runs" / "copy", trials=5)
        theirs = json.loads((copy.folder / "tracking.json").read_text())
        assert theirs == stored | {"study_id": study_id(copy)}
        assert stored["study_id"] == study_id(searched) != study_id(copy)

    def test_interrupted_renaming_of_a_copied_study_continues(
        self, searched: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = tmp_path / "runs" / "copy"
        shutil.copytree(searched.folder, there)

        def cut_short(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(identity, "_write", cut_short)
            with pytest.raises(KeyboardInterrupt):
                resumed(there, trials=4)
        half = study_id(Study.open(there))
        copy = resumed(there, trials=4)
        assert study_id(copy) == half != study_id(searched)
        assert copy.file.identity is not None
        assert copy.file.identity.was == ""

    def test_copied_study_that_shares_a_database_is_refused(self, make_study: MakeStudy, tmp_path: Path) -> None:
        shared = f"sqlite:///{tmp_path / 'shared.db'}"
        study = make_study(storage=shared)
        before = bytes_of(study.folder) | bytes_of(tmp_path / "runs")
        shutil.copytree(study.folder, tmp_path / "elsewhere" / "small")
        with pytest.raises(StudyError) as caught:
            resumed(tmp_path / "elsewhere" / "small", trials=9)
        assert f"a copy of {study.folder}" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert bytes_of(study.folder) | bytes_of(tmp_path / "runs") == before
        assert len(Study.open(tmp_path / "elsewhere" / "small").records()) == 1  # it can be looked at
        assert resumed(study.folder, trials=9).file.run.trials == 9

    def test_copied_study_that_shares_a_database_is_refused_after_a_move(
        self, make_study: MakeStudy, tmp_path: Path
    ) -> None:
        study = make_study(storage=f"sqlite:///{tmp_path / 'shared.db'}")
        copy, moved = tmp_path / "runs" / "copy", tmp_path / "runs" / "moved"
        shutil.copytree(study.folder, copy)
        study.folder.rename(moved)
        assert "was moved here" in resumed(moved, trials=9).remark
        with pytest.raises(StudyError, match=r"a copy of .*moved"):
            resumed(copy, trials=9)

    def test_copied_runs_folder_refers_to_its_artifacts(self, tmp_path: Path) -> None:
        """MLflow's database has absolute addresses of artifacts."""
        there = tmp_path / "copied"
        there.mkdir()
        with sqlite3.connect(there / "mlflow.db") as database:
            database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, artifact_location TEXT)")
            database.execute("CREATE TABLE runs (experiment_id INTEGER, artifact_uri TEXT)")
            database.execute("CREATE TABLE logged_models (experiment_id INTEGER, artifact_location TEXT)")
            database.execute("INSERT INTO logged_models VALUES (1, 'file:///a/runs/mlartifacts/models/m1/artifacts')")
            rows = [
                (1, "nas/v9", "file:///a/runs/mlartifacts"),
                (2, "mine", "file:///a/runs/mlartifacts"),
                (3, "nas/v8", "s3://b/mlartifacts"),
            ]
            database.executemany("INSERT INTO experiments VALUES (?, ?, ?)", rows)
            runs = [(1, "file:///a/runs/mlartifacts/r1/artifacts"), (1, "file:///b/r2"), (2, "file:///a/r3")]
            database.executemany("INSERT INTO runs VALUES (?, ?)", runs)
        for _ in range(2):
            identity.relocate_artifacts(f"sqlite:///{there / 'mlflow.db'}")
        with sqlite3.connect(there / "mlflow.db") as database:
            where = [row[0] for row in database.execute("SELECT artifact_location FROM experiments")]
            assert where == [(there / "mlartifacts").as_uri(), *(row[2] for row in rows[1:])]
            runs_where = [row[0] for row in database.execute("SELECT artifact_uri FROM runs")]
            assert runs_where == [f"{where[0]}/r1/artifacts", "file:///b/r2", "file:///a/r3"]
            models_where = database.execute("SELECT artifact_location FROM logged_models").fetchall()
            assert models_where == [(f"{where[0]}/models/m1/artifacts",)]


class TestMove:
    @pytest.mark.parametrize("earlier", [False, True])
    def test_moved_study_keeps_its_identity(
        self, searched: Study, run: Callable[[Study], None], tmp_path: Path, *, earlier: bool
    ) -> None:
        identity.verify(searched)
        was = study_id(searched)
        if earlier:
            as_before(searched.folder, tmp_path / "runs")
        there = tmp_path / "elsewhere" / "renamed"
        there.parent.mkdir()
        searched.folder.rename(there)
        moved = resumed(there, trials=4)
        run(moved)
        assert study_id(moved) == was
        assert "was moved here" in moved.remark
        assert len(moved.records()) == 4
        assert not searched.folder.exists()
        assert resumed(there, trials=4).remark == ""

    def test_moved_study_and_an_earlier_copy_are_two_studies(self, searched: Study, tmp_path: Path) -> None:
        copy, moved = tmp_path / "runs" / "copy", tmp_path / "runs" / "moved"
        shutil.copytree(searched.folder, copy)
        searched.folder.rename(moved)
        assert study_id(resumed(copy, trials=4)) != study_id(resumed(moved, trials=4)) == study_id(searched)

    @pytest.mark.usefixtures("searched")
    def test_another_path_to_the_same_folder_is_no_move(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "runs")
        assert resumed(tmp_path / "link" / "small", trials=4).remark == ""


class TestForeignDatabase:
    def test_database_of_another_study_is_refused(self, make_study: MakeStudy) -> None:
        one, other = make_study("one"), make_study("other")
        for study in (one, other):
            study.storage.engine.dispose()
        with closing(sqlite3.connect(one.folder / "study.db")) as database, database:
            database.execute("UPDATE studies SET study_name = 'other'")
        shutil.copyfile(one.folder / "study.db", other.folder / "study.db")
        with pytest.raises(StudyError, match="holds the trials of another study") as caught:
            resumed(other.folder, trials=9)
        assert len(str(caught.value).splitlines()) == 1

    def test_missing_database_of_a_study_is_not_created(self, searched: Study) -> None:
        (searched.folder / "study.db").unlink()
        with pytest.raises(StudyError, match="the study's database is missing"):
            resumed(searched.folder, trials=9)
        assert not (searched.folder / "study.db").exists()

    def test_nothing_is_written_into_a_database_of_something_else(self, searched: Study, tmp_path: Path) -> None:
        """A study from elsewhere may name any file of the user as its database."""
        mine = tmp_path / "photos.db"
        with closing(sqlite3.connect(mine)) as database, database:
            database.execute("CREATE TABLE photos (name TEXT)")
        before = mine.read_bytes()
        path = searched.folder / "study.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "storage": f"sqlite:///{mine}"}))
        remember(f"sqlite:///{mine}", addresses.STORAGE, searched.folder)  # by mistake
        with pytest.raises(StudyError, match=r"photos\.db: a database of something else, with no trials of Optuna"):
            Study.open(searched.folder).optuna_trials()
        assert mine.read_bytes() == before

    def test_shared_database_with_a_study_of_that_name_is_refused(self, make_study: MakeStudy, tmp_path: Path) -> None:
        shared = f"sqlite:///{tmp_path / 'shared.db'}"
        study = make_study(storage=shared)
        with pytest.raises(StudyError, match="a study 'small' is there already"):
            create(tmp_path / "elsewhere" / "small", study.file.model_copy(update={"identity": None}), SPACE)


def test_status_shows_the_other_studies_when_one_cannot_be_opened(make_study: MakeStudy) -> None:
    good, torn, gone = (make_study(name) for name in ("good", "torn", "gone"))
    (torn.folder / "study.json").write_text('{"name"')
    (gone.folder / "study.db").unlink()
    runs = str(good.folder.parent)
    result = CliRunner().invoke(app, ["status", "--runs", runs, "--format", "json"])
    assert result.exit_code == 0
    rows = {row["study"]: row for row in json.loads(result.stdout)}
    assert rows["good"]["problem"] is None
    assert rows["good"]["waiting"] == 1
    assert "cannot be read" in rows["torn"]["problem"]
    assert "database is missing" in rows["gone"]["problem"]
    assert CliRunner().invoke(app, ["status", "torn", "--runs", runs]).exit_code == 2


def test_resume_refuses_another_storage_than_that_of_the_study(make_study: MakeStudy) -> None:
    study = make_study()
    with pytest.raises(SpecError, match="the trials of small are in another one"):
        begin.resume("small", runs=study.folder.parent, storage="postgresql://me@lab/nas")
