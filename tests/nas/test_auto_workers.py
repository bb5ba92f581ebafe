"""`--workers-per-device auto`: as many trials at once as train more images a second and fit, found once and stored."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.cli import planning
from nas.workflows import auto_batch, auto_workers, timing
from nas.workflows.auto_workers import AtOnce, chosen, worthwhile
from nas.workflows.check_cache import CheckCache
from nas.workflows.measured_choice import Chosen
from nas.workflows.plan import Plan
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request
from nas.workflows.timing_process import ProcessTimes
from search_spaces import Space
from search_spaces.errors import EnvironmentProblem, EstimateError, SpecError
from trials import machine
from trials.training.timed_training import TrainingTimes

from .test_sealed_images import SMALL, SPACE, TINY

GIB = 2**30


class TestWorthwhile:
    tried: list[int]

    def find(self, rates: Mapping[int, float], *, occupied: int = GIB, free: int = 100 * GIB) -> Chosen:
        """Choose where a number of trainings at once has a rate, and does not fit if it has none."""
        self.tried = []

        def measure(number: int) -> AtOnce | None:
            self.tried.append(number)
            return AtOnce(rate=rates[number], occupied=occupied, free=free) if number in rates else None

        return worthwhile(measure)

    @pytest.mark.parametrize(
        ("rates", "number", "tried"),
        [
            ({1: 100, 2: 109}, 1, [1, 2]),
            ({1: 100, 2: 110, 4: 120}, 2, [1, 2, 4]),
            ({1: 100, 2: 190, 4: 300, 8: 320}, 4, [1, 2, 4, 8]),
            ({1: 100, 2: 190, 4: 300, 8: 340}, 8, [1, 2, 4, 8]),
            ({1: 100, 2: 90, 4: 300}, 1, [1, 2]),
        ],
    )
    def test_the_first_number_that_gains_less_than_a_tenth_ends_it(
        self, rates: Mapping[int, float], number: int, tried: list[int]
    ) -> None:
        assert self.find(rates).number == number
        assert self.tried == tried

    def test_what_ran_out_of_memory_ends_it(self) -> None:
        found = self.find({1: 100, 2: 190})
        assert found == Chosen(
            number=2, reason="together 1.9 times the images a second of one; 4 at once do not fit into memory"
        )

    def test_what_cannot_fit_is_not_tried(self) -> None:
        found = self.find({1: 100, 2: 190, 4: 380, 8: 700}, occupied=2 * GIB, free=10 * GIB)
        assert (found.number, self.tried) == (4, [1, 2, 4])
        found = self.find({1: 100, 2: 190}, occupied=5 * GIB, free=11 * GIB)  # 10 GiB would leave no margin
        assert (found.number, self.tried, found.reason) == (1, [1], "2 at once do not fit into memory")

    def test_reason_says_what_is_gained(self) -> None:
        assert self.find({1: 100, 2: 104}).reason == "2 at once train 1.04 times as many images a second as 1"
        assert self.find({1: 100, 2: 200, 4: 300, 8: 500}).reason == (
            "together 5 times the images a second of one; more are not tried"
        )

    def test_a_model_that_never_fits_is_refused(self) -> None:
        with pytest.raises(EnvironmentProblem, match="does not fit into memory, even alone"):
            self.find({})


def times(step: float, *, gpu_memory: int = GIB, memory: int = 0) -> ProcessTimes:
    training = TrainingTimes(
        step=step,
        epoch=0.0,
        image=0.0,
        start=0.0,
        end=0.0,
        loading=0.0,
        first_validation=0.0,
        train_images=8,
        val_images=8,
        weights_bytes=1,
        checkpoint_bytes=1,
    )
    return ProcessTimes(
        start=0.0,
        trainings=(training,),
        problems={},
        latency=0.0,
        memory=memory,
        gpu_memory=gpu_memory,
        free_gpu_memory=80 * GIB,
    )


@pytest.fixture
def ask(tmp_path: Path, write_scenes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """Return a plan as on a machine with two GPUs."""
    data = write_scenes(tmp_path / "scenes")
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "small.yaml").write_text(SPACE)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def make(**options: Any) -> Plan:
        fields: dict[str, Any] = {"space": tmp_path / "small.yaml", "data": data, "runs": tmp_path / "runs"}
        there = {"trials": 3, "precision": "fp32", "device": "0,1", "workers": None, "batch": 8}
        return Plan.of(Request.of(**{**fields, **SMALL, **there, **options}))

    return make


class TestChosen:
    @pytest.fixture
    def search(self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> tuple[Space, PlannedSearch]:
        monkeypatch.setattr(timing, "key_of_costliest", lambda *_: "key")  # it asks the GPU for its name
        monkeypatch.setattr(machine, "memory_share", lambda _: 4 * GIB)
        plan = ask()
        return plan.space, PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data)

    def test_it_is_measured_once_for_a_machine(self, search: tuple[Space, PlannedSearch], tmp_path: Path) -> None:
        timed, said = list[tuple[int, int]](), list[str]()

        def measure(_space: Space, beside: PlannedSearch) -> ProcessTimes:
            timed.append((beside.workers, beside.sharing))
            return times({1: 0.1, 2: 0.11, 4: 0.21}[beside.sharing])

        for _ in range(2):
            cache = CheckCache(tmp_path / "checks.json")
            found = chosen(*search, cache, measure=measure, trying=said.append)
            assert found == Chosen(
                number=2,
                reason="together 1.8 times the images a second of one; "
                "4 at once train 1.05 times as many images a second as 2",
            )
        assert timed == [(2, 1), (4, 2), (8, 4)]
        assert said == [f"timing trainings: {number} at once" for number in (1, 2, 4)]

    def test_running_out_of_memory_ends_it_and_another_failure_raises(
        self, search: tuple[Space, PlannedSearch]
    ) -> None:
        def fail(message: str, at: int) -> Callable[..., ProcessTimes]:
            def measure(_space: Space, beside: PlannedSearch) -> ProcessTimes:
                if beside.sharing >= at:
                    raise EstimateError(f"a timed training failed: {message}")
                return times(0.1)

            return measure

        memory = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
        assert chosen(*search, CheckCache(None), measure=fail(memory, 4)).number == 2
        with pytest.raises(EstimateError, match="shapes"):
            chosen(*search, CheckCache(None), measure=fail("RuntimeError: shapes", 2))

    def test_main_memory_of_the_workers_limits_as_well(self, search: tuple[Space, PlannedSearch]) -> None:
        def measure(_space: Space, beside: PlannedSearch) -> ProcessTimes:
            return times(0.1, memory=GIB * beside.sharing)

        assert chosen(*search, CheckCache(None), measure=measure).number == 4
        assert chosen(*search, CheckCache(None), measure=measure, memory=2 * GIB).number == 2

    def test_trials_that_measure_latency_stay_alone(self, search: tuple[Space, PlannedSearch]) -> None:
        space, planned = search
        found = chosen(space, replace(planned, measures_latency=True), CheckCache(None))
        assert (found.number, found.reason) == (
            1,
            "trials measure their latency, which others beside them would disturb",
        )


class TestSearch:
    def test_it_is_stored_shown_and_a_study_goes_on_with_it(
        self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        results = iter([Chosen(number=4, reason="together 2.6 times the images a second of one")])
        monkeypatch.setattr(auto_workers, "chosen", lambda *_, **__: next(results))
        plan = ask(workers_per_device="auto", study="mine")
        planning.print_plan(plan, "json")
        assert json.loads(capsys.readouterr().out)["workers"] == (
            "8 on 0,1: together 2.6 times the images a second of one"
        )
        study = plan.begin()
        assert json.loads((study.folder / "study.json").read_text())["run"]["workers"] == 8
        again = ask(workers_per_device="auto", study="mine", device="0")
        assert (again.file.run.workers, again.workers) == (4, "as the study was begun")

    def test_the_batch_is_chosen_before(self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
        batches = []

        def choose(_space: Space, search: PlannedSearch, *_: object, **__: object) -> Chosen:
            batches.append((search.budget.batch, search.sharing))
            return Chosen(number=2, reason="measured")

        monkeypatch.setattr(auto_batch, "chosen", lambda *_, **__: Chosen(number=32, reason="it fits"))
        monkeypatch.setattr(auto_workers, "chosen", choose)
        assert ask(workers_per_device="auto", batch="auto").file.run.workers == 4
        assert batches == [(32, 1)]

    def test_it_is_left_alone_where_it_is_not_asked_for(self, ask: Callable[..., Plan]) -> None:
        plan = ask()
        assert (plan.file.run.workers, plan.workers) == (2, "")
        assert ask(workers_per_device=3).file.run.workers == 6

    @pytest.mark.parametrize("number", ["auto", 4])
    def test_it_is_not_for_a_cluster(self, number: Any) -> None:
        with pytest.raises(SpecError, match=r"workers-per-device: .* not of a Ray cluster \(--gpus-per-worker 0.25"):
            Request(workers_per_device=number, ray="auto").devices()


@pytest.mark.slow
def test_real_trainings_beside_each_other_are_timed(
    ask: Callable[..., Plan], real_timing: Callable[..., ProcessTimes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_measure", real_timing)
    monkeypatch.setattr(auto_workers, "NUMBERS", (1, 2))
    plan = ask(device="cpu", workers=1)
    search = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data)
    found = chosen(plan.space, search, CheckCache(None))
    assert found.number in {1, 2}
    assert "images a second" in found.reason
