"""A disk that is full in the middle of a search: a real one, of a few megabytes, in memory (tmpfs)."""

import errno
import faulthandler
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from sqlalchemy.exc import OperationalError

from nas.addresses import sqlite
from nas.execution import recovery, worker
from nas.execution.problem_line import PROBLEM
from nas.execution.worker import UNFIT, Worker
from nas.records.trial_files import TrialFiles
from nas.study.storage import holds_trials, open_storage
from nas.study.stored_trials import database_problem
from nas.study.study import Study
from nas.tracking.mlflow_runs import message_of
from nas.workflows.running import tracker_of
from search_spaces.errors import EnvironmentProblem
from search_spaces.files import atomic_path
from trials import Budget, Costs, Epoch, evaluation
from trials.scores import Coverage, GoOn
from trials.training import short_training
from trials.training.double_buffer import DoubleBufferedFile
from trials.training.short_training import TrainingResult

MakeStudy = Callable[..., Study]
FULL = r"^/\S+: cannot be written: .*(No space left on device|the disk is full).*make room there, and type"


class Disk:
    """A small file system, and a file that fills it."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    def fill(self) -> None:
        number = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (2**20, 4096, 1):
                try:
                    while True:
                        os.write(number, bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017 - any other error is none of the test
        finally:
            os.close(number)

    def free(self, size: int | None = None) -> None:
        """Free some bytes, or all."""
        if size is None:
            self._filler.unlink(missing_ok=True)
        else:
            os.truncate(self._filler, self._filler.stat().st_size - size)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of 24 MB, mounted where `make_study` makes studies."""
    folder = tmp_path / "runs"
    folder.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


class Training:
    """Stand-in for a training, which fills the disk at a point of the second one."""

    def __init__(self, disk: Disk, point: str) -> None:
        self._disk, self._point, self._number = disk, point, 0

    def fill_at(self, point: str) -> None:
        if self._number == 2 and point == self._point:
            self._disk.fill()

    def __call__(
        self, document: Mapping[str, Any], budget: Budget, data: object, folder: Path, go_on: GoOn, **paths: Any
    ) -> TrainingResult:
        del document, data, folder
        self._number += 1
        epochs = []
        for number in range(1, budget.epochs + 1):
            self.fill_at("epochs")
            accuracy = 0.1 if number == budget.epochs else None
            losses = {f"loss_{index}": 1.0 for index in range(500)}  # more than fits into the last page of a file
            epochs.append(Epoch(epoch=number, losses=losses, map50_95=accuracy, map50=accuracy, seconds=0.1))
            go_on(number, epochs[-1])
        self.fill_at("weights")
        with atomic_path(paths["weights"]) as temporary:
            temporary.write_bytes(bytes(100_000))
        self.fill_at("outcome")
        return TrainingResult(epochs=tuple(epochs), stopped=False, coverage=Coverage())


def train_by(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_training, "train", training)
    data = SimpleNamespace(classes=("a", "b"), fingerprint="")
    monkeypatch.setattr(evaluation, "_load_data", lambda *_: data)
    costs = Costs(params=1000, gflops=1.0, latency_ms=1.0, latency_spread_ms=0.1, latency_steady=True)
    monkeypatch.setattr(evaluation, "measure_costs", lambda *_: costs)


