"""Studies of stock models alone: which is best at which cost, and which are not trained further."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nas.algorithms.dominance import rungs_of
from nas.cli import app
from nas.execution import worker
from nas.execution.enqueue import enqueue_extremes
from nas.execution.recovery import recover
from nas.execution.worker import Worker
from nas.records.front_figure import front_figure
from nas.records.record import Record, stock_of
from nas.report.page import recommended
from nas.report.page.page import page
from nas.report.search_findings import search_findings
from nas.report.stock_models import ordered
from nas.settings import RunSettings, Settings
from nas.study.creation import create
from nas.study.folders import default_storage
from nas.study.score_cache import ScoreCache
from nas.study.scoring import Scoring
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows import confirm as confirming
from nas.workflows import findings, running
from nas.workflows.ablate import AblationPlan
from nas.workflows.refinement import resolve_space, stock_models
from nas.workflows.request import Request
from nas.workflows.search_options import SMALLEST
from search_spaces import Architecture, joined_file
from search_spaces.errors import SpecError, StudyError
from search_spaces.yaml_text import parse_yaml
from trials import Budget, Costs, Ending, Epoch, Limits, Outcome, Scores
from trials.data import datasets

EPOCHS = 9
ACCURACIES = {"yolov5n": 0.86, "yolov9t": 0.90, "yolov8n": 0.10}
"""By base model, the cheapest first."""
STUDY = "v8n-v9t-v5n-stock"
NOISE = "differences up to 0.057 count as noise, of trainings from scratch on other data; it was not measured here"

Make = Callable[..., Study]
Trained = list[tuple[str, int]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))

    def making(name: str = STUDY, **changes: Any) -> Study:
        names = "v8n,v9t,v5n"
        space, text = stock_models(joined_file.load(names), joined_file.text(names))
        fields = {
            "space": space.name,
            "scale": "",
            "space_hash": space.hash,
            "members": space.member_names,
            "stock_only": True,
            "data": "digits",
            "data_fingerprint": "0",
            "classes": ("a", "b"),
            "budget": Budget(data=tmp_path / "data.yaml", epochs=EPOCHS, deploy_size=64, rungs=rungs_of(EPOCHS)),
        }
        folder = tmp_path / "runs" / name
        file = StudyFile(
            name=name,
            settings=Settings.model_validate({**fields, **changes}),
            run=RunSettings(trials=3, cache=False),
            storage=default_storage(folder),
            tracking="sqlite://",
            version="0",
        )
        return create(folder, file, text)

    return making


Run = Callable[..., Trained]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a worker in this process; return the base model of each training with its number of epochs."""

    def working(study: Study, accuracies: dict[str, float] = ACCURACIES) -> Trained:
        trained: Trained = []

        def scored(
            architecture: Architecture,
            budget: Budget,
            folder: Path,
            go_on: Callable[[int, Epoch], bool],
            *,
            limits: Limits,
            costs: Costs,
            **_: Any,
        ) -> Outcome:
            name = Path(architecture.base).stem.replace("{scale}", architecture.scale)
            if name not in accuracies:
                return Outcome(
                    architecture=architecture, ending=Ending.OUT_OF_MEMORY, detail="on the host: MemoryError"
                )
            if limits.gflops is not None and costs.gflops > limits.gflops:
                return Outcome(architecture=architecture, ending=Ending.OVER_LIMIT, costs=costs, detail="too much")
            epochs, ending, scores = list[Epoch](), Ending.FINISHED, None
            (folder / "model.yaml").write_text(architecture.to_yaml(2))
            (folder / "weights.pt").write_text("weights")
            for number in range(1, budget.epochs + 1):
                reached = accuracies[name] * number / budget.epochs
                epochs.append(Epoch(epoch=number, losses={}, map50_95=reached, map50=reached, seconds=0.1))
                if not go_on(number, epochs[-1]) and number < budget.epochs:
                    ending = Ending.STOPPED
                    break
            if ending is Ending.FINISHED:
                scores = Scores(map50_95=accuracies[name], map50=accuracies[name], costs=costs)
            trained.append((name, len(epochs)))
            return Outcome(architecture=architecture, ending=ending, costs=costs, scores=scores, epochs=tuple(epochs))

        monkeypatch.setattr(worker, "evaluate", scored)
        Worker(study, deadline=float("inf")).run()
        return trained

    return working


