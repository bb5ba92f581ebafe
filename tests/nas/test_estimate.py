"""Time, memory and disk space of a search before it begins."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from nas import words
from nas.algorithms.successive_halving import Stopping
from nas.cli import app, estimating, show
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.score_cache import ScoreCache
from nas.workflows import fit_hours, outlook, timing, timing_process, timing_run
from nas.workflows.check_cache import CheckCache
from nas.workflows.estimate import of_times, rough_seconds, training_seconds
from nas.workflows.needs import Needs
from nas.workflows.outlook import Outlook
from nas.workflows.plan import Plan
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request
from nas.workflows.timing_process import ProcessTimes, Task
from search_spaces import SearchSpace
from search_spaces.errors import EstimateError, SpecError
from trials import Budget, Limits, machine
from trials.budget import Subset
from trials.data import datasets, digit_scenes
from trials.data.datasets import DataSet
from trials.data.holdout import Holdout
from trials.training.timed_training import Holding, TrainingTimes, sample_sizes

SMALL = "{name: small, base: yolov9t.yaml, slots: [{at: {layers: [10]}, choices: {DySample: {}}}]}"
TIMES = TrainingTimes(
    step=0.1,
    epoch=1.0,
    image=0.02,
    start=5.0,
    end=0.5,
    loading=2.0,
    first_validation=1.0,
    train_images=20,
    val_images=20,
    weights_bytes=8_000_000,
    checkpoint_bytes=40_000_000,
)
MEASURED = ProcessTimes(
    start=6.0,
    trainings=(TIMES, replace(TIMES, step=0.3, start=4.0), replace(TIMES, step=0.2, start=4.0)),
    problems={},
    latency=0.0,
    memory=2**30,
    gpu_memory=0,
)


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return datasets.load(digit_scenes.draw(tmp_path_factory.mktemp("scenes"), train=20, val=10))


@pytest.fixture
def search(data: DataSet) -> PlannedSearch:
    """A search of 100 + 50 images, 10 epochs of 25 batches, 12 trials on one worker."""
    budget = Budget(data=data.path, epochs=10, batch=4, image_size=64, deploy_size=64)
    whole = replace(data, train_images=100, val_images=50)
    return PlannedSearch(data=whole, budget=budget, limits=Limits(), trials=12, workers=1)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[PlannedSearch]:
    """Return numbers instead of timing; the searches that were to be timed."""
    asked: list[PlannedSearch] = []

    def at_once(_architectures: Any, search: PlannedSearch, *_: Any) -> ProcessTimes:
        asked.append(search)
        return MEASURED

    monkeypatch.setattr(timing, "_measure", at_once)
    return asked


class TestArithmetic:
    def test_training_takes_its_epochs_steps_and_validations(self, search: PlannedSearch) -> None:
        assert training_seconds(TIMES, search.budget, search.data) == pytest.approx(
            10 * (1 + 25 * 0.1) + 50 * 0.02 + 0.5
        )
        fewer = replace(search.data, train_images=3)
        assert training_seconds(TIMES, search.budget, fewer) == pytest.approx(10 * 1.1 + 1.5)

    def test_a_rung_validates_and_stops_trainings(self, search: PlannedSearch) -> None:
        budget = search.budget.model_copy(update={"rungs": (2, 6)})
        every = training_seconds(TIMES, budget, search.data)
        assert every == pytest.approx(10 * 3.5 + 3 * 1.0 + 0.5)
        some = training_seconds(TIMES, budget, search.data, promoted=0.5)
        assert some == pytest.approx((2 * 3.5 + 1) + 0.5 * (4 * 3.5 + 1) + 0.25 * (4 * 3.5 + 1) + 0.5)

    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_stock_models_of_all_members_are_shared_by_the_workers(self, search: PlannedSearch, workers: int) -> None:
        further = (replace(TIMES, step=0.2), replace(TIMES, step=0.4))
        times = replace(MEASURED, trainings=(*MEASURED.trainings, *further), further_stocks=2)
        first = of_times(replace(search, base=search.budget), MEASURED).base
        each = [first, first + 10 * 25 * 0.1, first + 10 * 25 * 0.3]
        found = of_times(replace(search, base=search.budget, stocks=3, workers=workers), times)
        assert found.base == pytest.approx(max(sum(each) / workers, *each))
        assert found.typical == pytest.approx(of_times(search, MEASURED).typical)

    def test_stock_model_that_was_not_timed_counts_as_the_first(self) -> None:
        times = replace(MEASURED, trainings=(*MEASURED.trainings, None), further_stocks=1)
        assert times.stocks == (TIMES, TIMES)

    def test_estimate_adds_what_happens_once_to_rounds_of_trials(self, search: PlannedSearch) -> None:
        found = of_times(replace(search, base=search.budget, workers=2), MEASURED)
        each = 2.0 + 0.6  # start of a process that has trained before, and between two trials
        assert found.stock == pytest.approx(each + 36.5)
        assert found.costliest == pytest.approx(each + 10 * 8.5 + 1.5)
        assert found.typical == pytest.approx(each + 10 * 6 + 1.5)
        assert found.base == found.stock
        assert found.once == pytest.approx(6 + 2 / 40 * 150 + 50 / 20 + 1)
        assert found.hours[0] == pytest.approx((found.once + found.base + 6 * found.stock) / 3600)
        assert found.hours[1] == pytest.approx((found.once + found.base + 6 * found.costliest) / 3600)
        assert found.seconds == pytest.approx(found.once + found.base + found.typical * 12.5 / 2)

    def test_estimate_of_stopped_trainings_has_a_lower_end(self, search: PlannedSearch) -> None:
        budget = search.budget.model_copy(update={"rungs": (1, 3, 9)})
        stopped = of_times(replace(search, budget=budget, stopping=Stopping()), MEASURED)
        whole = of_times(replace(search, budget=budget), MEASURED)
        assert stopped.hours[1] == whole.hours[1]
        assert stopped.hours[0] < 0.5 * whole.hours[0]
        assert stopped.hours[0] * 3600 < stopped.seconds < whole.seconds

    def test_architecture_that_cannot_be_trained_counts_as_stock(self, search: PlannedSearch) -> None:
        found = of_times(search, replace(MEASURED, trainings=(TIMES, None, None)))
        assert found.stock == found.costliest == found.typical
        assert found.timed == 1

    def test_means_of_processes_are_of_times_and_maxima_of_sizes(self) -> None:
        other = replace(TIMES, step=0.3, weights_bytes=9_000_000)
        both = timing_run.mean([MEASURED, replace(MEASURED, trainings=(other, None, other), memory=5)])
        assert both.stock.step == pytest.approx(0.2)
        assert both.stock.weights_bytes == 9_000_000
        assert (both.trainings[1], both.memory) == (None, 2**30)

    def test_rough_time_grows_with_images_and_pixels(self, search: PlannedSearch) -> None:
        least = rough_seconds(search, 8.0)
        assert rough_seconds(replace(search, data=replace(search.data, train_images=1000)), 8.0) == pytest.approx(
            10 * least
        )
        wider = search.budget.model_copy(update={"image_size": 128, "deploy_size": 64})
        assert rough_seconds(replace(search, budget=wider), 8.0) > 3 * least


class TestSample:
    def test_twenty_batches_are_timed_and_few_images_suffice(self, search: PlannedSearch) -> None:
        assert sample_sizes(search.budget, 20_000, 4000) == (44, 16)
        assert sample_sizes(search.budget, 7, 3) == (7, 3)
        assert sample_sizes(search.budget.model_copy(update={"device": "0"}), 20_000, 4000) == (164, 16)

    def test_sample_is_spread_over_the_data_set(self, data: DataSet, search: PlannedSearch, tmp_path: Path) -> None:
        budget = search.budget.model_copy(update={"batch": 1})
        sample = timing._sample(replace(search, data=data, budget=budget), tmp_path)
        names = [Path(line).name for line in Path(sample.train[0]).read_text().splitlines()]
        assert (sample.train_images, sample.val_images, len(names)) == (11, 4, 11)
        everything = sorted(path.name for path in Path(data.train[0]).glob("*.png"))
        assert names[0] == everything[0]
        assert names[-1] in everything[-3:]

    def test_images_that_a_search_does_not_read_are_not_opened_by_its_timing(
        self, space: SearchSpace, data: DataSet, search: PlannedSearch, tmp_path: Path
    ) -> None:
        sealed = Holdout(share=0.1, seed=0, images=("a.png",), of=30, fingerprint="0")
        subset = Subset(seed=0, train=5, val=2, of_train=20, of_val=10)
        asked = replace(search, sealed=sealed, subset=subset)
        made = timing._task([space.stock], asked, timing._holding(asked), data, tmp_path)
        read = TypeAdapter(Task).validate_json(TypeAdapter(Task).dump_json(made))
        assert (read.sealed, read.subset) == (sealed, subset)


class TestCache:
    def test_what_was_measured_is_not_measured_again(
        self, space: SearchSpace, search: PlannedSearch, timed: list[PlannedSearch], tmp_path: Path
    ) -> None:
        path = tmp_path / "checks.json"
        assert not timing.is_measured(space, search, CheckCache(path))
        first = timing.measure(space, search, CheckCache(path))
        assert timing.is_measured(space, search, CheckCache(path))
        longer = search.budget.model_copy(update={"epochs": 99, "seed": 3})
        assert timing.measure(space, replace(search, budget=longer, trials=7), CheckCache(path)) == first
        assert len(timed) == 1
        timing.measure(space, replace(search, budget=search.budget.model_copy(update={"batch": 2})), CheckCache(path))
        assert len(timed) == 2

    def test_damaged_entry_is_measured_again(
        self, space: SearchSpace, search: PlannedSearch, timed: list[PlannedSearch], tmp_path: Path
    ) -> None:
        path = tmp_path / "checks.json"
        timing.measure(space, search, CheckCache(path))
        path.write_text(path.read_text().replace('"start"', '"begin"'))
        timing.measure(space, search, CheckCache(path))
        assert len(timed) == 2


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    (tmp_path / "small.yaml").write_text(SMALL)

    def planning(**request: object) -> Plan:
        fields = {"space": tmp_path / "small.yaml", "runs": tmp_path / "runs", "device": "cpu", "workers": 1}
        return Plan.of(Request(**{**fields, **request}))  # type: ignore[arg-type]

    return planning


class TestOutlook:
    def test_short_search_is_not_timed_before_it_begins(
        self, plan: Callable[..., Plan], timed: list[PlannedSearch]
    ) -> None:
        found = outlook.outlook(plan(trials=2, epochs=1), CheckCache(None), always=False)
        assert (found.estimate, found.range, timed) == (None, None, [])
        assert found.how == "by a rough rate; --dry-run times trainings"
        assert 0 < (found.seconds or 0) < 600

    def test_long_search_and_dry_run_are_timed(self, plan: Callable[..., Plan], timed: list[PlannedSearch]) -> None:
        for options, always in (({"trials": 1000}, False), ({"trials": 2}, True)):
            found = outlook.outlook(plan(**options), CheckCache(None), always=always)
            assert found.estimate is not None
            assert found.range is not None
            assert found.range[0] <= (found.seconds or 0) <= found.range[1]
        assert len(timed) == 2

    def test_failed_measurement_is_said_and_gives_no_number(
        self, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(*_: Any) -> None:
            raise EstimateError("a timed training failed: MemoryError")

        monkeypatch.setattr(timing, "_measure", failing)
        found = outlook.outlook(plan(), CheckCache(None), always=True)
        assert (found.seconds, found.how) == (None, "not known: a timed training failed: MemoryError")
        assert estimating.lines(found, Path())["time"] == found.how

    def test_trials_of_an_existing_study_say_how_long_the_rest_takes(
        self,
        plan: Callable[..., Plan],
        score: Callable[..., Any],
        timed: list[PlannedSearch],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        study = plan(trials=2, from_scratch=True).begin()
        monkeypatch.setattr(worker, "evaluate", score)
        Worker(study, deadline=float("inf")).run()
        study.save_records()
        found = outlook.outlook(plan(trials=4, from_scratch=True), CheckCache(None), always=True)
        assert found.how == "for 2 of 4 trials, by those before"
        assert timed == []

    def test_stock_model_that_was_trained_before_takes_no_time(
        self, plan: Callable[..., Plan], timed: list[PlannedSearch], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        planned = plan()
        before = outlook.outlook(planned, CheckCache(None), always=True)
        cache = SimpleNamespace(read=lambda _: SimpleNamespace(has_weights=True))
        monkeypatch.setattr(ScoreCache, "of_user", lambda: cache)
        after = outlook.outlook(planned, CheckCache(None), always=True)
        assert before.estimate is not None
        assert before.seconds == pytest.approx((after.seconds or 0) + before.estimate.base)
        assert len(timed) == 2

    def test_workers_elsewhere_are_not_timed_here(self, plan: Callable[..., Plan], timed: list[PlannedSearch]) -> None:
        found = outlook.outlook(plan(), CheckCache(None), always=True, elsewhere=True)
        assert (found.seconds, timed) == (None, [])


class TestHours:
    def fit(self, plan: Callable[..., Plan], **options: Any) -> fit_hours.Fitted:
        request = Request(device="cpu", workers=1, **options)
        return fit_hours.fitted(
            request, plan(**{name: one for name, one in options.items() if name != "hours"}), CheckCache(None)
        )

    @pytest.mark.usefixtures("timed")
    def test_trials_fill_the_hours(self, plan: Callable[..., Plan]) -> None:
        found = self.fit(plan, hours=0.4).request
        assert found.trials is not None
        assert 12 < found.trials < 200
        assert (found.hours, found.epochs, found.base_epochs, found.timeout) == (None, None, None, 1440)
        assert self.fit(plan, hours=0.8).request.trials > 1.8 * found.trials  # type: ignore[operator]
        assert self.fit(plan, hours=1.0, trials=13).request.trials == 13

    @pytest.mark.usefixtures("timed")
    def test_many_hours_give_at_most_so_many_trials(self, plan: Callable[..., Plan]) -> None:
        found = self.fit(plan, hours=1000.0)
        assert found.request.trials == fit_hours.MOST_TRIALS
        assert "at most 200" in found.reason

    @pytest.mark.usefixtures("timed")
    def test_epochs_shrink_where_the_fewest_trials_do_not_fit(self, plan: Callable[..., Plan]) -> None:
        options = {"preset": "standard"}
        whole = self.fit(plan, hours=0.8, **options)
        assert (whole.request.epochs, whole.request.base_epochs) == (None, None)
        found = self.fit(plan, hours=0.3, **options)
        assert found.request.epochs is not None
        assert 5 <= found.request.epochs < 20
        assert found.request.base_epochs == round(60 * found.request.epochs / 20)
        assert f"--epochs {found.request.epochs} instead of 20: 12 trials of those do not fit" in found.reason

    @pytest.mark.usefixtures("timed")
    def test_impossible_hours_are_refused_with_the_least(self, plan: Callable[..., Plan]) -> None:
        with pytest.raises(SpecError) as refused:
            self.fit(plan, hours=0.01)
        message = str(refused.value)
        assert message.startswith("hours: the least that is chosen, 12 trials of 1 epoch, takes about 0.")
        least = float(message.partition("(--hours ")[2].partition(";")[0])
        assert self.fit(plan, hours=least).request.epochs == 1

    def test_hours_and_calibration_exclude_each_other(self) -> None:
        with pytest.raises(SpecError, match="calibrate: it sets --hours"):
            Request(hours=3.0, calibrate=True)


class TestNeeds:
    def test_needs_are_those_of_all_workers_and_trials(
        self, search: PlannedSearch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "free_memory", lambda: 10 * 2**30)
        found = Needs.of(replace(search, workers=3), MEASURED)
        pixels = 64 * 64 * 3
        assert found.images == found.all_images == 150 * pixels
        assert found.worker_memory == 2**30 + 90 * 2**20 + 50 * pixels
        assert found.memory == 3 * found.worker_memory + found.images
        assert found.weights == 12 * 8_000_000 + 3 * 40_000_000
        assert found.disk == found.weights + found.images + 12 * 200_000

    def test_images_that_do_not_fit_are_said(
        self, search: PlannedSearch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(machine, "free_memory", lambda: 1000)
        estimated = of_times(search, MEASURED)
        assert estimated.needs is not None
        assert estimated.needs.images == 0
        text = estimating.lines(Outlook(seconds=1.0, how="", estimate=estimated), tmp_path)["memory"]
        assert "only 0 MB are free: fewer --workers" in text
        assert "2 MB of images do not fit, and are decoded at every step" in text

    def test_full_disk_is_said(self, search: PlannedSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        estimated = of_times(search, MEASURED)
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**20))
        text = estimating.lines(Outlook(seconds=1.0, how="", estimate=estimated), tmp_path / "not" / "there")["disk"]
        assert text.endswith("; only 1 MB are free")


def at_terminal(monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    monkeypatch.setattr(type(show.err), "is_terminal", True)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: is_there))


class TestQuestion:
    @pytest.mark.parametrize(
        ("seconds", "yes", "terminal", "asks"),
        [(2e5, False, True, True), (2e5, True, True, False), (2e5, False, False, False), (8e4, False, True, False)],
    )
    def test_only_a_person_is_asked_before_a_search_of_days(
        self, seconds: float, yes: bool, terminal: bool, asks: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def confirm(text: str, **_: object) -> bool:
            asked.append(text)
            return True

        at_terminal(monkeypatch, terminal)
        monkeypatch.setattr("typer.confirm", confirm)
        estimating.require_yes(Outlook(seconds=seconds, how=""), yes=yes)
        assert bool(asked) is asks
        if asks:
            assert asked[0].startswith("This search takes about 2.3 days (--hours 8 makes one that fits")
        estimating.require_yes_to_trainings(seconds, yes=yes)
        if asks:
            assert asked[1].startswith("These trainings take about 2.3 days (--dry-run only prints the plan")
        assert len(asked) == 2 * asks

    def test_no_ends_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        at_terminal(monkeypatch, True)
        monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
        with pytest.raises(typer.Exit) as ended:
            estimating.require_yes(Outlook(seconds=1e6, how=""), yes=False)
        assert ended.value.exit_code == show.MISTAKE


class TestCommand:
    @pytest.fixture
    def options(self, tmp_path: Path) -> tuple[object, ...]:
        file = tmp_path / "small.yaml"
        file.write_text(SMALL)
        return "--space", file, "--dry-run", "--device", "cpu", "--workers", 1, "--runs", tmp_path / "runs"

    def test_plan_has_time_memory_and_disk(self, timed: list[PlannedSearch], options: tuple[object, ...]) -> None:
        result = nas("search", *options)
        assert result.exit_code == 0, result.stderr
        lines = dict(line.split(maxsplit=1) for line in result.stderr.splitlines() if " " in line)
        assert lines["time"].startswith("about ")
        assert "GB of RAM: 1 worker with" in lines["memory"]
        assert lines["disk"].startswith("at most ")
        assert len(timed) == 1

    @pytest.mark.usefixtures("timed")
    def test_plan_as_json_has_numbers(self, options: tuple[object, ...]) -> None:
        result = nas("search", *options, "--format", "json", "--hours", 1)
        document = json.loads(result.stdout)
        low, high = document["estimate"]["range"]
        assert low <= document["estimate"]["seconds"] <= high
        assert document["estimate"]["needs"]["disk"] > 0
        assert "hours     1: --trials " in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7, "7 s"), (119, "119 s"), (600, "10 min"), (7100, "118 min"), (9000, "2.5 h"), (4e5, "4.6 days")],
)
def test_estimated_durations_have_two_digits(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(18000, 28800, "5 to 8 h"), (3000, 9000, "0.8 to 2.5 h"), (60, 28800, "60 s to 8 h"), (7200, 7210, "2 h")],
)
def test_ranges_of_durations_share_a_unit(low: float, high: float, text: str) -> None:
    assert words.spans(low, high) == text


def task(space: SearchSpace, data: DataSet, folder: Path, **changes: Any) -> Task:
    budget = Budget(data=data.path, epochs=30, batch=4, image_size=32, deploy_size=32)
    fields = {
        "parent": 0,
        "began": time.monotonic(),
        "folder": str(folder),
        "cache": str(folder / "cache"),
        "documents": (space.stock.document(10),) * 2,
        "budgets": (budget.model_dump(mode="json"),) * 2,
        "data": str(data.path),
        "sealed": None,
        "subset": None,
        "sample": data,
        "inherits": True,
        "modules": (),
        "seconds": 12.0,
        "enough": 40.0,
        "measures_latency": False,
        "holding": Holding(train=True, val=True, val_batches=True),
    }
    return Task(**{**fields, **changes})


class TestTimedTraining:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch, nas_cache: Path) -> None:
        monkeypatch.setenv("NAS_CACHE", str(nas_cache))  # which a timing process changes for itself

    def test_trainings_are_timed_part_by_part(self, space: SearchSpace, data: DataSet, tmp_path: Path) -> None:
        done: list[int] = []
        found = timing_process.run(task(space, data, tmp_path), done.append)
        assert done == [1, 2]
        assert found.problems == {}
        for one in found.trainings:
            assert one is not None
            assert (one.train_images, one.val_images) == (20, 10)
            assert min(one.step, one.image, one.start, one.end, one.weights_bytes, one.checkpoint_bytes) > 0
        assert found.memory > 2**26
        assert list((tmp_path / "cache" / "images").glob("*.bin")) != []
        assert timing._stored(json.loads(json.dumps(asdict(found)))) == found

    def test_slow_steps_and_images_that_do_not_fit_are_timed_as_well(
        self, space: SearchSpace, data: DataSet, tmp_path: Path
    ) -> None:
        budget = Budget(data=data.path, batch=4, image_size=32, deploy_size=32).model_dump(mode="json")
        nothing = Holding(train=False, val=False, val_batches=False)
        short = task(
            space,
            data,
            tmp_path,
            documents=(space.stock.document(10),),
            budgets=(budget,),
            seconds=0.0,
            holding=nothing,
        )
        found = timing_process.run(short, lambda _: None)
        assert found.stock.step > 0
        assert found.stock.epoch > 0
        assert not (tmp_path / "cache" / "images").exists()

    def test_architecture_that_fails_is_named_and_stock_ends_it_all(
        self, space: SearchSpace, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def time_training(document: Any, *_: Any, **__: Any) -> TrainingTimes:
            if document["failing"]:
                raise RuntimeError("out of\nmemory")
            return TIMES

        monkeypatch.setattr(timing_process, "time_training", time_training)
        good, bad = {"failing": False}, {"failing": True}
        found = timing_process.run(task(space, data, tmp_path, documents=(good, bad)), print)
        assert found.trainings == (TIMES, None)
        assert found.problems == {"1": "RuntimeError: out of memory"}
        with pytest.raises(RuntimeError):
            timing_process.run(task(space, data, tmp_path, documents=(bad, good)), print)

    @pytest.mark.slow
    def test_processes_measure_side_by_side(
        self, space: SearchSpace, data: DataSet, real_timing: Callable[..., ProcessTimes], search: PlannedSearch
    ) -> None:
        reports: list[tuple[int, int]] = []
        asked = replace(search, data=data, workers=2)
        found = real_timing([space.stock], asked, timing._holding(asked), lambda *done: reports.append(done))
        assert found.stock.step > 0
        assert reports[-1] == (1, 1)

    @pytest.mark.slow
    def test_reason_of_a_failure_is_the_last_line_of_the_process(
        self, space: SearchSpace, data: DataSet, real_timing: Callable[..., ProcessTimes], search: PlannedSearch
    ) -> None:
        one_pixel = search.budget.model_copy(update={"batch": 1, "image_size": 32})  # batch norm wants more than one
        asked = replace(search, data=data, budget=one_pixel)
        with pytest.raises(EstimateError, match="a timed training failed: ValueError: "):
            real_timing([space.stock], asked, timing._holding(asked), lambda *_: None)
