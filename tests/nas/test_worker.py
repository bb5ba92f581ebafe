"""Worker of a study, with a formula instead of training, so that a trial takes milliseconds."""

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages._heartbeat import is_heartbeat_enabled
from typer.testing import CliRunner

from nas.algorithms.rewards import Reward
from nas.algorithms.successive_halving import Stopping
from nas.cli import app
from nas.execution import exit_causes, recovery, worker
from nas.execution.enqueue import enqueue_extremes
from nas.execution.exit_causes import ExitCause
from nas.execution.watchdog import Training
from nas.execution.worker import Worker
from nas.settings import Sampler
from nas.study.garbage import WeightCollector
from nas.study.study import Study
from search_spaces import Architecture, SearchSpace
from search_spaces.errors import GpuError, StudyError
from trials import Budget, Ending, Epoch, Limits, Outcome
from trials.machine import MemoryGrowth
from trials.scores import GoOn

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]


@pytest.fixture
def run(score: Score, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a worker in this process that scores by a function."""

    def working(study: Study, by: Score = score) -> None:
        monkeypatch.setattr(worker, "evaluate", by)
        Worker(study, deadline=float("inf")).run()

    return working


def ending(kind: Ending, detail: str = "") -> Score:
    def scored(architecture: Architecture, *_: Any, **__: Any) -> Outcome:
        return Outcome(architecture=architecture, ending=kind, detail=detail)

    return scored


def test_study_reaches_its_number_of_trials_and_no_more(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=6)
    run(study)
    records = study.records()
    assert [record.ending for record in records] == ["finished"] * 6
    assert study.remaining_trials(records) == 0


def test_stock_model_is_trial_0(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=1)
    run(study)
    (record,) = study.records()
    assert (record.role, record.picks, record.summary) == ("stock", {}, "stock")


def test_start_architectures_follow_the_stock_model(make_study: MakeStudy, run: Callable[..., None]) -> None:
    first, second = "{4: {UIB: {}}, 10: {DySample: {style: pl}}}", "{6: {DynamicConv: {kernels: 2}}}"
    study = make_study(trials=4, start=f"start: [{first}, {second}]")
    run(study)
    found = [(record.role, record.summary) for record in study.records()]
    assert found[:3] == [("stock", "stock"), ("start", "UIB 4 · DySample 10"), ("start", "DynamicConv 6")]
    assert found[3][0] not in {"stock", "start"}


def test_no_architecture_is_trained_twice(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=20)
    run(study)
    trained = Counter(record.fingerprint for record in study.records())
    assert set(trained.values()) == {1}


def test_extremes_are_among_the_first_trials(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=4)
    enqueue_extremes(study, study.records())
    enqueue_extremes(study, study.records())
    run(study)
    assert [record.role for record in study.records()] == ["stock", "cheapest", "costliest", ""]


def test_front_equals_optunas_best_trials(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=25)
    run(study)
    assert {record.trial for record in study.front()} == {trial.number for trial in study.optuna.best_trials}


def test_exhausted_space_ends_a_search_early(
    make_study: MakeStudy, run: Callable[..., None], space: SearchSpace
) -> None:
    study = make_study(trials=space.size + 10)
    run(study)
    finished = [record for record in study.records() if record.finished]
    assert len(finished) == space.size


@pytest.mark.parametrize("kind", [Ending.DIVERGED, Ending.OUT_OF_MEMORY, Ending.TIMED_OUT, Ending.STOPPED])
def test_bad_candidate_is_pruned_counted_and_off_the_front(
    kind: Ending, make_study: MakeStudy, run: Callable[..., None]
) -> None:
    study = make_study(trials=3)
    run(study, ending(kind))
    records = study.records()
    assert [(record.state, record.ending) for record in records] == [("pruned", kind.value)] * 3
    assert study.front(records) == []
    assert not any(record.within for record in records)


def test_broken_trial_is_retried_once_and_three_equal_failures_stop_the_study(
    make_study: MakeStudy, run: Callable[..., None]
) -> None:
    study = make_study(trials=50)
    run(study, ending(Ending.BROKEN, "KeyError: 'x'"))
    records = study.records()
    broken = [record.fingerprint for record in records if record.state != "waiting"]
    assert [record.state for record in records if record.state != "waiting"] == ["fail"] * 5
    assert broken[0] == broken[1] != broken[2] == broken[3] != broken[4]
    assert study.reason_to_stop(records) is not None
    assert "KeyError: 'x'" in str(study.reason_to_stop(records))


def test_trials_over_the_latency_limit_are_not_counted_and_finally_stop_the_study(
    make_study: MakeStudy, run: Callable[..., None]
) -> None:
    study = make_study(trials=3, limits=Limits(latency_ms=0.5))
    run(study)
    records = study.records()
    assert records[0].finished  # the stock model is the reference
    assert not records[0].within
    assert study.front(records) == []
    assert {record.ending for record in records[1:]} <= {"over_limit", None}
    assert study.reason_to_stop(records) is not None or len(records) > 1


def test_interrupted_trial_is_enqueued_again(make_study: MakeStudy, run: Callable[..., None], score: Score) -> None:
    study = make_study(trials=3)

    def interrupted(*_: Any, **__: Any) -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, interrupted)
    first, again = study.records()
    assert (first.state, again.state, again.role) == ("fail", "waiting", "stock")
    assert first.fingerprint == again.fingerprint
    run(study, score)
    assert sum(record.finished for record in study.records()) == 3


def test_retry_precedes_other_waiting_trials(make_study: MakeStudy, run: Callable[..., None], score: Score) -> None:
    study = make_study(trials=2)
    enqueue_extremes(study, study.records())

    def interrupted(*_: Any, **__: Any) -> Outcome:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(study, interrupted)
    run(study, score)
    assert {record.role for record in study.records() if record.finished} == {"stock", "cheapest"}


def test_finished_training_counts_without_a_supervisor(
    make_study: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(trials=2)
    orphan = Worker(study, deadline=float("inf"))

    def orphaned(architecture: Architecture, budget: Budget, folder: Path, go_on: GoOn, **options: Any) -> Outcome:
        def last_epoch_comes(number: int, epoch: Epoch) -> bool:
            if number == budget.epochs:
                monkeypatch.setattr(os, "getppid", lambda: -1)
            return go_on(number, epoch)

        return score(architecture, budget, folder, last_epoch_comes, **options)

    monkeypatch.setattr(worker, "evaluate", orphaned)
    orphan.run()
    assert [record.ending for record in study.records()] == ["finished"]


def test_recover_completes_a_finished_trial_that_optuna_has_as_running(
    make_study: MakeStudy, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(trials=2)
    monkeypatch.setattr(Worker, "_finish", _die)
    with pytest.raises(SystemExit):
        run(study)
    monkeypatch.undo()
    # As after kill -9: the trial runs for Optuna, and nobody holds its lock.
    assert study.records()[0].state == "running"
    shown = CliRunner().invoke(app, ["trials", study.name, "--runs", str(study.folder.parent)]).stdout
    assert "interrupted" in shown.splitlines()[2]
    assert list(recovery.recover(study)) == [0]
    record = study.records()[0]
    assert (record.state, record.finished, record.epochs) == ("complete", True, 3)
    assert record.map50_95 is not None


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), StudyError("the disk is full")])
def test_trial_that_is_interrupted_with_its_outcome_written_is_not_retried(
    make_study: MakeStudy, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, reason: BaseException
) -> None:
    study = make_study(trials=2)

    def interrupted(*_: Any) -> None:
        raise reason

    monkeypatch.setattr(Worker, "_finish", interrupted)
    with pytest.raises(type(reason)):
        run(study)
    monkeypatch.undo()
    # Not failed and enqueued again: killed between the two, it would have both an ending and a retry.
    assert [record.state for record in study.records()] == ["running"]
    assert list(recovery.recover(study)) == [0]
    run(study)
    assert [record.ending for record in study.records()] == ["finished", "finished"]


def _die(*_: Any) -> None:
    raise SystemExit  # neither an Exception nor a KeyboardInterrupt: Optuna tells nothing, as after kill -9


def test_trial_killed_during_training_is_retried(make_study: MakeStudy, run: Callable[..., None], score: Score) -> None:
    study = make_study(trials=2)

    def killed(*_: Any, **__: Any) -> Outcome:
        raise SystemExit

    with pytest.raises(SystemExit):
        run(study, killed)
    recovery.recover(study)
    run(study, score)
    records = study.records()
    assert [record.state for record in records] == ["fail", "complete", "complete"]
    assert records[0].fingerprint == records[1].fingerprint


class TestExits:
    @pytest.fixture
    def dies(self, run: Callable[..., None]) -> Callable[..., None]:
        """Let a worker exit in the next trial of a study, once for each cause."""

        def dying(study: Study, *deaths: ExitCause) -> None:
            def killed(*_: Any, **__: Any) -> Outcome:
                raise SystemExit

            for death in deaths:
                with pytest.raises(SystemExit):
                    run(study, killed)
                recovery.recover(study, {os.getpid(): death})

        return dying

    def test_trial_whose_worker_crashes_twice_has_crashed(
        self, make_study: MakeStudy, dies: Callable[..., None]
    ) -> None:
        study = make_study(trials=2)
        dies(study, ExitCause(text="exit code 3"), ExitCause(text="crash (SIGSEGV)"))
        records = study.records()
        assert [(record.state, record.ending) for record in records] == [("fail", None), ("pruned", "crashed")]
        assert records[1].detail.startswith("crash (SIGSEGV); the first time: exit code 3; see ")
        assert not records[1].within
        assert study.remaining_trials(records) == 1

    def test_crashed_architecture_is_not_proposed_again(
        self, make_study: MakeStudy, dies: Callable[..., None], run: Callable[..., None]
    ) -> None:
        study = make_study(trials=20)
        dies(study, *[ExitCause(text="exit code 3")] * 2)
        run(study)
        records = study.records()
        assert sum(record.fingerprint == records[0].fingerprint for record in records) == 2
        assert sum(record.finished for record in records) == 19

    def test_interrupted_worker_is_no_crash(
        self, make_study: MakeStudy, dies: Callable[..., None], run: Callable[..., None]
    ) -> None:
        study = make_study(trials=2)

        def interrupted(*_: Any, **__: Any) -> Outcome:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(study, interrupted)
        dies(study, ExitCause(text="exit code 3"))
        assert [(record.state, record.ending) for record in study.records()] == [
            ("fail", None),
            ("fail", None),
            ("waiting", None),
        ]

    def test_out_of_memory_is_distinguished_from_a_crash(
        self, make_study: MakeStudy, dies: Callable[..., None]
    ) -> None:
        study = make_study(trials=2)
        killed = exit_causes.from_code(-signal.SIGKILL, oom_killed=True)
        dies(study, killed, killed)
        assert [record.ending for record in study.records()] == [None, "out_of_memory"]
        assert study.records()[1].detail.startswith("on the host: ")

    def test_trial_that_corrupts_its_gpu_twice_has_crashed(
        self, make_study: MakeStudy, run: Callable[..., None]
    ) -> None:
        study, line = make_study(trials=2), "on the GPU: CUDA error: an illegal memory access was encountered"

        def corrupting(*_: Any, **__: Any) -> Outcome:
            raise GpuError(line, is_lost=False)

        for _ in range(2):
            with pytest.raises(GpuError):
                run(study, corrupting)
            assert [record.state for record in study.records()][-1] == "running"
            recovery.recover(study, {os.getpid(): exit_causes.from_gpu(line)})
        records = study.records()
        assert [(record.state, record.ending) for record in records] == [("fail", None), ("pruned", "crashed")]
        assert records[1].detail == f"{line}; see workers/ in the study's folder"

    def test_trial_whose_gpu_is_lost_is_retried_without_blame(
        self, make_study: MakeStudy, run: Callable[..., None]
    ) -> None:
        study = make_study(trials=2)

        def losing(*_: Any, **__: Any) -> Outcome:
            raise GpuError("on the GPU: CUDA error: no CUDA-capable device is detected", is_lost=True)

        for _ in range(3):
            with pytest.raises(GpuError):
                run(study, losing)
            recovery.recover(study, {os.getpid(): None})
        assert [record.state for record in study.records()] == ["fail", "fail", "fail", "waiting"]

    def test_hang_of_a_worker_is_not_retried(self, make_study: MakeStudy, dies: Callable[..., None]) -> None:
        study = make_study(trials=2)
        dies(study, exit_causes.from_hang("hung: no step in 30 min"))
        (record,) = study.records()
        assert (record.state, record.ending) == ("pruned", "timed_out")
        assert record.detail.startswith("hung: no step in 30 min; see ")

    def test_trials_of_other_processes_are_not_recovered(self, make_study: MakeStudy, run: Callable[..., None]) -> None:
        study = make_study(trials=2)

        def killed(*_: Any, **__: Any) -> Outcome:
            raise SystemExit

        with pytest.raises(SystemExit):
            run(study, killed)
        assert recovery.recover(study, {1: ExitCause(text="exit code 3")}) == {}
        assert recovery.recover(study) == {0: os.getpid()}


def test_three_crashed_architectures_stop_a_study_in_which_nothing_finishes(
    make_study: MakeStudy, run: Callable[..., None]
) -> None:
    study = make_study(trials=50)
    run(study, ending(Ending.CRASHED, "exit code 3"))
    records = study.records()
    assert [record.ending for record in records if record.ending] == ["crashed"] * 3
    assert study.reason_to_stop(records) == "3 architectures in a row killed their workers: exit code 3"
    study.set_run(study.file.run.model_copy(update={"earlier": len(records)}))  # as a supervisor does that resumes it
    assert study.reason_to_stop(records) is None


def test_one_broken_choice_does_not_stop_a_study(make_study: MakeStudy, run: Callable[..., None], score: Score) -> None:
    """A third of the architectures breaks; each of these is tried twice."""

    def scored(architecture: Architecture, *arguments: Any, **named: Any) -> Outcome:
        choice = architecture.as_picks().get("10", {})
        if choice.get("DySample", {}).get("style") == "pl":
            return Outcome(architecture=architecture, ending=Ending.BROKEN, detail="KeyError: 'x'")
        return score(architecture, *arguments, **named)

    study = make_study(trials=25)
    run(study, scored)
    tries = Counter(record.fingerprint for record in study.records() if record.ending == "broken")
    assert set(tries.values()) == {2}
    assert sum(record.finished for record in study.records()) == 25


def test_worker_that_uses_too_much_memory_exits_after_its_trial(
    make_study: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(trials=3)
    monkeypatch.setattr(worker, "evaluate", score)
    monkeypatch.setattr(MemoryGrowth, "after", lambda _self, *, ran_out: not ran_out)
    working = Worker(study, deadline=float("inf"))
    working.run()
    assert working.outgrown
    assert [record.ending for record in study.records() if record.ending] == ["finished"]


def test_memory_error_outside_of_evaluate_ends_a_trial_as_out_of_memory(
    make_study: MakeStudy, run: Callable[..., None]
) -> None:
    study = make_study(trials=1)

    def hoarding(*_: Any, **__: Any) -> Outcome:
        raise MemoryError

    run(study, hoarding)
    (record,) = study.records()
    assert (record.state, record.ending, record.detail) == ("pruned", "out_of_memory", "on the host: MemoryError")


def test_optimiser_step_writes_a_heartbeat(
    make_study: MakeStudy, run: Callable[..., None], score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(trials=1)
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])

    def training(*arguments: Any, **named: Any) -> Outcome:
        assert recovery.trainings_by_process(study) == {
            os.getpid(): Training(study.files(0), study.settings.budget.timeout)
        }
        os.utime(study.files(0).lock, (1, 1))
        optimiser.step()
        assert study.files(0).read_heartbeat() > 1e18
        return score(*arguments, **named)

    monkeypatch.setattr(worker, "_HEARTBEAT_SECONDS", 0.0)
    run(study, training)
    assert study.records()[0].finished
    assert recovery.trainings_by_process(study) == {}
    os.utime(study.files(0).lock, (1, 1))
    optimiser.step()
    assert study.files(0).read_heartbeat() == 1e9


def test_epochs_are_stored_as_they_end(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=1)
    run(study)
    epochs = study.files(0).read_epochs()
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert [epoch.map50_95 is None for epoch in epochs] == [True, True, False]


def test_incomplete_last_line_is_no_epoch(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=1)
    run(study)
    with study.files(0).progress.open("a") as lines:
        lines.write('{"epoch": 4, "loss')
    assert [epoch.epoch for epoch in study.files(0).read_epochs()] == [1, 2, 3]


def test_weights_of_front_stock_model_and_latest_trials_survive_garbage_collection(
    make_study: MakeStudy, run: Callable[..., None]
) -> None:
    study = make_study(trials=15)
    run(study)
    records = study.records()
    WeightCollector(study.folder, study.settings.objectives).collect(records)
    remaining = {record.trial for record in records if study.files(record.trial).weights.is_file()}
    front = {record.trial for record in study.front(records)}
    assert front | {0, 12, 13, 14} == remaining


class TestStopping:
    @pytest.fixture
    def make_judged(self, make_study: MakeStudy, tmp_path: Path) -> MakeStudy:
        budget = Budget(data=tmp_path / "data.yaml", epochs=4, deploy_size=64, rungs=(1, 2))
        return partial(make_study, trials=20, budget=budget, stopping=Stopping(eta=2))

    def test_dominated_trainings_are_pruned_at_a_rung(self, make_judged: MakeStudy, run: Callable[..., None]) -> None:
        study = make_judged()
        run(study)
        records = study.records()
        stopped = [record for record in records if record.ending == "stopped"]
        assert study.remaining_trials(records) == 0
        assert len(records) == 20
        assert {record.epochs for record in stopped} == {1, 2}
        assert 5 < len(stopped) < 19
        assert records[0].ending == "finished"  # the stock model
        assert all(record.finished for record in study.front(records))
        assert sum(record.epochs for record in records) < 0.75 * 4 * 20

    def test_constraint_of_pruned_trials_falls_with_their_epochs(
        self, make_judged: MakeStudy, run: Callable[..., None]
    ) -> None:
        study = make_judged(sampler=Sampler.TPE)
        run(study)
        trials = study.optuna.get_trials(deepcopy=False)
        left = {trial.user_attrs["epochs"]: trial.constraints for trial in trials if "rung:1" in trial.user_attrs}
        assert left[1] == {"rungs_left": 0.75}
        assert left[2] == {"rungs_left": 0.5}
        assert left[4] == {}
        assert not any(trial.intermediate_values for trial in trials)  # they would poison the study

    def test_retry_of_a_promoted_training_is_not_pruned(
        self, make_judged: MakeStudy, run: Callable[..., None], score: Score
    ) -> None:
        study, hit = make_judged(trials=12), []

        def interrupted(
            architecture: Architecture, budget: Budget, folder: Path, go_on: GoOn, **options: Any
        ) -> Outcome:
            def once(number: int, epoch: Epoch) -> bool:
                goes, trial = go_on(number, epoch), study.records()[-1].trial
                if goes and trial > 3:
                    hit.append(trial)
                    raise KeyboardInterrupt
                return goes

            return score(architecture, budget, folder, once, **options)

        with pytest.raises(KeyboardInterrupt):
            run(study, interrupted)
        run(study)
        trials = study.optuna.get_trials(deepcopy=False)
        (again,) = (trial for trial in trials if trial.user_attrs.get("again") == hit[0])
        assert again.user_attrs["rung:1"] == trials[hit[0]].user_attrs["rung:1"]
        assert again.user_attrs["epochs"] > 1

    def test_reward_is_compared_at_rungs_if_there_is_one(
        self, make_judged: MakeStudy, run: Callable[..., None]
    ) -> None:
        study = make_judged(reward=Reward.TUNAS, target_gflops=1.0)
        run(study)
        standings = [trial.user_attrs["rung:1"] for trial in study.optuna.get_trials(deepcopy=False)]
        assert {len(standing) for standing in standings} == {2}  # the accuracy, and the reward


def test_reward_is_the_only_optuna_value_and_the_front_exists(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=8, reward="tunas", target_gflops=1.5)
    run(study)
    (trial, *_) = study.optuna.get_trials()
    record = study.records()[0]
    assert record.map50_95 is not None
    assert record.gflops is not None
    assert trial.values == [pytest.approx(record.map50_95 - 0.1 * abs(record.gflops / 1.5 - 1))]
    assert study.front()


def test_opened_study_has_the_same_records_and_space(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=4)
    run(study)
    again = Study.open(study.folder)
    assert again.records() == study.records()
    assert again.space == study.space


def test_storage_is_in_wal_mode(make_study: MakeStudy) -> None:
    import sqlite3

    study = make_study()
    with sqlite3.connect(study.folder / "study.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_optuna_loads_the_study(make_study: MakeStudy, run: Callable[..., None]) -> None:
    study = make_study(trials=3)
    run(study)
    loaded = optuna.load_study(study_name="small", storage=f"sqlite:///{study.folder / 'study.db'}")
    assert len(loaded.trials) == 3
    assert Path(study.folder, "study.json").is_file()


def test_reading_a_study_counts_no_costs(make_study: MakeStudy, run: Callable[..., None]) -> None:
    """Building the layers of a space takes seconds."""
    study = make_study(trials=2)
    run(study)
    opened = Study.open(study.folder)
    assert len(opened.front()) > 0
    assert opened.remaining_trials(opened.records()) == 0
    assert "scoring" not in vars(opened)


class TestTimeOfDay:
    """The time of day jumps when a clock is set, or when a virtual machine is moved."""

    @pytest.mark.parametrize("jump", [-1e8, 1e8])
    def test_deadline_does_not_depend_on_it(
        self, make_study: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch, jump: float
    ) -> None:
        study, now = make_study(trials=2), time.time
        monkeypatch.setattr(worker, "evaluate", score)
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        Worker(study, deadline=time.monotonic() + 60.0).run()
        assert [record.state for record in study.records()] == ["complete", "complete"]
        Worker(make_study("other", trials=2), deadline=time.monotonic() - 1.0).run()
        assert {record.state for record in Study.open(study.folder.parent / "other").records()} == {"waiting"}

    def test_trials_in_a_file_are_not_taken_for_dead_by_their_heartbeat(self, make_study: MakeStudy) -> None:
        assert not is_heartbeat_enabled(make_study().storage)

    def test_trial_that_began_later_than_now_has_crashed_after_no_time(self, make_study: MakeStudy) -> None:
        study = make_study(trials=1)
        trial = study.optuna.ask()
        trial.set_user_attr("fingerprint", "f")
        with sqlite3.connect(study.folder / "study.db") as database:
            database.execute("UPDATE trials SET datetime_start = '2999-01-01 00:00:00.000000' WHERE number = 0")
        study = Study.open(study.folder)
        study.files(0).lock.parent.mkdir(parents=True)
        study.files(0).lock.write_text("4711")
        recovery.recover(study, {4711: exit_causes.from_hang("hung")})
        assert [(record.ending, record.seconds) for record in study.records()] == [("timed_out", 0.0)]


def test_trial_of_a_container_that_had_another_name_is_recovered(
    make_study: MakeStudy, run: Callable[..., None]
) -> None:
    study = make_study(trials=1)
    study.optuna.ask().set_user_attr("host", "3f0c2a")
    recovery.recover(study)
    run(study)
    assert [record.ending for record in study.records()] == [None, "finished"]


def test_checkpoint_of_an_interrupted_retry_is_that_of_the_first_attempt(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, score: Score
) -> None:
    study = make_study(trials=1)
    study.optuna.ask()
    first = study.files(0)
    first.folder.mkdir(parents=True)
    first.checkpoint.write_bytes(b"three epochs")
    recovery.recover(study)  # killed while it trained,
    study.optuna.ask()
    recovery.recover(study)  # and its retry before it had taken the checkpoint
    found = []

    def evaluate(architecture: Architecture, budget: Budget, folder: Path, *rest: Any, **more: Any) -> Outcome:
        found.append((folder.name, (folder / "checkpoint.bin").read_bytes()))
        return score(architecture, budget, folder, *rest, **more)

    monkeypatch.setattr(worker, "evaluate", evaluate)
    Worker(study, deadline=float("inf")).run()
    assert found == [("0002", b"three epochs")]
