"""Training of the stock model before all trials, with a formula instead of training."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.execution import recovery, worker
from nas.execution.watchdog import Training
from nas.execution.worker import Worker
from nas.study import stock_training
from nas.study.stock_training import StockTraining
from nas.study.study import Study
from nas.workflows import confirm as confirming
from nas.workflows import plan, running
from nas.workflows.request import Request
from search_spaces import Architecture, load
from search_spaces.errors import SpecError, StudyError
from trials import Budget, Ending, Outcome
from trials.data import datasets, digit_scenes
from trials.data.datasets import DataSet
from trials.data.holdout import Holdout

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]


@pytest.fixture
def based(make_study: MakeStudy, tmp_path: Path) -> Callable[..., Study]:
    """Make a study whose candidates start from the stock model."""

    def make(**changes: object) -> Study:
        base = Budget(data=tmp_path / "data.yaml", epochs=5, deploy_size=64)
        return make_study(base=base, **changes)

    return make


@pytest.fixture
def run(score: Score, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Architecture, Budget]]]:
    """Run a worker in this process; return each trained architecture with its budget."""

    def working(study: Study, first: Score = score) -> list[tuple[Architecture, Budget]]:
        trained: list[tuple[Architecture, Budget]] = []

        def noting(by: Score) -> Score:
            def scored(architecture: Architecture, budget: Budget, *rest: Any, **options: Any) -> Outcome:
                trained.append((architecture, budget))
                return by(architecture, budget, *rest, **{"limits": study.settings.limits, **options})

            return scored

        monkeypatch.setattr(stock_training, "evaluate", noting(first))
        monkeypatch.setattr(worker, "evaluate", noting(score))
        Worker(study, deadline=float("inf")).run()
        return trained

    return working


def diverging(architecture: Architecture, *_: Any, **__: Any) -> Outcome:
    return Outcome(architecture=architecture, ending=Ending.DIVERGED, detail="the loss is nan in epoch 2")


Run = Callable[..., list[tuple[Architecture, Budget]]]


def test_stock_model_is_trained_first_and_initialises_every_candidate(based: MakeStudy, run: Run) -> None:
    study = based(trials=3)
    assert study.stock_training is not None
    trained = run(study)
    assert trained[0] == (study.space.stock, study.settings.base)
    assert trained[1][0] == study.space.stock  # trial 0, tuned like all the others
    assert [budget.weights for _, budget in trained[1:]] == [study.folder / "base" / "weights.pt"] * 3
    assert study.settings.budget.weights is None  # a study's folder may be moved
    assert [epoch.epoch for epoch in study.stock_training.files.read_epochs()] == [1, 2, 3, 4, 5]


def test_stock_model_is_trained_once(based: MakeStudy, run: Run) -> None:
    study = based(trials=1)
    run(study)
    study.set_run(study.file.run.model_copy(update={"trials": 2}))
    assert len(run(study)) == 1


def test_confirmation_starts_from_the_trained_stock_model_of_its_search(
    based: MakeStudy, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirming, "require_same_data", lambda _: None)
    monkeypatch.setattr(confirming, "finalists_of", lambda before, **_: before.records()[1:2])
    study = based(trials=2)
    run(study)
    confirmation = confirming.confirm(study, seeds=2)
    trained = run(confirmation)
    assert confirmation.stock_training is not None
    assert [budget.seed for _, budget in trained] == [1000, 1000, 1001, 1001]
    weights = confirmation.folder / "base" / "weights.pt"
    assert {budget.weights for _, budget in trained} == {weights}
    assert weights.read_bytes() == (study.folder / "base" / "weights.pt").read_bytes()


def test_stock_model_of_another_training_is_not_taken(based: MakeStudy, run: Run) -> None:
    study = based(trials=1)
    base = study.stock_training
    assert base is not None
    run(study)
    other = replace(base, folder=study.folder / "other", budget=base.budget.model_copy(update={"epochs": 6}))
    other.copy_from(base)
    assert not other.is_done
    equal = replace(base, folder=study.folder / "equal")
    equal.copy_from(base)
    assert equal.is_done
    assert equal.outcome() == base.outcome()


def test_stock_model_is_taken_from_a_study_that_has_sealed_the_same_images(
    based: MakeStudy, run: Run, tmp_path: Path
) -> None:
    study = based(trials=1)
    base = study.stock_training
    assert base is not None
    run(study)

    def sealing(name: str, image: str) -> StockTraining:
        file = tmp_path / f"{name}.json"
        Holdout(share=0.1, seed=0, images=(image,), of=10, fingerprint=image).write(file)
        return replace(base, folder=study.folder / name, budget=base.budget.model_copy(update={"sealed": file}))

    searched = replace(sealing("search", "a.png"), folder=study.folder)
    equal, other = sealing("equal", "a.png"), sealing("other", "b.png")
    for training in (equal, other):
        training.copy_from(searched)
    assert (equal.is_done, other.is_done) == (True, False)


def test_watchdog_watches_the_stock_model_training(based: MakeStudy, run: Run) -> None:
    study = based(trials=1)
    base = study.stock_training
    assert base is not None
    calls = []

    def looking(*arguments: Any, **options: Any) -> Outcome:
        calls.append((recovery.trainings_by_process(study), base.files.read_heartbeat() > 0))
        return diverging(*arguments, **options)

    run(study, looking)
    assert calls == [({os.getpid(): Training(base.files, base.budget.timeout)}, True)]
    assert recovery.trainings_by_process(study) == {}


def test_without_stock_training_trials_begin_at_once(make_study: MakeStudy, run: Run) -> None:
    study = make_study(trials=1)
    assert study.stock_training is None
    assert [budget for _, budget in run(study)] == [study.settings.budget]


def test_failed_stock_training_stops_the_study_and_is_retried(based: MakeStudy, run: Run) -> None:
    study = based(trials=2)
    assert study.stock_training is not None
    assert len(run(study, diverging)) == 1
    found = (
        "the stock model could not be trained: the loss is nan in epoch 2 (a loss became NaN or infinite; lower "
        "the recipe's learning rate, or raise its warm-up)"
    )
    assert study.reason_to_stop(study.records()) == found
    assert study.records()[0].state == "waiting"
    study.stock_training.prepare()
    assert study.reason_to_stop(study.records()) is None
    assert len(run(study)) == 3


def test_killed_after_its_outcome_was_written_it_is_not_trained_again(
    based: MakeStudy, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = based(trials=1)
    training = study.stock_training
    assert training is not None
    unlink = Path.unlink

    def killed(path: Path, **options: Any) -> None:
        if path == training.files.checkpoint:
            raise SystemExit
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(SystemExit):
        run(study)
    monkeypatch.undo()
    assert training.is_done
    training.files.checkpoint.write_bytes(b"of the last epoch")
    training.prepare()
    assert not training.files.checkpoint.exists()


def test_second_worker_waits_for_the_stock_model(
    based: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = based(trials=1)
    assert study.stock_training is not None
    begun, done = threading.Event(), threading.Event()

    def waiting(*arguments: Any, **options: Any) -> Outcome:
        begun.set()
        assert done.wait(30)
        return score(*arguments, limits=study.settings.limits, **options)

    monkeypatch.setattr(stock_training, "evaluate", waiting)
    monkeypatch.setattr(worker, "evaluate", score)
    first = threading.Thread(target=Worker(Study.open(study.folder), deadline=float("inf")).run)
    first.start()
    assert begun.wait(30)
    monkeypatch.setattr(stock_training, "evaluate", None)  # nobody else may train it
    second = threading.Thread(target=Worker(Study.open(study.folder), deadline=float("inf")).run)
    second.start()
    second.join(0.5)
    assert second.is_alive()
    assert not study.stock_training.is_done
    done.set()
    first.join(30)
    second.join(30)
    assert study.stock_training.is_done
    assert [record.ending for record in study.records()] == ["finished"]


def budgets(**asked: object) -> Mapping[str, Any]:
    """Return the two budgets of a request on a data set of two images."""
    request, space = Request(**asked), load("v9")  # type: ignore[arg-type]
    data = DataSet(
        name="x", path=Path("/x.yaml"), classes=("a",), train=(), val=(), train_images=1, val_images=1, fingerprint=""
    )
    base, budget = request.stock_budget(space, data, "cpu"), request.budget(space, data, "cpu")
    return {
        "base": base and (base.epochs, base.image_size, base.weights, base.recipe.learning_rate),
        "trial": (budget.epochs, budget.image_size, budget.weights, budget.recipe.learning_rate),
    }


class TestRequests:
    @pytest.mark.parametrize(
        ("asked", "base", "trial"),
        [
            ({}, (6, 128, None, 4e-3), (3, 128, None, 2e-3)),
            ({"data": "x.yaml"}, (60, 320, None, 2e-3), (20, 320, None, 1e-3)),
            ({"data": "x.yaml", "preset": "thorough"}, (60, 640, None, 2e-3), (20, 640, None, 1e-3)),
            ({"data": "x.yaml", "from_scratch": True}, None, (40, 320, None, 2e-3)),
            ({"data": "x.yaml", "base_epochs": 2, "epochs": 1}, (2, 320, None, 2e-3), (1, 320, None, 1e-3)),
            ({"data": "x.yaml", "weights": Path("/w.pt")}, (60, 320, Path("/w.pt"), 1e-3), (20, 320, None, 1e-3)),
            ({"data": "x.yaml", "weights": Path("/w.pt"), "base_epochs": 0}, None, (20, 320, Path("/w.pt"), 1e-3)),
            ({"data": "x.yaml", "base_epochs": 0}, None, (40, 320, None, 2e-3)),
        ],
    )
    def test_initial_weights_follow_from_the_request(
        self, asked: dict[str, object], base: tuple[object, ...] | None, trial: tuple[object, ...]
    ) -> None:
        assert budgets(**asked) == {"base": base, "trial": trial}

    def test_from_scratch_has_no_initial_weights(self) -> None:
        expected = "from-scratch: candidates with random weights start from nothing, but weights was given"
        with pytest.raises(SpecError, match=expected):
            budgets(from_scratch=True, weights=Path("/w.pt"))

    def test_unknown_preset_is_refused(self) -> None:
        with pytest.raises(SpecError, match=r"preset: no preset 'standart' \(did you mean 'standard'\?\)"):
            budgets(preset="standart")


class TestCommand:
    def test_base_command_trains_the_stock_model_and_shows_it(
        self, based: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = based()

        def scored(*arguments: Any, **options: Any) -> Outcome:
            return score(*arguments, limits=study.settings.limits, **options)

        monkeypatch.setattr(stock_training, "evaluate", scored)
        command = ["base", study.name, "--runs", str(study.folder.parent), "--format", "json"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        (row,) = json.loads(result.stdout)
        assert (row["ending"], row["epochs"]) == ("finished", 5)
        assert row["weights"] == str(study.folder / "base" / "weights.pt")
        monkeypatch.setattr(stock_training, "evaluate", None)  # it is there now
        assert CliRunner().invoke(app, command).exit_code == 0

    def test_base_command_of_a_study_without_stock_training_is_refused(self, make_study: MakeStudy) -> None:
        expected = "small: its trials start from random weights, and no stock model is trained before them"
        with pytest.raises(StudyError, match=expected):
            running.train_stock_models(make_study())

    def test_base_command_of_a_running_study_is_refused(self, based: MakeStudy) -> None:
        study = based()
        with study.supervision_lock.held(), pytest.raises(StudyError, match="small is running already"):
            running.train_stock_models(study)


@pytest.mark.slow
def test_candidates_inherit_all_weights_but_those_of_operators(tmp_path: Path) -> None:
    """Two epochs of a tiny stock model; the candidates inherit all parameters but their operators'."""
    scenes = datasets.load(digit_scenes.draw(tmp_path / "scenes", train=16, val=8))
    request = Request(
        space="v5",
        data=str(scenes.path),
        trials=3,
        epochs=1,
        base_epochs=2,
        image_size=64,
        deploy_size=64,
        device="cpu",
        workers=1,
        runs=tmp_path / "runs",
    )
    study = plan.Plan.of(request).begin()
    running.supervise(study)
    assert study.stock_training is not None
    assert study.stock_training.is_done
    stock, *others = study.records()
    assert (stock.role, stock.inherited, stock.changed_layers) == ("stock", 1.0, {})
    assert all(0.5 < record.inherited < 1 and record.changed_layers for record in others)
