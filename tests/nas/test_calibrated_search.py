"""`nas search --calibrate`: epochs and seeds that follow from a calibration."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nas.algorithms.seed_noise import SeedNoise
from nas.cli import app, show
from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.report.budget import MOST_SEEDS
from nas.report.slope import Slope
from nas.settings import Settings
from nas.study.study import Study
from nas.study.trained_again import Trained, calibration_of, trained_again
from nas.workflows import calibrated_search, running
from nas.workflows.calibrate import Size, calibration, calibration_settings
from nas.workflows.calibrated_search import MOST_GROWTH, Calibrated, _require_same_budget, chosen
from nas.workflows.naming import name_to_calibrate
from nas.workflows.plan import _require_calibrated
from nas.workflows.request import Request
from search_spaces import Architecture
from search_spaces.errors import SpecError, StudyError
from trials import Budget, Outcome
from trials.data import datasets

BASE, EPOCHS = 24, 8
SLOPE: dict[str, Any] = {
    "epochs": 3,
    "gain": 2.0,
    "low": 1.0,
    "high": 3.0,
    "difference": 0.5,
    "architectures": 0,
    "noise": 0.1,
    "is_longer": True,
    "enough": None,
}
MakeStudy = Callable[..., Study]


def trained(name: str, epochs: int, accuracies: dict[str, list[float]], base: float | None = 0.479) -> Trained:
    """Return a study of these accuracies, by architecture and seed; the first is the stock model."""
    data = Path("/data.yaml")
    settings = Settings(
        space="small",
        scale="t",
        space_hash="0",
        data="digits",
        data_fingerprint="0",
        classes=("a", "b"),
        base=Budget(data=data, epochs=BASE),
        budget=Budget(data=data, epochs=epochs),
    )
    records = [
        Record(
            trial=10 * index + repeat,
            state="complete",
            ending="finished",
            fingerprint=model,
            picks={},
            role="" if index else "stock",
            map50_95=accuracy,
            gflops=8.0,
            repeat=repeat,
        )
        for index, (model, each) in enumerate(accuracies.items())
        for repeat, accuracy in enumerate(each)
    ]
    return Trained(name=name, settings=settings, records=records, base=base, selects=True)


def calibrated(stock: float, longer: float, *, noise: float = 0.001) -> Request:
    short = trained("x", EPOCHS, {"stock": [stock, stock], "a": [0.5, 0.5 + noise], "b": [0.5, 0.5 - noise]})
    longest = trained("y", 3 * EPOCHS, {"stock": [longer]})
    return chosen(Request(calibrate=True), short, longest).request


class TestChoice:
    def test_flat_stock_model_keeps_the_epochs(self) -> None:
        found = calibrated(0.481, 0.483)
        assert (found.epochs, found.base_epochs, found.calibrate) == (EPOCHS, BASE, False)

    def test_steep_stock_model_grows_both_numbers_of_epochs_alike(self) -> None:
        points = [0.6 - 1.6 / epochs for epochs in (BASE, BASE + EPOCHS, BASE + 3 * EPOCHS)]
        short = trained("x", EPOCHS, {"stock": [points[1]] * 2, "a": [0.5, 0.501], "b": [0.5, 0.499]}, points[0])
        longest = trained("y", 3 * EPOCHS, {"stock": [points[2]]})
        found = chosen(Request(calibrate=True), short, longest).request
        assert found.epochs is not None
        assert found.base_epochs is not None
        assert EPOCHS < found.epochs < MOST_GROWTH * EPOCHS
        assert found.base_epochs / found.epochs == pytest.approx(BASE / EPOCHS, rel=0.01)

    def test_growth_has_a_bound(self) -> None:
        found = calibrated(0.55, 0.9)
        assert (found.epochs, found.base_epochs) == (MOST_GROWTH * EPOCHS, MOST_GROWTH * BASE)

    def test_epochs_are_those_of_the_member_that_asks_for_most(self) -> None:
        def both(flat: Trained, steep: Trained) -> Trained:
            records = [
                replace(one, member=member, fingerprint=f"{member} {one.fingerprint}")
                for member, study in (("v8n", flat), ("v9t", steep))
                for one in study.records
            ]
            settings = flat.settings.model_copy(update={"members": ("v8n", "v9t")})
            bases = {"v8n": 0.479, "v9t": 0.479}
            return Trained(name=flat.name, settings=settings, records=records, bases=bases, selects=True)

        flat, steep = (trained("x", EPOCHS, {"stock": [stock] * 2, "a": [0.5, 0.501]}) for stock in (0.481, 0.55))
        longer = [trained("y", 3 * EPOCHS, {"stock": [stock]}) for stock in (0.483, 0.9)]
        found = chosen(Request(calibrate=True), both(flat, steep), both(*longer))
        assert found.slope.member == "v9t"
        assert found.request.epochs == MOST_GROWTH * EPOCHS
        assert found.reasons[1].startswith("slope: the stock model of v9t still gains")
        assert chosen(Request(calibrate=True), both(flat, flat), both(longer[0], longer[0])).request.epochs == EPOCHS

    @pytest.mark.parametrize(("noise", "seeds"), [(0.0005, 1), (0.05, MOST_SEEDS)])
    def test_seeds_follow_from_the_noise(self, noise: float, seeds: int) -> None:
        assert calibrated(0.481, 0.483, noise=noise).seeds == seeds

    def test_requested_seeds_are_the_least(self) -> None:
        short = trained("x", EPOCHS, {"stock": [0.481, 0.482], "a": [0.5, 0.5], "b": [0.5, 0.501]})
        longest = trained("y", 3 * EPOCHS, {"stock": [0.483]})
        assert chosen(Request(calibrate=True, seeds=4), short, longest).request.seeds == 4

    def test_missing_measure_is_an_error(self) -> None:
        longest = trained("y", 3 * EPOCHS, {"stock": [0.483]})
        with pytest.raises(StudyError, match="x does not show the noise between seeds"):
            chosen(Request(calibrate=True), trained("x", EPOCHS, {"stock": [0.48]}), longest)
        unlearned = {"stock": [0.0, 0.0], "a": [0.0, 0.001], "b": [0.0, 0.0]}
        with pytest.raises(StudyError, match="x does not show how much the stock model gains"):
            chosen(Request(calibrate=True), trained("x", EPOCHS, unlearned, 0.0), longest)


def test_epochs_of_the_user_are_refused_all_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        Request(calibrate=True, epochs=3, base_epochs=6)
    assert caught.value.mistakes == (
        "calibrate: it sets --epochs, which was given as well (leave one of the two out)",
        "calibrate: it sets --base-epochs, which was given as well (leave one of the two out)",
    )


@pytest.fixture
def search(score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Call `nas search --calibrate` with a stand-in for trainings, whose scores rise with the epochs."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        outcome = score(architecture, budget, *arguments, **options)
        assert outcome.scores is not None
        luck = np.random.default_rng([int(architecture.fingerprint[:8], 16), budget.seed])
        accuracy = 0.6 - 0.3 / budget.epochs + 0.001 * float(luck.standard_normal())
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy), seconds=30.0)

    monkeypatch.setattr(worker, "evaluate", scoring)
    monkeypatch.setattr(running, "supervise", lambda study, **_: Worker(study, deadline=float("inf")).run())
    monkeypatch.setattr(calibrated_search, "seconds", lambda *_: 720.0)
    space = tmp_path / "small.yaml"
    space.write_text("name: small\nbase: yolov9{scale}.yaml\nscale: t\nslots:\n  - at: {layers: [4, 6]}\n")
    with space.open("a") as lines:
        lines.write("    choices:\n      UIB: {start_kernel: [0, 3]}\n      DynamicConv: {kernels: [2, 4]}\n")
    options = ["--space", str(space), "--from-scratch", "--trials", "3", "--runs", str(tmp_path / "runs")]

    several = "name: edge\nmembers: [{space: small.yaml}, {space: v8, scale: n}]\n"
    (tmp_path / "edge.yaml").write_text(several)

    def call(*further: str, calibrate: bool = True) -> Result:
        return CliRunner().invoke(app, ["search", *options, *(["--calibrate"] if calibrate else []), *further])

    return call


@pytest.mark.slow
def test_search_is_calibrated_first_and_resumes(search: Callable[..., Result], tmp_path: Path) -> None:
    result = search()
    assert result.exit_code == 0, result.stderr
    assert "calibrate the stock model and two neighbours with two seeds" in result.stderr
    assert "about 12 min, before the search" in result.stderr
    short, study = (Study.open(tmp_path / "runs" / name) for name in ("smallt-digits-calibrate", "smallt-digits"))
    assert len(short.records()) == Size(stocks=1).trials
    assert study.settings.budget.epochs > short.settings.budget.epochs
    assert f"so the search trains with --epochs {study.settings.budget.epochs}" in result.stderr
    report = study.trust()
    assert report.noise is not None
    assert report.noise_epochs == short.settings.budget.epochs
    again = search()
    assert again.exit_code == 0, again.stderr
    assert len(Study.open(short.folder).records()) == Size(stocks=1).trials
    assert not (tmp_path / "runs" / "smallt-digits2").exists()


class TestName:
    """The calibration is named after the search that follows, so that `nas trust` of the search finds it."""

    def test_taken_name_counts_up_for_both(self, make_study: MakeStudy) -> None:
        plain = make_study()
        runs, settings = plain.folder.parent, plain.settings
        name = name_to_calibrate("small", settings, None, runs)
        assert name == "small2"
        make_study(calibration_of(name), **calibration_changes(settings, name))
        assert name_to_calibrate("small", settings, None, runs) == name  # stopped, and begun again
        longer = settings.budget.model_copy(update={"epochs": 9})
        search = make_study(name, budget=longer, seeds=2)
        assert name_to_calibrate("small", settings, None, runs) == name
        assert [one.name for one in trained_again(search.folder, search.settings)] == [calibration_of(name)]

    def test_other_image_size_counts_up(self, make_study: MakeStudy, tmp_path: Path) -> None:
        settings, runs = make_study("other").settings, tmp_path / "runs"
        make_study("small-calibrate", **calibration_changes(settings, "small"))
        assert name_to_calibrate("small", settings, None, runs) == "small"
        larger = settings.model_copy(update={"budget": settings.budget.model_copy(update={"image_size": 192})})
        assert name_to_calibrate("small", larger, None, runs) == "small2"

    def test_search_that_was_begun_without_is_refused_before_anything_is_trained(self, make_study: MakeStudy) -> None:
        plain = make_study()
        runs = plain.folder.parent
        with pytest.raises(StudyError) as caught:
            _require_calibrated("small", runs)
        assert str(caught.value) == (
            f"calibrate: small was begun without it; what it would choose is shown by: nas trust small --runs {runs} "
            "--measure; or name another with --study"
        )
        make_study(calibration_of("small"), **calibration_changes(plain.settings, "small"))
        _require_calibrated("small", runs)

    def test_search_of_another_budget_is_not_gone_on_with(self, make_study: MakeStudy) -> None:
        plain = make_study(base=Budget(data=Path("/data.yaml"), epochs=9))
        request = Request(study="small", epochs=plain.settings.budget.epochs, base_epochs=9, calibrate=False)
        slope, noise = Slope(**SLOPE), SeedNoise(deviation=0.1, low=0.1, high=0.2, degrees_of_freedom=2)
        found = Calibrated(request=request, noise=noise, slope=slope, is_bounded=False, has_base=True)
        _require_same_budget(found, plain.folder)
        other = replace(found, request=replace(request, epochs=6, base_epochs=18, seeds=2))
        with pytest.raises(StudyError) as caught:
            _require_same_budget(other, plain.folder)
        assert str(caught.value) == (
            "small: was begun with --base-epochs 9 --epochs 3 --seeds 1, and its calibration chooses --base-epochs 18 "
            "--epochs 6 --seeds 2: give these instead of --calibrate, with another --study or without --study, to "
            "begin a search with them"
        )

    def test_calibration_of_other_epochs_is_not_measured_again(self, make_study: MakeStudy) -> None:
        data = datasets.load("digits").fingerprint
        plain = make_study(data_fingerprint=data)
        longer = plain.settings.budget.model_copy(update={"epochs": 9})
        search = make_study("long", budget=longer, data_fingerprint=data)
        short = calibration_changes(plain.settings, "long")
        folder = make_study(calibration_of("long"), data_fingerprint=data, **short).folder
        with pytest.raises(StudyError) as caught:
            calibration(search)
        assert str(caught.value) == (
            f"long-calibrate: has measured noise and slope with --epochs 3, as nas trust long --runs {folder.parent} "
            f"shows; to measure with --epochs 9, rename the folder {folder}, and repeat this"
        )

    def test_search_that_no_such_calibration_led_to_is_another_one(self, make_study: MakeStudy) -> None:
        other = make_study(objectives=("map50_95", "params"))
        settings = make_study("third").settings
        make_study("small-calibrate", **calibration_changes(settings, "small"))
        assert name_to_calibrate("small", settings, None, other.folder.parent) == "small2"


def calibration_changes(settings: Settings, search: str) -> dict[str, Any]:
    return {"budget": calibration_settings(settings, search).budget, "confirms": search}


@pytest.mark.slow
def test_search_beside_a_plain_one_finds_its_calibration(search: Callable[..., Result], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    plain = search(calibrate=False)
    assert plain.exit_code == 0, plain.stderr
    for options in ((), ("--image-size", "96"), ("--image-size", "96")):
        result = search(*options)
        assert result.exit_code == 0, result.stderr
    names = {folder.parent.name for folder in runs.glob("*/study.json")}
    each = {f"smallt-digits{number}" for number in (2, 3)}
    assert names == {"smallt-digits"} | each | {
        f"{name}{end}" for name in each for end in ("-calibrate", "-calibrate-x3")
    }
    for name in each:
        assert Study.open(runs / name).trust().noise is not None


@pytest.mark.slow
def test_stopped_calibration_prints_the_command_that_reaches_the_search(
    search: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "supervise", stopping)
    monkeypatch.setattr("sys.argv", ["/bin/nas", "search", "--data", "my data.yaml", "--calibrate"])
    result = search()
    assert result.exit_code == show.STOPPED
    assert "Continue with: nas search --data 'my data.yaml' --calibrate\n" in result.stderr
    assert "nas resume" not in result.stderr


@pytest.mark.slow
def test_dry_run_says_what_a_calibration_costs_and_writes_nothing(
    search: Callable[..., Result], tmp_path: Path
) -> None:
    result = search("--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "about 12 min, before the search; sets at most 4 times these epochs, and 3 seeds" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_search_of_several_members_is_calibrated_by_all(search: Callable[..., Result], tmp_path: Path) -> None:
    result = search("--space", str(tmp_path / "edge.yaml"))
    assert result.exit_code == 0, result.stderr
    assert "calibrate 2 stock models and a neighbour of each with two seeds" in result.stderr
    short, longest, study = (
        Study.open(tmp_path / "runs" / f"edge-digits{end}") for end in ("-calibrate", "-calibrate-x3", "")
    )
    assert [one.member for one in short.records()] == ["smallt", "v8n"] * 4
    assert [one.member for one in longest.records()] == ["smallt", "v8n"]
    assert study.settings.budget.epochs > short.settings.budget.epochs
    assert study.trust().noise_epochs == short.settings.budget.epochs
    assert search("--space", str(tmp_path / "edge.yaml")).exit_code == 0
    assert len(Study.open(short.folder).records()) == 8
