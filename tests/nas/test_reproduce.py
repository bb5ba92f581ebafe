"""Reproduction of a trial, with a formula instead of training; one real study is reproduced in a slow test."""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import nas
from nas.algorithms.successive_halving import Stopping
from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.score_cache import OFF
from nas.study.study import Study
from nas.workflows import reproduce as workflow
from nas.workflows.reproduce import reproduce
from nas.workflows.reproduction import Agreement, ComparedEpoch, Reproduction
from search_spaces import Architecture
from search_spaces.errors import SpecError
from search_spaces.files import digest
from trials import Budget, Costs, Ending, Epoch, Outcome
from trials.data import datasets, digit_scenes
from trials.data.datasets import DataSet
from trials.provenance import Provenance

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]
Trained = list[tuple[Architecture, Budget]]
Contents = Callable[[Path], dict[Path, Any]]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return datasets.load(digit_scenes.draw(tmp_path / "scenes", train=4, val=2))


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of all temporary folders, which must be empty after a reproduction."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def make(make_study: MakeStudy, data: DataSet) -> MakeStudy:
    """Make a study on real data; `budget` are fields of its budget."""

    def making(name: str = "small", *, budget: Mapping[str, Any] | None = None, **changes: Any) -> Study:
        fields = {"data": data.path, "epochs": 3, "image_size": 64, "deploy_size": 64, **(budget or {})}
        data_settings = {"data": str(data.path), "data_fingerprint": data.fingerprint}
        return make_study(name, budget=Budget.model_validate(fields), **data_settings, **changes)

    return making


@pytest.fixture
def scored(score: Score, data: DataSet) -> Score:
    """Score with a formula, with the counted costs and the provenance of this machine."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        outcome = score(architecture, budget, *arguments, **options)
        outcome = replace(outcome, provenance=Provenance.of(budget, data))
        costs: Costs | None = options["costs"]
        if costs is None:
            return outcome
        return replace(outcome, costs=costs, scores=outcome.scores and replace(outcome.scores, costs=costs))

    return scoring


@pytest.fixture
def again(scored: Score, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """Set the training of reproductions; return a list of what they will train."""

    def setting(by: Score = scored) -> Trained:
        trained: Trained = []

        def noting(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
            trained.append((architecture, budget))
            return by(architecture, budget, *arguments, **options)

        monkeypatch.setattr(workflow, "evaluate", noting)
        return trained

    return setting


@pytest.fixture
def run(scored: Score, again: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Train all trials of a study in this process; reproductions then score by the formula."""

    def running(study: Study, by: Score = scored) -> Study:
        monkeypatch.setattr(worker, "evaluate", by)
        Worker(study, deadline=float("inf")).run()
        again()
        return Study.open(study.folder)

    return running


Run = Callable[..., Study]
Again = Callable[..., Trained]


def ending(score: Score, kind: Ending, *, after: int, detail: str) -> Score:
    """Return a training that ends early, as an error in the epoch after the given one does."""

    def scoring(
        architecture: Architecture, budget: Budget, folder: Path, go_on: Any, *arguments: Any, **options: Any
    ) -> Outcome:
        def until(number: int, epoch: Epoch) -> bool:
            return number <= after and bool(go_on(number, epoch)) and number < after

        outcome = score(architecture, budget, folder, until if after else lambda *_: False, *arguments, **options)
        if architecture.is_stock or outcome.ending is not Ending.STOPPED:
            return outcome
        return replace(outcome, ending=kind, epochs=(), detail=detail)

    return scoring


def with_epochs(score: Score, changed: Callable[[Epoch], Epoch]) -> Score:
    """Return a training whose epochs are changed."""

    def scoring(architecture: Architecture, budget: Budget, folder: Path, go_on: Any, **options: Any) -> Outcome:
        return score(architecture, budget, folder, lambda number, epoch: go_on(number, changed(epoch)), **options)

    return scoring


def last_bit(epoch: Epoch) -> Epoch:
    """Change the loss of epoch 2 by the smallest amount."""
    losses = {name: math.nextafter(loss, math.inf) if epoch.epoch == 2 else loss for name, loss in epoch.losses.items()}
    return replace(epoch, losses=losses)


