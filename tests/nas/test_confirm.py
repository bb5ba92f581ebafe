"""`nas confirm`: fresh seeds judge what the search selected."""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner, Result

import nas as package
from nas.algorithms.successive_halving import Stopping
from nas.cli import app
from nas.defaults import MARGIN, MOST_FINALISTS, SEEDS
from nas.execution import recovery, worker
from nas.execution.enqueue import enqueue_extremes
from nas.execution.worker import Worker
from nas.report import judging as verdicts
from nas.study import export as exporting
from nas.study import stock_training
from nas.study.confirmation import FIRST_SEED, is_confirmation, options_of
from nas.study.storage import study_id
from nas.study.study import Study
from nas.workflows import running
from nas.workflows.ablate import AblationPlan
from nas.workflows.calibrate import calibration, longer_stock
from nas.workflows.confirm import confirm, finalists_of
from nas.workflows.longer import longer
from nas.workflows.other_images import ChosenImages
from search_spaces import Architecture
from search_spaces.errors import SpecError, StudyError
from trials import Budget, Ending, Limits, Outcome, recipes
from trials.budget import Subset
from trials.data import datasets

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]
Training = tuple[str, int, int]


@pytest.fixture
def trainings() -> list[Training]:
    """Fingerprint, seed and epochs of every training."""
    return []


@pytest.fixture
def gains() -> dict[str, float]:
    """Accuracy of an architecture over 0.5, by fingerprint; `spread` scales what others have by their cost."""
    return {"spread": 0.1}


