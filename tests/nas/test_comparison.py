"""Two studies are compared where they can be, and otherwise it is named what keeps them apart."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas.algorithms.seed_noise import SeedNoise
from nas.cli import app
from nas.report import comparing
from nas.report.comparing import cost_obstacles, obstacles
from nas.report.comparison import ComparedModel, ComparedStudy, Comparison, SettingDifference
from nas.report.page.page import render_comparison
from nas.settings import Judging, Settings
from nas.study.study import Study
from trials import Budget


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        space="v9",
        scale="t",
        space_hash="0",
        data="digits",
        data_fingerprint="0",
        classes=("a", "b"),
        budget=Budget(data=tmp_path, epochs=20),
    )


def changed(settings: Settings, **fields: object) -> Settings:
    return settings.model_copy(update={"budget": settings.budget.model_copy(update=fields)})


class TestWhatCanBeCompared:
    def test_seeds_devices_and_folders_keep_nothing_apart(self, settings: Settings) -> None:
        other = changed(settings, seed=7, device="0", data=Path("/elsewhere"), timeout=5.0, rungs=(3,))
        assert obstacles(settings, other) == []
        assert cost_obstacles(settings, other, "gflops") == []

    def test_trainings_of_other_length_and_images_of_other_size_do(self, settings: Settings) -> None:
        other = changed(settings, epochs=60, image_size=320)
        assert obstacles(settings, other) == ["budget: epochs 20 and 60", "budget: image_size 128 and 320"]

    def test_other_data_and_other_starts_do(self, settings: Settings) -> None:
        other = settings.model_copy(update={"data_fingerprint": "1", "data": "mine.yaml", "base": settings.budget})
        assert obstacles(settings, other) == [
            "data: trained or validated on other images (digits and mine.yaml)",
            "weights: in one study candidates start from a trained stock model, in the other not",
        ]

    def test_costs_at_other_sizes_do_but_parameters_have_no_size(self, settings: Settings) -> None:
        other = changed(settings, deploy_size=320)
        assert cost_obstacles(settings, other, "gflops") == ["costs: counted at 640 and 320 px"]
        assert cost_obstacles(settings, other, "params") == []


CHOSEN = "scores of searches, each the best of many: no verdict before fresh seeds judge (nas confirm)"
NOISE = SeedNoise(deviation=0.5, low=0.3, high=0.9, degrees_of_freedom=8)


def comparison(*, noise: SeedNoise | None = NOISE, apart: tuple[str, ...] = ()) -> Comparison:
    def model(trial: int, accuracy: float, cost: float) -> ComparedModel:
        return ComparedModel(trial=trial, map50_95=accuracy, cost=cost, summary=f"architecture {trial}")

    first = ComparedStudy(
        name="a", members=(model(1, 0.5, 8.0), model(2, 0.4, 4.0)), stock=model(0, 0.38, 7.0), finished=9
    )
    second = ComparedStudy(name="b", members=(model(3, 0.45, 6.0),), stock=model(0, 0.39, 7.0), finished=4)
    return Comparison(
        studies=(first, second),
        cost="gflops",
        differences=(SettingDifference(setting="sampler", values=("ours", "</script><b>tpe")),),
        obstacles=apart,
        cost_obstacles=(),
        measure="nas trust a --measure",
        noise=noise,
    )


class TestMembers:
    def test_each_is_beside_the_best_that_costs_no_more(self) -> None:
        found = [(one.study, one.member.trial, one.other.trial if one.other else None) for one in comparison().beside()]
        assert found == [("a", 1, 3), ("a", 2, None), ("b", 3, 2)]
        assert [one.difference for one in comparison().beside()] == [pytest.approx(5.0), None, pytest.approx(5.0)]

    def test_lines_say_what_they_are_worth(self) -> None:
        assert comparison().lines() == [
            "stock model: mAP50-95 0.380 in a, 0.390 in b",
            "a: 2 of 2 members score higher than b at equal cost or less, 1 of them cheaper than any of b",
            "b: 1 of 1 members score higher than a at equal cost or less",
            f"{CHOSEN}; with so few seeds, true differences of 2.0 points show",
            "9 finished trials in a, 4 in b: the best of more scores is higher by chance",
        ]
        unmeasured = f"{CHOSEN}; noise between seeds is not measured (nas trust a --measure)"
        assert comparison(noise=None).lines()[3] == unmeasured

    def test_what_is_not_comparable_is_not_compared(self) -> None:
        apart = comparison(apart=("budget: epochs 20 and 60",))
        assert apart.beside() == []
        assert apart.lines()[:2] == ["Not comparable:", "  budget: epochs 20 and 60"]
        assert {row[4] for row in apart.cells()[1]} == {"-"}
        assert 'id="fronts"' not in render_comparison(apart)

    def test_cells_have_equal_decimals_and_name_the_other_study(self) -> None:
        rows = [row[:6] for row in comparison().cells()[1]]
        assert all(re.fullmatch(r"\d+\.\d\d GFLOPs", row[3]) for row in rows)
        assert [(row[0], row[4].split()[0], row[5]) for row in rows] == [
            ("a", "b", "+5.0"),
            ("a", "-", "-"),
            ("b", "a", "+5.0"),
        ]

    def test_the_page_has_both_fronts_and_escapes_texts(self) -> None:
        page = render_comparison(comparison())
        assert 'id="fronts"' in page
        assert "<b>tpe" not in page
        assert len(page.encode()) < 5_000_000

    def test_the_page_of_equal_settings_has_no_empty_table(self) -> None:
        equal = "<p>Settings, space and data are equal.</p>"
        assert equal not in render_comparison(comparison())
        page = render_comparison(replace(comparison(), differences=()))
        assert (equal in page, '<th scope="col">setting</th>' in page) == (True, False)


def test_command_prints_json(make_study: Callable[..., Study]) -> None:
    runs = ["--runs", str(make_study("one").folder.parent)]
    make_study("two", sampler="tpe")
    result = CliRunner().invoke(app, ["compare", "one", "two", *runs, "--format", "json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["comparable"]
    assert found["differences"] == [{"setting": "sampler", "values": ["ours", "tpe"]}]
    assert found["lines"] == ["one has no finished trial yet.", "two has no finished trial yet."]
    text = CliRunner().invoke(app, ["compare", "one", "two", *runs])
    assert "sampler: ours | tpe" in text.output
    twice = CliRunner().invoke(app, ["compare", "one", "one", *runs])
    assert (twice.exit_code, twice.output) == (2, "nas compare: one twice; name two studies\n")


def test_setting_that_only_one_study_has_is_named_once(make_study: Callable[..., Study]) -> None:
    judging = Judging(source="val", images=96, fingerprint="0")
    one, two = make_study("one"), make_study("two", judging=judging)
    found = {each.setting: each.values for each in comparing._differences(one, two) if "judging" in each.setting}
    assert found == {
        "judging.source": ("None", "val"),
        "judging.images": ("None", "96"),
        "judging.fingerprint": ("None", "0"),
    }


def test_space_that_cannot_be_read_is_one_line(make_study: Callable[..., Study]) -> None:
    make_study("one")
    made = make_study("third")
    (made.folder / "space.yaml").unlink()
    for replaced in (None, "folder", "binary"):
        if replaced == "folder":
            (made.folder / "space.yaml").mkdir()
        elif replaced == "binary":
            (made.folder / "space.yaml").rmdir()
            (made.folder / "space.yaml").write_bytes(b"\xff\xfe")
        done = CliRunner().invoke(app, ["compare", "one", "third", "--runs", str(made.folder.parent)])
        assert (done.exit_code, done.exception.__class__) == (2, SystemExit)
        assert "space.yaml: the study's copy of its space cannot be read" in done.stderr
        assert len(done.stderr.splitlines()) == 1
