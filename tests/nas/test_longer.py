import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nas.algorithms.successive_halving import Stopping
from nas.cli import app
from nas.execution import worker
from nas.execution.enqueue import enqueue_extremes
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.study.folders import default_storage
from nas.study.study import Study
from nas.workflows import running
from nas.workflows.longer import Finalist, finalists, longer, measured_deviation, rank_inversions
from search_spaces import Architecture
from search_spaces.errors import SpecError, StudyError
from trials import Budget, Ending, Outcome
from trials.data import datasets

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]
SHORT = 3


def upside_down(score: Score, trainings: list[tuple[int, int]]) -> Score:
    """Return scores that rise with the cost, so that all are on the front; after nine epochs they fall with it."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        trainings.append((budget.epochs, budget.seed))
        outcome = score(architecture, budget, *arguments, **options)
        if outcome.scores is None:
            return outcome
        sign = -1 if budget.epochs == 3 * SHORT else 1
        accuracy = 0.5 + sign * outcome.scores.costs.gflops / 10
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy))

    return scoring


@pytest.fixture
def trainings() -> list[tuple[int, int]]:
    """Epochs and seed of every training."""
    return []


@pytest.fixture
def run(score: Score, trainings: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> Callable[[Study], None]:
    def working(study: Study, **_: object) -> None:
        if study.settings.confirms:
            enqueue_extremes(study, study.records())  # as the supervisor does; none is wanted
        Worker(study, deadline=float("inf")).run()

    monkeypatch.setattr(worker, "evaluate", upside_down(score, trainings))
    monkeypatch.setattr(running, "supervise", working)
    return working


@pytest.fixture
def make_study(make_study: MakeStudy) -> MakeStudy:
    """Make a study on the built-in digits, whose fingerprint is checked before they are trained on again."""
    return partial(make_study, data_fingerprint=datasets.load("digits").fingerprint)


@pytest.fixture
def searched(make_study: MakeStudy, run: Callable[[Study], None], trainings: list[tuple[int, int]]) -> Study:
    study = make_study(trials=5, start="start: [{4: {UIB: {}}}]")
    run(study)
    assert len(study.front()) == 5
    trainings.clear()
    return study


def confirm(study: Study, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["confirm", study.name, "--longer", "--runs", str(study.folder.parent), *arguments])


def pair(number: int, shorter: float, longer: float) -> Finalist:
    first = Record(trial=number, state="complete", ending="finished", fingerprint=str(number), picks={})
    return Finalist(replace(first, map50_95=shorter), replace(first, map50_95=longer))


class TestLongerTraining:
    def test_only_front_and_stock_model_are_confirmed(
        self, searched: Study, run: Callable[[Study], None], trainings: list[tuple[int, int]]
    ) -> None:
        after = longer(searched, eta=3)
        run(after)
        wanted = {record.fingerprint for record in searched.front()} | {searched.space.stock.fingerprint}
        records = after.records()
        assert {record.fingerprint for record in records} == wanted
        assert len(records) == len(wanted) == after.file.run.trials
        assert records[0].role == "stock"
        assert set(trainings) == {(3 * SHORT, searched.settings.budget.seed + 1)}
        assert after.settings.confirms == searched.name
        assert after.remaining_trials(after.records()) == 0

    def test_confirmation_uses_the_shared_storage(self, searched: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server is shared; a file belongs to one study."""
        assert longer(searched, eta=2).file.storage == default_storage(searched.folder.with_name("small-x2"))
        monkeypatch.setattr(Study, "database", None)
        assert longer(searched, eta=3).file.storage == searched.file.storage

    def test_longer_training_is_not_pruned(
        self, make_study: MakeStudy, run: Callable[[Study], None], tmp_path: Any
    ) -> None:
        budget = Budget(data=tmp_path / "data.yaml", epochs=SHORT, deploy_size=64, rungs=(1,))
        study = make_study(trials=6, budget=budget, stopping=Stopping(eta=2))
        run(study)
        settings = longer(study, eta=2).settings
        assert (settings.stopping, settings.budget.rungs, settings.budget.epochs) == (None, (), 2 * SHORT)

    def test_resumed_confirmation_adds_new_members_of_the_front(
        self, searched: Study, run: Callable[[Study], None], trainings: list[tuple[int, int]]
    ) -> None:
        run(longer(searched, eta=3))
        before = len(trainings)
        searched.set_run(searched.file.run.model_copy(update={"trials": 8}))
        run(searched)
        trainings.clear()
        after = longer(searched, eta=3)
        new = after.remaining_trials(after.records())
        assert new == 3
        run(after)
        assert len(trainings) == new
        assert {record.fingerprint for record in searched.front()} <= {r.fingerprint for r in after.records()}
        assert len(after.records()) == before + new

    def test_front_of_the_stock_model_alone_needs_no_confirmation(self, make_study: MakeStudy) -> None:
        study = make_study(trials=1)
        with pytest.raises(
            StudyError, match="small: nothing to confirm, its front holds no other model than the stock"
        ):
            longer(study, eta=3)

    def test_confirmation_with_a_changed_data_set_is_refused(
        self, make_study: MakeStudy, run: Callable[[Study], None]
    ) -> None:
        study = make_study(trials=5, data_fingerprint="of other images")
        run(study)
        with pytest.raises(StudyError, match="the data set has changed since small was begun"):
            longer(study, eta=3)

    def test_confirmation_with_more_workers_than_cores_is_refused(self, searched: Study) -> None:
        with pytest.raises(SpecError, match="workers: each needs a CPU core"):
            longer(searched, eta=3, workers=1000)


