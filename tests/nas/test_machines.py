"""Several machines on one study: folders of one process, with a formula instead of training, and one PostgreSQL."""

import hashlib
import io
import json
import random
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from optuna.trial import Trial, TrialState
from sqlalchemy import text
from typer.testing import CliRunner

from nas import addresses
from nas.cli import app
from nas.cli.live import Watching
from nas.execution import lost_machines, recovery, shared_trials, worker
from nas.execution.enqueue import enqueue_extremes
from nas.execution.machine_at_work import at_work
from nas.execution.supervisor import Supervisor
from nas.execution.worker import Worker
from nas.locks import Lock
from nas.records.trial_attributes import HOST, MACHINE, RETRY_OF
from nas.records.trial_files import TrialFiles
from nas.study import machines as machines_module
from nas.study import shared_files, shared_study, stock_training
from nas.study.conditions import conditions_here
from nas.study.consistency import Repair
from nas.study.database_lock import DatabaseLock
from nas.study.fetching import fetched
from nas.study.machines import GRACE, MACHINE_FILE, STOCK_TRAINING, TRACKING, Machines, machine_id
from nas.study.shared_definition import CONDITIONS
from nas.study.shared_study import SharedStudy
from nas.study.storage import open_storage, study_id
from nas.study.storage_retries import RetryingStorage
from nas.study.study import Study
from nas.workflows import fsck, fsck_repair, sharing
from nas.workflows import join as joining
from nas.workflows.fsck import check_study
from nas.workflows.join import join
from search_spaces import Architecture
from search_spaces.errors import EnvironmentProblem, SpecError, StudyError
from trials import Budget, Ending, Epoch, Limits, Outcome

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]


class Join(Protocol):
    def __call__(self, name: str = "second") -> Study: ...


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch, score: Score) -> None:
    monkeypatch.setattr(joining, "_compare_data", lambda *_, **__: None)
    monkeypatch.setattr(worker, "evaluate", score)
    monkeypatch.setattr(stock_training, "evaluate", _stock_score(score))
    monkeypatch.setenv(GRACE, "4")


def _stock_score(score: Score) -> Score:
    def scored(*arguments: Any, costs: Any) -> Outcome:
        time.sleep(1)
        return score(*arguments, limits=Limits(), costs=costs)

    return scored


@pytest.fixture
def first(make_study: MakeStudy, database: str, tmp_path: Path) -> Study:
    """Study of the first machine."""
    base = Budget(data=tmp_path / "data.yaml", epochs=2, deploy_size=64)
    return make_study(trials=10, storage=database, base=base)


@pytest.fixture
def another(first: Study, tmp_path: Path) -> Join:
    """Return a function that makes a further machine."""

    def make(name: str = "second") -> Study:
        return join("small", storage=first.file.storage, runs=tmp_path / name)

    return make


def run(*studies: Study, workers: int = 1) -> None:
    """Run workers of several machines at the same time, until the study has its trials."""

    def work(folder: Path) -> None:
        opened = Study.open(folder)
        Worker(opened, deadline=float("inf")).run()
        opened.storage.engine.dispose()

    folders = [study.folder for study in studies for _ in range(workers)]
    for study in studies:
        assert study.shared is not None
        study.shared.machines.begin(workers)
    with ThreadPoolExecutor(len(folders)) as threads:
        for done in [threads.submit(work, folder) for folder in folders]:
            done.result()


def shared(study: Study) -> SharedStudy:
    assert study.shared is not None
    return study.shared


def silence(study: Study, machine: str) -> None:
    """Let the last heartbeat of a machine be of long ago."""
    with study.storage.engine.begin() as connection:
        query = text("UPDATE nas_machines SET heartbeat = '2026-01-01' WHERE machine = :id")
        connection.execute(query, {"id": machine})


def lose(study: Study, observer: Study) -> None:
    """Let a machine count as dead for another one."""
    machines = shared(observer).machines
    silence(study, shared(study).machines.id)
    clock = iter(range(0, 1000, 2))
    machines._clock = lambda: float(next(clock))
    machines._observed_at = -1e9
    machines.lost()
    machines.lost()


class Killed(BaseException):
    """Ends a worker as `kill -9` does: nothing catches it."""


def resumable(
    score: Score,
    *,
    kill_after: int | None = None,
    by: type[BaseException] = Killed,
    begun: list[int] | None = None,
) -> Score:
    """Stand-in for a training whose checkpoint is the number of its epochs.

    Args:
        kill_after: epoch after which its worker is killed.
        by: what is raised then.
        begun: list to which is appended with how many epochs each training begins.
    """

    def evaluate(architecture: Any, budget: Budget, folder: Path, go_on: Callable[..., bool], **named: Any) -> Outcome:
        file = folder / "checkpoint.bin"
        done = int(file.read_text()) if file.is_file() else 0
        if begun is not None:
            begun.append(done)

        def trained(number: int, epoch: Epoch) -> bool:
            if number > done:
                file.write_text(str(number))
            goes_on = go_on(number, epoch)
            if number == kill_after:
                raise by
            return goes_on

        return score(architecture, budget, folder, trained, **{"limits": Limits(), **named})

    return evaluate


def begin_trial(study: Study) -> Trial:
    """Begin a trial as a worker does that is then killed: its machine leaves it running."""
    shared(study).machines.begin(1)
    trial = study.optuna.ask()
    working = Worker(study, deadline=float("inf"))
    with study.proposal_lock.held():
        shared_trials.mark(study, trial)
        trial.set_user_attr(HOST, socket.gethostname())
        working._propose(trial)
    return trial


