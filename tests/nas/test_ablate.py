"""`nas ablate`: what each slot of a trial is worth, by fresh paired seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import nas as package
from nas.algorithms.paired_comparison import Finding
from nas.cli import app
from nas.defaults import ABLATION_SEEDS, MARGIN
from nas.execution import recovery, worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.report.ablating import judge
from nas.report.ablation import Ablation
from nas.samplers.encoding import CostFunction
from nas.study.ablations import FIRST_SEED, Ablated, ablated_trial, parts_of, reason_to_leave_out
from nas.study.confirmation import is_confirmation
from nas.study.study import Study
from nas.workflows import running
from nas.workflows.ablate import AblationPlan
from nas.workflows.confirm import confirm
from search_spaces import Architecture, SearchSpace, space_file
from search_spaces.errors import SpecError, StudyError
from trials import Budget, Ending, Limits, Outcome
from trials.data import datasets

MakeStudy = Callable[..., Study]
Training = tuple[str, int]

SCALED = """\
name: scaled
base: yolov9{scale}.yaml
scale: t
slots:
  - at: {layers: [4]}
    choices: {UIB: {}}
insert:
  - after: [9]
    choices: {UIB: {}}
macro:
  width: [0.75, 1.0]
"""


def architecture_of(space: SearchSpace, **operators: str) -> Architecture:
    """Return the architecture with these operators, by slot: `_4="UIB"`."""
    slots = {slot.name: slot for slot in space.slots}
    return space.of({name: slots[name].of(operators[f"_{name}"])[0] for name in slots if f"_{name}" in operators})


@pytest.fixture
def both(space: SearchSpace) -> Architecture:
    return architecture_of(space, _4="UIB", _10="DySample")


def ablated_of(space: SearchSpace, architecture: Architecture, left_out: str = "") -> Ablated:
    parts = [(part, left_out if part.name == "10" else "") for part in parts_of(space, architecture)]
    return Ablated("small", 7, architecture, parts, space.stock)


def trained(
    models: Sequence[Architecture], accuracies: Mapping[str, float], noise: float, seeds: int = 4
) -> list[Record]:
    """Return a record of each model and seed; a seed moves all models alike, and each a little by itself."""
    rng = np.random.default_rng(0)
    records = list[Record]()
    for repeat in range(seeds):
        common = 0.02 * rng.standard_normal()
        for model in models:
            accuracy = accuracies[model.fingerprint] + common + noise * rng.standard_normal()
            records.append(
                Record(
                    trial=len(records),
                    state="complete",
                    ending="finished",
                    map50_95=accuracy,
                    repeat=repeat,
                    fingerprint=model.fingerprint,
                    picks={},
                    seconds=30.0,
                )
            )
    return records


BUDGET = Budget(data=Path("data.yaml"), epochs=8, seed=FIRST_SEED)


class TestJudgement:
    """The tests and intervals are those of `paired_comparison`; here their signs, names and costs."""

    @pytest.fixture
    def ablated(self, space: SearchSpace, both: Architecture) -> Ablated:
        return ablated_of(space, both)

    @pytest.fixture
    def accuracies(self, space: SearchSpace, both: Architecture) -> dict[str, float]:
        without = {part.name: part.without.fingerprint for part in parts_of(space, both)}
        return {both.fingerprint: 0.53, without["4"]: 0.50, without["10"]: 0.535, space.stock.fingerprint: 0.51}

    @pytest.fixture
    def figures(self, ablated: Ablated) -> CostFunction:
        costs = {
            model.fingerprint: {"gflops": 7.0 + 0.25 * index, "params": 2e6 - 5e4 * index}
            for index, model in enumerate(ablated.models)
        }
        return lambda architecture: costs[architecture.fingerprint]

    def test_worth_is_the_trial_less_the_trial_with_stock_there(
        self, ablated: Ablated, accuracies: dict[str, float], figures: CostFunction
    ) -> None:
        records = trained(ablated.models, accuracies, 0.0005)
        found = judge(ablated, records, figures, budget=BUDGET)
        four, ten = found.slots
        assert [four.slot, ten.slot] == ["4", "10"]
        assert four.difference == pytest.approx(3.0, abs=0.15)
        assert four.low < 3.0 < four.high
        assert (four.finding, ten.finding) == (Finding.BETTER, Finding.WORSE)
        assert ten.difference == pytest.approx(-0.5, abs=0.15)
        assert found.whole is not None
        assert found.whole.difference == pytest.approx(2.0, abs=0.15)
        assert found.seeds == (2000, 2001, 2002, 2003)
        means = {name: np.mean([r.map50_95 for r in records if r.fingerprint == name]) for name in accuracies}
        assert four.difference == pytest.approx(
            100 * (means[ablated.architecture.fingerprint] - means[four.fingerprint])
        )

    def test_costs_are_exact_differences(
        self, ablated: Ablated, accuracies: dict[str, float], figures: CostFunction
    ) -> None:
        found = judge(ablated, trained(ablated.models, accuracies, 0.0005), figures, budget=BUDGET)
        stock, trial, four, ten = ablated.models
        assert [one.gflops for one in found.slots] == [-0.25, -0.5]
        assert [one.params for one in found.slots] == [50_000, 100_000]
        assert found.whole is not None
        assert found.whole.gflops == figures(trial)["gflops"] - figures(stock)["gflops"] == 0.25
        assert found.slots[0].latency_ms is None
        assert [one.fingerprint for one in found.slots] == [four.fingerprint, ten.fingerprint]

    def test_sentences(self, ablated: Ablated, accuracies: dict[str, float], figures: CostFunction) -> None:
        found = judge(ablated, trained(ablated.models, accuracies, 0.02), figures, budget=BUDGET)
        assert all(one.finding is Finding.UNDECIDED for one in found.rows)
        first = found.slots[0]
        assert first.title == "slot 4 UIB"
        assert first.sentence == (
            f"slot 4 UIB: {first.points} points ({first.interval}), not told apart from noise; "
            "costs -0.25 GFLOPs, +0.050 M parameters"
        )
        assert found.lines()[0] == (
            "What each slot of trial 7 of small is worth: 4 fresh seeds, 8 epochs, 95 % intervals"
        )
        assert found.rows[-1].title == "the whole trial over the stock model"
        assert "Measured on the images that the search chose by." in found.lines()

    def test_seed_that_a_model_lacks_counts_for_none(
        self, ablated: Ablated, accuracies: dict[str, float], figures: CostFunction
    ) -> None:
        records = trained(ablated.models, accuracies, 0.001)
        waiting = [
            replace(one, state="waiting", ending=None, map50_95=None)
            if (one.repeat, one.fingerprint) == (1, ablated.models[2].fingerprint)
            else one
            for one in records
        ]
        found = judge(ablated, waiting, figures, budget=BUDGET)
        assert (found.seeds, found.planned, found.unfinished) == ((2000, 2002, 2003), 4, 1)

    def test_failed_training_leaves_its_slot_out(
        self, ablated: Ablated, accuracies: dict[str, float], figures: CostFunction
    ) -> None:
        lost = ablated.models[3].fingerprint
        records = [
            replace(one, state="pruned", ending="diverged", map50_95=None) if one.fingerprint == lost else one
            for one in trained(ablated.models, accuracies, 0.001)
        ]
        found = judge(ablated, records, figures, budget=BUDGET)
        assert [one.slot for one in found.slots] == ["4"]
        assert [one.sentence for one in found.left_out] == ["slot 10 DySample: left out, diverged with 4 of 4 seeds"]

    def test_trial_that_diverges_has_no_ablation(
        self, ablated: Ablated, accuracies: dict[str, float], figures: CostFunction
    ) -> None:
        lost = ablated.architecture.fingerprint
        records = [
            replace(one, state="pruned", ending="diverged", map50_95=None) if one.fingerprint == lost else one
            for one in trained(ablated.models, accuracies, 0.001)
        ]
        found = judge(ablated, records, figures, budget=BUDGET)
        assert found.lines() == ["No ablation of trial 7 of small: diverged with 4 of 4 seeds"]

    def test_one_slot_is_the_whole_trial(self, space: SearchSpace) -> None:
        one = architecture_of(space, _10="DySample")
        ablated = ablated_of(space, one)
        assert ablated.models == [space.stock, one]
        scores = {one.fingerprint: 0.52, space.stock.fingerprint: 0.5}
        records = trained(ablated.models, scores, 0.001)
        found = judge(ablated, records, lambda _: {"gflops": 7.0, "params": 2e6}, budget=BUDGET)
        (slot,) = found.slots
        assert found.whole is not None
        assert (slot.difference, slot.high) == (found.whole.difference, found.whole.high)
        assert slot.costs == "nothing"

    def test_intervals_contain_what_slots_are_worth(
        self, ablated: Ablated, accuracies: dict[str, float], figures: CostFunction
    ) -> None:
        truth, trial = 100 * 0.03, ablated.architecture.fingerprint
        records, covered = trained(ablated.models, accuracies, 0.004, seeds=3 * 60), []
        for first in range(0, 3 * 60, 3):
            three = [replace(one, repeat=one.repeat - first) for one in records if 0 <= one.repeat - first < 3]
            slot = judge(ablated, three, figures, budget=BUDGET).slots[0]
            covered.append(slot.low <= truth <= slot.high)
        assert accuracies[trial] - accuracies[ablated.models[2].fingerprint] == pytest.approx(truth / 100)
        assert 0.9 <= np.mean(covered) <= 1.0


class TestParts:
    def test_insertions_and_scaling_factors_are_parts(self, tmp_path: Path) -> None:
        path = tmp_path / "scaled.yaml"
        path.write_text(SCALED)
        space = space_file.load(path)
        values = {name: options[-1] for name, options in space.parameters.items()} | {"macro.width": 0.75}
        architecture = space.architecture(values)
        parts = parts_of(space, architecture)
        assert [part.title for part in parts] == ["slot 4 UIB", "slot after-9 UIB", "width 0.75"]
        assert [part.layers for part in parts] == [(4,), (9,), ()]
        for part in parts:
            (others,) = [{one.title for one in parts_of(space, part.without)}]
            assert others == {one.title for one in parts} - {part.title}

    def test_limits_leave_a_slot_out(self, make_study: MakeStudy, both: Architecture) -> None:
        study = make_study()
        feasible, space = study.feasible, study.space
        first, second = parts_of(space, both)
        costs = [feasible.figures(part.without)["params"] for part in (first, second)]
        limits = Limits(params=int(min(costs)))
        limited = make_study("limited", limits=limits)
        reasons = [reason_to_leave_out(part, both, space, limited.feasible, limits) for part in (first, second)]
        assert sorted(bool(reason) for reason in reasons) == [False, True]
        assert f"it is over the limit: {max(costs):g} parameters (at most {min(costs):g})" in "".join(reasons)


@pytest.fixture
def trainings() -> list[Training]:
    """Fingerprint and seed of every training."""
    return []


@pytest.fixture
def run(
    score: Callable[..., Outcome], trainings: list[Training], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Study], None]:
    """Run a study with scores to which each operator adds, and each seed a little."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        trainings.append((architecture.fingerprint, budget.seed))
        outcome = score(architecture, budget, *arguments, **options)
        assert outcome.scores is not None
        noise = 0.001 * float(np.random.default_rng([int(architecture.fingerprint[:8], 16), budget.seed]).normal())
        worth = {"UIB": 0.02, "DySample": 0.0, "DynamicConv": -0.01}
        accuracy = 0.5 + sum(worth[choice.operator] for _, choice in architecture.picks) / 2 + noise
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy), seconds=30.0)

    def working(study: Study, **_: object) -> None:
        Worker(study, deadline=float("inf")).run()

    monkeypatch.setattr(worker, "evaluate", scoring)
    monkeypatch.setattr(running, "supervise", working)
    return working