def rewrite(study: Study, trial: int, **provenance: Any) -> None:
    """Change the recorded provenance of a trial; a value of None deletes it."""
    file = study.files(trial).outcome
    stored = json.loads(file.read_text())
    stored["provenance"] |= provenance
    stored["provenance"] = {name: value for name, value in stored["provenance"].items() if value is not None}
    file.write_text(json.dumps(stored))


def command(study: Study, *arguments: object) -> Result:
    options = ["--runs", str(study.folder.parent), *map(str, arguments)]
    return CliRunner().invoke(app, ["reproduce", study.name, *options])


class TestEqualTraining:
    def test_equal_trainings_are_equal_to_the_bit_and_the_study_stays_as_it_is(
        self, make: MakeStudy, run: Run, again: Again, contents: Contents, scratch: Path
    ) -> None:
        study = run(make(trials=3))
        before, trained, shown = contents(study.folder), again(), list[ComparedEpoch]()
        for record in study.records():
            result = reproduce(study, trial=record.trial, show=shown.append)
            assert result.verdict is Agreement.EQUAL
            assert result.ending == result.recorded_ending == "finished"
            assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3]
            assert {figure.name for figure in result.figures} == {"map50_95", "map50", "gflops", "params"}
            assert all(condition.is_equal for condition in result.conditions)
        assert [(epoch.epoch, epoch.of) for epoch in shown] == [(1, 3), (2, 3), (3, 3)] * 3
        assert [architecture.fingerprint for architecture, _ in trained] == [r.fingerprint for r in study.records()]
        assert contents(study.folder) == before
        assert not list(scratch.iterdir())

    def test_repeat_is_trained_with_its_own_seed_and_without_time_limit(
        self, make: MakeStudy, run: Run, again: Again
    ) -> None:
        study = run(make(trials=7, seeds=2, budget={"seed": 5, "timeout": 60.0}))
        repeated = next(record for record in study.records() if record.repeat == 1)
        trained = again()
        assert reproduce(study, trial=repeated.trial).verdict is Agreement.EQUAL
        assert [(budget.seed, budget.timeout) for _, budget in trained] == [(6, None)]

    def test_reproduce_accepts_the_name_of_a_study(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=1))
        result = nas.reproduce(study.name, trial=0, runs=study.folder.parent)
        assert isinstance(result, nas.Reproduction)
        assert result.verdict == "equal"

    def test_deleted_outcome_is_read_from_the_storage(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=1))
        study.files(0).outcome.unlink()
        assert reproduce(study, trial=0).verdict is Agreement.EQUAL

    def test_epochs_that_are_not_recorded_are_named(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=1))
        first, *_ = study.files(0).progress.read_text().splitlines(keepends=True)
        study.files(0).progress.write_text(first)
        result = reproduce(study, trial=0)
        assert result.verdict is Agreement.EQUAL
        assert "not in progress.jsonl, so not compared: epoch 2, 3" in result.remarks

    def test_score_from_the_cache_names_its_origin(
        self, make: MakeStudy, run: Run, again: Again, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv(OFF)
        first = run(make("first", trials=1, budget={"rungs": (1,)}, stopping=Stopping(eta=2)))
        second = run(make("second", trials=1))
        trained = again()
        result = reproduce(second, trial=0)
        assert result.origin == str(first.files(0).folder)
        assert result.verdict is Agreement.EQUAL
        assert len(trained) == 1  # and not taken from the cache again
        assert trained[0][1].rungs == (1,)  # validated as the training was that the score came from
        report = command(second, "--trial", 0).stdout
        assert f"finished; the score is from the score cache, trained in {first.files(0).folder}\n" in report

    def test_measured_latency_is_not_compared(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=1, objectives=("map50_95", "latency_ms")))
        result = reproduce(study, trial=0)
        assert "latency_ms" not in {figure.name for figure in result.figures}
        assert (
            "the latency was measured, so not compared: it differs from one measurement to the next" in result.remarks
        )


