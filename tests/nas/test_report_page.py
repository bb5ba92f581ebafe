"""A report is one page that shows a study without a network, whatever its names are."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from plotly import graph_objects
from typer.testing import CliRunner

from nas.algorithms.paired_comparison import Finding
from nas.cli import app
from nas.records.record import Record
from nas.records.trial_attributes import ARCHITECTURE
from nas.report.effects import Effect, Significance
from nas.report.further_seeds import FurtherSeeds
from nas.report.page import (
    charts,
    colours,
    conditions,
    gathering,
    network,
    recommended,
    trust_list,
    verdict_table,
)
from nas.report.page.contents import Contents
from nas.report.page.gathering import gather
from nas.report.page.page import render
from nas.report.verdict import CheapestStock, JudgedFinalist, LeftOut, OwnStock, Verdict
from nas.study.folders import command
from nas.study.study import Study
from search_spaces import load, operators
from search_spaces.errors import SpecError
from trials.scores import Epoch

FINALIST = JudgedFinalist(
    trial=2,
    fingerprint="2",
    summary="UIB 4",
    finding=Finding.BETTER,
    difference=1.5,
    low=0.5,
    high=2.0,
    seed_error=0.3,
    image_error=None,
    p_better=0.01,
    p_worse=1.0,
    p_equivalent=1.0,
    map50_95_by_seed=(0.41, 0.42),
    search_difference=3.0,
    cost="gflops",
    cost_change=-0.1,
    margin=0.5,
    further=None,
)
VERDICT = Verdict(
    study="mine",
    seeds=(1, 2),
    planned=2,
    unfinished=0,
    look=1,
    epochs=3,
    epochs_of_search=3,
    margin=0.5,
    stock_map50_95=0.4,
    stock_map50_95_by_seed=(0.4, 0.4),
    finalists=(FINALIST,),
    left_out=(),
)


@pytest.fixture(scope="module")
def study(
    extract_golden: Callable[[str, Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
    vocabulary_of_module: None,  # noqa: ARG001 - the study has an operator of a user's file
) -> Study:
    return Study.open(extract_golden("2026-11", tmp_path_factory.mktemp("golden")) / "runs" / "golden-data")


@pytest.fixture(scope="module")
def contents(study: Study) -> Contents:
    return gather(study)


class Elements(HTMLParser):
    """Collects addresses that a browser would load, ids, and the text of elements that hold data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag in {"link", "iframe", "object", "embed"}:
            self.addresses.append(tag)
        self.addresses += [value for name in ("src", "href") if (value := values.get(name))]


class TestClock:
    """When a search began and ended; its trainings on several workers take another time."""

    def test_is_that_of_the_trials(self, make_study: Callable[..., Study]) -> None:
        study = make_study(trials=2)
        assert gathering._clock(study, study.records()) == "no trial has begun"
        for start, end in ((20, 22), (21, 23)):
            began, ended = (datetime(2026, 11, 28, hour) for hour in (start, end))  # noqa: DTZ001 - as Optuna
            stock = {ARCHITECTURE: {"picks": {}, "summary": ""}}
            trial = optuna.trial.create_trial(values=[0.0, 0.0], user_attrs=stock)
            trial.datetime_start, trial.datetime_complete = began, ended
            study.optuna.add_trial(trial)
        text = "first trial began 2026-11-28 20:00, last one ended 2026-11-28 23:00: 3.0 h, pauses included"
        assert gathering._clock(study, study.records()) == text

    def test_has_no_end_while_a_trial_runs(self, study: Study) -> None:
        assert any(record.state == "running" for record in study.records())
        assert gathering._clock(study, study.records()).endswith("; the search runs, or was interrupted")


