"""Score cache shared by two studies, with a formula instead of training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.execution import worker
from nas.execution.worker import Worker
from nas.settings import Sampler
from nas.study import stock_training
from nas.study.score_cache import OFF
from nas.study.study import Study
from search_spaces import Architecture
from trials import Budget, Outcome, Recipe, provenance
from trials.data import datasets, digit_scenes
from trials.data.datasets import DataSet
from trials.provenance import Provenance

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]
Fields = dict[str, Any]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return datasets.load(digit_scenes.draw(tmp_path_factory.mktemp("scenes"), train=8, val=4))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Turn the cache on, in a folder of this test."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(OFF)
    return tmp_path / "cache" / "scores"


@pytest.fixture
def make(make_study: MakeStudy, scenes: DataSet) -> MakeStudy:
    """Make a study on real data; `budget` and `base` are fields of its budgets."""

    def making(
        name: str, budget: dict[str, Any] | None = None, base: dict[str, Any] | None = None, **changes: Any
    ) -> Study:
        common = {"data": scenes.path, "epochs": 2, "deploy_size": 64, "image_size": 64}
        based = {} if base is None else {"base": Budget.model_validate({**common, **base})}
        return make_study(name, budget=Budget.model_validate({**common, **(budget or {})}), **based, **changes)

    return making


@pytest.fixture
def run(score: Score, scenes: DataSet, monkeypatch: pytest.MonkeyPatch) -> Callable[[Study], list[str]]:
    """Run a worker in this process; return the fingerprints of all trainings, the stock model's included."""

    def working(study: Study) -> list[str]:
        trained = []

        def scored(architecture: Architecture, budget: Budget, folder: Path, *rest: Any, **options: Any) -> Outcome:
            trained.append(architecture.fingerprint)
            outcome = score(architecture, budget, folder, *rest, **{"limits": study.settings.limits, **options})
            return replace(outcome, provenance=Provenance.of(budget, scenes), weights=folder / "weights.pt")

        monkeypatch.setattr(stock_training, "evaluate", scored)
        monkeypatch.setattr(worker, "evaluate", scored)
        Worker(study, deadline=float("inf")).run()
        return trained

    return working


Run = Callable[[Study], list[str]]


def test_study_reuses_the_scores_of_another(make: MakeStudy, run: Run) -> None:
    first, second = make("first", trials=12), make("second", trials=12, objectives=("map50_95", "params"))
    trained = run(first)
    assert len(trained) == 12
    again = run(second)
    records = {record.fingerprint: record for record in first.records()}
    taken = [record for record in second.records() if record.fingerprint not in again]
    assert taken
    assert not set(again) & set(trained)
    for record in taken:
        before = records[record.fingerprint]
        assert (record.map50_95, record.epochs) == (before.map50_95, before.epochs)
        assert record.detail == f"trained before, in {first.files(before.trial).folder}"
        assert second.files(record.trial).model.read_text() == first.files(before.trial).model.read_text()
        assert second.files(record.trial).read_epochs() == first.files(before.trial).read_epochs()


def test_equal_study_trains_nothing_and_ends_alike(make: MakeStudy, run: Run) -> None:
    first, second = make("first", base={"epochs": 3}), make("second", base={"epochs": 3})
    assert len(run(first)) == 7  # the stock model, then six trials
    assert run(second) == []
    assert second.stock_training is not None
    assert second.stock_training.weights.read_bytes() == b"weights"
    scores = [
        [(record.trial, record.fingerprint, record.map50_95) for record in one.records()] for one in (first, second)
    ]
    assert scores[0] == scores[1]
    (best, *_) = second.front()
    assert second.files(best.trial).weights.is_file()


@pytest.mark.parametrize(
    ("budget", "base"),
    [
        ({"seed": 1}, {}),
        ({"epochs": 3}, {}),
        ({"recipe": Recipe(scale=0.1)}, {}),
        ({}, {"epochs": 4}),
        ({}, {"seed": 2}),
    ],
)
def test_changed_budget_is_trained_again(
    make: MakeStudy, run: Run, budget: dict[str, Any], base: dict[str, Any]
) -> None:
    run(make("first", trials=3, base={"epochs": 3}))
    changed = make("second", trials=3, budget=budget, base={"epochs": 3, **base})
    assert len(run(changed)) == (4 if base else 3)  # the stock model's own training is another one only then


def test_changed_code_is_trained_again(make: MakeStudy, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(make("first", trials=2))
    monkeypatch.setattr(provenance, "_code", lambda: "other")
    assert len(run(make("second", trials=2))) == 2


def test_rungs_and_time_limits_change_no_score(make: MakeStudy, run: Run) -> None:
    run(make("first", trials=3))
    assert run(make("second", trials=3, budget={"rungs": (1,), "timeout": 100.0})) == []


@pytest.mark.parametrize("refused", ["by the study", "by the user"])
def test_score_cache_can_be_turned_off(
    make: MakeStudy, run: Run, monkeypatch: pytest.MonkeyPatch, cache: Path, refused: str
) -> None:
    run(make("first", trials=2))
    second = make("second", trials=2)
    if refused == "by the study":
        second.set_run(second.file.run.model_copy(update={"cache": False}))
    else:
        monkeypatch.setenv(OFF, "1")
    before = sorted(cache.rglob("*"))
    assert len(run(second)) == 2
    assert sorted(cache.rglob("*")) == before


def test_score_is_reused_without_its_weights(make: MakeStudy, run: Run) -> None:
    first = make("first", trials=2, sampler=Sampler.RANDOM)
    run(first)
    for record in first.records():
        first.files(record.trial).weights.unlink()
    second = make("second", trials=2, sampler=Sampler.RANDOM)
    assert run(second) == []
    assert all(record.finished for record in second.records())
    assert not any(second.files(record.trial).weights.exists() for record in second.records())
