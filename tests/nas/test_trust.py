"""`nas trust`: how far a ranking can be believed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nas.algorithms.paired_comparison import Finding
from nas.algorithms.seed_noise import SeedNoise, confirmed_difference
from nas.cli import app
from nas.cli.planning import slope_in_words
from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.trial_files import TrialFiles
from nas.report.budget import Budgets
from nas.report.noise_in_words import SEED_NUMBERS
from nas.report.slope import Slope
from nas.report.trust import CONFIRMED_NUMBERS, Trust
from nas.report.trusting import trust
from nas.report.verdict import Verdict
from nas.study.study import Study
from nas.study.trained_again import Trained
from nas.words import with_unit
from nas.workflows import running
from nas.workflows.calibrate import NEIGHBOURS, SEEDS, calibration, longer_stock, neighbours
from nas.workflows.confirm import confirm
from nas.workflows.longer import longer
from nas.workflows.request import Request
from search_spaces import Architecture
from search_spaces.errors import StudyError
from trials import Budget, Costs, Ending, Outcome, Scores
from trials.data import datasets

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]
NOISE = 0.01


@pytest.fixture
def run(
    score: Score, judged_as_scored: Callable[[Score], Score], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Study], None]:
    """Run a study with scores that depend on the architecture's cost, the epochs, and a seed's luck."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        outcome = score(architecture, budget, *arguments, **options)
        assert outcome.scores is not None
        luck = np.random.default_rng([int(architecture.fingerprint[:8], 16), budget.seed, budget.epochs])
        accuracy = 0.6 - 0.5 / budget.epochs + NOISE * float(luck.standard_normal())
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy), seconds=30.0)

    def working(study: Study, **_: object) -> None:
        Worker(study, deadline=float("inf")).run()

    monkeypatch.setattr(worker, "evaluate", judged_as_scored(scoring))
    monkeypatch.setattr(running, "supervise", working)
    return working


@pytest.fixture
def searched(make_study: MakeStudy, run: Callable[[Study], None]) -> Study:
    study = make_study(trials=6, data_fingerprint=datasets.load("digits").fingerprint)
    run(study)
    return study


def nas(study: Study, *arguments: str, command: str = "trust") -> Result:
    return CliRunner().invoke(app, [command, study.name, "--runs", str(study.folder.parent), *arguments])


class TestNoise:
    def test_without_repeats_the_command_that_measures_it_is_said(self, searched: Study) -> None:
        found = searched.trust()
        assert found.noise is None
        command = f"nas trust small --runs {searched.folder.parent} --measure"
        assert found.recommendation() == [
            f"Noise is not measured, so no difference can be told from it: {command}",
            "budget: as it is (noise and slope not measured)",
        ]
        text = nas(searched, command="pareto").stderr
        assert f"noise between seeds is not measured, so no difference can be told from it ({command})" in text

    def test_calibration_and_confirmation_are_pooled(self, searched: Study, run: Callable[[Study], None]) -> None:
        run(calibration(searched))
        alone = searched.trust().noise
        assert alone is not None
        assert alone.degrees_of_freedom == (NEIGHBOURS + 1 - 1) * (SEEDS - 1)
        after = confirm(searched, seeds=4, top=3)
        run(after)
        pooled = searched.trust()
        assert pooled.noise is not None
        finalists = len({record.fingerprint for record in after.records()}) - 1
        assert pooled.noise.degrees_of_freedom == alone.degrees_of_freedom + finalists * 3
        assert pooled.noise.low < 100 * NOISE < pooled.noise.high
        assert pooled.measured == pytest.approx(_shrinkage(searched))

    def test_training_in_two_studies_counts_once(self, searched: Study, run: Callable[[Study], None]) -> None:
        """The calibration has the first seeds of the search; its stock model is trial 0 again."""
        run(calibration(searched))
        search = Trained.of(searched.folder, searched.file, searched.records())
        short = Study.open(searched.folder.with_name("small-calibrate"))
        again = Trained.of(short.folder, short.file, short.records(), search=searched.settings)
        assert again.repeats
        assert again.selects
        twice = trust(search, [again, again], measure="", confirm="").noise
        assert twice == searched.trust().noise

    def test_longer_trainings_are_not_pooled(self, searched: Study, run: Callable[[Study], None]) -> None:
        run(longer(searched, eta=3))
        assert searched.trust().noise is None

    def test_longer_trainings_are_compared_in_their_order(self, searched: Study) -> None:
        search = Trained.of(searched.folder, searched.file, searched.records())
        inverted = [replace(one, map50_95=1 - (one.map50_95 or 0.0)) for one in search.records]
        budget = searched.settings.budget.model_copy(update={"epochs": 9})
        long = searched.settings.model_copy(update={"budget": budget})
        found = trust(search, [replace(search, name="x3", settings=long, records=inverted)], measure="", confirm="")
        assert found.noise is None
        (order,) = found.orders
        assert (order.shorter, order.longer, order.where) == (search.epochs, 9, "x3")
        assert order.agreement.tau == pytest.approx(-1)