def stock_models_of(study: Study) -> list[Record]:
    return ordered(study.records())


def lines_of(study: Study) -> list[str]:
    records = study.records()
    stock = stock_of(records)
    assert stock is not None
    return search_findings(study, records, study.front(records), stock, None)


def test_models_are_trained_from_cheap_to_costly_until_one_is_dominated(make: Make, run: Run) -> None:
    study = make()
    enqueue_extremes(study, study.records())
    assert run(study) == [("yolov5n", 9), ("yolov9t", 9), ("yolov8n", 3)]
    records = study.records()
    assert [(one.member, one.role, one.ending) for one in records] == [
        ("v5n", "stock", "finished"),
        ("v9t", "stock", "finished"),
        ("v8n", "stock", "stopped"),
    ]
    assert records[2].detail == "after 3 epochs v9t leads by 0.267 mAP50-95 and costs no more"
    assert study.remaining_trials(records) == 0


def test_verdict_says_which_to_take_and_what_was_dropped(make: Make, run: Run) -> None:
    study = make()
    run(study)
    assert lines_of(study) == [
        "most accurate: v9t, mAP50-95 0.900 at 0.08 GFLOPs",
        "take v5n, mAP50-95 0.860 at 0.07 GFLOPs: the cheapest that is not told apart from v9t",
        "v8n was stopped after 3 of 9 epochs: after 3 epochs v9t leads by 0.267 mAP50-95 and costs no more",
        "21 epochs were trained, of 27 that all models in full would take",
        f"scores are those of one training each: {NOISE}",
        f"let fresh seeds judge them: nas confirm {STUDY} --runs {study.folder.parent}",
        f"export it with: nas export {STUDY} --runs {study.folder.parent} --trial 0",
    ]
    assert findings.findings_of(study).lines == tuple(lines_of(study))


def test_models_that_are_not_trained_yet_are_named(make: Make, run: Run) -> None:
    study = make()
    run(study)
    first, *others = study.records()
    records = [first, *(replace(one, state="waiting", ending=None, map50_95=None) for one in others)]
    line, *further = search_findings(study, records, [first], first, None)
    assert line == "not trained to an end yet: v9t, v8n; this is said of the others"
    assert further[:2] == ["most accurate: v5n, mAP50-95 0.860 at 0.07 GFLOPs", "take v5n: no cheaper one is there"]
    assert not any("epochs were trained" in line for line in further)


def test_models_stand_beside_no_stock_model(make: Make, run: Run) -> None:
    study = make()
    run(study)
    printed = CliRunner().invoke(app, ["trials", STUDY, "--runs", str(study.folder.parent)]).stdout
    assert "v9t: stock" in printed
    for shown in (printed, page(study)):
        assert "of stock" not in shown
        assert "over stock" not in shown


def test_figure_and_cards_of_the_report_name_the_models(make: Make, run: Run) -> None:
    study = make()
    run(study)
    records = study.records()
    drawn = front_figure(study.name, stock_models_of(study)[:2], study.front(records), study.settings.objectives)
    (stars,) = (trace for trace in drawn.data if trace.name == "stock model")
    assert list(stars.text) == ["v9t", "v5n"]
    cards = recommended.members(study, records, study.front(records), None)
    assert {one.summary for one in cards} == {"v9t: stock", "v5n: stock"}


@pytest.mark.parametrize(
    ("accuracies", "taken", "remark"),
    [
        (
            {"yolov5n": 0.3, "yolov9t": 0.5, "yolov8n": 0.6},
            "take v8n: cheaper ones are less accurate by more than noise",
            "on the front",
        ),
        ({"yolov5n": 0.6, "yolov9t": 0.58, "yolov8n": 0.58}, "take v5n: no cheaper one is there", "within noise"),
    ],
)
def test_model_is_chosen_by_accuracy_and_cost(
    make: Make, run: Run, accuracies: dict[str, float], taken: str, remark: str
) -> None:
    study = make()
    run(study, accuracies)
    assert lines_of(study)[1] == taken
    printed = CliRunner().invoke(app, ["pareto", STUDY, "--runs", str(study.folder.parent)]).stdout
    assert remark in printed


