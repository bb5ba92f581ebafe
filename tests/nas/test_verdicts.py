"""Verdicts on a front, and its tables."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nas import words
from nas.algorithms import pareto
from nas.algorithms.paired_comparison import detectable
from nas.algorithms.seed_noise import SeedNoise
from nas.cli import app, fronts, initial_weights, show
from nas.cli.live import Watching
from nas.cli.planning import _preset, _seeds
from nas.execution import recovery, worker
from nas.execution.worker import Worker
from nas.records.record import COLUMNS, Record, has_learned
from nas.report import rewarded, unlearned, verdicts
from nas.settings import Settings
from nas.study.export import choose
from nas.study.study import Study
from nas.workflows.derived import require_learned
from search_spaces import Architecture
from search_spaces.errors import StudyError
from trials import Budget, Costs, Ending, Epoch, Outcome, Scores
from trials.data import datasets

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def record(trial: int, accuracy: float, gflops: float = 8.0, **further: Any) -> Record:
    fields = {"trial": trial, "state": "complete", "ending": "finished", "fingerprint": str(trial), "picks": {}}
    return Record(**{**fields, "map50_95": accuracy, "gflops": gflops, **further})


@pytest.fixture
def searched(make_study: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """A study whose scores are multiplied by a factor, its stock model's by another."""

    def search(*, factor: float = 1.0, stock: float = 1.0, **settings: Any) -> Study:
        study = make_study(trials=6, **settings)

        def scoring(architecture: Architecture, *given: Any, **further: Any) -> Outcome:
            outcome = score(architecture, *given, **further)
            assert outcome.scores is not None
            accuracy = outcome.scores.map50_95 * (stock if architecture == study.space.stock else factor)
            return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy))

        monkeypatch.setattr(worker, "evaluate", scoring)
        Worker(study, deadline=float("inf")).run()
        return study

    return search


class TestSaving:
    """The cheapest of a front that is as accurate as the stock model."""

    @pytest.mark.parametrize(
        ("accuracy", "verdict"),
        [
            (0.491, "trial 1: scores 0.9 points below stock, with 25.0 % fewer GFLOPs"),
            (0.5, "trial 1: scores as stock does, with 25.0 % fewer GFLOPs"),
            (0.4997, "trial 1: scores as stock does, with 25.0 % fewer GFLOPs"),
            (0.512, "trial 1: scores 1.2 points above stock, with 25.0 % fewer GFLOPs"),
            (0.48, None),
        ],
    )
    def test_saving_is_the_difference_to_the_stock_model(self, accuracy: float, verdict: str | None) -> None:
        expected = None if verdict is None else f"{verdict} (one short training each: no verdict)"
        assert verdicts.saving([record(1, accuracy, 6.0)], record(0, 0.5), "gflops") == expected

    def test_saving_uses_the_given_cost(self) -> None:
        stock = record(0, 0.5, 8.0, latency_ms=10.0, params=4_000_000)
        slow, fast = (
            record(1, 0.5, 6.0, latency_ms=12.0, params=3_000_000),
            record(2, 0.5, 9.0, latency_ms=9.0, params=5_000_000),
        )
        assert verdicts.saving([slow, fast], stock, "latency_ms") == (
            "trial 2: scores as stock does, with 10.0 % less latency (one short training each: no verdict)"
        )
        assert verdicts.saving([slow, fast], stock, "params") == (
            "trial 1: scores as stock does, with 25.0 % fewer parameters (one short training each: no verdict)"
        )
        seeds = [replace(one, seeds=3) for one in (fast, stock)]
        assert verdicts.saving(seeds[:1], seeds[1], "latency_ms") == (
            "trial 2: scores as stock does, with 10.0 % less latency "
            "(the mean of 3 seeds, which also chose it: no verdict)"
        )

    @pytest.mark.parametrize("accuracy", [0.0, 0.009])
    def test_saving_is_none_if_nothing_was_learned(self, accuracy: float) -> None:
        assert verdicts.saving([record(1, accuracy, 6.0)], record(0, accuracy), "gflops") is None

    @pytest.mark.parametrize(
        ("objectives", "cost"),
        [
            (("map50_95", "gflops"), "gflops"),
            (("map50_95", "latency_ms"), "latency_ms"),
            (("params", "map50"), "params"),
            (("map50_95",), "gflops"),
        ],
    )
    def test_main_cost_is_the_first_among_the_objectives(self, objectives: tuple[str, ...], cost: str) -> None:
        assert pareto.main_cost(objectives) == cost

    def test_pareto_command_shows_a_saving_of_latency(self, searched: Callable[..., Study], tmp_path: Path) -> None:
        study = searched(objectives=("map50_95", "latency_ms"))
        output = nas("pareto", study.name, "--runs", tmp_path / "runs")
        assert " ms\n" in output.stderr.splitlines(keepends=True)[0]
        assert "GFLOPs" not in output.stderr

    def test_export_selects_the_cheapest_by_latency(self, searched: Callable[..., Study]) -> None:
        study = searched(objectives=("map50_95", "latency_ms"))
        front = [
            record(0, 0.6, 9.0, latency_ms=9.0),
            record(1, 0.5, 6.0, latency_ms=8.0),
            record(2, 0.4, 8.0, latency_ms=5.0),
        ]
        assert choose(front, study.settings.objectives, study=study.name, best="cheapest").trial == 2