class TestCommand:
    def test_front_and_trust_name_the_same_figures(self, searched: Study, run: Callable[[Study], None]) -> None:
        run(calibration(searched))
        found = searched.trust()
        assert found.least is not None
        assert found.confirmed_differences is not None
        lines = " ".join(" ".join(found.lines()).split())
        front = " ".join(nas(searched, command="pareto").stderr.split())
        fresh = f"{found.confirmed_differences[5]:.1f}"
        models = with_unit(found.finalists, "finalist")
        assert f"a confirmation of {models} finds, in points, by the noise between seeds alone (" in lines
        assert f": {fresh} with 5 fresh seeds, " in lines
        assert f"a confirmation of {models} with 5 fresh seeds finds gains of {fresh} by that noise alone (" in front
        assert f"This ranking tells differences above {found.least:.1f} points" in lines
        assert f"a search with 1 seed shows true differences of {found.least:.1f} points" in front

    def test_where_nothing_was_learned_a_longer_budget_is_all(self, searched: Study) -> None:
        warning = ("Nothing was learned: ...", "Train longer.")
        found = replace(searched.trust(), nothing_learned=warning, epochs=3, base_epochs=9)
        assert found.lines()[1:] == ["", *warning, "budget: at least --base-epochs 27 --epochs 9"]
        assert searched.trust().nothing_learned == ()

    def test_measure_trains_what_is_missing_and_reports(self, searched: Study) -> None:
        result = nas(searched, "--measure")
        assert result.exit_code == 0, result.stderr
        found = searched.trust()
        assert result.stdout.splitlines() == found.lines()
        assert found.least_differences is not None
        assert list(found.least_differences) == list(SEED_NUMBERS)
        short = Study.open(searched.folder.with_name("small-calibrate"))
        assert len(short.records()) == (NEIGHBOURS + 1) * SEEDS
        assert all(record.finished for record in short.records())
        longest = Study.open(searched.folder.with_name("small-calibrate-x3"))
        assert [record.role for record in longest.records()] == ["stock"]
        before = [record.seconds for record in short.records()]
        assert nas(searched, "--measure").stdout == result.stdout  # nothing is trained twice
        assert [record.seconds for record in short.records()] == before

    def test_plan_of_measure_says_how_many_trainings_and_how_long(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        dry = nas(searched, "--measure", "--dry-run")
        trained = "the stock model and two neighbours with two seeds, 3 epochs, and the stock model 3 times as long"
        assert (dry.stdout, dry.stderr) == ("", f"measure   {trained}: 7 trainings to run, about 4 min\n")
        assert [folder.name for folder in searched.folder.parent.glob("small-*")] == []
        document = json.loads(nas(searched, "--measure", "--dry-run", "--format", "json").stdout)
        assert (document["study"], document["trainings"], document["seconds"]) == ("small-calibrate", 7, 9 * 30.0)
        run(calibration(searched))
        left = nas(searched, "--measure", "--dry-run").stderr
        assert left == f"measure   {trained}: 1 training to run, about 2 min\n"

    def test_measure_that_ends_without_a_figure_says_why(
        self, searched: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "evaluate", _broken)
        result = nas(searched, "--measure")
        again = searched.trust().measure
        lines = result.stdout.splitlines()
        assert lines[1] == (
            f"noise     not measured: 0 of 6 trainings in small-calibrate have a score (6 diverged); see nas trials "
            f"small-calibrate ({again})"
        )
        assert (
            "slope     not measured: 0 of 1 trainings in small-calibrate-x3 have a score (1 diverged); see nas trials "
            f"small-calibrate-x3 ({again})"
        ) in lines

    def test_json_has_the_words_and_the_numbers(self, searched: Study, run: Callable[[Study], None]) -> None:
        run(calibration(searched))
        run(longer_stock(calibration(searched)))
        document = json.loads(nas(searched, "--format", "json").stdout)
        found = searched.trust()
        assert document["lines"] == found.lines()
        assert found.noise is not None
        assert document["noise"]["deviation"] == found.noise.deviation
        assert set(document["confirmed_differences"]) == {str(seeds) for seeds in CONFIRMED_NUMBERS}
        assert set(document["least_differences"]) == {str(seeds) for seeds in SEED_NUMBERS}
        assert found.slope is not None
        assert document["slope"]["sentence"] == found.slope.sentence

    def test_options_of_trainings_need_measure(self, searched: Study) -> None:
        result = nas(searched, "--workers", "1", "--timeout", "1h")
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "workers: nothing is trained without --measure (add --measure, or leave --workers out)",
            "timeout: nothing is trained without --measure (add --measure, or leave --timeout out)",
        ]
        line = "dry-run: nothing is trained without --measure (add --measure, or leave --dry-run out)"
        assert nas(searched, "--dry-run").stderr.splitlines() == [line]

    def test_study_that_trains_again_is_refused(self, searched: Study) -> None:
        result = nas(calibration(searched))
        runs = searched.folder.parent
        line = f"small-calibrate trains models of another study again; ask: nas trust small --runs {runs}\n"
        assert (result.exit_code, result.stderr) == (2, line)