@pytest.fixture
def run(
    score: Score,
    judged_as_scored: Callable[[Score], Score],
    trainings: list[Training],
    gains: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Study], None]:
    """Run a study with scores that depend on the architecture and, a little, on the seed."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        trainings.append((architecture.fingerprint, budget.seed, budget.epochs))
        outcome = score(architecture, budget, *arguments, **options)
        if outcome.scores is None:
            return outcome
        digits = [int(architecture.fingerprint[:8], 16), budget.seed]
        noise = 0.002 * float(np.random.default_rng(digits).standard_normal())
        cost = outcome.scores.costs.gflops
        accuracy = 0.5 + gains.get(architecture.fingerprint, gains["spread"] * cost) + noise
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy), seconds=30.0)

    def working(study: Study, **_: object) -> None:
        enqueue_extremes(study, study.records())
        Worker(study, deadline=float("inf")).run()

    monkeypatch.setattr(worker, "evaluate", judged_as_scored(scoring))
    monkeypatch.setattr(running, "supervise", working)
    return working


@pytest.fixture
def make_study(make_study: MakeStudy) -> MakeStudy:
    return partial(make_study, data_fingerprint=datasets.load("digits").fingerprint)


@pytest.fixture
def searched(make_study: MakeStudy, run: Callable[[Study], None]) -> Study:
    study = make_study(trials=6, start="start: [{4: {UIB: {}}}]", seeds=2)
    run(study)
    return study


def nas(command: str, study: Study, *arguments: str) -> Result:
    return CliRunner().invoke(app, [command, study.name, "--runs", str(study.folder.parent), *arguments])


class TestTrainings:
    def test_seeds_are_fresh_and_paired(
        self, searched: Study, run: Callable[[Study], None], trainings: list[Training]
    ) -> None:
        used = {seed for _, seed, _ in trainings}
        trainings.clear()
        after = confirm(searched, seeds=3)
        run(after)
        first = searched.settings.budget.seed + FIRST_SEED
        models = list(dict.fromkeys(name for name, _, _ in trainings))
        assert models[0] == searched.space.stock.fingerprint
        assert set(models) == {models[0], *(one.fingerprint for one in finalists_of(searched))}
        epochs = searched.settings.budget.epochs
        assert trainings == [(name, first + repeat, epochs) for repeat in range(3) for name in models]
        assert not used & {seed for _, seed, _ in trainings}
        assert after.file.run.trials == len(trainings)

    def test_settings_are_those_of_the_search(
        self, make_study: MakeStudy, run: Callable[[Study], None], tmp_path: Any
    ) -> None:
        budget = Budget(data=tmp_path / "data.yaml", epochs=3, deploy_size=64, rungs=(1,))
        study = make_study(trials=6, budget=budget, stopping=Stopping(eta=2))
        run(study)
        after = confirm(study, epochs=9)
        assert is_confirmation(after.file)
        assert (after.name, after.settings.confirms) == ("small-confirm", "small")
        assert (after.settings.stopping, after.settings.budget.rungs, after.settings.budget.epochs) == (None, (), 9)

    def test_from_scratch_has_random_weights_and_their_recipe(
        self, make_study: MakeStudy, run: Callable[[Study], None], tmp_path: Any
    ) -> None:
        weights = tmp_path / "some.pt"
        weights.write_bytes(b"weights")
        budget = Budget(data=tmp_path / "data.yaml", epochs=3, deploy_size=64, weights=weights)
        study = make_study(trials=6, budget=budget)
        run(study)
        after = confirm(study, from_scratch=True)
        assert after.name == "small-confirm"
        assert (after.settings.base, after.settings.budget.weights) == (None, None)
        assert after.settings.budget.recipe in {recipes.SCRATCH, recipes.DIGITS_SCRATCH}
        assert confirm(study).settings == after.settings  # goes on
        beside = confirm(study, epochs=3)
        assert (beside.name, beside.settings.inherits) == ("small-confirm-2", True)
        assert confirm(study, from_scratch=True).name == "small-confirm"

    def test_python_confirms_returns_the_verdict_and_goes_on(self, searched: Study, trainings: list[Training]) -> None:
        runs, trained = searched.folder.parent, len(trainings)
        first = package.confirm(searched.name, seeds=2, top=1, runs=runs)
        assert (len(first.seeds), len(first.finalists), len(trainings) - trained) == (2, 1, 2 * 2)
        again = package.confirm(searched.name, seeds=3, margin=0.1, runs=runs)
        assert again == searched.verdict() == searched.verdict(margin=0.1)
        assert package.confirm(searched.name, runs=runs).margin == 0.1  # as before
        assert (len(again.seeds), len(again.finalists), len(trainings) - trained) == (3, 1, 3 * 2)

    def test_more_seeds_are_added(
        self, searched: Study, run: Callable[[Study], None], trainings: list[Training]
    ) -> None:
        run(confirm(searched, seeds=2))
        before = len(trainings)
        assert confirm(searched).remaining_trials(confirm(searched).records()) == 0  # goes on with two
        after = confirm(searched, seeds=4)
        run(after)
        added = trainings[before:]
        first = searched.settings.budget.seed + FIRST_SEED
        assert {seed for _, seed, _ in added} == {first + 2, first + 3}
        verdict = searched.verdict()
        assert verdict is not None
        assert verdict.seeds == tuple(first + repeat for repeat in range(4))
        assert (verdict.look, after.file.run.looks) == (2, (2, 4))

    def test_seeds_that_are_added_before_a_verdict_delay_it(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        confirm(searched, seeds=2)
        after = confirm(searched, seeds=3)
        assert after.file.run.looks == (3,)
        run(after)
        assert confirm(searched, seeds=4).file.run.looks == (3, 4)
        assert confirm(searched, seeds=5).file.run.looks == (3, 5)  # nobody has judged four

    def test_finalists_that_are_added_to_a_verdict_make_it_a_further_one(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        confirm(searched, seeds=2, top=1)
        after = confirm(searched, top=2)
        assert after.file.run.looks == (2,)  # before a verdict they only delay it
        run(after)
        assert confirm(searched, top=2).file.run.looks == (2,)
        after = confirm(searched, top=3)
        assert after.file.run.looks == (2, 2)
        assert confirm(searched).file.run.looks == (2, 2)  # goes on
        run(after)
        assert confirm(searched, top=3).file.run.looks == (2, 2)
        verdict = searched.verdict()
        assert verdict is not None
        assert (verdict.look, len(verdict.finalists)) == (2, 3)

    def test_top_limits_the_finalists(self, searched: Study) -> None:
        everyone = finalists_of(searched)
        assert len(everyone) >= 2
        after = confirm(searched, top=1, seeds=2)
        names = {record.fingerprint for record in after.records()}
        assert names == {searched.space.stock.fingerprint, everyone[0].fingerprint}
        expected = [one.expected for one in everyone if one.expected is not None]
        assert expected == sorted(expected, reverse=True)
        assert finalists_of(searched, top=2) == everyone[:2]
        assert len(confirm(searched).records()) == 4  # goes on with one finalist and two seeds
        assert len({record.fingerprint for record in confirm(searched, top=2).records()}) == 3

    def test_other_epochs_are_another_confirmation(self, searched: Study, run: Callable[[Study], None]) -> None:
        first = confirm(searched, seeds=2)
        run(first)
        second = confirm(searched, seeds=3, epochs=9)
        assert (second.name, second.settings.confirms, second.settings.budget.epochs) == ("small-confirm-2", "small", 9)
        assert is_confirmation(second.file)
        assert confirm(searched).name == "small-confirm-2"  # the last one goes on
        assert confirm(searched, epochs=3).name == "small-confirm"
        assert {record.repeat for record in confirm(searched, epochs=9).records()} == {0, 1, 2}

    def test_verdict_shown_is_that_of_the_last_confirmation_that_has_ended(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        first = confirm(searched, seeds=2)
        run(first)
        second = confirm(searched, seeds=2, epochs=9)
        waiting = searched.verdict()
        assert waiting is not None
        assert waiting.confirmation == "small-confirm"
        left = len(second.records())
        where = f"--runs {searched.folder.parent}"
        line = f"this is small-confirm; there is also small-confirm-2 (9 epochs, {left} trainings left): nas "
        assert any(text.startswith(line) for text in nas("pareto", searched).stderr.splitlines())
        run(second)
        ended = searched.verdict()
        assert ended is not None
        assert (ended.confirmation, ended.epochs) == ("small-confirm-2", 9)
        assert (waiting.look, ended.look) == (1, 2)  # each confirmation gives chance another chance
        assert ended.others == (f"small-confirm (3 epochs): nas pareto small-confirm {where}",)
        own = first.verdict()
        assert own is not None
        assert (own.confirmation, own.epochs, own.look) == ("small-confirm", 3, 1)
        plan = nas("confirm", searched, "--epochs", "3", "--dry-run").stderr.splitlines()
        assert "study     small-confirm, beside small-confirm-2 (9 epochs)" in plan
        judged = nas("confirm", searched, "--epochs", "3")
        assert judged.stdout.splitlines() == own.lines()

    def test_wrong_numbers_in_python_are_refused_all_at_once(self, searched: Study) -> None:
        wrong: Any = {"seeds": "5", "margin": "x", "top": 0, "epochs": 2.5}
        with pytest.raises(SpecError) as caught:
            package.confirm("small", runs=searched.folder.parent, **wrong)
        assert caught.value.mistakes == (
            "epochs: input should be a whole number, got 2.5 (from 1 to 100000)",
            "seeds: input should be a whole number, got '5' (from 1 to 1000)",
            "top: input should be at least 1, got 0 (from 1 to 1000)",
            "margin: input should be a number, got 'x' (above 0 to 100 points)",
        )
        assert not searched.folder.with_name("small-confirm").exists()

    @pytest.mark.parametrize(("margin", "what"), [(-1, "greater than 0"), (float("nan"), "a finite number")])
    def test_a_margin_that_is_none_is_refused(self, searched: Study, margin: float, what: str) -> None:
        for judge in (searched.verdict, partial(searched.ablation, 1)):
            with pytest.raises(SpecError, match=f"margin: input should be {what}, got .* .above 0 to 100 points."):
                judge(margin=margin)

    def test_ablation_of_an_unknown_trial_is_refused(self, searched: Study) -> None:
        with pytest.raises(SpecError, match=r"trial: small has no trial 77 .0 to "):
            searched.ablation(77)
        assert searched.ablation(1) is None

    def test_one_seed_is_refused(self, searched: Study) -> None:
        with pytest.raises(SpecError, match="seeds: two are the least"):
            confirm(searched, seeds=1)

    def test_a_confirmation_is_not_confirmed(self, searched: Study) -> None:
        after = confirm(searched, seeds=2)
        with pytest.raises(
            StudyError, match="small-confirm: is itself the confirmation of small, and has no front; did you mean: nas "
        ):
            confirm(after)

    def test_a_calibration_has_nothing_to_confirm(self, searched: Study) -> None:
        short = calibration(searched)
        for study in (short, longer_stock(short)):
            with pytest.raises(StudyError, match=f"{study.name}: is itself the calibration of small, and has no front"):
                confirm(study)
            with pytest.raises(StudyError, match="did you mean: nas confirm small "):
                longer(study, eta=3)

    def test_fewer_seeds_than_before_are_mentioned(self, searched: Study, run: Callable[[Study], None]) -> None:
        run(confirm(searched, seeds=3))
        line = "seeds     3, not 2: an earlier call has asked for 3, and seeds are only added"
        assert line in nas("confirm", searched, "--seeds", "2").stderr.splitlines()

    @pytest.mark.parametrize(
        ("option", "line"),
        [
            (("--seeds", "0"), "seeds: input should be at least 2, got 0 (from 2 to 1000)"),
            (("--seeds", "1"), "seeds: input should be at least 2, got 1 (from 2 to 1000)"),
        ],
    )
    def test_seeds_that_cannot_judge_are_refused(self, searched: Study, option: tuple[str, ...], line: str) -> None:
        assert nas("confirm", searched, *option).stderr.splitlines() == [line]

    def test_front_of_the_stock_model_alone_has_nothing_to_confirm(self, make_study: MakeStudy) -> None:
        with pytest.raises(StudyError, match="small: nothing to confirm"):
            confirm(make_study(trials=1))

    def test_limits_do_not_refuse_a_finalist(self, searched: Study) -> None:
        """A latency that is measured again may be above the limit."""
        after = confirm(searched, seeds=2)
        assert all(
            "repeat" in trial.user_attrs or trial.user_attrs["role"] == "stock" for trial in after.optuna_trials()
        )


class TestVerdict:
    def test_interrupted_confirmation_gives_the_same_verdict(
        self, searched: Study, run: Callable[[Study], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(confirm(searched, seeds=4))
        whole = searched.verdict()
        assert whole is not None
        (searched.folder.parent / "small-confirm").rename(searched.folder.parent / "elsewhere")
        assert searched.verdict() is None
        scoring, calls = vars(worker)["evaluate"], 0

        def killed(*arguments: Any, **options: Any) -> Outcome:
            nonlocal calls
            calls += 1
            if calls == 6:
                raise KeyboardInterrupt
            return scoring(*arguments, **options)

        monkeypatch.setattr(worker, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            run(confirm(searched, seeds=4))
        part = searched.verdict()
        assert part is not None
        assert part.unfinished > 0
        after = confirm(searched)
        recovery.recover(after)
        run(after)
        again = searched.verdict()
        assert again is not None
        assert again.lines() == whole.lines()
        assert again == whole

    @pytest.mark.parametrize("command", ["confirm", "ablate"])
    def test_trainings_that_were_all_killed_at_once_go_on(
        self, command: str, searched: Study, run: Callable[[Study], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        after = confirm(searched) if command == "confirm" else AblationPlan.of(searched, trial=1).begin()
        for trial in after.storage.get_all_trials(study_id(after.storage, after.name)):
            after.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

        def working(study: Study, **_: object) -> None:
            recovery.recover(study)
            run(study)

        monkeypatch.setattr(running, "supervise", working)
        result = nas(command, searched, *([] if command == "confirm" else ["--trial", "1"]))
        assert result.exit_code == 0, result.output
        assert not after.unfinished_trials(after.records())

    def test_equal_architectures_have_no_gain(
        self, searched: Study, run: Callable[[Study], None], gains: dict[str, float]
    ) -> None:
        """Control: what the search preferred was luck."""
        gains["spread"] = 0.0
        run(confirm(searched))
        verdict = searched.verdict()
        assert verdict is not None
        assert verdict.better == ()
        assert verdict.shrinkage is not None
        before, after = verdict.shrinkage
        assert abs(after) < 0.5 < abs(before)
        pareto = nas("pareto", searched).stderr
        assert "better by" not in pareto
        assert "the verdict calls no finalist better; export the most accurate by the table with: " in pareto
        assert "--best map" in pareto

    def test_a_true_gain_is_said_by_every_command(self, searched: Study, gains: dict[str, float]) -> None:
        best = finalists_of(searched)[0]
        gains[best.fingerprint] = gains["spread"] * 4
        result = nas("confirm", searched, "--top", "1")
        assert result.exit_code == 0, result.stderr
        line = next(line for line in result.stdout.splitlines() if line.startswith(f"trial {best.trial}: better by"))
        runs = str(searched.folder.parent)
        pareto = nas("pareto", searched).stderr
        assert line in pareto.splitlines()
        assert f"export the most accurate with: nas export small --runs {runs} --trial {best.trial}" in pareto
        assert line in CliRunner().invoke(app, ["pareto", "small-confirm", "--runs", runs]).stderr.splitlines()
        verdict = searched.verdict()
        assert verdict is not None
        assert result.stdout.splitlines() == verdict.lines()
        assert f"nas export small --runs {runs} --trial {best.trial}" in result.stderr
        document = json.loads(nas("confirm", searched, "--format", "json").stdout)
        assert document["lines"] == verdict.lines()
        assert nas("confirm", searched, "--format", "csv").stdout.startswith("trial,fingerprint,summary,finding")

    def test_front_as_json_has_the_verdict(self, searched: Study, run: Callable[[Study], None]) -> None:
        before = json.loads(nas("pareto", searched, "--format", "json").stdout)
        assert all(row["verdict"] is None for row in before)
        after = confirm(searched, seeds=3)
        run(after)
        verdict = searched.verdict()
        assert verdict is not None
        sentences = {one.fingerprint: one.sentence for one in verdict.finalists}
        judged = 0
        for study in (searched, after):
            for row in json.loads(nas("pareto", study, "--format", "json").stdout):
                found = row["verdict"]
                assert (found is None) == (row["fingerprint"] not in sentences)
                if found is not None:
                    assert found["sentence"] == sentences[row["fingerprint"]]
                    assert (found["seeds"], found["images"]) == ([*verdict.seeds], verdict.images)
                    assert len(found["map50_95_by_seed"]) == 3
                    judged += 1
        assert judged

    def test_front_says_which_trainings_it_shows_and_how_the_verdict_numbers_trials(
        self, searched: Study, run: Callable[[Study], None]
    ) -> None:
        after = confirm(searched, seeds=3)
        run(after)
        scores = "\nthe table has the search's scores; the verdict is of fresh seeds\n"
        assert scores in nas("pareto", searched).stderr
        text = nas("pareto", after).stderr
        shown = {record.fingerprint: record.trial for record in after.front()}
        verdict = after.verdict()
        assert verdict is not None
        numbers = [f"{one.trial} is {shown[one.fingerprint]}" for one in verdict.finalists if one.fingerprint in shown]
        (line,) = [line for line in text.splitlines() if line.startswith("the verdict numbers trials as small does: ")]
        assert numbers
        assert all(number in line for number in numbers)

    def test_export_of_a_repeated_training_names_its_score_and_the_mean(
        self, searched: Study, run: Callable[[Study], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "_write_model_and_data", lambda *_: None)  # takes data
        after = confirm(searched, seeds=3)
        run(after)
        chosen = after.front()[0]
        after.files(chosen.trial).weights.unlink()  # no checkpoint, in these tests
        (first,) = [record for record in after.records() if record.trial == chosen.trial]
        for arguments in (("--trial", str(chosen.trial)), ("--best", "map")):
            result = nas("export", after, *arguments)
            assert result.exit_code == 0, result.stderr
            assert (
                f"trial {chosen.trial}: mAP50-95 {first.map50_95:.3f} with its seed, {chosen.map50_95:.3f} as the mean "
                "of 3 seeds, "
            ) in result.stderr
            summary = json.loads((Path(result.stdout.strip()) / "summary.json").read_text(encoding="utf-8"))
            assert (summary["map50_95"], summary["seeds"]) == (first.map50_95, 1)
            assert summary["mean_over_seeds"]["map50_95"] == chosen.map50_95
            assert summary["mean_over_seeds"]["seeds"] == 3

    def test_front_is_printed_if_the_confirmation_cannot_be_read(self, searched: Study) -> None:
        after = confirm(searched, seeds=2)
        (after.folder / "study.json").write_text("{")
        result = nas("pareto", searched)
        assert result.exit_code == 0
        assert str(finalists_of(searched)[0].trial) in result.stdout
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("no verdict: ")]
        assert line.startswith(f"no verdict: the confirmation of small cannot be read: {after.folder}/study.json: ")

    def test_confirmation_of_another_search_is_ignored(self, searched: Study, run: Callable[[Study], None]) -> None:
        after = confirm(searched, seeds=2)
        run(after)
        other = after.settings.model_copy(update={"data_fingerprint": "of other images"})
        after.set_file(after.file.model_copy(update={"settings": other}))
        assert searched.verdict() is None

    def test_diverging_finalist_is_left_out(self, searched: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        lost, scoring = finalists_of(searched)[0], vars(worker)["evaluate"]

        def diverging(architecture: Architecture, *arguments: Any, **options: Any) -> Outcome:
            outcome = scoring(architecture, *arguments, **options)
            failed = architecture.fingerprint == lost.fingerprint
            return replace(outcome, ending=Ending.DIVERGED, scores=None) if failed else outcome

        monkeypatch.setattr(worker, "evaluate", diverging)
        result = nas("confirm", searched, "--seeds", "2")
        assert f"trial {lost.trial}: left out, diverged with 2 of 2 seeds" in result.stdout.splitlines()


HALF = Subset(seed=0, train=96, val=48, of_train=192, of_val=96)


class TestImages:
    """A search on a part of the images, whose finalists are trained again on the same ones, or on others."""

    @pytest.fixture
    def searched(
        self, make_study: MakeStudy, run: Callable[[Study], None], score: Score, monkeypatch: pytest.MonkeyPatch
    ) -> Study:
        monkeypatch.setattr(stock_training, "evaluate", partial(score, limits=Limits()))
        fingerprint = datasets.load("digits", subset=HALF).fingerprint
        budget = Budget(data=datasets.load("digits").path, epochs=3, deploy_size=64)
        study = make_study(subset=HALF, data_fingerprint=fingerprint, base=budget, budget=budget)
        run(study)
        return study

    def test_they_are_those_of_the_search_unless_others_are_asked_for(self, searched: Study) -> None:
        as_before = confirm(searched, seeds=2)
        assert ChosenImages.of(as_before.settings) == ChosenImages.of(searched.settings)
        every = confirm(searched, seeds=2, fraction=1.0)
        assert every.name == "small-confirm-2"
        assert every.settings.subset == HALF.model_copy(update={"train": 192})
        assert len({every.data_set().fingerprint, searched.settings.data_fingerprint}) == 2
        assert every.data_set().fingerprint == every.settings.data_fingerprint
        assert every.stock_training is not None
        assert every.stock_training.budget.subset == every.settings.subset
        assert confirm(searched).name == "small-confirm-2"  # goes on
        assert confirm(searched, fraction=0.5).name == "small-confirm"
        assert confirm(searched, fraction=0.25).name == "small-confirm-3"

    def test_verdict_says_that_they_are_others(self, searched: Study, run: Callable[[Study], None]) -> None:
        run(confirm(searched, seeds=2, fraction=1.0))
        verdict = searched.verdict()
        assert verdict is not None
        assert verdict.changes == ("with 192 images to train on, not 96",)
        assert searched.trust().noise is None  # two seeds on other images are no repeats of the search

    def test_plan_counts_them(self, searched: Study) -> None:
        options = ("--seeds", "2", "--top", "1", "--dry-run")
        as_before, every = (
            nas("confirm", searched, *options, *more).stderr.splitlines() for more in ((), ("--fraction", "1"))
        )
        assert as_before[0].endswith("4 trainings to run, about 2 min")
        assert as_before[1] == "images    96 of 192 to train on, as in the search (--fraction 1: on all)"
        assert every[0].endswith("4 trainings to run, about 4 min")
        first = "the stock model is trained on them first"
        assert every[1] == f"images    192 images to train on, not 96 as in the search; {first}"

    def test_command_that_goes_on_names_them(self, searched: Study) -> None:
        whole = searched.settings.model_copy(update={"subset": None})
        assert options_of(whole, searched.settings) == " --epochs 3 --fraction 1"
        assert options_of(searched.settings, whole) == " --epochs 3 --fraction 0.5"
        assert options_of(whole, whole) == " --epochs 3"

    def test_a_fraction_without_an_image_is_refused(self, searched: Study) -> None:
        result = nas("confirm", searched, "--fraction", "0.001")
        line = "fraction: 0.001 of 192 images is no image (at least 0.0052)\n"
        assert (result.exit_code, result.stderr) == (2, line)

    def test_an_ablation_reads_others_too(self, searched: Study) -> None:
        trial = finalists_of(searched)[0].trial
        plan = AblationPlan.of(searched, trial=trial, fraction=0.25, val_images=20)
        assert plan.settings.subset == HALF.model_copy(update={"train": 48, "val": 20})
        after = plan.begin()
        assert AblationPlan.of(searched, trial=trial).settings == after.settings  # goes on
        with pytest.raises(StudyError, match=r"have other images \(with 48 images to train on, not 96, 20 .*48\)"):
            AblationPlan.of(searched, trial=trial, fraction=0.5, val_images=48)


class TestCommand:
    def test_defaults_of_the_help_are_those_of_the_work(self) -> None:
        text = CliRunner().invoke(app, ["confirm", "--help"], env={"COLUMNS": "80"}).stdout
        words = " ".join(text.replace("│", " ").split())
        assert f"[default: {SEEDS}, or as before]" in words
        assert f"[default: all, at most {MOST_FINALISTS}, or as before]" in words
        assert f"[default: as before, or {MARGIN}]" in words
        assert inspect.signature(verdicts.judge).parameters["margin"].default == MARGIN

    @pytest.mark.parametrize(
        ("typed", "line"),
        [
            (["--eta", "3"], "eta: only with --longer"),
            (
                ["--longer", "--seeds", "5", "--from-scratch"],
                "seeds: not with --longer\nfrom-scratch: not with --longer",
            ),
        ],
    )
    def test_options_of_the_other_kind_are_refused(self, typed: list[str], line: str, searched: Study) -> None:
        result = nas("confirm", searched, *typed)
        assert (result.exit_code, result.stderr) == (2, f"{line}\n")

    def test_plan_says_how_many_trainings_and_how_long(self, searched: Study, run: Callable[[Study], None]) -> None:
        options = ("--seeds", "2", "--top", "1", "--dry-run")
        dry = nas("confirm", searched, *options)
        first = "confirm   1 finalist of small and the stock model: 2 fresh seeds (1000 to 1001), 3 epochs"
        plan = [f"{first}: 4 trainings to run, about 2 min", "judging   96 images that the search chose by"]
        assert (dry.exit_code, dry.stdout, dry.stderr.splitlines()) == (0, "", plan)
        assert not searched.folder.with_name("small-confirm").exists()
        document = json.loads(nas("confirm", searched, *options, "--format", "json").stdout)
        assert (document["study"], document["models"], document["seeds"]) == ("small-confirm", 2, [1000, 1001])
        assert (document["trainings"], document["seconds"]) == (4, 120)
        run(confirm(searched, seeds=2, top=1))
        assert nas("confirm", searched, "--dry-run").stderr.splitlines()[0] == f"{first}: all are trained"
        assert (
            nas("confirm", searched, "--seeds", "3", "--dry-run")
            .stderr.splitlines()[0]
            .endswith("3 fresh seeds (1000 to 1002), 3 epochs: 2 trainings to run, about 1 min")
        )

    def test_time_limit_leaves_trainings(self, searched: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running, "supervise", lambda study, **_: Worker(study, deadline=0.0).run())
        result = nas("confirm", searched, "--seeds", "2")
        assert result.exit_code == 1
        assert result.stdout == "No verdict on small: all models have finished with 0 of 2 seeds; the least are 2\n"
        assert "No verdict yet: " in result.stderr
        assert f"trainings left; continue with: nas confirm small --runs {searched.folder.parent}" in result.stderr

    def test_search_says_which_command_judges(self, searched: Study) -> None:
        text = nas("pareto", searched).stderr
        assert f"nas confirm small --runs {searched.folder.parent}" in text
        assert "evidence of gain" not in text
