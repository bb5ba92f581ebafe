"""Which trials keep weights and checkpoints, and what `nas clean` deletes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.execution import worker
from nas.locks import Lock
from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.study.cleaning import delete_leftovers, removable, trials_with_checkpoint, trials_with_weights
from nas.study.folders import UPLOAD_LOCK
from nas.study.study import Study
from trials import Outcome

OBJECTIVES = ("map50_95", "gflops")
STOCK = Record(
    trial=0, state="complete", ending="finished", map50_95=0.5, gflops=8.0, fingerprint="stock", role="stock", picks={}
)


def trial(number: int, *, like: Record = STOCK, **changes: Any) -> Record:
    """A finished trial of an architecture of its own, cheap or dominated as its number is odd or even."""
    better = {"map50_95": 0.6, "gflops": 5.0} if number % 2 else {"map50_95": 0.1, "gflops": 9.0}
    values: dict[str, Any] = {"trial": number, "fingerprint": f"f{number}", "role": "", **better, **changes}
    return replace(like, **values)


def waiting(number: int, *, of: int, repeat: int = 0, state: str = "waiting") -> Record:
    return Record(trial=number, state=state, fingerprint=f"f{of}", repeat=repeat, picks={})


class TestWeights:
    def test_weights_of_the_front_and_the_stock_model_are_not_removable(self) -> None:
        records = [STOCK, trial(1), trial(2), trial(4)]
        assert trials_with_weights(records, OBJECTIVES) == {0, 1}

    @pytest.mark.parametrize(("latest", "expected"), [(1, {0, 1, 6}), (2, {0, 1, 4, 6}), (9, {0, 1, 2, 4, 6})])
    def test_weights_of_the_last_ended_trials_are_not_removable(self, latest: int, expected: set[int]) -> None:
        records = [STOCK, trial(1), trial(2), trial(4), trial(6)]
        assert trials_with_weights(records, OBJECTIVES, latest=latest) == expected

    def test_weights_of_a_running_trial_are_not_removable(self) -> None:
        assert 8 in trials_with_weights([STOCK, waiting(8, of=8, state="running")], OBJECTIVES)


class TestCheckpoints:
    @pytest.mark.parametrize("state", ["waiting", "running", "fail"])
    def test_checkpoints_of_trials_without_an_ending_are_not_removable(self, state: str) -> None:
        assert trials_with_checkpoint([STOCK, waiting(1, of=1, state=state)]) == {1}

    @pytest.mark.parametrize(
        ("state", "ending"),
        [
            ("complete", "finished"),
            ("pruned", "stopped"),
            ("pruned", "diverged"),
            ("pruned", "out_of_memory"),
            ("pruned", "timed_out"),
        ],
    )
    def test_checkpoints_of_ended_trials_are_removable(self, state: str, ending: str) -> None:
        assert trials_with_checkpoint([STOCK, trial(1), trial(2, state=state, ending=ending)]) == set()

    @pytest.mark.parametrize("state", ["waiting", "running"])
    def test_checkpoint_of_a_broken_trial_is_not_removable_before_its_retry(self, state: str) -> None:
        broken = trial(1, state="fail", ending="broken")
        assert trials_with_checkpoint([STOCK, broken]) == {1}
        assert trials_with_checkpoint([STOCK, broken, waiting(2, of=1, state=state)]) == {1, 2}

    @pytest.mark.parametrize("ending", ["finished", "broken"])
    def test_checkpoint_of_a_broken_trial_is_removable_after_its_retry(self, ending: str) -> None:
        broken = trial(1, state="fail", ending="broken")
        assert trials_with_checkpoint([STOCK, broken, replace(broken, trial=2, ending=ending)]) == set()

    def test_checkpoint_of_a_finished_trial_is_removable_before_a_repeat(self) -> None:
        assert trials_with_checkpoint([STOCK, trial(1), waiting(2, of=1, repeat=1)]) == {2}


def test_removable_files_are_needed_by_no_trial(tmp_path: Path) -> None:
    records = [STOCK, trial(1), trial(2), waiting(3, of=3, state="fail"), waiting(4, of=4, state="running")]
    for record in records:
        folder = TrialFiles.of(tmp_path, record.trial).folder
        (folder / "ultralytics").mkdir(parents=True)
        for name in ("weights.pt", "checkpoint.bin", "outcome.json", ".checkpoint.bin.0123.tmp"):
            (folder / name).touch()
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "0.log").touch()
    found = [str(path.relative_to(tmp_path)) for path in removable(tmp_path, records, OBJECTIVES)]
    assert found == [
        "trials/0000/ultralytics",
        "trials/0000/checkpoint.bin",
        "trials/0000/.checkpoint.bin.0123.tmp",
        "trials/0001/ultralytics",
        "trials/0001/checkpoint.bin",
        "trials/0001/.checkpoint.bin.0123.tmp",
        "trials/0002/ultralytics",
        "trials/0002/weights.pt",
        "trials/0002/checkpoint.bin",
        "trials/0002/.checkpoint.bin.0123.tmp",
        "trials/0003/ultralytics",
        "trials/0003/weights.pt",
        "trials/0003/.checkpoint.bin.0123.tmp",
        "trials/0004/ultralytics",
        "workers/0.log",
    ]


class TestCommand:
    @pytest.fixture
    def study(
        self, make_study: Callable[..., Study], score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> Study:
        """A study of three trials that have ended, each with a checkpoint of one megabyte."""
        made = make_study(trials=3)
        monkeypatch.setattr(worker, "evaluate", score)
        worker.Worker(made, deadline=float("inf")).run()
        for record in made.records():
            made.files(record.trial).checkpoint.write_bytes(bytes(10**6))
        return made

    def clean(self, study: Study, *flags: str) -> Result:
        return CliRunner().invoke(app, ["clean", study.name, *flags, "--runs", str(study.folder.parent)])

    def test_clean_deletes_checkpoints_and_reports_their_size(self, study: Study) -> None:
        checkpoints = [study.files(record.trial).checkpoint for record in study.records()]
        result = self.clean(study)
        assert result.exit_code == 0, result.stderr
        assert set(map(str, checkpoints)) <= set(result.stdout.splitlines())
        assert " 3.0 MB, deleted" in result.stderr
        assert not any(path.exists() for path in checkpoints)

    def test_clean_dry_run_deletes_nothing(self, study: Study) -> None:
        before = sorted(study.folder.rglob("*"))
        result = self.clean(study, "--dry-run")
        assert " 3.0 MB, would be deleted" in result.stderr
        assert sorted(study.folder.rglob("*")) == before

    def test_clean_leaves_checkpoints_of_an_interrupted_trial_and_its_retry(self, study: Study) -> None:
        study.enqueue(study.space.stock, repeat=7)
        trial = study.optuna_trials()[-1]
        study.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        study.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # as after a killed worker
        checkpoint = study.files(trial.number).checkpoint
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        study.enqueue(study.space.stock, repeat=7, again=trial.number)
        assert self.clean(study).exit_code == 0
        assert checkpoint.exists()


def test_leftovers_of_killed_writers_are_deleted_except_where_a_worker_is(tmp_path: Path) -> None:
    left = [tmp_path / f"trials/{number:04d}/.outcome.json.0123456789ab.tmp" for number in (1, 2)]
    for path in (*left, tmp_path / "base/.weights.pt.0123456789ab.tmp", tmp_path / ".study.json.0123456789ab.tmp"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    other = tmp_path / "trials/0001/outcome.json"
    other.touch()
    with Lock(TrialFiles.of(tmp_path, 2).lock).held():
        delete_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*.tmp")) == [left[1]]
    assert other.is_file()


def test_what_a_killed_process_was_sending_is_deleted_except_where_another_sends(tmp_path: Path) -> None:
    uploads = tmp_path / "mlflow"
    (uploads / "model" / "saved").mkdir(parents=True)
    (uploads / "front.csv").touch()
    with Lock(tmp_path / UPLOAD_LOCK).held():
        delete_leftovers(tmp_path)
    assert len(list(uploads.iterdir())) == 2
    delete_leftovers(tmp_path)
    assert list(uploads.iterdir()) == []
