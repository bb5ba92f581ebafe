"""Damage to each file of a study, under every command that reads a study."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.execution import recovery, worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.study import stock_training
from nas.study.folders import TRACKING_STATE
from nas.study.score_cache import OFF, ScoreCache
from nas.study.study import Study
from nas.study.tracking_state import TrackingState
from nas.workflows import running
from nas.workflows.check_cache import CheckCache
from trials import Budget, Costs, Ending, Limits, Outcome, Scores
from trials import weights as weight_files
from trials.data.datasets import DataSet
from trials.provenance import Provenance

MakeStudy = Callable[..., Study]


def _wrong_types(whole: bytes) -> bytes:
    """Return JSON, or lines of JSON, with the same keys and values of other types."""
    lines = [line for line in whole.split(b"\n") if line.strip()]
    try:
        return json.dumps(_turned(json.loads(whole))).encode()
    except ValueError:
        pass
    try:
        return b"".join(json.dumps(_turned(json.loads(line))).encode() + b"\n" for line in lines)
    except ValueError:
        return b"[[1]]\n"


def _turned(value: Any) -> Any:
    match value:
        case dict():
            return {key: _turned(each) for key, each in value.items()}
        case str():
            return 7
        case bool() | None:
            return "x"
        case int() | float():
            return [str(value)]
        case _:
            return "list"


def _bad_byte(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + b"\xff" + whole[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: bytes(max(len(whole), 64)),
    "binary": lambda whole: bytes(range(256)) * (1 + len(whole) // 256),
    "one byte": _bad_byte,
    "{}": lambda _: b"{}",
    "[]": lambda _: b"[]\n",
    "null": lambda _: b"null\n",
    "number": lambda _: b"12345678901234567890\n",
    "text": lambda _: b'"text"\n',
    "strangers": lambda _: b'{"name": "stranger", "epoch": 1}\n',
    "wrong types": _wrong_types,
    "deep": lambda _: b"[" * 100_000,
}
FORGIVEN = (
    "records.jsonl",
    "measured.json",
    "base/outcome.json",
    "base/progress.jsonl",
    "base/lock",
    "trials/0001/outcome.json",
    "trials/0001/progress.jsonl",
    "trials/0001/lock",
    "trials/0001/model.yaml",
    "supervisor.lock",
    "asking.lock",
)
"""May be deleted, or are rebuilt from another file."""
NEEDED = ("study.json", "space.yaml", "study.db")
FAST = ("half", "one byte", "wrong types")
COMMANDS = ("status", "pareto", "trials", "resume", "export")


class InThisProcess:
    """Stand-in for a supervisor: one worker in this process."""

    def __init__(self, study: Study, on_tick: Callable[[Sequence[Record]], None]) -> None:
        self._study, self._on_tick = study, on_tick

    def run(self) -> None:
        recovery.recover(self._study)
        Worker(self._study, deadline=float("inf")).run()
        self._on_tick(self._study.records())


class NoTracker:
    """Stand-in for the tracker."""

    def sync(self, records: Any) -> None:
        """Do nothing."""

    def finish(self, status: str) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Folders of an undamaged copy and of the study itself."""
    return tmp_path_factory.mktemp("whole") / "copy", []