class TestSearch:
    def test_two_machines_propose_no_architecture_twice_and_reach_the_number_of_trials_exactly(
        self, first: Study, another: Join
    ) -> None:
        second = another("second")
        run(first, second, workers=2)
        records = first.records()
        assert [record.ending for record in records] == ["finished"] * 10
        assert set(Counter(record.fingerprint for record in records).values()) == {1}
        ran = {trial.user_attrs[MACHINE] for trial in first.optuna_trials()}
        assert ran <= {shared(first).machines.id, shared(second).machines.id}  # one may be faster, and get all of them
        assert {trial.user_attrs[HOST] for trial in first.optuna_trials()} == {socket.gethostname()}

    def test_stock_model_is_trained_once(self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch) -> None:
        trained = []
        evaluate = vars(stock_training)["evaluate"]

        def counted(*arguments: Any, **named: Any) -> Outcome:
            trained.append(arguments[2])
            return evaluate(*arguments, **named)

        monkeypatch.setattr(stock_training, "evaluate", counted)
        second = another()
        run(first, second, workers=2)
        assert len(trained) == 1
        for study in (first, second):
            assert study.stock_training is not None
            assert study.stock_training.is_done
            assert study.stock_training.weights.read_bytes() == b"weights"

    def test_machine_that_joins_after_it_says_nothing_of_its_training(
        self, first: Study, another: Join, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The claim to it stays with the machine that has trained it."""
        second = another()
        shared(first).machines.begin(1)
        assert shared(first).machines.claim(STOCK_TRAINING, set())
        Watching().update(second, second.records())
        assert "which this machine waits for" in capsys.readouterr().err
        run(first)
        third = another("third")
        Watching().update(third, third.records())
        assert all(files.read_outcome() is None for files in third.files_of_stock_models().values())
        assert "training" not in capsys.readouterr().err

    def test_two_supervisors_that_begin_at_once_enqueue_the_extremes_once(self, first: Study, another: Join) -> None:
        for study in (first, another()):
            with study.proposal_lock.held():
                enqueue_extremes(study, study.records())
        assert Counter(record.role for record in first.records()) == {"stock": 1, "cheapest": 1, "costliest": 1}

    def test_number_of_trials_is_that_of_the_machine_that_set_it_last(self, first: Study, another: Join) -> None:
        second = another()
        second.set_run(second.file.run.model_copy(update={"trials": 12}))
        first.read_number_of_trials()
        assert first.file.run.trials == 12
        run(first)
        assert len(first.records()) == 12

    def test_trial_whose_architecture_was_proposed_while_the_lock_was_lost_is_given_up(self, first: Study) -> None:
        begin_trial(first)
        begin_trial(first)
        architecture = first.architecture(first.records()[1])
        late = first.optuna.ask()
        lock = first.proposal_lock
        lock.take()
        with pytest.raises(Exception, match="storage was away"):
            shared_trials.require_alone(first, late, architecture, lock)
        lock.release()
        assert late.user_attrs["detail"] == "one too many, because the storage was away"


class TestMembers:
    """A study of two members, each with a stock model of its own, whose weights come through the storage."""

    BASES = frozenset({"yolov8{scale}.yaml", "yolov9{scale}.yaml"})

    @pytest.fixture
    def first(self, make_joined: MakeStudy, database: str) -> Study:
        return make_joined(trials=6, storage=database)

    @pytest.fixture
    def another(self, first: Study, tmp_path: Path) -> Join:
        def make(name: str = "second") -> Study:
            return join("edge", storage=first.file.storage, runs=tmp_path / name)

        return make

    @pytest.fixture
    def began(self, monkeypatch: pytest.MonkeyPatch, score: Score) -> list[tuple[str, str]]:
        """Base model of each candidate that is trained, and what is in the weights that it starts from."""
        found = []

        def stock(architecture: Architecture, budget: Budget, folder: Path, *rest: Any, **named: Any) -> Outcome:
            time.sleep(1)
            outcome = score(architecture, budget, folder, *rest, limits=Limits(), **named)
            (folder / "weights.pt").write_text(architecture.base)
            return outcome

        def candidate(architecture: Architecture, budget: Budget, *rest: Any, **named: Any) -> Outcome:
            assert budget.weights is not None
            found.append((architecture.base, budget.weights.read_text()))
            return score(architecture, budget, *rest, **named)

        monkeypatch.setattr(stock_training, "evaluate", stock)
        monkeypatch.setattr(worker, "evaluate", candidate)
        return found

    def test_each_machine_trains_a_stock_model_and_fetches_the_other(
        self,
        first: Study,
        another: Join,
        began: list[tuple[str, str]],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("INFO")
        both, alone = threading.Barrier(2), vars(stock_training)["evaluate"]

        def at_once(*arguments: Any, **named: Any) -> Outcome:
            both.wait(60)
            return alone(*arguments, **named)

        monkeypatch.setattr(stock_training, "evaluate", at_once)
        second = another()
        run(first, second)
        trained = Counter(text for text in caplog.messages if text.startswith("training the stock model of "))
        assert trained == {"training the stock model of eightn": 1, "training the stock model of ninet": 1}
        for study in (first, second):
            assert {one.weights.read_text() for one in study.stock_trainings} == self.BASES
        assert [record.ending for record in first.records()] == ["finished"] * 6
        assert {base for base, _ in began} == self.BASES
        assert all(base == weights for base, weights in began)

    def test_machine_that_joins_after_the_stock_models_fetches_both(
        self, first: Study, another: Join, began: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first.set_run(first.file.run.model_copy(update={"trials": 3}))
        run(first)
        monkeypatch.setattr(stock_training, "evaluate", None)
        second = another()
        second.set_run(second.file.run.model_copy(update={"trials": 6}))
        run(second)
        assert len(began) == 6
        assert all(base == weights for base, weights in began)
        assert all(one.is_done for one in second.stock_trainings)

    def test_member_that_one_machine_has_left_out_is_left_out_by_all(
        self, first: Study, another: Join, began: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, score: Score
    ) -> None:
        def failing(architecture: Architecture, *rest: Any, **named: Any) -> Outcome:
            if architecture.base == "yolov9{scale}.yaml":
                return Outcome(architecture=architecture, ending=Ending.DIVERGED, detail="the loss is nan")
            return score(architecture, *rest, limits=Limits(), **named)

        second = another()
        monkeypatch.setattr(stock_training, "evaluate", failing)
        run(first, second)
        reason = "the stock model of ninet could not be trained: the loss is nan"
        for study in (first, second):
            assert study.stock_trainings.left_out.keys() == {"ninet"}
            assert study.stock_trainings.left_out["ninet"].startswith(reason)
        assert {base for base, _ in began} == {"yolov8{scale}.yaml"}


class TestLostMachine:
    def test_trials_of_a_lost_machine_are_retried_once(self, first: Study, another: Join) -> None:
        second, third = another("second"), another("third")
        trial = begin_trial(first)
        assert not lost_machines.recover_lost(second)
        for observer in (second, third):
            lose(first, observer)
        assert lost_machines.recover_lost(second)
        assert not lost_machines.recover_lost(third)
        retries = [each for each in first.optuna_trials() if each.user_attrs.get(RETRY_OF) == trial.number]
        assert [each.state for each in retries] == [TrialState.WAITING]
        assert first.optuna_trials()[trial.number].state == TrialState.FAIL
        run(second)
        assert sum(record.finished for record in second.records()) == 10

    def test_workers_that_had_no_trial_left_are_called_for_that_of_a_lost_machine(
        self, first: Study, another: Join
    ) -> None:
        second, trial = another("second"), begin_trial(first)
        watching = Supervisor(second, lambda _: None)
        watching._recover_lost_machines()
        assert not any(process.to_restart for process in watching._workers)
        lose(first, second)
        watching._looked_at = -float("inf")
        watching._recover_lost_machines()
        assert first.optuna_trials()[trial.number].state == TrialState.FAIL
        assert all(process.to_restart for process in watching._workers)

    def test_machine_of_equal_host_name_does_not_touch_a_running_trial(self, first: Study, another: Join) -> None:
        trial, second = begin_trial(first), another()
        assert recovery.recover(second) == {}
        assert recovery.trainings_by_process(second) == {}
        assert first.optuna_trials()[trial.number].state == TrialState.RUNNING

    def test_machine_recovers_its_own_trials_at_once(self, first: Study) -> None:
        trial = begin_trial(first)
        assert list(recovery.recover(first)) == [trial.number]
        assert first.optuna_trials()[trial.number].state == TrialState.FAIL

    def test_trial_of_an_earlier_version_is_recovered_by_the_name_of_its_machine(
        self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trial, second = first.optuna.ask(), another()
        trial.set_user_attr(HOST, "elsewhere")
        assert recovery.recover(second) == {}
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        assert list(recovery.recover(second)) == [trial.number]

    def test_outcome_that_a_lost_machine_has_stored_is_taken_over(self, first: Study, another: Join) -> None:
        second = another()
        run(first)
        finished = first.optuna_trials()[3]
        with first.storage.engine.begin() as connection:
            connection.execute(
                text("UPDATE trials SET state = 'RUNNING' WHERE trial_id = :id"), {"id": finished._trial_id}
            )
        lose(first, second)
        assert lost_machines.recover_lost(second)
        trial = Study.open(second.folder).optuna_trials()[3]
        assert (trial.state, trial.values) == (TrialState.COMPLETE, finished.values)
        assert len(second.optuna_trials()) == 10

    def test_training_of_a_machine_that_returns_is_stored_in_the_retry_and_once(
        self, first: Study, another: Join, score: Score
    ) -> None:
        second = another()
        trial = begin_trial(first)
        lose(first, second)
        lost_machines.recover_lost(second)
        architecture = first.space.architecture(first.optuna_trials()[trial.number].params)
        files = first.files(trial.number)
        outcome = _train(first, architecture, files.folder, score)
        files.write_outcome(outcome)
        for _ in range(2):
            with pytest.raises(shared_trials.TrialEnded):
                shared_trials.end(first, trial, outcome)
        states = [each.state for each in first.optuna_trials()]
        assert states == [TrialState.FAIL, TrialState.COMPLETE]
        retry = first.optuna_trials()[1]
        assert retry.user_attrs[MACHINE] == shared(first).machines.id
        assert first.files(1).weights.is_file()
        assert shared(second).has_outcome(second.files(1))

    def test_result_that_a_machine_had_finished_before_it_was_lost_is_found_when_it_returns(
        self, first: Study, another: Join, score: Score
    ) -> None:
        second = another()
        trial = begin_trial(first)
        lose(first, second)
        lost_machines.recover_lost(second)
        architecture = first.space.architecture(first.optuna_trials()[trial.number].params)
        files = first.files(trial.number)
        files.write_outcome(_train(first, architecture, files.folder, score))
        recovery.recover(first)
        assert [each.state for each in first.optuna_trials()] == [TrialState.FAIL, TrialState.COMPLETE]

    def test_training_whose_retry_has_ended_is_dropped(self, first: Study, another: Join, score: Score) -> None:
        second = another()
        trial = begin_trial(first)
        lose(first, second)
        lost_machines.recover_lost(second)
        run(second)
        before = [each.values for each in second.optuna_trials()]
        architecture = first.space.architecture(first.optuna_trials()[trial.number].params)
        files = first.files(trial.number)
        outcome = _train(first, architecture, files.folder, score)
        with pytest.raises(shared_trials.TrialEnded, match="finished it before"):
            shared_trials.end(first, trial, outcome)
        assert [each.values for each in first.optuna_trials()] == before

    def test_training_stops_after_an_epoch_when_its_trial_was_given_away(self, first: Study, another: Join) -> None:
        second = another()
        trial = begin_trial(first)
        publisher = shared_trials.EpochPublisher(first, trial, first.files(trial.number))
        publisher.publish()
        lose(first, second)
        lost_machines.recover_lost(second)
        with pytest.raises(shared_trials.TrialEnded):
            publisher.publish()

    def test_stock_model_of_a_machine_that_is_lost_is_trained_by_another(self, first: Study, another: Join) -> None:
        second = another()
        for study in (first, second):
            shared(study).machines.begin(1)
        assert shared(first).machines.claim(STOCK_TRAINING, set())
        assert not shared(second).machines.claim(STOCK_TRAINING, set())
        assert shared(second).machines.other_holder(STOCK_TRAINING) == socket.gethostname()
        lose(first, second)
        assert shared(second).machines.claim(STOCK_TRAINING, shared(second).machines.lost())
        assert not shared(first).machines.claim(STOCK_TRAINING, set())

    def test_retry_on_another_machine_goes_on_after_the_last_stored_epoch(
        self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch, score: Score
    ) -> None:
        begun: list[int] = []
        second = another()
        monkeypatch.setattr(shared_trials, "_CHECKPOINT_SECONDS", 0)
        monkeypatch.setattr(shared_trials, "_STORING_SHARE", float("inf"))
        first.set_run(first.file.run.model_copy(update={"trials": 2}))
        monkeypatch.setattr(worker, "evaluate", resumable(score, kill_after=2))
        with pytest.raises(Killed):
            run(first)
        lose(first, second)
        assert lost_machines.recover_lost(second)
        monkeypatch.setattr(worker, "evaluate", resumable(score, begun=begun))
        run(second)
        assert begun == [2, 0]
        assert second.optuna_trials()[1].user_attrs[RETRY_OF] == 0
        assert [epoch.epoch for epoch in second.files(1).read_epochs()] == [1, 2, 3]

    def test_machine_that_is_stopped_stores_the_checkpoint_of_its_trial_for_the_others(
        self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch, score: Score
    ) -> None:
        begun: list[int] = []
        second = another()
        first.set_run(first.file.run.model_copy(update={"trials": 2}))
        monkeypatch.setattr(worker, "evaluate", resumable(score, kill_after=2, by=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(first)
        monkeypatch.setattr(worker, "evaluate", resumable(score, begun=begun))
        run(second)
        assert begun == [2, 0]

    def test_machine_that_is_stopped_stores_the_checkpoint_of_a_stock_model_for_the_others(
        self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch, score: Score
    ) -> None:
        begun: list[int] = []
        second = another()
        monkeypatch.setattr(stock_training, "evaluate", resumable(score, kill_after=1, by=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(first)
        shared(first).machines.end()
        monkeypatch.setattr(stock_training, "evaluate", resumable(score, begun=begun))
        train_stock_model(second)
        assert begun == [1]

    def test_stock_model_of_a_lost_machine_goes_on_after_the_last_stored_epoch(
        self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch, score: Score
    ) -> None:
        begun: list[int] = []
        second = another()
        monkeypatch.setattr(shared_trials, "_CHECKPOINT_SECONDS", 0)
        monkeypatch.setattr(shared_trials, "_STORING_SHARE", float("inf"))
        monkeypatch.setattr(stock_training, "evaluate", resumable(score, kill_after=1))
        with pytest.raises(Killed):
            run(first)
        shared(second).pull()
        assert len(stock(second).files.read_epochs()) == 1  # what it has trained is seen on all machines
        stock(second).files.checkpoint.write_text("0")  # from before the other machine had taken the training over
        lose(first, second)
        monkeypatch.setattr(stock_training, "evaluate", resumable(score, begun=begun))
        train_stock_model(second)
        assert begun == [1]
        assert stock(second).is_done
        assert not shared(second).files.get("base/checkpoint.bin")

    def test_machine_that_returns_leaves_the_stock_model_to_the_one_that_has_taken_it_over(
        self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch, score: Score
    ) -> None:
        begun: list[int] = []
        second = another()
        for study in (first, second):
            shared(study).machines.begin(1)

        def cut_off(architecture: Any, budget: Any, folder: Path, go_on: Callable[..., bool], **named: Any) -> Outcome:
            def after(number: int, epoch: Epoch) -> bool:
                lose(first, second)
                assert shared(second).machines.claim(STOCK_TRAINING, shared(second).machines.lost())
                return go_on(number, epoch)

            return resumable(score, begun=begun)(architecture, budget, folder, after, **named)

        monkeypatch.setattr(stock_training, "evaluate", cut_off)
        train_stock_model(first)
        assert (begun, stock(first).is_done) == ([0], False)
        monkeypatch.setattr(stock_training, "evaluate", resumable(score, begun=begun))
        train_stock_model(second)
        train_stock_model(first)
        assert begun == [0, 0]
        assert stock(first).is_done
        assert stock(first).files.read_epochs() == stock(second).files.read_epochs()

    def test_of_two_trained_stock_models_all_machines_have_the_first_that_was_stored(
        self, first: Study, another: Join
    ) -> None:
        second = another()
        train_stock_model(first)
        files = stock(second).files
        shared(second).fetch_training(files)
        files.weights.write_bytes(b"other weights")  # a machine that was cut off at the end of its training
        shared(second).publish_first(files)
        assert files.weights.read_bytes() == stock(first).weights.read_bytes() == b"weights"
        assert stock(second).is_done

    def test_of_a_trial_or_stock_model_a_lost_machine_costs_a_minute_or_an_epoch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for seconds in (7.0, 29.0, 31.0, 59.0, 61.0, 300.0):
            now, stored = [0.0], [0.0]
            clock = SimpleNamespace(monotonic=lambda now=now: now[0])
            monkeypatch.setattr(shared_trials, "time", clock)

            def publish(file: Path, now: list[float] = now, stored: list[float] = stored) -> None:
                if file.name == "checkpoint.bin":
                    stored.append(now[0])

            storage: Any = SimpleNamespace(publish_at_once=publish)
            epochs = shared_trials._EpochFiles(storage, TrialFiles(tmp_path))
            for _ in range(40):
                now[0] += seconds
                assert now[0] - stored[-1] <= max(60.0, seconds)
                assert epochs.publish(lambda _: True)
            assert len(stored) - 1 <= max(1, 40 * seconds / max(30.0, seconds))

    def test_storing_a_large_checkpoint_takes_a_tenth_of_a_training_at_most(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, storing = [0.0], [0.0]
        monkeypatch.setattr(shared_trials, "time", SimpleNamespace(monotonic=lambda: now[0]))

        def publish(file: Path) -> None:
            if file.name == "checkpoint.bin":
                now[0] += 30.0
                storing[0] += 30.0

        storage: Any = SimpleNamespace(publish_at_once=publish)
        epochs = shared_trials._EpochFiles(storage, TrialFiles(tmp_path))
        for _ in range(1000):
            now[0] += 1.0
            epochs.publish(lambda _: True)
        assert 0.08 < storing[0] / now[0] <= 0.12

    def test_checkpoint_that_is_too_large_for_the_storage_is_named_once(
        self, first: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(shared_study, "MOST_BYTES", 10**7)
        checkpoint = first.files(0).checkpoint
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_bytes(bytes(2 * 10**8))
        for _ in range(2):
            shared(first).publish_at_once(checkpoint)
        size = "0.2 GB, and the database stores files of up to 0.01 GB"
        assert caplog.messages == [f"{checkpoint}: {size}: if this machine is lost, such a training begins again"]
        assert not shared(first).files.get("trials/0000/checkpoint.bin")


def stock(study: Study) -> stock_training.StockTraining:
    assert study.stock_training is not None
    return study.stock_training


def train_stock_model(study: Study) -> None:
    """Let a worker look once whether its machine trains the stock model, and do so."""
    training = stock(study)
    Worker(study, deadline=float("inf"))._took(training, shared_trials.StockSharing(study, training))


def _train(study: Study, architecture: Any, folder: Path, score: Score) -> Outcome:
    return score(architecture, study.settings.budget, folder, lambda *_: True, limits=study.settings.limits, costs=None)


class TestMachines:
    def test_machine_that_is_silent_is_dead_only_after_it_was_observed_without_a_gap(
        self, first: Study, another: Join
    ) -> None:
        second = another()
        shared(first).machines.begin(1)
        silence(first, shared(first).machines.id)
        machines, now = shared(second).machines, [0.0]
        machines._clock = lambda: now[0]
        assert machines.lost() == set()
        now[0] += machines.grace + 60  # it was cut off
        assert machines.lost() == set()
        for _ in range(4):
            now[0] += machines.beat_seconds
            found = machines.lost()
        assert found == {shared(first).machines.id}
        shared(first).machines.beat()
        assert machines.lost() == set()

    def test_machine_whose_last_heartbeat_lies_ahead_is_dead_after_it_was_observed_for_the_grace_period(
        self, first: Study, another: Join
    ) -> None:
        second = another()
        shared(first).machines.begin(1)
        with first.storage.engine.begin() as connection:  # as after the server's clock was set back
            connection.execute(text("UPDATE nas_machines SET heartbeat = heartbeat + interval '1 hour'"))
        machines, now = shared(second).machines, [0.0]
        machines._clock = lambda: now[0]
        assert machines.lost() == set()
        while now[0] < machines.grace - machines.beat_seconds:
            now[0] += machines.beat_seconds
            assert machines.lost() == set()
        now[0] += machines.beat_seconds
        assert machines.lost() == {shared(first).machines.id}
        shared(first).machines.beat()
        assert machines.lost() == set()

    def test_copied_folder_is_another_machine_and_a_moved_one_is_not(self, tmp_path: Path) -> None:
        folder = tmp_path / "study"
        folder.mkdir()
        machine = machine_id(folder)
        assert machine_id(folder) == machine
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / MACHINE_FILE).write_text((folder / MACHINE_FILE).read_text())
        assert machine_id(copy) != machine
        assert machine_id(folder.rename(tmp_path / "moved")) == machine

    def test_copy_beside_its_original_that_runs_becomes_another_machine(
        self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second = another()
        original = shared(first).machines
        with monkeypatch.context() as patch:
            patch.setattr(machines_module, "_this_process", lambda: "::1:1")  # in another container
            original.begin(1)
        copied = second.folder / MACHINE_FILE
        copied.write_text(json.dumps({"machine": original.id, "inode": second.folder.stat().st_ino}))
        copy = Study.open(second.folder)
        assert shared(copy).machines.id == original.id
        beating = threading.Event()

        def beat() -> None:
            while not beating.wait(0.2):
                original.beat()

        thread = threading.Thread(target=beat)
        thread.start()
        with at_work(copy):
            assert shared(copy).machines.id != original.id
        beating.set()
        thread.join()

    def test_machine_that_was_killed_begins_again_without_waiting(self, first: Study) -> None:
        machines = shared(first).machines
        machines.begin(1)
        boot, namespace = machines_module._system()
        with first.storage.engine.begin() as connection:
            gone = {"process": f"{boot}:{namespace}:999999:1"}
            connection.execute(text("UPDATE nas_machines SET process = :process"), gone)
        assert not machines.is_taken()

    def test_one_machine_tracks_until_it_ends(self, first: Study, another: Join) -> None:
        second = another()
        with at_work(first):
            assert shared(first).machines.claim(TRACKING, set())
            assert not shared(second).machines.claim(TRACKING, set())
        assert shared(second).machines.claim(TRACKING, set())

    @pytest.mark.parametrize("given", ["soon", "0", "-3", "nan"])
    def test_grace_period_that_is_no_number_of_seconds_is_refused(
        self, given: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(GRACE, given)
        with pytest.raises(SpecError, match=f"{GRACE}: .* got '{given}'"):
            machines_module.grace_seconds()


class TestDatabaseLock:
    def test_lock_is_held_by_one_and_released(self, first: Study) -> None:
        one, other = first.proposal_lock, Study.open(first.folder).proposal_lock
        assert isinstance(one, DatabaseLock)
        assert one.take()
        assert not other.take(wait=False)
        assert not one.is_lost()
        one.release()
        assert other.take(wait=False)
        other.release()

    def test_lock_whose_session_was_ended_is_lost(self, first: Study) -> None:
        lock = first.proposal_lock
        lock.take()
        with first.storage.engine.begin() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
            )
        assert lock.is_lost()
        assert lock.take()
        assert not lock.is_lost()
        lock.release()

    def test_study_of_one_machine_has_a_lock_in_its_folder(self, make_study: MakeStudy) -> None:
        study = make_study()
        assert isinstance(study.proposal_lock, Lock)
        assert study.shared is None
        assert not (study.folder / MACHINE_FILE).exists()


class TestFiles:
    def test_what_trials_of_another_machine_left_is_fetched(self, first: Study, another: Join) -> None:
        run(first)
        second = another()
        shared(second).pull()
        for number in range(10):
            there, here = first.files(number), second.files(number)
            assert here.read_outcome() == there.read_outcome() is not None
            assert here.read_epochs() == there.read_epochs() != []
            assert here.model.read_bytes() == there.model.read_bytes()
            assert not here.weights.exists()
        shared(second).fetch(second.files(3).weights)
        assert second.files(3).weights.read_bytes() == b"weights"

    def test_epochs_of_a_running_trial_are_fetched_again_when_there_are_more(self, first: Study, another: Join) -> None:
        second, progress = another(), first.files(0).progress
        progress.parent.mkdir(parents=True)
        for text_of in ("1\n", "1\n2\n"):
            progress.write_text(text_of)
            shared(first).publish_at_once(progress)
            shared(second).pull()
            assert second.files(0).progress.read_text() == text_of

    def test_files_are_fetched_when_the_clock_of_the_server_was_set_back(self, first: Study, another: Join) -> None:
        second = another()
        shared(first).files.put("trials/0000/error.txt", b"0")
        with first.storage.engine.begin() as connection:
            connection.execute(text("UPDATE nas_files SET written = written + interval '1 hour'"))
        shared(second).pull()
        shared(first).files.put("trials/0001/error.txt", b"1")
        shared(second).pull()
        assert second.files(1).error.read_text() == "1"

    def test_file_whose_transaction_began_earlier_and_ended_later_is_listed(self, first: Study, another: Join) -> None:
        files, others = shared(first).files, shared(another()).files
        with first.storage.engine.connect() as slow, slow.begin():
            slow.execute(text("UPDATE nas_files SET size = size WHERE path = 'space.yaml'"))
            others.put("trials/0000/error.txt", b"0")
            listed, mark = files.changes()
            assert "trials/0000/error.txt" in {one.path for one in listed}
        changed, mark = files.changes(mark)
        assert "space.yaml" in {one.path for one in changed}
        assert files.changes(mark)[0] == []

    def test_no_other_name_is_written_to_a_folder(self, first: Study, another: Join) -> None:
        second = another()
        for path in ("../escaped", "trials/0001/../../../escaped", "trials/0001/new.py", "study.json2"):
            shared(first).files.put(path, b"x")
        before = sorted(second.folder.rglob("*"))
        shared(second).pull()
        assert sorted(second.folder.rglob("*")) == before
        assert not (second.folder.parent / "escaped").exists()

    def test_weights_that_are_not_needed_are_deleted_for_all(self, first: Study) -> None:
        run(first)
        sharing.collector_of(first)([2, 3])
        stored = {one.path for one in shared(first).files.listing()}
        assert "trials/0002/weights.pt" not in stored
        assert {"trials/0001/weights.pt", "trials/0002/outcome.json", "base/weights.pt"} <= stored

    def test_large_file_is_stored_in_parts(self, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_files, "_PART_BYTES", 1000)
        files, others, path = shared(first).files, shared(another()).files, "trials/0000/checkpoint.bin"
        for size, number in ((3500, 4), (2000, 2), (1000, 1), (4001, 5), (999, 5)):  # those of before are left
            content = random.Random(size).randbytes(size)
            files.put(path, content)
            assert files.get(path) == others.get(path) == content
            assert parts(first, path) == number
            (listed,) = [one for one in files.listing() if one.path == path]
            assert (listed.size, listed.sha256) == (size, hashlib.sha256(content).hexdigest())
            assert files.damaged() == []
        files.delete([path])
        assert (files.get(path), parts(first, path)) == (None, 0)

    @pytest.mark.parametrize(
        "damage", ["DELETE FROM nas_parts WHERE number = 2", "UPDATE nas_parts SET content = 'x' WHERE number = 1"]
    )
    def test_damage_in_a_part_is_found(self, first: Study, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_files, "_PART_BYTES", 10)
        shared(first).files.put("trials/0000/weights.pt", b"x" * 25)
        with first.storage.engine.begin() as connection:
            connection.execute(text(damage))
        assert shared(first).files.damaged() == ["trials/0000/weights.pt"]

    def test_files_of_earlier_versions_are_read(self, first: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        """These stored each file as one value, in a database without the table of parts."""
        shared(first).files.put("trials/0000/weights.pt", b"x" * 25)
        with first.storage.engine.begin() as connection:
            connection.execute(text("DROP TABLE nas_parts"))
        monkeypatch.setattr(shared_files, "_PART_BYTES", 10)
        files = SharedStudy(first.folder, first.storage, 1).files
        assert (files.get("trials/0000/weights.pt"), files.damaged()) == (b"x" * 25, [])

    def test_file_is_as_it_was_if_a_part_could_not_be_stored(
        self, first: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared_files, "_PART_BYTES", 10)
        files = shared(first).files
        files.put("trials/0000/weights.pt", b"x" * 25)

        class Torn(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() >= 20:
                    raise OSError("lost")
                return super().read(size)

        with pytest.raises(OSError, match="lost"):
            files._write("trials/0000/weights.pt", Torn(b"y" * 45))
        assert files.get("trials/0000/weights.pt") == b"x" * 25

    def test_rows_go_with_the_study(self, first: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_files, "_PART_BYTES", 100)
        run(first)
        number = first.storage.get_study_id_from_name("small")
        first.storage.delete_study(number)
        for table in ("nas_files", "nas_parts", "nas_machines", "nas_claims"):
            assert first.storage.rows(text(f"SELECT count(*) FROM {table}"))[0][0] == 0  # noqa: S608 - names of ours


def parts(study: Study, path: str) -> int:
    """Return in how many parts a file is stored; 0 for one value."""
    return study.storage.rows(text("SELECT count(*) FROM nas_parts WHERE path = :path"), {"path": path})[0][0]


def run_and_stop(first: Study, second: Study) -> None:
    """Let the first machine run a small study to its end, while the second tracks it."""
    first.set_run(first.file.run.model_copy(update={"trials": 2}))
    run(first)
    shared(second).machines.begin(1)
    assert shared(second).machines.claim(TRACKING, set())
    for study in (first, second):
        shared(study).machines.end()


def found(study: Study) -> dict[str, tuple[str, Repair]]:
    """Return what `nas fsck` finds on a machine, by address."""
    checked = check_study(study.folder)
    assert not any("is running" in note for note in checked.notes)
    return {finding.address: (finding.problem, finding.repair) for finding in checked.findings}


class TestCheck:
    @pytest.fixture
    def _whole_weights(
        self, monkeypatch: pytest.MonkeyPatch, score: Score, whole_weights: Callable[[Score], Score]
    ) -> None:
        monkeypatch.setattr(worker, "evaluate", whole_weights(score))
        monkeypatch.setattr(stock_training, "evaluate", whole_weights(_stock_score(score)))

    @pytest.mark.usefixtures("_whole_weights")
    def test_files_in_the_database_are_compared_and_repaired(self, first: Study, another: Join) -> None:
        run_and_stop(first, another())
        assert found(first) == {}
        weights = stock(first).weights.read_bytes()
        first.files(0).checkpoint.touch()
        files = shared(first).files
        files.delete(["trials/0000/outcome.json"])
        files.put("trials/0000/model.yaml", b"another")
        shared(first).publish_file(first.files(0).checkpoint)
        first.files(1).progress.unlink()
        shutil.copy(first.files(1).weights, stock(first).weights)
        with first.storage.engine.begin() as connection:
            connection.execute(text("UPDATE nas_files SET content = '' WHERE path = 'trials/0001/model.yaml'"))
        assert found(first) == {
            "small/trials/0000/outcome.json": ("not in the database", Repair.PUBLISH),
            "small/trials/0000/model.yaml": ("another one in the database", Repair.PUBLISH),
            "small/trials/0000/checkpoint.bin": ("in the database, and its training has ended", Repair.DELETE_STORED),
            "small/trials/0001/progress.jsonl": ("in the database, and not here", Repair.FETCH),
            "small/trials/0001/model.yaml": ("damaged in the database", Repair.PUBLISH),
            "small/base/weights.pt": ("another one in the database", Repair.FETCH),
        }
        (checked,) = fsck_repair.repair(first.folder, fsck.check(first.folder))
        assert not checked.findings
        assert stock(first).weights.read_bytes() == weights
        assert len(first.files(1).read_epochs()) == 3

    @pytest.mark.usefixtures("_whole_weights")
    def test_weights_that_are_fetched_when_they_are_needed_need_not_be_here(self, first: Study, another: Join) -> None:
        second = another()
        run_and_stop(first, second)
        assert shared(first).machines.claim(TRACKING, set())
        fetched(second)
        assert second.files(0).outcome.is_file()
        assert found(second) == {}
        shared(first).files.delete(["base/weights.pt"])
        assert found(second) == {"small/base/weights.pt": ("missing", Repair.NONE)}

    def test_what_another_machine_has_not_stored_is_named_with_that_machine(self, first: Study, another: Join) -> None:
        second = another()
        run_and_stop(first, second)
        assert shared(first).machines.claim(TRACKING, set())
        shared(first).files.delete(["trials/0001/outcome.json"])
        shared(first).files.put("trials/0042/outcome.json", b"{}")
        (missing, stranger) = check_study(second.folder).findings
        assert missing.describe() == (
            "small/trials/0001/outcome.json: not in the database "
            f"(nas fsck --repair on {socket.gethostname()}, which has trained it, stores it)"
        )
        assert "Optuna has no such trial" in stranger.problem

    def test_trial_that_a_lost_machine_has_left_running_is_found_and_repaired(
        self, first: Study, another: Join
    ) -> None:
        second, trial = another(), begin_trial(first)
        assert "trials without an ending, the files in the database, and MLflow" in check_study(second.folder).notes[0]
        silence(first, shared(first).machines.id)
        assert shared(first).machines.claim(TRACKING, set())
        address = "small/trials/0000"
        problem = f"RUNNING in Optuna, but its machine {socket.gethostname()} works no more"
        assert found(second) == {address: (problem, Repair.RECOVER_LOST)}
        (checked,) = fsck_repair.repair(second.folder, fsck.check(second.folder))
        assert not checked.findings
        before, after = second.optuna_trials()
        assert (before.number, before.state, after.state) == (trial.number, TrialState.FAIL, TrialState.WAITING)
        assert after.user_attrs[RETRY_OF] == trial.number


class TestStudiesBeside:
    def test_study_that_another_machine_derived_is_found_here(
        self, first: Study, another: Join, make_study: MakeStudy, tmp_path: Path
    ) -> None:
        second = another()
        derived = make_study("small-confirm", storage=first.file.storage, confirms="small")
        make_study("small-other", storage=first.file.storage)
        run(derived)
        assert fetched(second) is second
        here = Study.open(tmp_path / "second" / "small-confirm")
        assert here.settings.confirms == "small"
        assert [record.ending for record in here.records()] == ["finished"]
        assert here.files(0).read_outcome() == derived.files(0).read_outcome() is not None
        assert not (tmp_path / "second" / "small-other").exists()

    def test_study_of_one_machine_fetches_nothing(self, make_study: MakeStudy) -> None:
        study = make_study()
        before = sorted(study.folder.parent.rglob("*"))
        assert fetched(study) is study
        assert sorted(study.folder.parent.rglob("*")) == before


class TestJoining:
    def test_joined_study_has_the_settings_and_space_of_the_first(self, first: Study, another: Join) -> None:
        second = another()
        assert second.settings == first.settings
        assert second.space.hash == first.space.hash
        assert second.file.identity is not None
        assert first.file.identity is not None
        assert second.file.identity.study_id == first.file.identity.study_id
        assert shared(second).machines.id != shared(first).machines.id
        assert json.loads((second.folder / "study.json").read_text())["storage"] == first.file.storage
        assert another().folder == second.folder  # the second time it goes on in its folder

    def test_machine_that_has_joined_before_waits_for_the_database(
        self, another: Join, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[bool] = []

        def opened(address: str, *, patient: bool) -> RetryingStorage:
            waits.append(patient)
            return open_storage(address, patient=patient)

        monkeypatch.setattr(joining, "open_storage", opened)
        another()
        another()
        assert waits == [False, True]

    def test_other_code_or_versions_are_refused_with_both_values(
        self, first: Study, another: Join, tmp_path: Path
    ) -> None:
        here = conditions_here()
        shared(first).files.put(CONDITIONS, json.dumps({**here, "torch": "1.0", "nas": "0.0"}).encode())
        with pytest.raises(StudyError) as caught:
            another()
        assert f"  nas: 0.0 in the study, {here['nas']} here" in str(caught.value)
        assert f"  torch: 1.0 in the study, {here['torch']} here" in str(caught.value)
        assert "--anyway" not in str(caught.value)
        shared(first).files.put(CONDITIONS, json.dumps({**here, "torch": "1.0"}).encode())
        with pytest.raises(StudyError, match="--anyway joins"):
            another()
        joined = join("small", storage=first.file.storage, runs=tmp_path / "anyway", anyway=True)
        assert joined.settings == first.settings

    def test_study_that_the_database_does_not_have_is_refused(self, first: Study, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"the database has no study 'smal' \(did you mean 'small'"):
            join("smal", storage=first.file.storage, runs=tmp_path / "second")
        assert not (tmp_path / "second" / "smal").exists()

    def test_other_databases_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="several machines share a PostgreSQL database, got 'sqlite:"):
            join("small", storage=f"sqlite:///{tmp_path}/s.db", runs=tmp_path / "second")
        with pytest.raises(SpecError, match="where are the trials of small"):
            join("small", runs=tmp_path / "second")

    def test_device_of_another_kind_is_refused(self, first: Study, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="trainings run on the CPU, got '0'"):
            join("small", storage=first.file.storage, runs=tmp_path / "second", device="0")

    def test_operators_from_the_database_run_only_if_they_are_trusted(
        self, first: Study, tmp_path: Path, own_operator: str
    ) -> None:
        source = f"{own_operator}\nMARK = {str(tmp_path)!r}\n"
        shared(first).files.put("modules/twice.py", source.encode())
        with pytest.raises(SpecError, match=r"operators of twice\.py, Python code from the database"):
            join("small", storage=first.file.storage, runs=tmp_path / "second")
        joined = join("small", storage=first.file.storage, runs=tmp_path / "second", trust=True)
        assert (joined.folder / "modules" / "twice.py").read_text() == source

    def test_second_machine_that_begins_the_study_is_told_to_join(
        self, first: Study, make_study: MakeStudy, tmp_path: Path
    ) -> None:
        first.folder.rename(tmp_path / "elsewhere")
        with pytest.raises(StudyError, match="nas worker small --storage ADDRESS"):
            make_study(trials=10, storage=first.file.storage)

    def test_address_without_the_driver_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(addresses, "find_spec", lambda _: None)
        with pytest.raises(EnvironmentProblem) as caught:
            addresses.with_driver("postgresql://me:s3cr3t@lab/nas")
        assert "pip install 'nas-for-yolo[postgres]'" in str(caught.value)
        assert "s3cr3t" not in str(caught.value)


def test_server_that_is_restarted_in_mid_search_loses_and_doubles_nothing(
    postgres_server: Any, first: Study, another: Join, monkeypatch: pytest.MonkeyPatch, score: Score
) -> None:
    def slow(*arguments: Any, **named: Any) -> Outcome:
        time.sleep(0.5)
        return score(*arguments, **named)

    monkeypatch.setattr(worker, "evaluate", slow)
    second = another()

    def restart() -> None:
        while sum(record.finished for record in Study.open(first.folder).records()) < 2:
            time.sleep(0.2)
        postgres_server.stop()
        time.sleep(3)
        postgres_server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    run(first, second)
    thread.join()
    records = Study.open(first.folder).records()
    finished = [record for record in records if record.finished]
    assert len(finished) == 10
    assert set(Counter(record.fingerprint for record in finished).values()) == {1}
    assert not any(record.state == "running" for record in records)


class TestCleaningAStudyInADatabase:
    @staticmethod
    def clean(study: Study, *options: str) -> str:
        command = ["clean", study.name, "--all", *options, "--runs", str(study.folder.parent)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return " ".join(done.stderr.split())

    @staticmethod
    def rows(study: Study) -> list[int]:
        tables = ("studies", "trials", "nas_files", "nas_parts", "nas_machines", "nas_claims")
        with study.storage.engine.connect() as connection:
            counts = [text(f"SELECT count(*) FROM {table}") for table in tables]  # noqa: S608 - names of ours
            return [connection.execute(count).scalar_one() for count in counts]

    def test_rows_are_deleted_with_the_folder(self, make_study: MakeStudy, database: str) -> None:
        other = make_study("other", storage=database)
        alone = self.rows(other)
        study = make_study(storage=database)
        assert study.shared is not None
        study.shared.machines.begin(1)
        study.shared.files.put("trials/0000/outcome.json", b"{}")
        study.shared.machines.claim(TRACKING, set())
        study.enqueue(study.space.stock)
        before = self.rows(study)
        assert "would delete its trials in postgresql" in self.clean(study, "--dry-run")
        assert self.rows(study) == before
        assert "deleting its trials in postgresql" in self.clean(study)
        assert self.rows(other) == alone
        assert not study.folder.exists()

    def test_rows_of_several_machines_stay_unless_they_are_named(self, make_study: MakeStudy, database: str) -> None:
        study = make_study(storage=database)
        assert study.shared is not None
        Machines(study.storage, study_id(study.storage, study.name), "another").begin(1)
        before = self.rows(study)
        folder = study.folder.rename(study.folder.with_name("away"))
        shutil.copytree(folder, study.folder)
        assert "its trials stay in postgresql" in self.clean(study)
        assert self.rows(study) == before
        folder.rename(study.folder)
        command = ["clean", study.name, "--all", "--everywhere", "--runs", str(study.folder.parent)]
        refused = CliRunner().invoke(app, command)
        assert refused.exit_code == 2
        assert "is running on" in refused.stderr
        Machines(study.storage, study_id(study.storage, study.name), "another").end()
        assert "deleting its trials in postgresql" in self.clean(study, "--everywhere")
        assert self.rows(study) == [0] * 6