class TestCalibration:
    def test_neighbours_differ_in_one_slot_and_are_the_same_again(self, searched: Study) -> None:
        found = neighbours(searched)
        assert found == neighbours(searched)
        assert len({one.fingerprint for one in found}) == NEIGHBOURS
        for one in found:
            choices = searched.space.member_of(one).choices(one)
            assert sum(not choice.is_stock for choice in choices.values()) == 1

    def test_calibration_resumes_without_further_trials(self, searched: Study, run: Callable[[Study], None]) -> None:
        first = calibration(searched)
        assert first.remaining_trials(first.records()) == (NEIGHBOURS + 1) * SEEDS
        run(first)
        again = calibration(searched)
        assert again.remaining_trials(again.records()) == 0

    def test_other_data_are_refused(self, searched: Study) -> None:
        other = searched.settings.model_copy(update={"data_fingerprint": "of other images"})
        searched.set_file(searched.file.model_copy(update={"settings": other}))
        with pytest.raises(StudyError, match="the data set has changed"):
            calibration(Study.open(searched.folder))


class TestSlope:
    def test_front_says_that_the_budget_is_short(
        self, make_study: MakeStudy, run: Callable[[Study], None], tmp_path: Path
    ) -> None:
        study = _with_base(make_study, tmp_path, accuracy=0.2)
        run(study)
        found = study.trust().slope
        assert found is not None
        assert found.favours_fast
        assert found.sentence in nas(study, command="pareto").stderr.splitlines()

    def test_front_does_not_say_it_of_a_flat_stock_model(
        self, make_study: MakeStudy, run: Callable[[Study], None], tmp_path: Path
    ) -> None:
        study = _with_base(make_study, tmp_path, accuracy=0.44)
        run(study)
        found = study.trust().slope
        assert found is not None
        assert not found.favours_fast
        assert "favours what learns fast" not in nas(study, command="pareto").stderr

    @pytest.mark.parametrize("refine", [None, "small"])
    def test_plan_of_a_resumed_or_refined_study_says_it(
        self, make_study: MakeStudy, run: Callable[[Study], None], tmp_path: Path, refine: str | None
    ) -> None:
        study = _with_base(make_study, tmp_path, accuracy=0.2)
        request = Request(refine=refine, runs=study.folder.parent)
        file = study.file.model_copy(update={"run": study.file.run.model_copy(update={"cache": False})})
        folder = study.folder.with_name("small-fine") if refine else study.folder
        plan: Any = SimpleNamespace(folder=folder, file=file, space=study.space)
        later = "whether the budget is long enough to rank is said when the stock model has been trained, as trial 0"
        assert slope_in_words(plan, request) == later
        run(study)
        found = study.trust().slope
        assert found is not None
        assert slope_in_words(plan, request) == f"{'in small ' if refine else ''}{found.sentence}"