COMMANDS: dict[str, Any] = {"confirm": "nas confirm STUDY", "measure": "nas trust STUDY --measure"}


class TestGain:
    """What the most accurate has over the stock model."""

    NOISE = SeedNoise(deviation=1.6, low=1.0, high=4.0, degrees_of_freedom=4)

    def test_one_seed_has_no_verdict(self) -> None:
        text = verdicts.gain([record(0, 0.5), record(1, 0.54)], record(1, 0.54), record(0, 0.5), noise=None, **COMMANDS)
        assert text == (
            "trial 1: scores 4.0 points above stock (one short training each with one seed): no verdict before fresh "
            "seeds judge "
            "(nas confirm STUDY); noise between seeds is not measured, so no difference can be told from it "
            "(nas trust STUDY --measure)."
        )

    def test_measured_noise_gives_the_least_difference_that_seeds_tell(self) -> None:
        best, stock = record(1, 0.6), record(0, 0.5)
        text = verdicts.gain([stock, best], best, stock, noise=self.NOISE, finalists=3, **COMMANDS)
        one = detectable(math.sqrt(2) * 1.6, 1, freedom=4)
        five = detectable(math.sqrt(2) * 1.6, 5, candidates=3)
        assert text.endswith(
            "(nas confirm STUDY); scores of one architecture deviate by 1.6 points between seeds: a search with 1 seed "
            f"shows true differences of {one:.1f} points, a confirmation of 3 finalists with 5 fresh seeds finds gains "
            f"of {five:.1f} by that noise alone (a verdict counts the sample of images, too, and needs more)."
        )

    def test_seeds_that_chose_a_model_give_no_evidence(self) -> None:
        """Three seeds of the best that all lie above stock: until now this was some evidence."""
        each = [
            record(3 * model + repeat, 0.5 + model / 10 + repeat / 100, fingerprint=str(model), repeat=repeat)
            for model in range(2)
            for repeat in range(3)
        ]
        text = verdicts.gain(each, each[3], each[0], noise=self.NOISE, **COMMANDS)
        assert text.startswith(
            "trial 3: scores 10.0 points above stock (the mean of 3 seeds, +10.0, +10.0, +10.0, which also chose it): "
            "no verdict before fresh seeds judge "
            "(nas confirm STUDY); "
        )
        assert "a search with 3 seeds shows true differences of " in text
        assert "evidence" not in text

    def test_no_seed_in_common_is_named(self) -> None:
        best, stock = record(1, 0.54, repeat=1), record(0, 0.5)
        text = verdicts.gain([stock, best], best, stock, noise=None, **COMMANDS)
        assert text.startswith(
            "trial 1: scores 4.0 points above stock (of trainings with different seeds): no verdict "
        )

    def test_nothing_better_than_stock_is_no_evidence(self) -> None:
        stock = record(0, 0.5)
        assert verdicts.gain([stock], stock, stock, noise=None, **COMMANDS) == (
            "Nothing that was tried is more accurate than the stock model; noise between seeds is not measured, so no "
            "difference can be told from it (nas trust STUDY --measure)."
        )