@pytest.fixture
def searched(make_study: MakeStudy, run: Callable[[Study], None]) -> Study:
    """A search whose trial 1 has UIB in layer 4 and DySample in layer 10; trial 2 has UIB alone."""
    make = partial(make_study, data_fingerprint=datasets.load("digits").fingerprint)
    study = make(trials=3, start="start: [{4: {UIB: {}}, 10: {DySample: {}}}, {4: {UIB: {}}}]")
    run(study)
    return study


def nas(study: Study, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["ablate", study.name, "--runs", str(study.folder.parent), *arguments])


class TestTrainings:
    def test_models_seeds_and_settings(
        self, searched: Study, run: Callable[[Study], None], trainings: list[Training]
    ) -> None:
        used = {seed for _, seed in trainings}
        trainings.clear()
        plan = AblationPlan.of(searched, trial=1)
        left = plan.of_trainings()
        assert (plan.seeds, left.trainings, left.seconds) == (ABLATION_SEEDS, 4 * ABLATION_SEEDS, 360.0)
        after = plan.begin()
        run(after)
        models = [model.fingerprint for model in plan.ablated.models]
        first = searched.settings.budget.seed + FIRST_SEED
        assert trainings == [(name, first + repeat) for repeat in range(ABLATION_SEEDS) for name in models]
        assert not used & {seed for _, seed in trainings}
        assert (after.name, ablated_trial(after.file), is_confirmation(after.file)) == ("small-ablate-1", 1, False)
        again = AblationPlan.of(searched, trial=1)
        assert (again.of_trainings().trainings, again.begin().remaining_trials(after.records())) == (0, 0)
        more = AblationPlan.of(searched, trial=1, seeds=4)
        assert more.of_trainings().trainings == 4
        run(more.begin())
        ablation = searched.ablation(1)
        assert ablation is not None
        assert ablation.seeds == tuple(range(first, first + 4))

    def test_interrupted_ablation_gives_the_same_table(
        self, searched: Study, run: Callable[[Study], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert searched.ablation(1) is None
        run(AblationPlan.of(searched, trial=1).begin())
        whole = searched.ablation(1)
        (searched.folder.parent / "small-ablate-1").rename(searched.folder.parent / "elsewhere")
        scoring, calls = vars(worker)["evaluate"], 0

        def killed(*arguments: Any, **options: Any) -> Outcome:
            nonlocal calls
            calls += 1
            if calls == 10:
                raise KeyboardInterrupt
            return scoring(*arguments, **options)

        monkeypatch.setattr(worker, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            run(AblationPlan.of(searched, trial=1).begin())
        part = searched.ablation(1)
        assert part is not None
        assert (len(part.seeds), part.unfinished) == (2, 3)
        after = AblationPlan.of(searched, trial=1).begin()
        recovery.recover(after)
        run(after)
        assert whole is not None
        assert searched.ablation(1) == whole

    def test_other_epochs_are_refused(self, searched: Study) -> None:
        AblationPlan.of(searched, trial=1).begin()
        with pytest.raises(
            StudyError, match=r"have --epochs 3, not 9; go on with them: nas ablate .*; to begin another"
        ):
            AblationPlan.of(searched, trial=1, epochs=9)


class TestRefusals:
    @pytest.mark.parametrize(
        ("trial", "line"),
        [
            (0, "trial 0 of small is the stock model: it has no slot to put back"),
            (99, "trial: small has no trial 99 (0 to 2)"),
        ],
    )
    def test_trial_that_cannot_be_ablated(self, trial: int, line: str, searched: Study) -> None:
        result = nas(searched, "--trial", str(trial))
        assert (result.exit_code, result.stderr) == (2, f"{line}\n")

    def test_failed_trial(self, searched: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        failed = [
            replace(one, ending=Ending.DIVERGED.value, state="pruned", map50_95=None) for one in searched.records()
        ]
        monkeypatch.setattr(Study, "records", lambda _: failed)
        with pytest.raises(StudyError, match="trial 1 of small is diverged, without a score"):
            AblationPlan.of(searched, trial=1)

    def test_text_is_no_trial(self, searched: Study) -> None:
        line = "trial: input should be a whole number, got 'abc' (the number of a trial; nas trials STUDY lists them)"
        assert nas(searched, "--trial", "abc").stderr.splitlines() == [line]

    def test_one_seed(self, searched: Study) -> None:
        with pytest.raises(SpecError, match="seeds: two are the least"):
            AblationPlan.of(searched, trial=1, seeds=1)

    def test_confirmation_and_ablation(self, searched: Study) -> None:
        with pytest.raises(StudyError, match="small-confirm: is itself the confirmation of small, and has no front"):
            AblationPlan.of(confirm(searched, seeds=2), trial=1)
        with pytest.raises(StudyError, match="small-ablate-1: is itself the ablation of small, and has no front"):
            AblationPlan.of(AblationPlan.of(searched, trial=1).begin(), trial=1)


class TestCommand:
    def test_plan_and_table(self, searched: Study) -> None:
        dry = nas(searched, "--trial", "1", "--dry-run")
        plan = [
            "ablate    trial 1 of small: slot 4 UIB, slot 10 DySample",
            "train     4 models, 3 fresh seeds (2000 to 2002), 3 epochs: 12 trainings to run, about 6 min",
        ]
        assert (dry.exit_code, dry.stdout, dry.stderr.splitlines()) == (0, "", plan)
        assert not searched.folder.with_name("small-ablate-1").exists()
        document = json.loads(nas(searched, "--trial", "1", "--dry-run", "--format", "json").stdout)
        assert document == {
            "ablates": "small",
            "trial": 1,
            "slots": [
                {"slot": "4", "choice": "UIB", "left_out": ""},
                {"slot": "10", "choice": "DySample", "left_out": ""},
            ],
            "images": "",
            "study": "small-ablate-1",
            "models": 4,
            "seeds": [2000, 2001, 2002],
            "epochs": 3,
            "trainings": 12,
            "seconds": 360.0,
        }
        result = nas(searched, "--trial", "1")
        assert result.exit_code == 0, result.stderr
        assert result.stderr.splitlines()[:2] == plan
        heading, columns, first, *_ = result.stdout.splitlines()
        assert heading == "What each slot of trial 1 of small is worth: 3 fresh seeds, 3 epochs, 95 % intervals"
        assert columns.split() == ["slot", "points", "95", "%", "interval", "GFLOPs", "params", "finding", "choice"]
        assert first.split()[:2] == ["4", searched_points(searched)]
        assert "better" in first

    def test_formats_for_programs(self, searched: Study) -> None:
        document = json.loads(nas(searched, "--trial", "1", "--format", "json").stdout)
        ablation = searched.ablation(1)
        assert ablation is not None
        assert document["lines"] == ablation.lines()
        assert [one["slot"] for one in document["slots"]] == ["4", "10"]
        assert nas(searched, "--trial", "1", "--format", "csv").stdout.startswith("slot,layers,choice,title,finding")
        opened = package.ablate("small", trial=1, runs=searched.folder.parent)
        assert isinstance(opened, Ablation)
        assert opened == ablation

    def test_time_limit_leaves_trainings(self, searched: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running, "supervise", lambda study, **_: Worker(study, deadline=0.0).run())
        result = nas(searched, "--trial", "2", "--seeds", "2")
        assert result.exit_code == 0, result.stderr
        assert result.stdout == ""
        runs = searched.folder.parent
        assert result.stderr.splitlines()[-2:] == [
            "No ablation of trial 2 of small: all models have finished with 0 of 2 seeds; the least are 2",
            f"4 trainings are left; continue with: nas ablate small --runs {runs} --trial 2",
        ]

    def test_defaults_of_the_help_are_those_of_the_work(self) -> None:
        text = CliRunner().invoke(app, ["ablate", "--help"], env={"COLUMNS": "80"}).stdout
        words = " ".join(text.replace("│", " ").split())
        assert f"[default: {ABLATION_SEEDS}, or as before]" in words
        assert f"[default: as before, or {MARGIN}]" in words


def searched_points(searched: Study) -> str:
    ablation = searched.ablation(1)
    assert ablation is not None
    return ablation.slots[0].points