class TestDifferentTraining:
    def test_one_bit_of_one_loss_is_a_difference(self, make: MakeStudy, run: Run, again: Again, scored: Score) -> None:
        study = run(make(trials=1))
        again(with_epochs(scored, last_bit))
        result = reproduce(study, trial=0)
        assert result.verdict is Agreement.DIFFERENT
        assert [epoch.is_equal for epoch in result.epochs] == [True, False, True]
        assert result.largest_differences == {"box_loss": math.nextafter(0.5, 1) - 0.5}

    def test_training_that_ends_earlier_lacks_epochs(
        self, make: MakeStudy, run: Run, again: Again, scored: Score
    ) -> None:
        study = run(make(trials=2))
        again(ending(scored, Ending.DIVERGED, after=1, detail="DivergedError: the loss is nan in epoch 2"))
        result = reproduce(study, trial=1)
        assert result.verdict is Agreement.DIFFERENT
        assert result.ending == "diverged: DivergedError: the loss is nan in epoch 2"
        assert [epoch.is_equal for epoch in result.epochs] == [True, False, False]
        assert next(figure for figure in result.figures if figure.name == "map50_95").here is None


class TestUnfinishedTrial:
    def test_trial_stopped_at_a_rung_is_compared_up_to_it(self, make: MakeStudy, run: Run, again: Again) -> None:
        study = run(make(trials=8, budget={"rungs": (1,)}, stopping=Stopping(eta=2)))
        stopped = [record for record in study.records() if record.ending == Ending.STOPPED]
        assert stopped
        trained = again()
        for record in stopped:
            result = reproduce(study, trial=record.trial)
            assert result.verdict is Agreement.EQUAL
            assert result.recorded_ending == "stopped"
            assert [(epoch.epoch, epoch.of) for epoch in result.epochs] == [(1, 1)]
            assert "map50_95" in {figure.name for figure in result.epochs[0].figures}
        assert {budget.epochs for _, budget in trained} == {3}  # the learning rate decays over all of them

    @pytest.mark.parametrize("epoch", [1, 2, 3])
    def test_diverged_trial_must_diverge_in_the_same_epoch(
        self, epoch: int, make: MakeStudy, run: Run, again: Again, scored: Score
    ) -> None:
        diverging = partial(ending, scored, Ending.DIVERGED)
        study = run(make(trials=2), diverging(after=1, detail="DivergedError: the loss is nan in epoch 2"))
        again(diverging(after=epoch - 1, detail=f"DivergedError: the loss is nan in epoch {epoch}"))
        result = reproduce(study, trial=1)
        assert result.verdict is (Agreement.EQUAL if epoch == 2 else Agreement.DIFFERENT)

    @pytest.mark.parametrize("kind", [Ending.TIMED_OUT, Ending.OUT_OF_MEMORY])
    def test_trial_ended_by_the_load_of_the_machine_is_compared_as_far_as_it_went(
        self, kind: Ending, make: MakeStudy, run: Run, scored: Score
    ) -> None:
        study = run(make(trials=2), ending(scored, kind, after=2, detail="it was over in epoch 3"))
        result = reproduce(study, trial=1)
        assert result.verdict is Agreement.EQUAL
        assert [epoch.epoch for epoch in result.epochs] == [1, 2]
        assert f"{kind} depends on the machine's load: only the recorded epochs were compared" in result.remarks

    def test_trial_without_any_epoch_is_refused(self, make: MakeStudy, run: Run, scored: Score) -> None:
        study = run(make(trials=2), ending(scored, Ending.TIMED_OUT, after=0, detail=""))
        study.files(1).progress.unlink(missing_ok=True)
        assert reproduce(study, trial=1).reasons == (
            "trial 1 is timed_out, and no epoch of it is recorded: there is nothing to compare",
        )

    def test_broken_trial_is_refused(self, make: MakeStudy, run: Run, scored: Score) -> None:
        study = run(make(trials=2), ending(scored, Ending.BROKEN, after=1, detail="KeyError: 1"))
        result = reproduce(study, trial=1)
        assert result.verdict is Agreement.REFUSED
        assert result.reasons[0].startswith("trial 1 is broken, without a result to compare: an error, probably ours")

    def test_waiting_trial_is_refused(self, make: MakeStudy) -> None:
        study = make(trials=1)
        assert reproduce(study, trial=0).reasons == ("trial 0 is waiting: it has no result yet",)

    def test_missing_trial_is_named(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=2))
        with pytest.raises(SpecError, match=r"^trial: small has no trial 7 \(0 to 1\)$"):
            reproduce(study, trial=7)