class TestPage:
    def test_everything_is_in_the_file(self, contents: Contents) -> None:
        page = render(contents)
        assert all(address.startswith("data:") for address in Elements(page).addresses)
        assert len(page.encode()) < 5_000_000
        assert "@import" not in page
        assert "url(" not in page.split("</style>")[0]

    def test_figures_are_values_that_a_browser_reads(self, contents: Contents) -> None:
        page = render(contents)
        text = re.search(r'<script id="figures" type="application/json">(.*?)</script>', page, re.DOTALL)
        assert text
        figures = json.loads(text[1])
        assert set(figures) == set(contents.charts)
        assert {"front", "curves"} <= set(figures) <= set(Elements(page).ids)

    def test_texts_are_escaped(self, contents: Contents) -> None:
        hostile = "</script><script>alert(1)</script>"
        chart = replace(contents.charts["front"], figure={"data": [{"name": hostile}], "layout": {}})
        member = replace(contents.members[0], summary=hostile, reasons=(hostile,), commands={hostile: hostile})
        changed = replace(
            contents,
            study=hostile,
            findings=[hostile],
            judged=((hostile,), [(hostile,)]),
            remarks=[hostile],
            basis=[(hostile, hostile)],
            problems={"samples": hostile, "ablation of trial <script>": hostile},
            ablations=[[hostile, hostile]],
            about={hostile: hostile},
            reproduce=hostile,
            conditions={hostile: hostile},
            front=[(hostile,)],
            members=[member],
            charts={"front": chart},
            endings=[(hostile, 1, hostile)],
        )
        assert "<script>alert" not in render(changed)

    def test_no_line_ends_within_an_option(self, contents: Contents) -> None:
        page = render(replace(contents, trust=["budget: --base-epochs 6 <b>--epochs</b> 3, a--b", "nas trust mine"]))
        options = '<span class="option">--base-epochs</span> 6 &lt;b&gt;<span class="option">--epochs</span>'
        assert f"<p>budget: {options}&lt;/b&gt; 3, a--b</p>" in page
        assert "<p>nas trust mine</p>" in page

    def test_no_line_ends_within_an_operator(self, contents: Contents) -> None:
        page = render(replace(contents, front=[("1", "UIB 3, 4 · SE 9")]))
        assert '<td><span class="operator">UIB 3, 4 ·</span> <span class="operator">SE 9</span></td>' in page

    def test_front_and_stock_model_are_rows(self, contents: Contents) -> None:
        assert [row[0] for row in contents.front] == ["2", "0"]
        assert contents.front[0][2] == "+0.7"
        assert contents.front[1][-1] == "stock"

    def test_a_model_is_recommended_once_with_all_reasons(self, contents: Contents) -> None:
        assert [(member.trial, member.reasons) for member in contents.members] == [
            (2, ("most accurate", "best compromise", "cheapest"))
        ]

    @pytest.mark.parametrize(
        ("finding", "cost_change", "reasons"),
        [
            (Finding.BETTER, 0.1, {1: "better than stock by the verdict"}),
            (Finding.EQUIVALENT, -0.1, {1: "as accurate as stock by the verdict, and cheaper"}),
            (Finding.EQUIVALENT, 0.1, {}),
            (Finding.EQUIVALENT, None, {}),
            (Finding.UNDECIDED, -0.1, {}),
        ],
    )
    def test_what_the_verdict_supports_is_recommended(
        self, study: Study, finding: Finding, cost_change: float | None, reasons: dict[int, str]
    ) -> None:
        verdict = replace(VERDICT, finalists=(replace(FINALIST, trial=1, finding=finding, cost_change=cost_change),))
        shown = recommended.members(study, study.records(), study.front(), verdict)
        others = {2: "most accurate"}
        assert {member.trial: member.reasons[0] for member in shown} == reasons | others

    @pytest.mark.parametrize(
        ("finding", "reason"),
        [
            (Finding.BETTER, "better than the stock models that cost no more by the verdict"),
            (Finding.EQUIVALENT, "as accurate as the stock model of v9s by the verdict, and cheaper"),
        ],
    )
    def test_what_the_verdict_supports_among_several_stock_models_says_so(
        self, study: Study, finding: Finding, reason: str
    ) -> None:
        verdict = replace(VERDICT, finalists=(replace(FINALIST, trial=1, finding=finding, stock="v9s"),))
        assert recommended.members(study, study.records(), study.front(), verdict)[0].reasons[0] == reason

    @pytest.mark.parametrize(
        ("unfinished", "planned", "advised"),
        [
            (0, 2, {"Judge the front with more seeds": " --seeds 5"}),  # as its verdict: 5 or more are safer
            (0, 5, {}),
            (3, 5, {"Train the fresh seeds that are left": ""}),
        ],
    )
    def test_page_advises_as_many_seeds_as_its_verdict(
        self, study: Study, unfinished: int, planned: int, advised: dict[str, str]
    ) -> None:
        commands = gathering._commands(study, replace(VERDICT, unfinished=unfinished, planned=planned))
        confirm = command("confirm", study.folder)
        expected = {name: f"{confirm}{seeds}" for name, seeds in advised.items()}
        assert {name: text for name, text in commands.items() if "seeds" in name} == expected

    def test_finalists_have_their_fresh_scores_in_the_table(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(study, "verdict", lambda **_: VERDICT)
        monkeypatch.setattr(recommended, "samples", lambda *_: [])
        judged = gather(study)
        assert judged.findings == [VERDICT.headline]
        rows = [dict(zip(judged.columns, row, strict=True)) for row in judged.front]
        assert [(row["fresh seeds: points over stock"], row["verdict"]) for row in rows] == [
            ("+1.5 (0.5 to 2.0)", "better"),
            ("", ""),
        ]
        assert judged.judged[1] == [("2", "+1.5", "0.5 to 2.0", "90.0%", "better", "UIB 4")]

    def test_architectures_have_each_operator_before_its_layers(self, contents: Contents) -> None:
        space = load("v9")
        picked = space.with_choice(space.stock, space.slots[0], space.slots[0].nearest("DCNv4", {"groups": 2}))
        assert picked.summary(with_parameters=True) == "DCNv4 2 (groups=2)"
        assert space.stock.summary(with_parameters=True) == "stock"
        assert re.match(r"(FasterBlock|UIB) \d+", contents.members[0].summary)

    def test_images_show_both_models(self, contents: Contents) -> None:
        assert contents.problems == {}
        captions = [caption for sample in contents.samples for caption in sample.captions]
        assert len(captions) == 8
        assert all(
            re.search(r"(stock, trial 0|trial 2): \d+ of \d+ objects? found, \d+ false$", one) for one in captions
        )
        assert all(
            url.startswith("data:image/jpeg;base64,/9j/") for sample in contents.samples for url in sample.pictures
        )

    def test_data_set_is_counted(self, contents: Contents) -> None:
        assert re.search(r": \d+ \+ \d+ images, \d+ \+ \d+ boxes, \d+ class", contents.about["data"])

    def test_what_determines_the_scores_is_shown(self, contents: Contents, study: Study) -> None:
        assert contents.reproduce.startswith(f"nas reproduce {study.name} ")
        assert contents.reproduce.endswith(" --trial 2")
        assert list(contents.conditions) == ["space", "seed", "data", "device", "code", "versions"]
        assert study.settings.data_fingerprint in contents.conditions["data"]
        assert re.search(r"python 3\.\d+.*, ultralytics 8\.", contents.conditions["versions"])
        page = render(contents)
        assert "<h2>How to reproduce</h2>" in page
        assert contents.conditions["versions"] in page

    def test_trials_of_machines_that_differ_are_told_apart(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        found = iter([{"device": "EPYC", "threads": 1}, {"device": "Xeon", "threads": 1}])
        monkeypatch.setattr(conditions, "_provenance", lambda *_: next(found, {}))
        shown = conditions.conditions(study, study.records())
        assert re.fullmatch(r"EPYC, .*: 1; Xeon, .*: 1", shown["device"])
        assert "versions" not in shown

    def test_ablations_are_shown(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        class Ablated:
            def lines(self) -> list[str]:
                return ["Trial 2, slot by slot", "slot 7: worth 1.2 points"]

        monkeypatch.setattr(gathering, "ablated_trials", lambda _: [2])
        monkeypatch.setattr(study, "ablation", lambda _: Ablated())
        page = render(gather(study))
        assert "<h2>Trial 2, slot by slot</h2>" in page
        assert "Slot 7: worth 1.2 points" in page

    def test_what_cannot_be_read_is_named(self, study: Study) -> None:
        weights = study.files(2).weights
        hidden = weights.with_suffix(".hidden")
        weights.rename(hidden)
        try:
            problems = gather(study).problems
        finally:
            hidden.rename(weights)
        assert problems == {"samples": "trials/0002/weights.pt is not there (nas clean removes weights)"}
        page = render(replace(gather(study), problems=problems))
        assert "<h2>Detections</h2>" in page
        assert "Not shown: detections: trials/0002/weights.pt is not there" in page

    def test_a_study_without_trials_has_a_report(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(study, "records", list)
        empty = gather(study)
        assert empty.findings == ["No trial has finished yet."]
        assert "No trial has finished yet." in render(empty)


class TestVerdictTable:
    """A verdict is a sentence and a table."""

    UNTOLD = replace(
        FINALIST,
        trial=5,
        finding=Finding.UNDECIDED,
        difference=-0.04,
        low=-1.0,
        high=0.9,
        further=FurtherSeeds(seeds=None, points=0.5, seconds=None),
    )
    EQUAL = replace(UNTOLD, trial=7, finding=Finding.EQUIVALENT, further=None)

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({}, "Trial 2 is better than the stock model, by 1.5 points (0.5 to 2.0)"),
            (
                {"finalists": (replace(FINALIST, stock="v9s"), replace(FINALIST, trial=3)), "stocks": 2},
                "Trial 2 is better than the stock models that cost no more, by 1.5 points (0.5 to 2.0), 1 other too",
            ),
            (
                {"finalists": (UNTOLD, UNTOLD)},
                "None of the 2 finalists is better than the stock model, as far as 2 seeds tell",
            ),
            (
                {"finalists": (UNTOLD,)},
                "Trial 5, the only finalist, is not better than the stock model, as far as 2 seeds tell",
            ),
            (
                {"finalists": (EQUAL,)},
                (
                    "Trial 7, the only finalist, is not better than the stock model, as far as 2 seeds tell; "
                    "trial 7 is as accurate, with 10.0 % fewer GFLOPs"
                ),
            ),
            ({"unfinished": 3}, "No verdict yet: 3 trainings with fresh seeds to go"),
            ({"reason": "no seed is complete", "finalists": ()}, "No verdict on mine: no seed is complete"),
            (
                {
                    "finalists": (replace(UNTOLD, member="v9s"),),
                    "cheapest": CheapestStock(trial=0, member="v9t", fingerprint="0", map50_95_by_seed=(0.4, 0.4)),
                },
                "Take v9t: none that costs more is better than all cheaper ones; v9t, the cheapest, has mAP50-95 0.400",
            ),
        ],
    )
    def test_headline_is_one_sentence(self, changes: dict[str, Any], sentence: str) -> None:
        assert replace(VERDICT, **changes).headline == sentence

    def test_what_is_said_of_several_finalists_is_said_once(self) -> None:
        own = OwnStock(member="v9t", finding=Finding.BETTER, difference=1.0, low=0.5, high=1.5)
        gone = LeftOut(trial=9, fingerprint="9", summary="SE 9", reason="no score")
        several = (self.UNTOLD, replace(self.UNTOLD, trial=6, stock="v9s", own=own), self.EQUAL)
        verdict = replace(VERDICT, finalists=several, left_out=(gone,))
        assert verdict_table.fresh_cells(verdict)[6][0] == "-0.04 (-1.00 to 0.90) beside v9s"
        columns, rows = verdict_table.verdict_table(verdict)
        assert columns == (
            *("trial", "beside stock of", "points over it", "95 % interval", "GFLOPs of it", "verdict", "architecture"),
        )
        assert rows[1] == ("6", "v9s", "-0.04", "-1.00 to 0.90", "90.0%", "not told apart", "UIB 4")
        assert rows[3] == ("9", "", "", "", "", "left out: no score", "SE 9")
        said = verdict_table.remarks(verdict)
        assert "trials 5 and 6: 0.5 points cannot be told with a sensible number of seeds (at most 20)" in said
        assert "trial 6: it beats its own stock model only (v9t: +1.0 points, 0.5 to 1.5)" in said

    def test_without_finalists_there_is_no_table(self) -> None:
        gone = LeftOut(trial=9, fingerprint="9", summary="SE 9", reason="no score")
        verdict = replace(VERDICT, finalists=(), left_out=(gone,), reason="no finalist has a score")
        assert verdict_table.verdict_table(verdict) == ((), [])
        assert verdict_table.remarks(verdict) == ["trial 9: left out, no score"]


def test_what_is_known_of_a_ranking_has_headings_for_all_names(contents: Contents, study: Study) -> None:
    trust = study.trust_beside(None, study.records())
    assert {name for name, _ in trust.parts()} <= set(trust_list.HEADINGS)
    headings = dict(contents.basis)
    assert headings["Ranking"] == trust.basis
    assert "noise" not in headings
    assert headings["Advised for another search"].startswith(("--", "longer", "at least", "as it is"))


class TestNetwork:
    @pytest.mark.parametrize("name", ["v5", "v8", "v9", "v10", "v11", "v12", "v26"])
    def test_every_layer_is_a_box(self, name: str) -> None:
        space = load(name)
        document = space.stock.document(3)
        drawn = network.drawing(document, 3, title="<stock>")
        assert drawn.count("<rect") == len(document["backbone"]) + len(document["head"])
        assert drawn.count('class="stock"') == drawn.count("<rect")
        assert "&lt;stock&gt;" in drawn

    def test_names_are_whole(self) -> None:
        drawn = network.drawing(load("v9").stock.document(3), 3, title="")
        texts = re.findall(r"<text style[^>]*>([^<]*)</text>", drawn)
        assert {"RepNCSPELAN4", "Upsample", "Detect"} <= set(texts)

    @pytest.mark.parametrize(
        ("name", "lines"),
        [
            ("RepNCSPELAN4", ["RepNCSPELAN4"]),
            ("ContextGuidedAttentionBlock", ["ContextGuided", "AttentionBlock"]),
            ("MANYCAPITALSINAROW", ["MANYCAPITALSINAROW"]),
        ],
    )
    def test_a_long_name_has_smaller_type_and_two_lines(self, name: str, lines: list[str]) -> None:
        assert network._lines(name) == lines
        assert all(network._size(line) < network._LARGEST for line in lines)

    def test_boxes_do_not_overlap(self) -> None:
        document = load("v9").stock.document(3)
        found = re.findall(
            r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', network.drawing(document, 3, title="")
        )
        boxes = [tuple(map(int, one)) for one in found]
        for index, (x, y, width, height) in enumerate(boxes):
            for other_x, other_y, other_width, other_height in boxes[index + 1 :]:
                is_apart_x = x + width <= other_x or other_x + other_width <= x
                is_apart_y = y + height <= other_y or other_y + other_height <= y
                assert is_apart_x or is_apart_y

    def test_operators_have_their_colours_and_parameters(self, contents: Contents) -> None:
        drawn = contents.members[0].drawing
        assert 'class="op-FasterBlock"' in drawn
        assert 'class="op-UIB"' in drawn
        assert "expansion" in drawn


class TestColours:
    def test_every_operator_of_the_package_has_one_of_its_own(self) -> None:
        packaged = {record.name for record in operators._RECORDS}
        assert len({colours.colour_of(name) for name in packaged}) == len(packaged)

    def test_that_of_a_user_is_by_name(self, contents: Contents) -> None:
        assert colours.colour_of("Mine") == colours.colour_of("Mine") != colours.colour_of("Yours")
        assert network.style("FasterBlock") in render(contents)


class TestCharts:
    def effect(self, verdict: Significance, points: float) -> Effect:
        return Effect(
            slot="4",
            layers=(4, 6),
            operator="UIB",
            effect_points=points,
            lower_points=points - 1,
            upper_points=points + 2,
            verdict=verdict,
            trials=3,
            gflops_percent_least=-4.0,
            gflops_percent_most=-2.0,
            latency_percent_least=None,
            latency_percent_most=None,
        )

    def test_effects_have_their_intervals(self) -> None:
        figure = charts.effects_chart([self.effect(Significance.BETTER, 1.5), self.effect(Significance.WORSE, -3.0)])
        assert figure is not None
        better = figure.data[0]
        assert (better.name, list(better.x), better.y[0]) == ("better", [1.5], "UIB 4, 6")
        assert (list(better.error_x.array), list(better.error_x.arrayminus)) == ([2.0], [1.0])
        assert charts.effects_chart([]) is None

    def test_confirmed_finalists_have_their_intervals(self) -> None:
        records = [
            Record(
                trial=n, state="complete", ending="finished", gflops=8.0 - n, picks={}, fingerprint=str(n), role=role
            )
            for n, role in ((0, "stock"), (2, ""))
        ]
        figure = graph_objects.Figure()
        charts.add_confirmed(figure, VERDICT, records, ("gflops", "map50_95"))
        finalists, stock = figure.data
        assert [one.name for one in figure.data] == ["fresh seeds", "stock, fresh seeds"]
        assert (list(finalists.x), list(stock.x)) == ([6.0], [8.0])
        assert list(finalists.y) == pytest.approx([0.415])
        assert list(stock.y) == pytest.approx([0.4])
        assert list(finalists.error_y.array) == pytest.approx([0.005])
        assert list(finalists.error_y.arrayminus) == pytest.approx([0.01])
        assert all("2 fresh seeds, on the images that the search chose by" in one.hovertext[0] for one in figure.data)
        charts.add_confirmed(figure, VERDICT, records, ("gflops", "map50"))
        assert len(figure.data) == 2

    def test_curves_are_sums_of_losses(self) -> None:
        epochs = [
            Epoch(epoch=number, losses={"box": 2.0 / number, "cls": 1.0}, map50_95=None, map50=None, seconds=1.0)
            for number in (1, 2)
        ]
        figure = charts.learning_curves({"trial 1": epochs, "trial 2": epochs[:1]})
        assert figure is not None
        assert [(line.name, list(line.y)) for line in figure.data] == [("trial 1", [3.0, 2.0])]
        assert charts.learning_curves({"trial 2": epochs[:1]}) is None

    def test_curves_of_the_front_lie_above_the_others(self) -> None:
        epochs = [Epoch(epoch=at, losses={"box": 1.0}, map50_95=None, map50=None, seconds=1.0) for at in (1, 2)]
        figure = charts.learning_curves({"trial 0 (stock)": epochs, "trial 1": epochs}, beside=["trial 0 (stock)"])
        assert figure is not None
        below, above = figure.data
        assert (below.name, above.name) == ("trial 0 (stock)", "trial 1")
        assert below.line.width < above.line.width

    def test_accuracies_are_drawn_of_trainings_that_were_validated_twice(self) -> None:
        epochs = [
            Epoch(epoch=number, losses={"box": 1.0}, map50_95=score, map50=None, seconds=1.0)
            for number, score in ((1, 0.1), (2, None), (3, 0.3))
        ]
        figure = charts.accuracy_curves({"trial 1": epochs, "trial 2": epochs[1:]})
        assert figure is not None
        assert [(line.name, list(line.x), list(line.y)) for line in figure.data] == [("trial 1", [1, 3], [0.1, 0.3])]
        assert charts.accuracy_curves({"trial 2": epochs[1:]}) is None

    def test_latency_is_compared_with_gflops(self) -> None:
        latencies = [3.0, 1.0, 2.0, 4.0]
        records = [
            Record(
                trial=number,
                state="complete",
                ending="finished",
                map50_95=0.4,
                gflops=1.0 + number,
                latency_ms=latency,
                picks={},
                fingerprint=str(number),
                role="" if number else "stock",
            )
            for number, latency in enumerate(latencies)
        ]
        found = charts.latency_chart(records)
        assert found is not None
        assert found[1].startswith("GFLOPs and latency order 2 of 6 pairs differently")
        assert [(line.name, list(line.y)) for line in found[0].data] == [
            ("trial", latencies[1:]),
            ("stock model", latencies[:1]),
        ]
        assert charts.latency_chart([replace(one, latency_ms=None) for one in records]) is None
        records = [replace(records[0], measured_ms=2.0), replace(records[1], measured_ms=1.25), *records[2:]]
        found = charts.latency_chart(records)
        assert found is not None
        assert [(line.name, list(line.y)) for line in found[0].data] == [
            ("trial", latencies[1:]),
            ("stock model", latencies[:1]),
            ("measured after the search", [2.0, 1.25]),
        ]
        assert found[1].endswith(" Of 2 models that were measured, predictions miss by 35.0 % in the median.")


def test_command_writes_the_page(study: Study, tmp_path: Path) -> None:
    runs = ["--runs", str(study.folder.parent)]
    result = CliRunner().invoke(app, ["report", "golden-data", *runs, "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "page.html") in result.output
    assert "golden-data" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["report", "none", "--out"], "out"),
        (["compare", "none", "other", "--out"], "out"),
        (["latency", "export"], "file"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_any_work(
    command: list[str], name: str, tmp_path: Path
) -> None:
    missing = CliRunner().invoke(app, [*command, f"{tmp_path}/none/page.html"])
    assert missing.exit_code == 2
    line = f"{name}: no folder to write it to, got '{tmp_path}/none/page.html' (make {tmp_path}/none first)"
    assert missing.output == f"{line}\n"
    folder = CliRunner().invoke(app, [*command, str(tmp_path)])
    assert folder.output == f"{name}: a file is expected, got the folder '{tmp_path}' (name a file in it)\n"


def test_report_in_python_refuses_a_folder(study: Study, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^file: a file is expected, got the folder"):
        study.report(tmp_path)