def test_rank_inversions_are_larger_than_noise() -> None:
    far, near, still = pair(1, 0.50, 0.70), pair(2, 0.59, 0.69), pair(3, 0.60, 0.60)
    assert rank_inversions([far, near, still], 0.02) == [(far, near), (far, still)]
    assert rank_inversions([far, near, still], 0.005) == [(far, near), (far, still), (near, still)]
    assert rank_inversions([near, still], 0.02) == []


def test_noise_is_measured_once_there_are_enough_repeats() -> None:
    errors = {1: 0.02, 2: -0.02, 3: 0.02, 4: -0.02, 5: 0.0}
    pairs = [pair(number, 0.1, 0.1).shorter for number in errors]
    again = [replace(one, trial=10 + one.trial, repeat=1, map50_95=0.1 + errors[one.trial]) for one in pairs]
    shifted = [replace(one, map50_95=(one.map50_95 or 0.0) + 0.5) for one in again]
    assert measured_deviation(pairs) is None
    assert measured_deviation([*pairs, *again[:4]]) is None
    expected = (4 * 0.02**2 / 2 / 4) ** 0.5
    assert measured_deviation([*pairs, *again]) == pytest.approx(expected)
    assert measured_deviation([*pairs, *shifted]) == pytest.approx(expected)  # what a seed does to all is no noise


class TestCommand:
    def test_confirmation_continues_while_the_order_changes(self, searched: Study) -> None:
        result = confirm(searched, "--format", "json")
        assert result.exit_code == 0, result.stderr
        rows = json.loads(result.stdout)
        assert {(row["study"], row["epochs"]) for row in rows} == {("small-x3", 9), ("small-x3-x3", 27)}
        assert "has overtaken" in result.stderr
        for name in ("small-x3", "small-x3-x3"):
            accuracies = [row["map50_95"] for row in rows if row["study"] == name]
            assert accuracies == sorted(accuracies, reverse=True)
        stock = next(row for row in rows if row["fingerprint"] == searched.space.stock.fingerprint)
        assert stock["map50_95_gain"] == stock["map50_95_gain_before"] == 0.0

    def test_confirmation_ends_where_the_order_stays(self, searched: Study) -> None:
        result = confirm(searched, "--eta", "4")  # twelve epochs say what three did
        assert result.exit_code == 0, result.stderr
        assert "within noise (4.0 points): trainings of 3 epochs rank these models as well." in result.stderr
        assert "small after 3 and 12 epochs" in result.stdout
        assert not (searched.folder.parent / "small-x4-x4").exists()
        assert finalists(searched.records(), Study.open(searched.folder.parent / "small-x4").records())

    def test_unfinished_trainings_of_a_confirmation_are_named(
        self, searched: Study, score: Score, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stock = searched.space.stock.fingerprint

        def diverging(architecture: Architecture, *arguments: Any, **options: Any) -> Outcome:
            outcome = score(architecture, *arguments, **options)
            lost = architecture.fingerprint != stock and architecture.summary().startswith("UIB 4")
            return replace(outcome, ending=Ending.DIVERGED, scores=None) if lost else outcome

        monkeypatch.setattr(worker, "evaluate", diverging)
        result = confirm(searched, "--rounds", "1", "--format", "json")
        lost = [record for record in searched.front() if record.summary.startswith("UIB 4")]
        assert lost
        for record in lost:
            assert f"{record.summary} has no score after 9 epochs: diverged" in result.stderr
        assert len(json.loads(result.stdout)) == 5 - len(lost)

    def test_pareto_of_an_unconfirmed_front_suggests_confirm(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        run(longer(searched, eta=3))
        runs = ["--runs", str(searched.folder.parent)]
        result, after = (CliRunner().invoke(app, ["pareto", name, *runs]).stderr for name in ("small", "small-x3"))
        command = f"nas confirm small {' '.join(runs)}"
        assert f"{command});" in result or f"let fresh seeds judge the front: {command}\n" in result
        assert f"{command} --epochs 9" in after

    def test_confirmation_has_a_line_for_each_model_at_80_columns(
        self, searched: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        title, headings, *rows = confirm(searched, "--rounds", "1").stdout.splitlines()
        assert title == "small after 3 and 9 epochs: mAP50-95"
        assert len(rows) == 5
        assert max(map(len, [title, headings, *rows])) <= 80
        assert all(heading in headings for heading in ("trial", "3 epochs", "9 epochs", "over stock", "of stock"))
        assert all("%" in row for row in rows)
        assert sum("100.0%" in row for row in rows) == 1

    def test_confirmation_reports_noise_measured_in_other_studies(self, searched: Study) -> None:
        result = confirm(searched, "--eta", "4").stderr
        assert "twice the deviation between seeds that was measured on the built-in digits after 8 epochs at" in result

    def test_a_stock_model_that_learns_nothing_confirms_nothing(
        self, searched: Study, score: Score, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(architecture: Architecture, *arguments: Any, **options: Any) -> Outcome:
            outcome = score(architecture, *arguments, **options)
            assert outcome.scores is not None
            return replace(outcome, scores=replace(outcome.scores, map50_95=0.0, map50=0.0))

        monkeypatch.setattr(worker, "evaluate", failing)
        result = confirm(searched)
        assert result.exit_code == 0, result.stderr
        assert "Nothing was learned: the stock model's mAP50-95 is 0.0000" in result.stderr
        assert "within noise" not in result.stderr
        assert "export the most accurate" not in result.stderr
        assert not (searched.folder.parent / "small-x3-x3").exists()

    def test_confirm_names_a_missing_study(self, searched: Study) -> None:
        result = CliRunner().invoke(app, ["confirm", "smal", "--runs", str(searched.folder.parent)])
        assert result.exit_code == 2
        assert "study: no study 'smal'" in result.stderr