@pytest.fixture
def folder(
    whole: tuple[Path, list[Path]],
    make_study: MakeStudy,
    scenes: DataSet,
    score: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Folder of a study that has run, the same for all tests; workers score by a formula in this process."""

    def scored(*arguments: Any, **options: Any) -> Outcome:
        return score(*arguments, **{"limits": Limits(), **options})

    monkeypatch.setattr(worker, "evaluate", scored)
    monkeypatch.setattr(stock_training, "evaluate", scored)
    monkeypatch.setattr(running, "Supervisor", InThisProcess)
    monkeypatch.setattr(running, "tracker_of", lambda _: NoTracker())
    monkeypatch.setattr(weight_files, "export", shutil.copyfile)
    copy, made = whole
    if not made:
        budget = Budget(data=scenes.path, epochs=2, deploy_size=64, image_size=64)
        names = {"data": str(scenes.path), "data_fingerprint": scenes.fingerprint, "classes": scenes.classes}
        study = make_study("whole", trials=4, budget=budget, base=budget, **names)
        InThisProcess(study, lambda _: None).run()
        study.records()
        study.save_records()
        study.measured_latencies.add(1, 2.5)
        (study.folder / "supervisor.lock").touch()
        study.storage.engine.dispose()  # all of the database is in its file, and nothing in SQLite's log beside it
        shutil.copytree(study.folder, copy)
        made.append(study.folder)
    shutil.rmtree(made[0], ignore_errors=True)  # a test may have deleted it
    shutil.copytree(copy, made[0])
    return made[0]


def run(folder: Path, *words: str) -> Result:
    command, *rest = words
    name = [] if command == "status" else [folder.name]
    return CliRunner().invoke(app, [command, *name, *rest, "--runs", str(folder.parent)])


def damage(path: Path, how: str) -> None:
    damaged = DAMAGES[how](path.read_bytes())
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)


def scores(folder: Path) -> list[tuple[Any, ...]]:
    result = run(folder, "trials", "--format", "json")
    assert result.exit_code == 0, result.output
    names = ("trial", "state", "ending", "map50_95", "gflops", "fingerprint", "picks", "epochs")
    return [tuple(row[name] for name in names) for row in json.loads(result.stdout)]


@pytest.mark.parametrize(
    "how", [each if each in FAST else pytest.param(each, marks=pytest.mark.slow) for each in DAMAGES]
)
@pytest.mark.parametrize("name", FORGIVEN)
def test_damaged_files_that_may_be_deleted_do_not_end_a_search(folder: Path, name: str, how: str) -> None:
    before = scores(folder)
    damage(folder / name, how)
    for command in COMMANDS:
        result = run(folder, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert scores(folder) == before
    assert (folder / "export").is_dir()


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", NEEDED)
def test_damaged_file_without_copy_is_named_in_one_line(folder: Path, name: str, how: str) -> None:
    damage(folder / name, how)
    for command in COMMANDS:
        result = run(folder, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
        if result.exit_code == 0:  # not asked for, as `status` asks for no space; or a byte that says nothing
            continue
        assert result.exit_code == 2
        assert name in result.stderr or "no study" in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize("how", ["missing", "empty", "half", "zeros", "binary", "{}", "text"])
def test_missing_database_is_named_and_not_created(folder: Path, how: str) -> None:
    damage(folder / "study.db", how)
    before = (folder / "study.db").read_bytes() if how != "missing" else None
    for command in ("pareto", "trials", "resume", "export"):
        result = run(folder, command)
        assert result.exit_code == 2
        assert str(folder / "study.db") in result.stderr
        assert "nas clean" in result.stderr
    assert ((folder / "study.db").read_bytes() if how != "missing" else None) == before
    assert run(folder, "clean", "--all").exit_code == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        *(
            (f"DROP TABLE {table}", f"is damaged, it has no table {table}")
            for table in ("trial_user_attributes", "study_system_attributes", "alembic_version")
        ),
        (
            "UPDATE trial_user_attributes SET value_json = 'NaN' WHERE key = 'architecture'",
            "trial 0: architecture is damaged in the study's database",
        ),
        (
            "UPDATE trial_user_attributes SET value_json = '{\"x\": 1}' WHERE key = 'architecture'",
            "trial 0: architecture is damaged in the study's database",
        ),
    ],
)
def test_database_that_has_lost_what_it_held_is_named_and_left_as_it_is(
    folder: Path, statement: str, message: str
) -> None:
    (folder / "records.jsonl").unlink()
    with closing(sqlite3.connect(folder / "study.db")) as database, database:
        database.execute(statement)
    with closing(sqlite3.connect(folder / "study.db")) as database:
        before = list(database.iterdump())
    for command in ("pareto", "trials", "clean"):
        result = run(folder, command)
        assert result.exit_code == 2, (command, result.output, result.exception)
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
    with closing(sqlite3.connect(folder / "study.db")) as database:
        assert list(database.iterdump()) == before


def test_tracking_state_of_terabytes_is_rebuilt(tmp_path: Path) -> None:
    with (tmp_path / TRACKING_STATE).open("wb") as file:
        file.truncate(2**33)  # sparse: it takes no room
    assert TrackingState.read(tmp_path) is None
    assert TrackingState.of(tmp_path) == TrackingState.read(tmp_path)


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_tracking_state_is_rebuilt(tmp_path: Path, how: str) -> None:
    first = TrackingState.of(tmp_path)
    damage(tmp_path / TRACKING_STATE, how)
    again = TrackingState.of(tmp_path)
    assert again == TrackingState.of(tmp_path)
    assert (again == first) is (DAMAGES[how](b"") == b"never")


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_check_cache_is_rebuilt(tmp_path: Path, how: str) -> None:
    path = tmp_path / "checks.json"
    CheckCache(path).add({"a": "passed", "pace b": {"step": 1.0}})
    damage(path, how)
    memory = CheckCache(path)
    assert "a" not in memory or isinstance(memory["a"], str | dict)
    memory.add({"c": "passed"})
    assert "c" in CheckCache(path)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("which", ["*.json", "*.pt"])
def test_damaged_score_cache_is_trained_again(
    folder: Path, scenes: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, which: str
) -> None:
    monkeypatch.delenv(OFF)
    study = Study.open(folder)
    cache, budget, files = ScoreCache(tmp_path / "scores"), study.scoring.budget(study.space.stock), study.files(0)
    base = study.stock_training
    assert base is not None
    costs = Costs(params=1000, gflops=1.0)
    outcome = Outcome(
        architecture=study.space.stock,
        ending=Ending.FINISHED,
        costs=costs,
        scores=Scores(map50_95=0.5, map50=0.5, costs=costs),
        epochs=tuple(files.read_epochs()),
        provenance=Provenance.of(budget, scenes),
    )
    cache.write("abcdef", outcome, files, copy_weights=True)
    stored = cache.read("abcdef")
    assert stored is not None
    assert stored.has_weights
    (path,) = (tmp_path / "scores").rglob(which)
    damage(path, how)
    torn = cache.read("abcdef")
    assert torn is None or not torn.has_weights or path.suffix == ".json"
    if torn is not None:
        torn.restore(study.space.stock, costs, TrialFiles(tmp_path / "trial"))
    cache.write("abcdef", outcome, files, copy_weights=True)
    assert cache.read("abcdef") == stored


def test_no_temporary_file_is_left(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]


@pytest.mark.parametrize("how", DAMAGES)
def test_id_is_set_in_a_damaged_tracking_state(tmp_path: Path, how: str) -> None:
    TrackingState(study_id="a", finished=(0, 2), stock={"gflops": 1.0}).write(tmp_path)
    damage(tmp_path / TRACKING_STATE, how)
    TrackingState.set_study_id(tmp_path, "b")
    assert TrackingState.of(tmp_path).study_id == "b"


def test_id_is_set_and_the_rest_of_a_tracking_state_stays(tmp_path: Path) -> None:
    before = TrackingState(study_id="a", finished=(0, 2), stock={"gflops": 1.0}, status="KILLED", ended=5)
    before.write(tmp_path)
    TrackingState.set_study_id(tmp_path, "b")
    assert TrackingState.of(tmp_path) == replace(before, study_id="b")