class TestShrinkage:
    def test_prediction_is_of_the_models_that_were_confirmed(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        run(calibration(searched))
        assert "nas confirm takes that by expected scores" in "\n".join(searched.trust().lines())
        run(confirm(searched, seeds=3, top=1))
        found, (before, _) = searched.trust(), _shrinkage(searched)
        assert found.shrinkage is not None
        assert (found.shrinkage.seeds, found.finalists) == (3, 1)
        assert found.shrinkage.difference == pytest.approx(before)
        assert "the finalist was" in "\n".join(found.lines())

    def test_recommendation_follows_the_verdict(self, searched: Study, run: Callable[[Study], None]) -> None:
        run(calibration(searched))
        assert not searched.trust().findings
        run(confirm(searched, seeds=2, top=1))
        verdict = searched.verdict()
        assert verdict is not None
        found = searched.trust()
        assert found.findings == {verdict.finalists[0].finding: 1}
        assert "Fresh seeds have judged 1 finalist: 1 " in found.recommendation()[0]
        assert trust_while_trainings_run(searched, verdict).findings == {}

    def test_prediction_contains_what_fresh_seeds_show(self, searched: Study) -> None:
        """All architectures are equal: what the front has over the stock model is luck, and noise is estimated."""
        rng, one = np.random.default_rng(0), Trained.of(searched.folder, searched.file, searched.records()).records[0]
        errors, covered = [], []
        for _ in range(80):
            records = [
                replace(
                    one,
                    trial=10 * model + repeat,
                    fingerprint=f"{model}",
                    role="" if model else "stock",
                    repeat=repeat,
                    map50_95=0.5 + NOISE * rng.normal(),
                    gflops=8.0 if model else 9.0,
                )
                for model in range(12)
                for repeat in range(2)
            ]
            search = Trained(name="x", settings=searched.settings, records=records, selects=True)
            found = trust(search, [], measure="", confirm="").shrinkage
            assert found is not None
            measured = found.difference - 100 * NOISE * rng.normal(scale=np.sqrt(2 / found.seeds))
            errors.append(found.expected - measured)
            covered.append(found.low <= measured <= found.high)
        assert 0.88 <= np.mean(covered) < 1
        assert abs(np.mean(errors)) < 0.5 * 100 * NOISE


class TestImages:
    """A verdict on images that the search has not read has their sampling error, too."""

    def test_confirmation_on_other_images_is_named_and_needs_more_seeds(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        run(calibration(searched))
        run(confirm(searched, seeds=3, top=2))
        search = Trained.of(searched.folder, searched.file, searched.records())
        again = Study.open(searched.folder.with_name("small-calibrate"))
        calibrated = Trained.of(again.folder, again.file, again.records(), search=searched.settings)
        found = searched.verdict()
        assert found is not None
        without = tuple(replace(one, image_error=None) for one in found.finalists)
        same = replace(found, counts_images=False, finalists=without)  # as earlier versions began one
        finalists = tuple(replace(one, image_error=0.8) for one in same.finalists)
        other = replace(same, judged=True, finalists=finalists)
        on_same, on_other = (
            trust(search, [calibrated], measure="", confirm="nas confirm small", verdict=each) for each in (same, other)
        )
        assert on_same.image_error is None
        assert on_other.image_error == pytest.approx(0.8)
        assert on_same.noise == on_other.noise
        assert "with fresh seeds (on other images): " in "\n".join(on_other.lines())
        assert "with fresh seeds: " in "\n".join(on_same.lines())
        assert on_other.noise is not None
        judged = confirmed_difference(on_other.noise, 5, finalists=len(finalists), image_error=0.8)
        assert judged > confirmed_difference(on_other.noise, 5, finalists=len(finalists))
        assert f"finds, in points, on the images that judge: {judged:.1f} with 5 fresh" in "\n".join(on_other.lines())
        assert on_other.confirmed_differences is not None
        assert on_other.confirmed_differences[5] == judged
        before = trust(search, [calibrated], measure="", confirm="nas confirm small")
        assert "a verdict counts the sample of images, too, and needs more" in "\n".join(before.lines())
        assert "a verdict counts the sample of images, too, and needs more" not in "\n".join(on_same.lines())

    @pytest.mark.parametrize(
        ("error", "confirmed", "text"),
        [
            (
                None,
                None,
                "9 fresh seeds would tell 0.5 points by the noise between seeds alone (a verdict counts",
            ),
            (None, 3, "9 fresh seeds would tell 0.5 points on the images that the search chose by: "),
            (0.1, 3, "11 fresh seeds would tell 0.5 points on the images that judge: "),
            (1.0, 3, "No number of seeds would tell 0.5 points on the images that judge: these images are too few."),
        ],
    )
    def test_seeds_of_a_confirmation_follow_from_both_errors(
        self, searched: Study, error: float | None, confirmed: int | None, text: str
    ) -> None:
        found = replace(
            searched.trust(),
            noise=SeedNoise(deviation=0.35, low=0.2, high=0.6, degrees_of_freedom=10),
            best=1,
            best_difference=0.3,
            finalists=1,
            image_error=error,
            confirmed_epochs=confirmed,
        )
        assert text in found.recommendation()[0]


class TestBudget:
    NOISE = SeedNoise(deviation=0.1, low=0.05, high=0.2, degrees_of_freedom=10)
    FLAT = Slope(
        epochs=3,
        gain=0.1,
        low=0.0,
        high=0.2,
        difference=0.5,
        architectures=0,
        noise=0.1,
        is_longer=False,
        enough=None,
    )
    STEEP = replace(FLAT, gain=2.0, low=1.0, high=3.0, enough=Budgets(epochs=8, base_epochs=24))

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            ({}, "budget: as it is"),
            ({"slope": None}, "budget: as it is (slope not measured)"),
            ({"slope": replace(FLAT, high=0.9)}, "budget: as it is (whether it is long enough cannot be told)"),
            ({"noise": replace(NOISE, deviation=0.3)}, "budget: --base-epochs 9 --epochs 3 --seeds 2"),
            ({"slope": STEEP}, "budget: longer; how many epochs are enough is told from 4 architectures on"),
            (
                {"slope": replace(STEEP, member="v9t")},
                "budget: longer; how many epochs are enough is told from 4 architectures of v9t on",
            ),
            ({"slope": replace(STEEP, architectures=4)}, "budget: --base-epochs 24 --epochs 8 --seeds 1"),
            ({"noise": replace(NOISE, deviation=3.0)}, "budget: --base-epochs 18 --epochs 6 --seeds 3"),
        ],
    )
    def test_the_last_line_is_always_on_the_budget(
        self, searched: Study, changed: Mapping[str, Any], line: str
    ) -> None:
        usual = {"noise": self.NOISE, "slope": self.FLAT, "epochs": 3, "base_epochs": 9, "seeds": 1, "finalists": 1}
        found = replace(searched.trust(), **{**usual, "best": 1, "best_difference": 0.2, **changed})
        assert found.recommendation()[-1] == line