class TestConditions:
    def test_other_versions_are_listed_and_trained_only_anyway(self, make: MakeStudy, run: Run, again: Again) -> None:
        study = run(make(trials=1))
        recorded = json.loads(study.files(0).outcome.read_text())["provenance"]
        versions = {**recorded["versions"], "torch": "1.0", "nothing": "2"}
        rewrite(study, 0, versions=versions, code="0", commit="abc+", device="Pentium")
        trained = again()
        refused = reproduce(study, trial=0)
        assert refused.verdict is Agreement.REFUSED
        assert refused.reasons == (
            f"device: Pentium there, {recorded['device']} here",
            f"code: 0 there, {recorded['code']} here (commit abc+ there)",
            f"versions.torch: 1.0 there, {recorded['versions']['torch']} here",
            "versions.nothing: 2 there, none here",
        )
        assert refused.trains_anyway
        assert not trained
        result = reproduce(study, trial=0, anyway=True)
        assert result.verdict is Agreement.EQUAL
        assert len(result.differing) == 4

    def test_other_commit_of_the_same_code_is_equal(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=1))
        rewrite(study, 0, commit="another")
        assert reproduce(study, trial=0).verdict is Agreement.EQUAL

    def test_condition_that_was_not_recorded_is_a_difference(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=1))
        rewrite(study, 0, threads=None)
        assert reproduce(study, trial=0).reasons == ("threads: not recorded there, 1 here",)

    def test_other_initial_weights_are_refused(self, make: MakeStudy, run: Run, again: Again, tmp_path: Path) -> None:
        weights = tmp_path / "start.pt"
        weights.write_bytes(b"weights")
        study = run(make(trials=1, budget={"weights": weights}))
        recorded = json.loads(study.files(0).outcome.read_text())["provenance"]["weights"]
        weights.write_bytes(b"others")
        trained = again()
        result = reproduce(study, trial=0)
        assert result.reasons == (f"weights: {recorded} there, {digest(weights)[:12]} here",)
        assert not trained

    def test_initial_weights_that_an_earlier_version_did_not_record_are_not_compared(
        self, make: MakeStudy, run: Run
    ) -> None:
        study = run(make(trials=1))
        rewrite(study, 0, weights=None)
        result = reproduce(study, trial=0)
        assert result.verdict is Agreement.EQUAL
        assert "weights" not in {condition.name for condition in result.conditions}

    def test_trial_without_provenance_is_trained_only_anyway(self, make: MakeStudy, run: Run, scored: Score) -> None:
        def of_an_old_version(*arguments: Any, **options: Any) -> Outcome:
            return replace(scored(*arguments, **options), provenance=None)

        study = run(make(trials=1), of_an_old_version)
        (reason,) = reproduce(study, trial=0).reasons
        assert reason.startswith("the trial did not record its device, code and versions")
        assert reproduce(study, trial=0, anyway=True).verdict is Agreement.EQUAL

    @pytest.mark.parametrize("anyway", [False, True])
    def test_changed_label_is_refused(
        self, make: MakeStudy, run: Run, again: Again, data: DataSet, *, anyway: bool
    ) -> None:
        study = run(make(trials=1))
        change_a_label(data)
        trained = again()
        result = reproduce(study, trial=0, anyway=anyway)
        assert result.verdict is Agreement.REFUSED
        assert result.reasons[0].startswith("the data set has changed since the trial was trained (data: ")
        assert not result.trains_anyway
        assert not trained

    def test_missing_data_set_is_refused(self, make: MakeStudy, run: Run, data: DataSet) -> None:
        study = run(make(trials=1))
        data.path.unlink()
        result = reproduce(study, trial=0)
        assert result.verdict is Agreement.REFUSED
        assert str(data.path) in result.reasons[0]

    def test_missing_initial_weights_are_refused(self, make: MakeStudy, run: Run, tmp_path: Path) -> None:
        weights = tmp_path / "start.pt"
        weights.touch()
        study = run(make(trials=1, budget={"weights": weights}))
        weights.unlink()
        assert reproduce(study, trial=0).reasons == (
            f"{weights}: the weights from which the trial started are missing",
        )