def assert_resumed(study: Study) -> None:
    """Assert that a study goes on once there is room, and that nothing is lost or doubled."""
    with closing(sqlite3.connect(study.folder / "study.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    recovery.recover(study)
    Worker(study, deadline=float("inf")).run()
    records = [record for record in study.records() if record.ending is not None]
    assert [record.ending for record in records] == ["finished"] * study.file.run.trials
    assert set(Counter(record.fingerprint for record in records).values()) == {1}
    for record in records:
        files = study.files(record.trial)
        assert [epoch.epoch for epoch in files.read_epochs()] == [1, 2, 3]
        assert files.weights.stat().st_size == 100_000
        stored = files.read_outcome()
        assert stored is not None
        assert stored["map50_95"] == record.map50_95


@pytest.mark.parametrize("point", ["epochs", "weights", "outcome"])
def test_search_ends_with_one_line_and_goes_on_when_there_is_room(
    disk: Disk, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    study = make_study(trials=3)
    train_by(Training(disk, point), monkeypatch)
    with pytest.raises(EnvironmentProblem, match=FULL) as raised:
        Worker(study, deadline=float("inf")).run()
    assert "\n" not in str(raised.value)
    assert [record.ending for record in study.records()][:2] == ["finished", None]
    study.storage.engine.dispose()
    disk.free()
    assert_resumed(Study.open(study.folder))


def test_full_storage_ends_a_search_with_one_line(
    disk: Disk, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(trials=3)
    train_by(Training(disk, ""), monkeypatch)
    disk.fill()
    with pytest.raises(EnvironmentProblem, match=FULL):
        Worker(study, deadline=float("inf")).run()
    disk.free()
    assert_resumed(Study.open(study.folder))


def test_checkpoint_that_finds_no_room_is_named_and_its_first_half_stays(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "checkpoint.bin"
    file = DoubleBufferedFile(path)
    file.write({"epoch": 1}, [torch.arange(100_000)])
    disk.fill()
    with pytest.raises(EnvironmentProblem, match=f"^{path}: cannot be written: No space left on device"):
        file.write({"epoch": 2}, [torch.arange(100_000)])
    disk.free()
    found = DoubleBufferedFile(path).read()
    assert found is not None
    assert found[0] == {"epoch": 1}
    assert found[1][0].equal(torch.arange(100_000))


@pytest.mark.parametrize("read", [lambda path: open_storage(sqlite(path)), holds_trials, database_problem])
def test_database_that_cannot_be_read_on_a_full_disk_is_not_called_damaged(
    disk: Disk, make_study: MakeStudy, read: Callable[[Path], object]
) -> None:
    study = make_study(trials=1)
    study.storage.engine.dispose()
    assert study.database is not None
    disk.fill()
    with pytest.raises(EnvironmentProblem, match=rf"^{study.database}: cannot be .*(disk is full|the disk full)"):
        read(study.database)
    disk.free()
    assert not holds_trials(study.folder / "study.db")
    assert len(Study.open(study.folder).optuna_trials()) == 1


@pytest.mark.parametrize("free", [0, 4096, 16384, 65536])
def test_study_that_finds_no_room_is_created_when_there_is_some(disk: Disk, make_study: MakeStudy, free: int) -> None:
    disk.fill()
    disk.free(free)
    with pytest.raises(
        EnvironmentProblem, match=r"^\S.*cannot be (made|written): .*(full|No space).*make room"
    ) as raised:
        make_study(trials=1)
    assert "nas resume" not in str(raised.value)  # there is nothing to resume
    disk.free()
    assert len(make_study(trials=1).optuna_trials()) == 1


def test_full_disk_leaves_study_json_unchanged(disk: Disk, make_study: MakeStudy) -> None:
    study = make_study(trials=3)
    before = (study.folder / "study.json").read_bytes()
    disk.fill()
    with pytest.raises(EnvironmentProblem, match=FULL):
        study.set_run(study.file.run.model_copy(update={"trials": 4}))
    assert (study.folder / "study.json").read_bytes() == before
    disk.free()
    study.set_run(study.file.run.model_copy(update={"trials": 4}))
    assert Study.open(study.folder).file.run.trials == 4


def test_worker_whose_lock_cannot_be_written_says_why(
    disk: Disk, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(trials=1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(study.folder / "trials" / "0000" / "lock"))

    monkeypatch.setattr(TrialFiles, "write_heartbeat", full)
    monkeypatch.setattr("sys.argv", ["worker", str(study.folder)])
    monkeypatch.setattr(faulthandler, "enable", lambda: None)
    monkeypatch.setattr(faulthandler, "register", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        worker.main()
    assert ended.value.code == UNFIT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{PROBLEM}{study.folder}/trials/0000/lock: cannot be written: No space left on device (")
    assert disk is not None


def test_worker_whose_log_finds_no_room_ends_with_its_status() -> None:
    script = (
        "import logging, sys; from nas.execution.problem_line import print_problem; logging.basicConfig(); "
        "logging.warning('trial 1'); print_problem('the disk is full'); sys.exit(78)"
    )
    with Path("/dev/full").open("wb") as full:  # every write fails as on a full disk
        done = subprocess.run([sys.executable, "-c", script], stderr=full, check=False)
    assert done.returncode == UNFIT


def test_failure_of_mlflows_database_is_one_line_without_statement_and_traceback() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    error = OperationalError("INSERT INTO metrics VALUES (?)", ("x",), full, code="e3q8")
    error.add_detail("raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block")
    assert message_of(error) == "(sqlite3.OperationalError) database or disk is full"
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.ERROR)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_tracking_goes_on_when_there_is_room(
    disk: Disk, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(trials=2)
    uri = f"sqlite:///{study.folder.parent}/mlflow.db"
    study.set_file(study.file.model_copy(update={"tracking": uri}))
    train_by(Training(disk, ""), monkeypatch)
    Worker(study, deadline=float("inf")).run()
    tracker = tracker_of(study)
    assert tracker is not None
    disk.fill()
    tracker.finish("FINISHED", study.records())
    assert "tracking.json: cannot be written: No space left on device (make room there, " in caplog.text
    disk.free()
    tracker.send(study.records(), unfinished=False)
    client = MlflowClient(tracking_uri=uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = {run.info.run_name: run.info.status for run in client.search_runs(experiments)}
    assert runs == dict.fromkeys(("small", "trial-0000", "trial-0001"), "FINISHED")