def test_order_of_rungs_is_compared_with_the_final_one(
    make_study: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    budget = Budget(data=tmp_path / "data.yaml", epochs=3, deploy_size=64, rungs=(1,))
    study = make_study(trials=6, budget=budget)
    monkeypatch.setattr(worker, "evaluate", score)
    Worker(study, deadline=float("inf")).run()
    (found,) = study.trust().orders
    assert (found.shorter, found.longer, found.where) == (1, 3, "rung")
    assert found.agreement.tau == pytest.approx(1)  # after a third of the epochs, a third of the accuracy
    assert "after 1 and 3 epochs (rung): Kendall's tau 1.00" in found.sentence


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"best_difference": 1.3}, "the front's best is +1.3: not told apart. "),
        (
            {"best_difference": 40.0},
            "the front's best is +40.0: more, but selected by these seeds. Judge it: ",
        ),
        ({"best": None}, "nothing that was tried scores above the stock model."),
        (
            {"findings": {Finding.EQUIVALENT: 1, Finding.WORSE: 2}, "finalists": 3},
            "the front's best is +1.3. Fresh seeds have judged 3 finalists: 1 as accurate, 2 worse.",
        ),
        (
            {"findings": {Finding.UNDECIDED: 1}, "finalists": 1},
            "the front's best is +1.3. Fresh seeds have judged 1 finalist: 1 not told apart. ",
        ),
        (
            {"best": None, "findings": {Finding.WORSE: 1}, "finalists": 1},
            "nothing that was tried scores above the stock model. Fresh seeds have judged 1 finalist: 1 worse.",
        ),
    ],
)
def test_recommendation_follows_from_the_least_difference(
    searched: Study, run: Callable[[Study], None], changed: Mapping[str, Any], text: str
) -> None:
    run(calibration(searched))
    found: Trust = replace(searched.trust(), **{"best": 1, "best_difference": 1.3, **changed})
    assert f"{found.least:.1f} points; {text}" in found.recommendation()[0]