class TestCommand:
    def test_exit_status_of_reproduce_depends_on_the_verdict(
        self, make: MakeStudy, run: Run, again: Again, scored: Score
    ) -> None:
        study = run(make(trials=1))
        equal = command(study, "--trial", 0)
        assert equal.exit_code == 0, equal.stderr
        assert "equal      to the bit: 3 epochs and 4 final figures\n" in equal.stdout
        assert "epoch 3 of 3, mAP50-95 0." in equal.stderr
        again(with_epochs(scored, last_bit))
        different = command(study, "--trial", 0)
        assert different.exit_code == 1
        assert "different  of 3 epochs and 4 final figures, from epoch 2 on; largest diff" in different.stdout
        assert "epoch 2 of 3: different\n" in different.stderr
        rewrite(study, 0, code="0")
        refused = command(study, "--trial", 0)
        assert refused.exit_code == 2
        assert "refused    code: 0 there" in refused.stdout
        assert "--anyway" in refused.stdout
        assert command(study, "--trial", 0, "--anyway").exit_code == 1
        assert command(study, "--trial", 9).exit_code == 2

    def test_json_of_reproduce_has_the_verdict_and_all_comparisons(self, make: MakeStudy, run: Run) -> None:
        study = run(make(trials=1))
        result = command(study, "--trial", 0, "--format", "json")
        document = json.loads(result.stdout)
        assert document["verdict"] == "equal"
        assert document.keys() - {"verdict"} == set(Reproduction.__dataclass_fields__)
        (loss,) = (each for each in document["epochs"][1]["figures"] if each["name"] == "box_loss")
        assert loss == {"name": "box_loss", "recorded": 0.5, "here": 0.5}
        rewrite(study, 0, code="0")
        refused = command(study, "--trial", 0, "--format", "json")
        assert (refused.exit_code, json.loads(refused.stdout)["verdict"]) == (2, "refused")

    def test_ctrl_c_of_reproduce_leaves_no_files(
        self, make: MakeStudy, run: Run, again: Again, contents: Contents, scratch: Path
    ) -> None:
        def interrupted(_architecture: Architecture, _budget: Budget, folder: Path, *_: Any, **__: Any) -> Outcome:
            (folder / "checkpoint.bin").write_bytes(b"half")
            raise KeyboardInterrupt

        study = run(make(trials=1))
        before = contents(study.folder)
        again(interrupted)
        result = command(study, "--trial", 0)
        assert result.exit_code == 130
        assert "Stopped; nothing was written.\n" in result.stderr
        assert contents(study.folder) == before
        assert not list(scratch.iterdir())


def change_a_label(data: DataSet) -> None:
    """Move a box of one label file."""
    labels = sorted(data.path.parent.rglob("*.txt"))
    file = next(path for path in labels if path.read_text().strip())
    first, *rest = file.read_text().splitlines()
    kind, *box = first.split()
    x, *others = map(float, box)
    file.write_text("\n".join([" ".join(map(str, [kind, 0.9 * x, *others])), *rest]) + "\n")


@pytest.mark.slow
def test_real_study_is_reproduced_to_the_bit_until_a_label_changes(
    data: DataSet, contents: Contents, tmp_path: Path, scratch: Path
) -> None:
    sizes = ["--epochs", "3", "--base-epochs", "1", "--image-size", "64", "--deploy-size", "64", "--eta", "2"]
    options = ["--space", "v5", "--trials", "5", "--study", "real", "--workers", "2", "--device", "cpu", *sizes]
    nas_command = [sys.executable, "-c", "from nas.cli import main; main()"]
    subprocess.run([*nas_command, "search", "--data", str(data.path), *options], cwd=tmp_path, check=True)
    study = Study.open(tmp_path / "runs" / "nas" / "real")
    before = contents(study.folder)
    for trial in range(5):
        result = command(study, "--trial", trial)
        assert result.exit_code == 0, result.stdout
        assert "to the bit: " in result.stdout
    assert contents(study.folder) == before
    assert not list(scratch.iterdir())
    change_a_label(data)
    refused = command(study, "--trial", 0, "--anyway")
    assert refused.exit_code == 2
    assert "the data set has changed since the trial was trained" in refused.stdout
