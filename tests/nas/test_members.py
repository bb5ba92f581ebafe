"""Study of several members, with a formula instead of training."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from nas.algorithms.gaussian_process import Surrogate
from nas.algorithms.successive_halving import Stopping
from nas.cli import app, fronts, planning
from nas.execution import worker
from nas.execution.enqueue import enqueue_extremes
from nas.execution.shared_trials import prepare_stock_models
from nas.execution.worker import Worker
from nas.records.record import COLUMNS, Record, stock_of, stocks_of
from nas.records.trial_files import TrialFiles
from nas.report import effects, stock_front
from nas.report.front_table import front_table
from nas.report.page import gathering, recommended
from nas.report.search_findings import left_out
from nas.samplers.categories import categories_of
from nas.samplers.encoding import Encoding
from nas.settings import Sampler
from nas.study import stock_training
from nas.study.study import Study
from nas.workflows import confirm as confirming
from nas.workflows import findings, refinement, running
from nas.workflows.ablate import AblationPlan
from nas.workflows.further_trust import trust_in_further
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from nas.workflows.tracked import context_of
from search_spaces import Architecture, Choice, JoinedSpace, joined_file
from search_spaces.errors import SpecError, StudyError
from search_spaces.yaml_text import parse_yaml
from trials import Budget, Costs, Ending, Epoch, Limits, Outcome, Scores
from trials.costing import cost, space_costs
from trials.costing.cost import LayerCost
from trials.data import datasets

MEMBERS = ("eightn", "ninet")

Make = Callable[..., Study]
Score = Callable[..., Outcome]
Trained = list[tuple[Architecture, Budget]]


@pytest.fixture
def make(make_joined: Make) -> Make:
    return make_joined


@pytest.fixture
def run(score: Score, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """Run a worker in this process; return each trained architecture with its budget."""

    def working(study: Study, by: Score = score) -> Trained:
        trained: Trained = []

        def scored(architecture: Architecture, budget: Budget, *rest: Any, **options: Any) -> Outcome:
            trained.append((architecture, budget))
            return by(architecture, budget, *rest, **{"limits": study.settings.limits, **options})

        monkeypatch.setattr(stock_training, "evaluate", scored)
        monkeypatch.setattr(worker, "evaluate", scored)
        Worker(study, deadline=float("inf")).run()
        return trained

    return working


Run = Callable[..., Trained]


def diverged(architecture: Architecture) -> Outcome:
    return Outcome(architecture=architecture, ending=Ending.DIVERGED, detail="the loss is nan")


def trained_to(
    architecture: Architecture, accuracy: float, budget: Budget, folder: Path, go_on: Callable[[int, Epoch], bool]
) -> Outcome:
    """Train in no time, to an accuracy that grows evenly until the last epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"model.yaml": architecture.to_yaml(2), "weights.pt": "weights"}.items():
        (folder / name).write_text(text)
    costs, epochs = Costs(params=1000, gflops=2.0), list[Epoch]()
    for number in range(1, budget.epochs + 1):
        reached = accuracy * number / budget.epochs if number in {*budget.rungs, budget.epochs} else None
        epochs.append(Epoch(epoch=number, losses={}, map50_95=reached, map50=reached, seconds=0.1))
        if not go_on(number, epochs[-1]) and number < budget.epochs:
            return Outcome(architecture=architecture, ending=Ending.STOPPED, costs=costs, epochs=tuple(epochs))
    scores = Scores(map50_95=accuracy, map50=accuracy, costs=costs)
    return Outcome(
        architecture=architecture, ending=Ending.FINISHED, costs=costs, scores=scores, epochs=tuple(epochs), seconds=0.3
    )


def nas(*words: object) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.stdout