def test_model_that_fails_does_not_end_the_study(make: Make, run: Run) -> None:
    study = make()
    assert [name for name, _ in run(study, {"yolov5n": 0.5, "yolov8n": 0.6})] == ["yolov5n", "yolov8n"]
    (line,) = [line for line in lines_of(study) if line.startswith("v9t ")]
    assert line.startswith("v9t has no score: out_of_memory: on the host: MemoryError (")


def test_limits_hold_for_stock_models(make: Make, run: Run) -> None:
    study = make(limits=Limits(gflops=0.078))
    assert [name for name, _ in run(study)] == ["yolov5n", "yolov9t"]
    assert [one.ending for one in study.records()] == ["finished", "finished", "over_limit"]


def test_model_that_failed_later_dominates_nothing(make: Make, run: Run) -> None:
    study = make()
    run(study, {"yolov9t": 0.54})  # the cheapest has failed
    assert [one.ending for one in study.records()] == ["out_of_memory", "finished", "out_of_memory"]


def test_study_goes_on_where_it_stopped(make: Make, run: Run) -> None:
    study = make("killed")
    study.optuna.ask()  # by a worker that was killed
    recover(study)
    assert run(Study.open(study.folder)) == [("yolov5n", 9), ("yolov9t", 9), ("yolov8n", 3)]
    assert [one.member for one in stock_models_of(study)] == ["v9t", "v5n", "v8n"]


def test_all_models_are_printed(make: Make, run: Run) -> None:
    study = make()
    run(study)
    where = ["pareto", STUDY, "--runs", str(study.folder.parent)]
    rows = json.loads(CliRunner().invoke(app, [*where, "--format", "json"]).stdout)
    assert [(row["member"], row["on_front"], row["epochs"]) for row in rows] == [
        ("v9t", True, 9),
        ("v5n", True, 9),
        ("v8n", False, 3),
    ]
    assert rows[2]["finding"].startswith("stopped: after 3 epochs v9t leads")
    found = csv.DictReader(io.StringIO(CliRunner().invoke(app, [*where, "--format", "csv"]).stdout))
    assert [row["finding"] for row in found] == [row["finding"] for row in rows]
    assert "Take v5n" in page(study)


def test_searches_start_from_the_trained_weights(make: Make, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bool] = []

    def write(*_: Any, copy_weights: bool) -> None:
        written.append(copy_weights)

    study = make()
    monkeypatch.delenv("NAS_NO_CACHE", raising=False)
    monkeypatch.setattr(ScoreCache, "write", write)
    monkeypatch.setattr(ScoreCache, "read", lambda *_: None)
    study.set_run(RunSettings(trials=3))
    monkeypatch.setattr(Scoring, "_key", lambda *_: "key")
    run(Study.open(study.folder))
    assert written == [True, True, True]


