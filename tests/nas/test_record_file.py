from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.records.record_file import RecordFile
from nas.study import trial_records
from nas.study.study import Study
from trials import Outcome

MakeStudy = Callable[..., Study]


def record(trial: int) -> Record:
    return Record(
        trial=trial, state="complete", ending="finished", map50_95=0.3, picks={"4": {"UIB": {"expansion": 2}}}
    )


def test_appended_records_are_read(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records.jsonl")
    assert file.read() == {}
    file.append({0: record(0), 1: record(1)})
    file.append({0: record(0), 2: record(2)})
    assert file.read() == {number: record(number) for number in range(3)}
    file.delete()
    assert file.read() == {}


@pytest.mark.parametrize("damage", ['{"trial": 1, "sta', '{"trial": 1, "state": "complete"}', "7", '{"trial": 1}\n['])
def test_incomplete_line_or_one_of_another_version_is_left_out(tmp_path: Path, damage: str) -> None:
    file = RecordFile(tmp_path / "records.jsonl")
    file.append({0: record(0)})
    with file.path.open("a") as lines:
        lines.write(damage)
    file.append({2: record(2)})
    assert file.read() == {0: record(0), 2: record(2)}


@pytest.fixture
def run(make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Study:
    study = make_study(trials=5)
    monkeypatch.setattr(worker, "evaluate", score)
    Worker(study, deadline=float("inf")).run()
    study.records()
    study.save_records()
    return study


def test_records_are_equal_with_and_without_their_file(run: Study) -> None:
    with_file = Study.open(run.folder).records()
    (run.folder / "records.jsonl").unlink()
    assert with_file == Study.open(run.folder).records()
    assert [each.trial for each in with_file] == [0, 1, 2, 3, 4]


def test_trials_in_the_file_are_not_read_from_the_storage(run: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = RDBStorage.get_trial

    def noting(storage: RDBStorage, trial: int) -> FrozenTrial:
        read.append(trial)
        return original(storage, trial)

    monkeypatch.setattr(RDBStorage, "get_trial", noting)
    run.enqueue(run.space.stock)
    again = Study.open(run.folder)
    assert [each.state for each in again.records()] == ["complete"] * 5 + ["waiting"]
    assert len(read) == 1
    assert len(again.records()) == 6
    assert len(read) == 1  # what waits is read when its state changes


def test_many_missing_records_are_read_at_once(run: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.folder / "records.jsonl").unlink()
    monkeypatch.setattr(trial_records, "_ONE_BY_ONE", 2)
    assert [each.trial for each in Study.open(run.folder).records()] == [0, 1, 2, 3, 4]


def test_resumed_study_appends_each_trial_once(run: Study) -> None:
    again = Study.open(run.folder)
    again.records()
    again.save_records()
    lines = [line for line in (run.folder / "records.jsonl").read_text().split("\n") if line]
    assert len(lines) == 5