class TestEffects:
    @pytest.fixture
    def proposed(self, make: Make, run: Run) -> Study:
        study = make(trials=24)
        run(study)
        return study

    def test_those_of_a_member_are_what_its_trials_alone_give(self, proposed: Study, joined: JoinedSpace) -> None:
        records, found = proposed.records(), proposed.effects()
        assert found.trials == sum(one.finished for one in records)
        assert list(found.by_member) == list(MEMBERS)
        for member in joined.members:
            own = [one for one in records if one.member == member.short_name]
            alone = effects.estimate(own, member, proposed.feasible.figures)
            assert alone.rows
            assert found.by_member[member.short_name] == alone
            shown = [one for one in found.rows if one.member == member.short_name]
            assert [replace(one, member="") for one in shown] == list(alone.rows)
            assert {one.slot for one in shown} <= {slot.name for slot in member.slots}

    def test_operator_that_a_member_has_not_tried_has_no_effect_there(self, proposed: Study) -> None:
        def has(one: Record) -> bool:
            return any("UIB" in pick for pick in one.picks.values())

        records = [one for one in proposed.records() if one.member == "eightn" or not has(one)]
        found = effects.estimate(records, proposed.space, proposed.feasible.figures)
        assert "UIB" in {row.operator for row in found.rows if row.member == "eightn"}
        assert "UIB" not in {row.operator for row in found.rows if row.member == "ninet"}

    def test_command_names_the_members(self, proposed: Study) -> None:
        runs = ("--runs", proposed.folder.parent)
        rows = json.loads(nas("effects", "edge", *runs, "--format", "json"))
        assert list(rows[0]) == [*effects.COLUMNS, "member"]
        assert {row["member"] for row in rows} == set(MEMBERS)
        assert nas("effects", "edge", *runs).splitlines()[1].startswith("member")

    def test_table_fits_a_narrow_terminal(self, proposed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        printed = nas("effects", "edge", "--runs", proposed.folder.parent)
        assert "…" not in printed
        assert all(len(line) <= 80 for line in printed.splitlines())

    def test_mlflow_is_sent_the_stock_choices_of_every_member(self, proposed: Study, joined: JoinedSpace) -> None:
        choices = context_of(proposed).choices()
        assert set(choices.values()) == {"stock"}
        slots = {f"{one.short_name}/{slot.name}.operator" for one in joined.members for slot in one.slots}
        assert set(choices) == slots

    def test_report_and_mlflow_have_them(self, proposed: Study) -> None:
        contents = gathering.gather(proposed)
        assert contents.problems == {}
        assert contents.about["budget"].endswith(", from weights of the stock model of its member after 5 epochs")
        assert any(line.startswith("eightn: From ") for line in contents.effects)
        names = {name for each in contents.charts["effects"].figure["data"] for name in each["y"]}
        assert any(name.startswith("ninet: ") and name.endswith(" 4") for name in names)
        assert {row["member"] for row in json.loads(findings.findings_of(proposed).tables["effects.json"])} == set(
            MEMBERS
        )

    def test_members_of_too_few_trials_are_named(self, make: Make) -> None:
        found = make().effects()
        assert found.is_too_few
        assert [line.partition(":")[0] for line in found.remarks()] == list(MEMBERS)


def test_front_is_trained_longer_beside_the_stock_models(
    make: Make, run: Run, monkeypatch: pytest.MonkeyPatch, joined: JoinedSpace
) -> None:
    study = make(trials=12, data_fingerprint=datasets.load("digits").fingerprint)
    run(study)
    front = {one.fingerprint for one in study.front()}
    own = {joined.member_name(one) for record in study.front() if not (one := study.architecture(record)).is_stock}
    assert own
    monkeypatch.setattr(running, "supervise", lambda study, **_: run(study))
    runs = ("--runs", study.folder.parent)
    rows = json.loads(nas("confirm", "edge", "--longer", "--rounds", "1", *runs, "--format", "json"))
    after = Study.open(study.folder.with_name("edge-x3"))
    records = after.records()
    assert after.settings.budget.epochs == 9
    assert {one.fingerprint for one in records} >= front
    assert {one.member for one in records if one.role == "stock"} >= own
    assert len(records) == after.file.run.trials
    stocks = {one.member: one for one in stocks_of(records)}
    by_fingerprint = {one.fingerprint: one for one in records}
    for row in rows:
        stock = stocks[by_fingerprint[row["fingerprint"]].member]
        assert row["map50_95_gain"] == pytest.approx(row["map50_95"] - stock.map50_95)
    nas("pareto", "edge-x3", *runs)


class TestSearch:
    def test_stock_models_are_trained_first_and_initialise_their_members(
        self, make: Make, run: Run, joined: JoinedSpace
    ) -> None:
        study = make()
        trained = run(study)
        cheapest_first = reversed(joined.stocks)
        assert [one for one, _ in trained[:4]] == [*cheapest_first, *joined.stocks]  # as trainings, then as trials
        for architecture, budget in trained[2:]:
            assert budget.weights == study.folder / "base" / joined.member_name(architecture) / "weights.pt"
        records = study.records()
        assert [(one.role, one.member, one.summary) for one in records[:2]] == [
            ("stock", "eightn", "eightn: stock"),
            ("stock", "ninet", "ninet: stock"),
        ]
        assert {record.member for record in records} == set(MEMBERS)
        assert set(Counter(record.fingerprint for record in records).values()) == {1}

    def test_trainings_have_folders_of_their_own(self, make: Make, run: Run) -> None:
        study = make(trials=2)
        run(study)
        found = TrialFiles.stock_models_in(study.folder)
        assert [files.folder for files in found] == [study.folder / "base" / name for name in MEMBERS]
        assert all(len(files.read_epochs()) == 5 for files in found)
        assert run(study) == []

    def test_a_stock_model_that_another_worker_trains_is_left_to_it(self, make: Make, run: Run, score: Score) -> None:
        study = make(trials=2)
        second, first = study.stock_trainings
        elsewhere, order = first.lock, list[str]()

        def scored(architecture: Architecture, budget: Budget, folder: Path, *rest: Any, **options: Any) -> Outcome:
            order.append(folder.name)
            if folder == second.files.folder:
                elsewhere.release()
            return score(architecture, budget, folder, *rest, **options)

        assert elsewhere.take(wait=False)
        run(study, scored)
        assert order[:2] == ["eightn", "ninet"]

    def test_member_whose_stock_model_fails_is_left_out(self, make: Make, run: Run, score: Score) -> None:
        study = make()

        def scored(architecture: Architecture, *rest: Any, **options: Any) -> Outcome:
            if architecture.base.startswith("yolov9"):
                return diverged(architecture)
            return score(architecture, *rest, **options)

        run(study, scored)
        self.assert_left_out(study, "the stock model of ninet could not be trained: the loss is nan")
        assert study.reason_to_stop(study.records()) is None
        assert left_out(study) == ["ninet was left out: its stock model could not be trained: the loss is nan"]
        study.stock_trainings.prepare()  # another run
        assert list(study.stock_trainings.left_out) == ["ninet"]

    def test_plan_says_when_stock_models_are_compared(self, make: Make) -> None:
        settings = make().settings
        compared = "a stock model that another at no higher cost leads by more than noise is not trained further"
        assert planning._early_stopping(settings) == f"{compared}, after epoch 1, 2, 3, 4"
        halving = settings.model_copy(update={"stopping": Stopping(eta=3)})
        assert planning._early_stopping(halving).splitlines()[1] == "none: too few epochs"
        assert planning._early_stopping(settings.model_copy(update={"members": ()})) == ""

    @pytest.mark.parametrize("sampler", [Sampler.OURS, Sampler.TPE])
    def test_member_whose_stock_model_is_dominated_is_left_out(
        self, make: Make, run: Run, score: Score, sampler: Sampler
    ) -> None:
        study = make(sampler=sampler)

        def scored(architecture: Architecture, budget: Budget, *rest: Any, **options: Any) -> Outcome:
            if architecture == study.space.stocks[0]:  # the costlier one
                return trained_to(architecture, 0.0, budget, *rest)
            return score(architecture, budget, *rest, **options)

        trained = run(study, scored)
        lead = "after 2 epochs ninet leads by 0.372 mAP50-95 and costs no more"
        self.assert_left_out(study, f"the stock model of eightn was not trained further: {lead}")
        assert left_out(study) == [f"eightn was left out: its stock model was stopped after 2 of 5 epochs: {lead}"]
        assert len({architecture for architecture, _ in trained}) == len(trained) - 1  # the stock model of the other
        assert run(Study.open(study.folder), scored) == []

    def assert_left_out(self, study: Study, reason: str) -> None:
        """Check that no trial of a member was trained, and that its stock model's has the reason."""
        ((member, whole),) = study.stock_trainings.left_out.items()
        assert whole.startswith(reason)
        records = study.records()
        trials = [one for one in records if one.member == member]
        assert [(one.role, one.state, one.ending, one.detail) for one in trials] == [("stock", "pruned", None, whole)]
        finished = [one for one in records if one.finished]
        assert len(finished) == min(study.file.run.trials, study.searched.size)
        assert {one.role for one in finished} >= {"stock", "costliest"}

    def test_failure_of_all_stock_models_stops_the_study(self, make: Make, run: Run, joined: JoinedSpace) -> None:
        study = make()
        run(study, lambda architecture, *_, **__: diverged(architecture))
        reason = study.reason_to_stop(study.records())
        assert reason is not None
        assert reason.startswith("the stock model of eightn could not be trained: the loss is nan")
        study.stock_trainings.prepare()
        assert study.reason_to_stop(study.records()) is None
        assert {one for one, _ in run(study)} >= set(joined.stocks)

    def test_shared_study_tries_again_after_the_failure_of_all_stock_models(
        self, make: Make, run: Run, joined: JoinedSpace, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NAS_STORAGE", database)
        study = make(storage=database)
        run(study, lambda architecture, *_, **__: diverged(architecture))
        assert study.stock_trainings.failure
        again = Study.open(study.folder)
        prepare_stock_models(again)
        assert {one for one, _ in run(again)} >= set(joined.stocks)
        assert all(one.is_done for one in again.stock_trainings)
        prepare_stock_models(again)  # what has finished since stays
        assert all(one.is_done for one in Study.open(study.folder).stock_trainings)

    @pytest.mark.parametrize("sampler", list(Sampler))
    def test_every_sampler_proposes_new_architectures_of_both_members(
        self, make: Make, run: Run, sampler: Sampler, joined: JoinedSpace
    ) -> None:
        study = make(sampler=sampler, trials=14)
        run(study)
        records = study.records()
        assert {record.member for record in records[2:]} == set(MEMBERS)
        assert set(Counter(record.fingerprint for record in records).values()) == {1}
        for trial, record in zip(study.optuna_trials(), records, strict=True):
            params = trial.system_attrs.get("fixed_params") or trial.params
            architecture = joined.architecture(params)
            assert architecture.fingerprint == record.fingerprint
            assert params == joined.values(architecture)

    def test_exhausted_space_ends_a_search_early(self, make: Make, run: Run, joined: JoinedSpace) -> None:
        study = make(sampler=Sampler.RANDOM, trials=joined.size + 10, base=None)
        run(study)
        assert len([record for record in study.records() if record.finished]) == joined.size

    def test_study_goes_on_where_it_stopped(self, make: Make, run: Run) -> None:
        whole, begun = make("whole", trials=9), make("begun", trials=5)
        run(whole)
        run(begun)
        begun.set_run(begun.file.run.model_copy(update={"trials": 9}))
        run(Study.open(begun.folder))
        assert [one.fingerprint for one in begun.records()] == [one.fingerprint for one in whole.records()]

    def test_extremes_are_those_of_all_members(self, make: Make, joined: JoinedSpace) -> None:
        study = make()
        enqueue_extremes(study, study.records())
        *_, cheapest, costliest = study.records()
        table = study.scoring.cost_table
        gflops = [table.cost(study.architecture(one)).gflops for one in (cheapest, costliest)]
        drawn = [table.cost(one).gflops for one in joined.every()]
        assert gflops == [min(drawn), max(drawn)]

    def test_limits_hold_for_all_members(self, make: Make, run: Run) -> None:
        study = make("limited", base=None)
        table = study.scoring.cost_table
        ceiling = max(table.cost(stock).gflops for stock in study.space.stocks)
        study = make("limited2", limits=Limits(gflops=ceiling), trials=12)
        run(study)
        costs = [table.cost(study.architecture(one)).gflops for one in study.records() if one.role != "stock"]
        assert costs
        assert max(costs) <= ceiling

    def test_other_members_make_another_study(self, make: Make) -> None:
        study = make()
        changed = study.settings.model_copy(update={"members": ("eightn",)})
        assert study.settings.differences(changed) == ["members: eightn, ninet there, eightn here"]


class TestFreshSeeds:
    """Candidates of v8 are better than its stock model, those of v9, which cost less, than both."""

    @pytest.fixture
    def searched(self, make: Make, run: Run, monkeypatch: pytest.MonkeyPatch) -> Study:
        def scored(architecture: Architecture, budget: Budget, *rest: Any, costs: Costs, **_: Any) -> Outcome:
            is_cheaper = architecture.base.startswith("yolov9")
            accuracy = {True: 0.6, False: 0.5}[is_cheaper] + (0.0 if architecture.is_stock else 0.05)
            noise = 0.0001 * (budget.seed % 7 + len(architecture.summary()) % 3 * (budget.seed % 2))
            found = trained_to(architecture, accuracy + noise, budget, *rest)
            assert found.scores is not None
            return replace(found, costs=costs, scores=replace(found.scores, costs=costs))

        monkeypatch.setattr(running, "supervise", lambda study, **_: run(study, scored))
        study = make(trials=8, data_fingerprint=datasets.load("digits").fingerprint)
        run(study, scored)
        return study

    def test_finalists_are_judged_by_all_stock_models_that_cost_no_more(
        self, searched: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        eight = next(one for one in searched.records() if one.member == "eightn" and one.role != "stock")
        nine = next(one for one in searched.records() if one.member == "ninet" and one.role != "stock")
        monkeypatch.setattr(confirming, "finalists_of", lambda *_, **__: [eight, nine])
        monkeypatch.setattr(confirming, "_judging", lambda *_: None)
        plan = confirming.ConfirmationPlan.of(searched, seeds=3)
        assert (plan.stocks, len(plan.finalists)) == (2, 2)
        after = plan.begin()
        running.supervise(after)
        assert [one.role for one in after.records()] == 3 * ["stock", "stock", "", ""]
        assert all(one.is_done for one in after.stock_trainings)
        verdict = after.verdict()
        assert verdict is not None
        assert verdict.lines()[0].startswith(
            "Verdict on edge, beside the stock models that cost no more: 3 fresh seeds"
        )
        first, second = verdict.finalists
        assert first.trial == nine.trial
        assert first.sentence.startswith(
            f"trial {nine.trial}: no stock model of these is as accurate at its cost: beside ninet better by 5.0 points"
        )
        assert second.stock == "ninet"
        assert second.sentence.startswith(f"trial {eight.trial}: beside ninet worse by 5.0 points")
        assert "; it beats its own stock model only (eightn: +5.0 points, " in second.sentence
        assert second.as_document()["own"]["finding"] == "better"
        shown = [recommended._stock_beside(one.trial, searched, searched.records(), verdict) for one in (eight, nine)]
        assert [one and one.member for one in shown] == ["ninet", "ninet"]  # detections beside it
        costly = recommended._stock_beside(eight.trial, searched, searched.records(), None)
        assert costly is not None
        assert costly.map50_95 == pytest.approx(0.6, abs=0.01)
        export = fronts.exporting(verdict, searched, nine.trial)
        assert export.startswith("export the one with the largest gain with: nas export edge")

    def test_trust_has_the_slope_of_each_member_and_gains_at_equal_cost(self, searched: Study) -> None:
        found = searched.trust()
        lines = found.lines()
        assert lines[0].startswith("Trust in edge: ")
        assert " of eightn, ninet, --base-epochs 5 --epochs 3, 1 seed" in lines[0]
        assert [one.member for one in found.slopes] == list(MEMBERS)
        assert sum(line.startswith("slope     the stock model of ") for line in lines) == 2
        assert found.best_difference == pytest.approx(5.0, abs=0.2)
        best = next(one for one in searched.records() if one.trial == found.best)
        assert best.member == "ninet"  # the stock model of the other costs more and is worse
        assert found.as_document()["slopes"][0]["member"] == "eightn"

    def test_measure_trains_every_stock_model_and_a_neighbour_of_each(self, searched: Study) -> None:
        result = CliRunner().invoke(app, ["trust", "edge", "--measure", "--runs", str(searched.folder.parent)])
        assert result.exit_code == 0, result.output
        assert "2 stock models and a neighbour of each with two seeds, 3 epochs" in result.stderr
        short, longest = (Study.open(searched.folder.with_name(f"edge-calibrate{end}")) for end in ("", "-x3"))
        assert [one.member for one in short.records()] == [*MEMBERS, *MEMBERS] * 2
        assert [(one.member, one.role) for one in longest.records()] == [(name, "stock") for name in MEMBERS]
        assert all(one.budget.weights == one.files.weights or one.is_done for one in short.stock_trainings)
        found = searched.trust()
        assert found.noise is not None
        assert found.noise.degrees_of_freedom == 3
        assert [(one.member, one.is_longer) for one in found.slopes] == [(name, True) for name in MEMBERS]
        assert found.no_slope == ""

    def test_finalists_are_expected_to_shrink_beside_their_stock_models(self, searched: Study) -> None:
        records = [
            *searched.records(),
            *(replace(one, trial=100 + one.trial, repeat=1) for one in searched.records() if one.finished),
        ]
        records = [replace(one, map50_95=(one.map50_95 or 0.0) + 0.001 * (one.trial % 3)) for one in records]
        found = searched.trust_beside(None, records)
        assert found.shrinkage is not None
        assert found.shrinkage.difference == pytest.approx(5.0, abs=0.3)
        assert "points over the stock models at equal cost" in " ".join(found.lines())

    def test_refined_space_is_around_the_front_of_each_member(
        self, searched: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished = [one for one in searched.records() if one.finished and one.role != "stock"]
        eight, nine = (next(one for one in finished if one.member == name) for name in MEMBERS)
        monkeypatch.setattr(Study, "front", lambda *_: [eight, nine])
        request, space, text = refinement.resolve_space(Request(refine="edge", runs=searched.folder.parent))
        assert (request.data, space.name, space.member_names) == ("digits", "edge-fine", MEMBERS)
        assert [one.fingerprint for one in space.start] == [eight.fingerprint, nine.fingerprint]
        assert joined_file.parse(parse_yaml(text)).hash == space.hash
        assert planning._start(space).splitlines() == ["after the stock models:", eight.summary, nine.summary]

    def test_refined_space_keeps_the_stock_models_that_are_the_bar(
        self, searched: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        eight = next(one for one in searched.records() if one.member == "eightn" and one.role != "stock")
        monkeypatch.setattr(Study, "front", lambda *_: [eight, *stocks_of(searched.records())])
        space = refinement.resolve_space(Request(refine="edge", runs=searched.folder.parent))[1]
        assert [len(member.slots) for member in space.members] == [1, 0]
        asked: dict[str, Any] = {"from_scratch": True, "trials": 8, "device": "cpu", "workers": 1}
        fine = Plan.of(Request(refine="edge", runs=searched.folder.parent, **asked)).begin()
        assert isinstance(fine.searched, JoinedSpace)
        assert fine.searched.closed == {"ninet"}
        running.supervise(fine)
        proposed = [one for one in fine.records() if one.finished and not one.role]
        assert proposed
        assert {one.member for one in proposed} == {"eightn"}

    def test_refined_space_of_one_member_is_its_own(self, searched: Study) -> None:
        space = refinement.resolve_space(Request(refine="edge", runs=searched.folder.parent))[1]
        assert space.short_name == "nine-finet"
        assert space.start

    def test_stock_models_alone_are_not_refined(self, searched: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Study, "front", lambda *_: stocks_of(searched.records()))
        with pytest.raises(SpecError, match="nothing was found but stock models"):
            refinement.resolve_space(Request(refine="edge", runs=searched.folder.parent))

    def test_further_search_is_not_predicted(self, searched: Study) -> None:
        other = Study.open(searched.folder)
        other.folder = searched.folder.with_name("other")
        where = f"--runs {searched.folder.parent}"
        with pytest.raises(StudyError) as refused:
            trust_in_further([searched, other])
        assert str(refused.value) == (
            "edge: a further search is predicted from its one stock model, and this one has several; ask each search "
            f"alone: nas trust edge {where}, nas trust other {where}"
        )

    def test_slots_of_a_trial_are_judged_beside_the_stock_model_of_its_member(self, searched: Study) -> None:
        one = next(one for one in searched.records() if one.member == "eightn" and one.role != "stock")
        plan = AblationPlan.of(searched, trial=one.trial, seeds=2)
        assert plan.models[0] == searched.space.stocks[0]
        after = plan.begin()
        running.supervise(after)
        ablation = searched.ablation(one.trial)
        assert ablation is not None
        assert ablation.whole is not None
        assert ablation.whole.difference == pytest.approx(5.0, abs=0.1)

    def test_stock_model_of_a_member_is_not_ablated(self, searched: Study) -> None:
        with pytest.raises(StudyError, match=r"^trial 1 of edge is the stock model"):
            AblationPlan.of(searched, trial=1)


class TestCosts:
    def test_cost_is_that_in_the_member(self, joined: JoinedSpace) -> None:
        whole = space_costs.table(joined, 2, 64)
        for member in joined.members:
            assert whole.cost(member.stock) == cost.table(member, 2, 64).cost(member.stock)
            assert whole.of_member(member.stock) is cost.table(member, 2, 64)

    def test_space_of_one_member_has_its_own_table(self, joined: JoinedSpace) -> None:
        member = joined.members[0]
        assert space_costs.table(member, 2, 64) is cost.table(member, 2, 64)

    def test_extremes_bound_the_members(self, joined: JoinedSpace) -> None:
        def params(layer: LayerCost) -> int:
            return layer.params

        whole = space_costs.table(joined, 2, 64)
        ends = [whole.extreme(params, cheapest=cheapest) for cheapest in (True, False)]
        every = [whole.cost(one).params for one in joined.every()]
        assert tuple(whole.cost(one).params for one in ends) == (min(every), max(every))
        assert whole.reach(params) == (min(every), max(every))


class TestEncoding:
    @pytest.fixture
    def encoding(self, joined: JoinedSpace) -> Encoding:
        table = space_costs.table(joined, 2, 64)
        ends = [table.extreme(lambda layer: layer.macs, cheapest=cheapest) for cheapest in (True, False)]
        return Encoding(joined, ends, lambda one: {"gflops": table.cost(one).gflops}, ("gflops",))

    def shared(self, encoding: Encoding, left: Architecture, right: Architecture) -> float:
        rows = encoding.of([left, right]).features.categorical
        return float(rows[0] @ rows[1])

    def test_equal_architectures_share_all(self, encoding: Encoding, joined: JoinedSpace) -> None:
        assert [self.shared(encoding, one, one) for one in joined.every()] == pytest.approx([1.0] * joined.size)

    def test_architectures_of_two_members_share_operators_by_region(
        self, encoding: Encoding, joined: JoinedSpace
    ) -> None:
        eight, nine = joined.members
        uib, other = Choice.of("UIB", {}), Choice.of("DynamicConv", {"kernels": 2})
        alike = self.shared(encoding, eight.of({"4": uib}), nine.of({"4": uib}))
        unlike = self.shared(encoding, eight.of({"4": uib}), nine.of({"4": other}))
        assert unlike == 0 < alike < 0.5
        assert self.shared(encoding, eight.stock, nine.stock) == 0  # how accurate each is, has to be seen

    def test_member_without_scores_is_predicted_with_less_certainty(
        self, encoding: Encoding, joined: JoinedSpace
    ) -> None:
        eight, nine = ([one for one in joined.every() if joined.member_name(one) == name] for name in MEMBERS)
        scores = np.array([0.4 + 0.01 * (number % 5) for number in range(len(eight) - 1)])
        surrogate = Surrogate.fit(encoding.of(eight[1:]).features, scores, 0.003)
        (of_eight, *_), of_nine = (surrogate.predict(encoding.of(some).features)[1] for some in (eight, nine))
        assert of_nine.min() > of_eight

    def test_member_counts_whole_where_there_are_no_slots(self) -> None:
        names = "v8n,v9t"
        space, _ = refinement.stock_models(joined_file.load(names), joined_file.text(names))
        row, other = (categories_of(space).of(stock) for stock in space.stocks)
        assert (list(row.values()), list(other.values())) == ([1.0], [1.0])
        assert row.keys().isdisjoint(other)

    def test_a_member_is_nearer_to_itself(self, encoding: Encoding, joined: JoinedSpace) -> None:
        eight, nine = joined.members
        uib = Choice.of("UIB", {})
        within = self.shared(encoding, eight.stock, eight.of({"4": uib}))
        assert within > self.shared(encoding, eight.stock, nine.of({"4": uib}))


def record(trial: int, member: str, accuracy: float, gflops: float, role: str = "") -> Record:
    return Record(
        trial=trial,
        state="complete",
        ending="finished",
        map50_95=accuracy,
        map50=accuracy,
        gflops=gflops,
        params=1000,
        fingerprint=f"{trial:012d}",
        picks={},
        member=member,
        role=role,
    )


BEST = "v9t's, 0.550 at 7.00 GFLOPs"


class TestStockFront:
    COMMANDS: ClassVar = {"confirm": "nas confirm edge", "pareto": "nas pareto edge"}
    STOCKS = (record(0, "v8n", 0.50, 8.0, "stock"), record(1, "v9t", 0.55, 7.0, "stock"))

    def test_reference_is_the_most_accurate_stock_model(self) -> None:
        assert stocks_of(self.STOCKS) == list(self.STOCKS)
        assert stock_of(self.STOCKS) == self.STOCKS[1]

    @pytest.mark.parametrize(
        ("found", "sentence"),
        [
            (
                record(2, "v9t", 0.57, 7.5),
                f"no stock model of these is as accurate at 7.50 GFLOPs: +0.020 over the best one ({BEST})",
            ),
            (
                record(2, "v8n", 0.53, 8.5),
                f"beats its own stock model only; at 8.50 GFLOPs another is as accurate ({BEST})",
            ),
            (record(2, "v9t", 0.54, 7.0), f"a stock model of these is as accurate at 7.00 GFLOPs ({BEST})"),
            (
                record(2, "v9t", 0.40, 6.0),
                f"every stock model of these costs more than its 6.00 GFLOPs: -0.150 over its own ({BEST})",
            ),
        ],
    )
    def test_models_are_compared_at_equal_cost(self, found: Record, sentence: str) -> None:
        (bar,) = stock_front.bars([found], self.STOCKS, "gflops")
        assert bar.sentence == f"trial 2: {sentence}"

    def test_findings_name_the_most_accurate_models(self) -> None:
        front = [*self.STOCKS, *(record(2 + n, "v8n", 0.56 + n / 100, 8.0 + n) for n in range(5))]
        found = stock_front.findings(front, self.STOCKS, "gflops", **self.COMMANDS)
        assert [text.partition(":")[0] for text in found[:3]] == ["trial 6", "trial 5", "trial 4"]
        assert found[3:] == [
            "2 more models of the front: nas pareto edge --format json",
            "scores are those of one short training each: no verdict (nas confirm edge)",
        ]

    def test_front_of_stock_models_alone_is_said(self) -> None:
        found = stock_front.findings(self.STOCKS, self.STOCKS, "gflops", **self.COMMANDS)
        assert found == ["Nothing that was tried is on the front beside the stock models."]


class TestCommands:
    @pytest.fixture
    def searched(self, make: Make, run: Run) -> Study:
        study = make(trials=10)
        run(study)
        study.records()
        study.save_records()
        return Study.open(study.folder)

    def test_member_is_a_column(self, searched: Study) -> None:
        runs = ("--runs", searched.folder.parent)
        rows = json.loads(nas("trials", "edge", *runs, "--format", "json"))
        assert list(rows[0]) == [*COLUMNS, "member"]
        assert {row["member"] for row in rows} == set(MEMBERS)
        (first, *_) = csv.DictReader(io.StringIO(nas("trials", "edge", *runs, "--format", "csv")))
        assert first["member"] == "eightn"
        assert set(searched.trials()["member"]) == set(MEMBERS)

    def test_front_is_compared_with_the_stock_models(self, searched: Study) -> None:
        runs = ("--runs", searched.folder.parent)
        printed = CliRunner().invoke(app, ["pareto", "edge", "--runs", str(searched.folder.parent)]).output
        assert "eightn stock: mAP50-95" in printed
        assert "ninet stock: mAP50-95" in printed
        rows = json.loads(nas("pareto", "edge", *runs, "--format", "json"))
        stocks = {one.trial: one for one in stocks_of(searched.records())}
        for row in rows:
            bar = max(
                (one for one in stocks.values() if one.gflops <= row["gflops"]),
                key=lambda one: one.map50_95 or 0.0,
                default=None,
            )
            values = bar and {name: getattr(bar, name) for name in ("trial", "member", "map50_95", "gflops")}
            assert row["bar"] == values
            if row["trial"] in stocks:
                assert (row["best_stock"], row["over_best_stock"], row["beside_stock_models"]) == (None, None, None)
            else:
                assert row["best_stock"] == (bar and bar.trial)
                assert row["beside_stock_models"].startswith(f"trial {row['trial']}: ")

    def test_tables_say_whose_stock_model_is_meant(self, searched: Study) -> None:
        printed = nas("pareto", "edge", "--runs", searched.folder.parent).splitlines()[1]
        assert "over own stock" in printed
        assert "of own stock" in printed
        records = searched.records()
        columns, _ = front_table(records, records[:3], "gflops", {2: ("+1.0 (0.5 to 1.5) beside ninet", "better")})
        assert columns[2:4] == ("points over own stock", "fresh seeds: points over stock at its cost")
        assert "of own stock" in columns

    def test_records_are_read_from_their_file(self, searched: Study) -> None:
        stored = searched.record_file.read()
        assert [stored[number].member for number in sorted(stored)] == [one.member for one in searched.records()]

    def test_status_names_the_space(self, searched: Study) -> None:
        (row,) = json.loads(nas("status", "edge", "--runs", searched.folder.parent, "--format", "json"))
        assert row["space"] == "edge"