def trust_while_trainings_run(searched: Study, verdict: Verdict) -> Trust:
    """Return the trust in a search whose confirmation is not finished."""
    search = Trained.of(searched.folder, searched.file, searched.records())
    return trust(search, [], measure="", confirm="", verdict=replace(verdict, unfinished=1))


def _broken(architecture: Architecture, *_: Any, **__: Any) -> Outcome:
    return Outcome(architecture=architecture, ending=Ending.DIVERGED, costs=Costs(params=1, gflops=1.0))


def _shrinkage(study: Study) -> tuple[float, float]:
    verdict = study.verdict()
    assert verdict is not None
    assert verdict.shrinkage is not None
    return verdict.shrinkage


def _with_base(make_study: MakeStudy, tmp_path: Path, *, accuracy: float) -> Study:
    """Return a study whose stock model has been trained for three epochs before all trials."""
    budget = Budget(data=tmp_path / "data.yaml", epochs=3, deploy_size=64)
    study = make_study(trials=6, budget=budget, base=budget)
    files = TrialFiles.of_stock_model(study.folder)
    files.folder.mkdir()
    files.weights.write_bytes(b"weights")
    scores = Scores(map50_95=accuracy, map50=accuracy, costs=Costs(params=1, gflops=1.0))
    ended = Outcome(architecture=study.space.stock, ending=Ending.FINISHED, costs=scores.costs, scores=scores)
    files.write_outcome(ended)
    return study