def test_readme_shows_what_a_search_prints() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    stock, best, cheaper = record(0, 0.4978, 7.61), record(6, 0.5484, 7.56), record(5, 0.5318, 7.06)
    confirm, measure = "nas confirm v9t-digits", "nas trust v9t-digits --measure"
    shown = [
        verdicts.gain([stock, best, cheaper], best, stock, noise=None, confirm=confirm, measure=measure),
        verdicts.saving([best, cheaper], stock, "gflops"),
    ]
    assert all(line in " ".join(readme.split()) for line in shown if line)
    assert all(shown)


class TestReward:
    """A search with a reward has one best model."""

    @pytest.fixture
    def settings(self, make_study: MakeStudy) -> Settings:
        return make_study(reward="tunas", target_gflops=8.0, target_latency=5.0).settings

    def test_reward_and_targets_are_words(self, settings: Settings) -> None:
        assert rewarded.describe(settings) == "reward tunas, target 8 GFLOPs and 5 ms"

    def test_best_has_the_highest_reward_within_the_limits(self, settings: Settings) -> None:
        records = [
            record(0, 0.50, 8.0, latency_ms=5.0),
            record(1, 0.52, 8.8, latency_ms=6.0),  # 0.52 - 0.1 * (0.1 + 0.2)
            record(2, 0.60, 8.0, latency_ms=5.0, within=False),
        ]
        found = rewarded.best_of(records, settings)
        assert found is not None
        assert found[0].trial == 0
        assert found[1] == pytest.approx(0.5)

    def test_pareto_of_a_reward_names_its_best_model(self, searched: Callable[..., Study], tmp_path: Path) -> None:
        study = searched(reward="linear", target_gflops=2.0)
        best = rewarded.best_of(study.records(), study.settings)
        assert best is not None
        assert best[1] == study.optuna.best_value
        text = " ".join(nas("pareto", "small", "--runs", tmp_path / "runs").stderr.split())
        assert f"best by reward linear, target 2 GFLOPs: trial {best[0].trial} with {best[1]:.3f}" in text
        assert f"--trial {best[0].trial}" in text
        assert "export the most accurate" not in text