class TestFreshSeeds:
    @pytest.fixture
    def searched(self, make: Make, run: Run, monkeypatch: pytest.MonkeyPatch) -> Study:
        monkeypatch.setattr(running, "supervise", lambda study, **_: run(study))
        monkeypatch.setattr(confirming, "_judging", lambda *_: None)
        study = make(data_fingerprint=datasets.load("digits").fingerprint)
        run(study)
        return study

    def nas(self, searched: Study, *arguments: str) -> str:
        return CliRunner().invoke(app, [*arguments, "--runs", str(searched.folder.parent)]).output

    def test_models_that_are_not_told_apart_from_the_front_are_judged(self, searched: Study) -> None:
        where = ["confirm", STUDY, "--runs", str(searched.folder.parent)]
        plan = json.loads(CliRunner().invoke(app, [*where, "--dry-run", "--format", "json"]).stdout)
        assert [one["member"] for one in plan["finalists"]] == ["v9t", "v5n"]
        printed = self.nas(searched, "confirm", STUDY, "--seeds", "2")
        assert f"confirm   2 stock models of {STUDY}: 2 fresh seeds (1000 to 1001), 9 epochs" in printed
        assert "v9t (trial 1): no stock model of these is as accurate at its cost: beside v5n better" in printed
        assert "take v9t (mAP50-95 0.900), or at less cost v5n" in printed
        after = Study.open(searched.folder.with_name(f"{STUDY}-confirm"))
        assert [(one.member, one.repeat) for one in after.records()] == [("v9t", 0), ("v5n", 0), ("v9t", 1), ("v5n", 1)]
        assert not after.settings.stock_only
        for study in (STUDY, after.name):
            printed = self.nas(searched, "pareto", study)
            assert "take v9t (mAP50-95 0.900)" in printed
            assert "export it with: nas export" in printed
        (row, *_) = json.loads(self.nas(searched, "pareto", STUDY, "--format", "json"))
        assert (row["member"], row["verdict"]["finding"]) == ("v9t", "better")
        assert "taken by the verdict" in page(searched)

    def test_all_are_compared_where_they_are_asked_for(self, searched: Study) -> None:
        assert len(confirming.ConfirmationPlan.of(searched, top=2).models) == 2
        with pytest.raises(StudyError, match="nothing to confirm, one model leads all others"):
            confirming.ConfirmationPlan.of(searched, top=1)

    def test_longer_trainings_show_whether_the_order_stays(self, searched: Study) -> None:
        printed = self.nas(searched, "confirm", STUDY, "--longer")
        assert f"the front of {STUDY}: 27 epochs instead of 9" in printed
        assert "The order stays within noise" in printed
        assert "over stock" not in printed

    def test_stock_models_have_no_ranking_of_candidates(self, searched: Study) -> None:
        with pytest.raises(StudyError, match="has stock models alone, and no ranking of candidates; fresh seeds judge"):
            searched.trust()

    def test_stock_models_are_not_refined(self, searched: Study) -> None:
        with pytest.raises(SpecError, match=r"has stock models alone.*nas search --space v9t,v5n searches around them"):
            resolve_space(Request(refine=STUDY, runs=searched.folder.parent))

    def test_stock_models_have_no_operators_to_estimate_effects_of(self, searched: Study) -> None:
        assert "has stock models alone, and no candidate for nas effects" in self.nas(searched, "effects", STUDY)

    def test_stock_models_are_not_ablated(self, searched: Study) -> None:
        with pytest.raises(StudyError, match="has stock models alone, and no candidate for nas ablate"):
            AblationPlan.of(searched, trial=0)


class TestRequest:
    def test_default_is_every_family_at_its_smallest_scale(self) -> None:
        _, space, text = resolve_space(Request(stock_only=True))
        assert ",".join(space.member_names) == SMALLEST
        assert [member.slots for member in space.members] == [()] * 7
        assert space.size == 7
        assert joined_file.parse(parse_yaml(text)).hash == space.hash

    def test_single_space_is_refused(self) -> None:
        with pytest.raises(SpecError, match=r"^stock-only: it compares several spaces, got v8n alone"):
            resolve_space(Request(stock_only=True, space="v8n"))

    @pytest.mark.parametrize(
        ("option", "instead"),
        [
            ({"epochs": 3}, "--epochs has no meaning (--base-epochs sets the length of the trainings)"),
            ({"base_epochs": 0}, "--base-epochs has no meaning (one epoch or more)"),
            ({"trials": 3}, "--trials has no meaning (leave it out)"),
            ({"refine": "study"}, "--refine has no meaning (leave it out)"),
        ],
    )
    def test_options_for_candidates_are_refused(self, option: dict[str, Any], instead: str) -> None:
        with pytest.raises(SpecError) as error:
            Request(stock_only=True, **option)
        assert error.value.mistakes == (f"stock-only: no candidates are trained, so {instead}",)
