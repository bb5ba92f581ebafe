"""`--batch auto`: the largest power of two that fits, found once and stored, with a learning rate that fits it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.study.study import Study
from nas.workflows import auto_batch, timing
from nas.workflows.auto_batch import chosen, largest, most_useful, scaled, with_batch
from nas.workflows.check_cache import CheckCache
from nas.workflows.fit_machine import with_chosen_batch
from nas.workflows.measured_choice import Chosen, ran_out_of_memory
from nas.workflows.plan import Plan
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request
from nas.workflows.timing_process import ProcessTimes
from search_spaces import Space
from search_spaces.errors import EnvironmentProblem, EstimateError
from trials import Budget, Recipe

from .test_sealed_images import SMALL, SPACE, TINY

MIB = 2**20


class TestLargest:
    """Memory grows by 100 MiB with each image, from 500."""

    tried: list[int]

    def find(self, *, fits: float, most: int = 64, limit: int | None = None, is_cautious: bool = False) -> Chosen:
        self.tried = []

        def measure(batch: int) -> int | None:
            self.tried.append(batch)
            return (500 + 100 * batch) * MIB if batch <= fits else None

        return largest(measure, limit=limit, most=most, is_cautious=is_cautious)

    @pytest.mark.parametrize(("fits", "batch"), [(1, 1), (3, 2), (8, 8), (15, 8), (40, 32), (1000, 64)])
    def test_largest_power_of_two_that_fits(self, fits: int, batch: int) -> None:
        assert self.find(fits=fits).number == batch

    def test_nothing_larger_than_useful_is_tried(self) -> None:
        assert self.find(fits=1000, most=16).number == 16
        assert self.tried == [8, 16]

    def test_a_limit_holds(self) -> None:
        assert self.find(fits=1000, limit=2200 * MIB).number == 16
        assert self.tried == [8, 16, 32]

    def test_where_running_out_would_end_other_processes_it_is_not_tried(self) -> None:
        found = self.find(fits=1000, limit=4000 * MIB, is_cautious=True)
        assert (found.number, self.tried) == (16, [8, 16])

    def test_reason_says_what_limits(self) -> None:
        assert self.find(fits=20).reason == "the costliest architecture fits in 2.1 GiB, with twice as many not"
        assert self.find(fits=1000).reason == "the costliest architecture fits in 6.7 GiB; a larger one would not help"

    def test_a_model_that_never_fits_is_refused(self) -> None:
        with pytest.raises(EnvironmentProblem, match="even with a single image"):
            self.find(fits=0)
        assert self.tried == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("images", "epochs", "batch"),
    [(1, 1, 8), (205, 20, 8), (400, 20, 8), (1000, 20, 32), (4000, 12, 64), (10**6, 6, 64)],
)
def test_a_trial_keeps_enough_steps(images: int, epochs: int, batch: int) -> None:
    assert most_useful(images, epochs) == batch


def test_learning_rate_grows_with_the_root_of_the_batch(tmp_path: Path) -> None:
    budget = Budget(data=tmp_path / "data.yaml", recipe=Recipe(learning_rate=1e-3))
    assert scaled(budget, 8) == budget
    larger = scaled(budget, 32)
    assert (larger.batch, larger.recipe.learning_rate) == (32, 2e-3)
    assert larger.recipe.weight_decay == budget.recipe.weight_decay


@pytest.mark.parametrize(
    "message",
    [
        "a timed training failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "a timed training failed: RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
        "a timed training failed: it ended with exit code -9",
    ],
)
def test_a_training_that_needs_too_much_memory_does_not_fit(message: str) -> None:
    assert ran_out_of_memory(message)
    assert not ran_out_of_memory("a timed training failed: RuntimeError: shapes cannot be multiplied")


@pytest.fixture
def ask(tmp_path: Path, write_scenes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    data = write_scenes(tmp_path / "scenes")
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "small.yaml").write_text(SPACE)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))

    def make(**options: Any) -> Plan:
        fields: dict[str, Any] = {"space": tmp_path / "small.yaml", "data": data, "runs": tmp_path / "runs"}
        return Plan.of(Request.of(**{**fields, "trials": 3, **SMALL, "batch": None, **options}))

    return make


class TestSearch:
    def test_on_the_cpu_the_usual_batch_is_kept(self, ask: Callable[..., Plan]) -> None:
        plan = ask()
        assert (plan.file.settings.budget.batch, plan.batch) == (8, "")
        assert plan.file.settings == ask(batch=8).file.settings

    def test_by_default_it_is_chosen_on_a_gpu(self) -> None:
        assert Request().chooses_batch("0")
        assert not Request(batch=16).chooses_batch("0")
        assert not Request().chooses_batch("cpu")
        assert Request(batch="auto").chooses_batch("cpu")

    def test_few_images_keep_it_without_a_measurement(self, ask: Callable[..., Plan]) -> None:
        plan = ask(batch="auto")
        assert plan.file.settings.budget.batch == 8
        assert plan.batch == "a trial has 5 steps; a larger one would leave it too few"

    def test_it_is_measured_once_for_a_machine(
        self, ask: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auto_batch, "LEAST_STEPS", 1)
        plan, tried = ask(), list[int]()

        def measure(_space: Space, search: PlannedSearch) -> tuple[int, None]:
            tried.append(search.budget.batch)
            if search.budget.batch > 16:
                raise EstimateError("a timed training failed: MemoryError: too little")
            return MIB, None

        planned = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data)
        for _ in range(2):
            found = chosen(plan.space, planned, CheckCache(tmp_path / "checks.json"), measure=measure)
            assert found.number == 16
        assert tried == [8, 16, 32]

    @pytest.mark.parametrize(("free", "batch"), [(3000, 32), (302, 32), (301, 16), (9.5, 1)])
    def test_a_gpu_that_others_use_has_less_room(
        self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, free: float, batch: int
    ) -> None:
        """Two workers share the GPU, a batch takes 4 MiB an image, and 15 % of what is free stay free."""
        monkeypatch.setattr(auto_batch, "LEAST_STEPS", 1)
        plan = ask()
        planned = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data)
        planned = replace(planned, devices="0", workers=2)

        def measure(_space: Space, search: PlannedSearch) -> tuple[int, int]:
            return 4 * search.budget.batch * MIB, int(free * MIB)

        assert chosen(plan.space, planned, CheckCache(None), measure=measure).number == batch

    def test_sealed_images_are_not_timed(self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
        timed: list[PlannedSearch] = []

        def choose(_space: Space, search: PlannedSearch, *_: object, **__: object) -> Chosen:
            timed.append(search)
            return Chosen(number=8, reason="it fits")

        monkeypatch.setattr(auto_batch, "chosen", choose)
        plan = ask(batch="auto", holdout=0.3)
        assert plan.sealed is not None
        assert [search.sealed for search in timed] == [plan.sealed]

    def test_another_failure_is_no_matter_of_memory(
        self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auto_batch, "LEAST_STEPS", 1)
        plan = ask()

        def measure(_space: Space, _search: PlannedSearch) -> tuple[int, None]:
            raise EstimateError("a timed training failed: RuntimeError: shapes")

        planned = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data)
        with pytest.raises(EstimateError, match="shapes"):
            chosen(plan.space, planned, CheckCache(None), measure=measure)

    def test_it_is_stored_and_a_study_goes_on_with_it(
        self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        results = iter([Chosen(number=32, reason="it fits")])
        monkeypatch.setattr(auto_batch, "chosen", lambda *_, **__: next(results))
        study = ask(batch="auto", study="mine").begin()
        stored = json.loads((study.folder / "study.json").read_text())["settings"]
        assert [stored[name]["batch"] for name in ("base", "budget")] == [32, 32]
        again = ask(batch="auto", study="mine")
        assert again.batch == "as the study was begun"
        assert again.file.settings == Study.open(study.folder).settings == with_batch(study.settings, 32)

    def test_a_check_of_a_space_estimates_with_it(
        self, ask: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auto_batch, "chosen", lambda *_, **__: Chosen(number=32, reason="it fits"))
        plan = ask()
        planned = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data)

        def of(request: Request) -> PlannedSearch:
            return with_chosen_batch(request, plan.space, planned, CheckCache(None))

        assert of(Request()) == of(Request(batch=8)) == planned  # on the CPU, and where one is given
        larger = of(Request(batch="auto"))
        assert larger.budget == scaled(planned.budget, 32)
        assert planned.base is not None
        assert larger.base == scaled(planned.base, 32)


@pytest.mark.slow
def test_a_real_training_is_measured(
    ask: Callable[..., Plan], real_timing: Callable[..., ProcessTimes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_measure", real_timing)
    monkeypatch.setattr(auto_batch, "LEAST_STEPS", 2)
    plan = ask(batch="auto")
    assert plan.file.settings.budget.batch == 16
    assert plan.batch.startswith("the costliest architecture fits in ")