class TestNothingLearned:
    """Every command that shows scores warns of a score as of a model that was never trained."""

    LINE = "Nothing was learned: the stock model's mAP50-95 is 0.0000"

    @pytest.mark.parametrize(
        ("accuracy", "learned"), [(0.0, False), (0.003, False), (0.0099, False), (0.01, True), (None, True)]
    )
    def test_threshold_separates_learned_scores(self, accuracy: float | None, *, learned: bool) -> None:
        assert has_learned(accuracy) is learned

    @pytest.mark.parametrize(
        "command",
        [
            ("pareto",),
            ("pareto", "--expected"),
            ("pareto", "--format", "json"),
            ("trials",),
            ("status",),
            ("export", "--trial", "0"),
        ],
        ids=" ".join,
    )
    def test_warning_about_low_scores_has_a_cause(
        self, command: tuple[str, ...], searched: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = searched(factor=0.0, stock=0.0)
        monkeypatch.setattr(Study, "export", lambda study, **_: _Exported(study))
        name, *rest = command
        output = nas(name, study.name, *rest, "--runs", tmp_path / "runs")
        assert output.exit_code == 0, output.output
        assert self.LINE in output.stderr
        assert name == "status" or "Too few epochs (--epochs 3), images too few or too small" in output.stderr
        assert not re.search("as accurate|gain|scores as stock|confirm", output.stderr)
        if "json" not in command:
            assert "+0.000" not in output.stdout

    def test_accuracy_before_the_trials_may_be_missing(self, searched: Callable[..., Study]) -> None:
        study = searched(factor=0.005, stock=0.005)
        base = study.settings.budget.model_copy(update={"epochs": 6})
        lines = unlearned.nothing_learned(study.settings.model_copy(update={"base": base}), study.records(), None)
        assert lines[0].startswith("Nothing was learned: the stock model's mAP50-95 is 0.00")

    def test_short_trainings_that_undo_what_was_learned_are_named(self, searched: Callable[..., Study]) -> None:
        study = searched(factor=0.005, stock=0.005)
        base = study.settings.budget.model_copy(update={"epochs": 6})
        lines = unlearned.nothing_learned(study.settings.model_copy(update={"base": base}), study.records(), 0.042)
        assert re.match(
            r"Nothing can be compared: .* was 0\.0420 after --base-epochs 6, and is 0\.00\d\d after", lines[0]
        )
        assert lines[1].endswith("train candidates longer (--epochs).")
        assert "labels" not in "".join(lines)

    def test_every_command_has_the_same_rule(self, searched: Callable[..., Study], tmp_path: Path) -> None:
        study = searched(factor=0.005, stock=0.005, data_fingerprint=datasets.load("digits").fingerprint)
        assert all(0 < (one.map50_95 or 0.0) < 0.01 for one in study.records())
        runs, line = ("--runs", tmp_path / "runs"), "Nothing was learned: the stock model's mAP50-95 is 0.00"
        trusted = nas("trust", "small", *runs)
        assert line in trusted.stdout
        assert "budget: at least --epochs 9\n" in trusted.stdout
        assert "differences above" not in trusted.stdout
        for command in (("confirm", "small"), ("ablate", "small", "--trial", 1)):
            refused = nas(*command, *runs)
            assert refused.exit_code == 2
            assert line in refused.stderr
            assert f"--runs {tmp_path / 'runs'} --epochs 9" in refused.stderr
        assert not [path.name for path in (tmp_path / "runs").iterdir() if path.name != "small"]

    def test_longer_trainings_of_what_learned_nothing_are_allowed(self, searched: Callable[..., Study]) -> None:
        study = searched(factor=0.005, stock=0.005)
        with pytest.raises(StudyError, match="Nothing was learned"):
            require_learned(study, epochs=3, advice="nas confirm small")
        require_learned(study, epochs=4, advice="nas confirm small")

    def test_warning_if_only_stock_learned_nothing(self, searched: Callable[..., Study], tmp_path: Path) -> None:
        searched(stock=0.0)
        output = nas("pareto", "small", "--runs", tmp_path / "runs")
        assert self.LINE in output.stderr
        assert "above stock" not in output.stderr

    def test_no_warning_for_usual_scores(self, searched: Callable[..., Study], tmp_path: Path) -> None:
        searched()
        for command in ("pareto", "trials", "status"):
            assert "learned" not in nas(command, "small", "--runs", tmp_path / "runs").stderr

    def test_warning_about_low_scores_appears_during_the_search(
        self, make_study: MakeStudy, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        base = Budget(data=tmp_path / "data.yaml", epochs=1, deploy_size=64)
        study = make_study(base=base)
        training, costs = study.stock_training, Costs(params=1000, gflops=1.0)
        assert training is not None
        training.files.folder.mkdir(parents=True)
        epoch = Epoch(epoch=1, losses={}, map50_95=0.0, map50=0.0, seconds=1.0)
        outcome = Outcome(
            architecture=study.space.stock,
            ending=Ending.FINISHED,
            costs=costs,
            scores=Scores(map50_95=0.0, map50=0.0, costs=costs),
            epochs=(epoch,),
            seconds=1.0,
        )
        training.files.write_outcome(outcome)
        with Watching() as watching:
            watching.update(study, study.records())
        output = capsys.readouterr().err
        assert "after 1 epoch, 1 s" in output
        assert output.count(self.LINE) == 1
        fronts.print_front(study, "table", is_warned=watching.has_warned)
        assert capsys.readouterr().err.count("learned") == 1
        fronts.print_front(study, "table")
        assert capsys.readouterr().err.count(self.LINE) == 1


class _Exported:
    """In the place of a folder, whose making takes data."""

    def __init__(self, study: Study) -> None:
        self.folder, self.record = study.folder, study.records()[0]
        self.mean = self.record
        self.weights, self.train, self.retrain = study.folder, "train", "retrain"
        self.formats, self.torch_accuracy = (), None

    def as_document(self) -> dict[str, object]:
        return {"trial": self.record.trial}


class TestTables:
    """At 80 columns: one line a trial, what matters first."""

    @pytest.fixture
    def narrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")

    @pytest.mark.usefixtures("narrow")
    @pytest.mark.parametrize("command", ["pareto", "trials", "status"])
    def test_rows_of_trial_tables_do_not_wrap(
        self, command: str, searched: Callable[..., Study], tmp_path: Path
    ) -> None:
        study = searched(start="start: [{4: {UIB: {}}, 6: {DynamicConv: {kernels: 4}}, 10: {DySample: {style: pl}}}]")
        output = nas(command, study.name, "--runs", tmp_path / "runs").stdout.splitlines()
        count = {"pareto": len(study.front()), "trials": len(study.records()), "status": 1}[command]
        assert len(output) == count + 2  # a title and headings
        assert max(map(len, output)) <= 80

    @pytest.mark.usefixtures("narrow")
    def test_narrow_table_has_the_main_columns(self, searched: Callable[..., Study], tmp_path: Path) -> None:
        study = searched()
        headings = nas("pareto", study.name, "--runs", tmp_path / "runs").stdout.splitlines()[1]
        expected = ["trial", "mAP50-95", "over stock", "GFLOPs", "of stock", "ms", "epochs", "architecture"]
        assert re.split(r"\s{2,}", headings.strip()) == expected

    def test_gains_and_costs_are_relative_to_stock(self, searched: Callable[..., Study], tmp_path: Path) -> None:
        study = searched()
        stock, *others = study.records()
        output = nas("trials", study.name, "--runs", tmp_path / "runs").stdout.splitlines()[2:]
        assert "+0.000" in output[0]
        assert "100.0%" in output[0]
        for line, other in zip(output[1:], others, strict=True):
            assert f"{(other.map50_95 or 0) - (stock.map50_95 or 0):+.3f}" in line
            assert f"{(other.gflops or 0) / (stock.gflops or 1):.1%}" in line

    def test_wide_terminal_shows_more_columns(
        self, searched: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        searched()

        def headings(columns: str) -> set[str]:
            monkeypatch.setenv("COLUMNS", columns)
            return set(nas("trials", "small", "--runs", tmp_path / "runs").stdout.splitlines()[1].split())

        wide, narrow = headings("160"), headings("60")
        assert {"params", "mAP50", "s", "epochs"} <= wide
        assert narrow < wide

    @pytest.mark.usefixtures("narrow")
    @pytest.mark.parametrize("shown", ["json", "csv"])
    def test_json_and_csv_have_every_column(self, shown: str, searched: Callable[..., Study], tmp_path: Path) -> None:
        searched()
        output = nas("trials", "small", "--runs", tmp_path / "runs", "--format", shown).stdout
        names = list(json.loads(output)[0]) if shown == "json" else output.splitlines()[0].split(",")
        assert tuple(names) == COLUMNS

    def test_brackets_in_names_are_not_markup(self, capsys: pytest.CaptureFixture[str]) -> None:
        show.rows([{"name": "[red]a[/red]"}], "table", title="[b]", columns={"name": "name"}, narrow=())
        assert capsys.readouterr().out.split() == ["[b]", "name", "[red]a[/red]"]

    def test_running_trial_shows_its_progress(self, make_study: MakeStudy, tmp_path: Path) -> None:
        study = make_study()
        trial = study.optuna.ask()
        files = study.files(trial.number)
        files.folder.mkdir(parents=True)
        for number in (1, 2):
            files.write_epoch(Epoch(epoch=number, losses={}, map50_95=None, map50=None, seconds=1.5))
        output = nas("trials", "small", "--runs", tmp_path / "runs").stdout
        assert re.search(r"running .* 2/3 .* 3\.0 ", output)
        row = json.loads(nas("trials", "small", "--runs", tmp_path / "runs", "--format", "json").stdout)[trial.number]
        assert (row["epochs"], row["seconds"]) == (2, 3.0)

    def test_interrupted_trial_is_shown_as_interrupted(self, make_study: MakeStudy, tmp_path: Path) -> None:
        study = make_study()
        study.optuna.ask()
        recovery.recover(study)
        output = nas("trials", "small", "--runs", tmp_path / "runs").stdout
        assert re.search(r"\n +0  interrupted ", output)
        row = json.loads(nas("trials", "small", "--runs", tmp_path / "runs", "--format", "json").stdout)[0]
        assert (row["state"], row["ending"]) == ("fail", None)


class TestWording:
    """Help and plan say what is."""

    @pytest.mark.parametrize(
        ("base", "trial", "size", "preset"),
        [
            (60, 20, 320, "standard: finds what is cheaper and as accurate"),
            (60, 5, 320, "standard, but --epochs 5 instead of 20"),
            (1, 20, 64, "standard, but --image-size 64 instead of 320, --base-epochs 1 instead of 60"),
            (1, 1, 64, ""),
        ],
    )
    def test_preset_is_named_only_with_its_numbers(
        self, base: int, trial: int, size: int, preset: str, make_study: MakeStudy, tmp_path: Path
    ) -> None:
        common = {"data": tmp_path / "data.yaml", "deploy_size": 64, "image_size": size}
        study = make_study(base=Budget(epochs=base, **common), budget=Budget(epochs=trial, **common))
        assert _preset(study.settings, 200) == preset

    @pytest.mark.parametrize(
        ("seeds", "trials", "text"),
        [
            (1, 2, ""),
            (2, 7, "2 for the stock model and the front"),
            (
                2,
                6,
                "2 for the stock model and the front, but 6 trials are too few: repeats begin after 6 architectures",
            ),
        ],
    )
    def test_seeds_that_are_never_used_are_mentioned(
        self, seeds: int, trials: int, text: str, make_study: MakeStudy
    ) -> None:
        study = make_study(trials=trials, seeds=seeds)
        assert _seeds(study.settings, study.file.run) == text

    def test_candidates_without_any_weights_are_from_scratch(self, make_study: MakeStudy) -> None:
        settings = make_study().settings
        assert settings.base is None
        assert initial_weights.describe(settings).startswith(
            "random: every candidate from scratch, since no stock model"
        )

    def test_number_of_one_epoch_is_singular(self, tmp_path: Path) -> None:
        assert Budget(data=tmp_path, epochs=1).summary == "1 epoch at 128 px, batch 8"
        assert Budget(data=tmp_path, epochs=2).summary == "2 epochs at 128 px, batch 8"
        assert (words.with_unit(1, "trial"), words.with_unit(0, "trial")) == ("1 trial", "0 trials")

    def test_running_study_can_be_opened(self, make_study: MakeStudy) -> None:
        study = make_study()
        assert str(study.already_running()) == (
            "small is running already, in another process; look at it with: nas status small "
            f"--runs {study.folder.parent}"
        )


def test_warning_about_low_scores_of_several_members_is_of_the_best(make_study: Callable[..., Study]) -> None:
    settings = make_study().settings.model_copy(update={"members": ("v8n", "v9t")})
    (line, _) = unlearned.nothing_learned(settings, [], 0.002)
    assert line.startswith("Nothing was learned: the best stock model's mAP50-95 is 0.0020, ")
