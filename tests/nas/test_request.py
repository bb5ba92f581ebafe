"""What may be asked of a search, where the machine or another study has a say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nas import machine, request, work
from nas.cli import app
from nas.plan import Plan
from nas.request import Request, require_cores
from nas.study import Study
from nas.work import Worker
from search_spaces import Architecture, load
from search_spaces.errors import SpecError
from trials import Outcome, datasets
from trials.budget import Precision


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
class TestWorkers:
    def test_on_the_cpu_are_as_many_as_cores(self) -> None:
        assert Request(device="cpu").devices() == ("cpu", 2)

    def test_may_be_fewer(self) -> None:
        assert Request(device="cpu", workers=1).devices() == ("cpu", 1)

    def test_of_which_one_would_wait_for_another_are_refused(self) -> None:
        with pytest.raises(SpecError) as told:
            Request(device="cpu", workers=8).devices()
        assert str(told.value) == "workers: one needs a core, and 2 cores are free here, got 8 (--workers 2 or fewer)"

    def test_on_gpus_are_not_counted_in_cores(self) -> None:
        require_cores("0,1,2,3", 4)


def test_no_more_than_four_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 64)
    assert Request(device="cpu").devices() == ("cpu", 4)


class TestPrecision:
    """Of the step of a training, by device."""

    @pytest.mark.parametrize(
        ("asked", "device", "computes", "precision"),
        [
            (None, "cpu", True, "fp32"),
            (None, "0", True, "bf16"),
            (None, "0", False, "fp32"),
            ("bf16", "cpu", True, "bf16"),
            ("fp32", "0", True, "fp32"),
        ],
    )
    def test_is_what_is_asked_and_bf16_on_a_gpu(
        self,
        asked: Precision | None,
        device: str,
        computes: bool,
        precision: Precision,
        scenes: datasets.DataSet,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(request, "computes_bf16", lambda _device: computes)
        asked_for, space = Request(precision=asked), load("v9")
        base = asked_for.base(space, scenes, device)
        assert base is not None
        assert {base.precision, asked_for.budget(space, scenes, device).precision} == {precision}

    def test_that_a_device_only_emulates_is_refused(
        self, scenes: datasets.DataSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(request, "computes_bf16", lambda _device: False)
        with pytest.raises(SpecError) as told:
            Request(precision="bf16").budget(load("v9"), scenes, "cpu")
        assert str(told.value) == (
            "precision: the device cpu does not compute in bfloat16, and emulates it slowly (fp32)"
        )


class TestRefine:
    """`--refine`: the space around a study's front."""

    @pytest.fixture
    def coarse(
        self, make_study: Callable[..., Study], score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> Study:
        """One whose front is not the stock model alone."""
        study = make_study(trials=8)

        def score_with_poor_stock(architecture: Architecture, *given: Any, **further: Any) -> Outcome:
            outcome = score(architecture, *given, **further)
            if architecture != study.space.stock or outcome.scores is None:
                return outcome
            return replace(outcome, scores=replace(outcome.scores, map50_95=0.0))

        monkeypatch.setattr(work, "evaluate", score_with_poor_stock)
        Worker(study, deadline=float("inf")).run()
        return study

    def test_begins_with_the_front_of_another_study(self, coarse: Study, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        plan = Plan.of(Request(refine="small", runs=runs, device="cpu", workers=1))
        front = {record.fingerprint for record in coarse.front()} - {coarse.space.stock.fingerprint}
        assert {architecture.fingerprint for architecture in plan.space.start} == front
        assert plan.folder == runs / "small-fine"
        assert plan.file.settings.data == coarse.settings.data == "digits"
        study = plan.begin()
        assert {record.fingerprint for record in study.records() if record.role == "start"} == front

    def test_is_a_file_to_look_at_first(self, coarse: Study, tmp_path: Path) -> None:
        told = CliRunner().invoke(app, ["spaces", "refine", coarse.name, "--runs", str(tmp_path / "runs")])
        assert told.exit_code == 0
        assert told.stdout.startswith("name: small-fine\nbase: yolov9{scale}.yaml\nscale: t\n")

    def test_takes_the_place_of_a_space(self, coarse: Study, tmp_path: Path) -> None:
        with pytest.raises(SpecError) as error:
            Plan.of(Request(refine=coarse.name, space="v8", runs=tmp_path / "runs", device="cpu"))
        assert str(error.value) == (
            "refine: a refined study says space and scale itself; leave --space and --scale out"
        )

    def test_needs_a_study_that_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="no study 'nothing'"):
            Plan.of(Request(refine="nothing", runs=tmp_path / "runs", device="cpu"))
