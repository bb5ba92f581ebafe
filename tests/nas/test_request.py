"""Requests that depend on the machine, on another study, or on a checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner
from ultralytics import YOLO

from nas import open_study, resume
from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.study import Study
from nas.workflows import request
from nas.workflows.plan import Plan
from nas.workflows.refinement import resolve_space
from nas.workflows.request import Request, require_cores
from search_spaces import Architecture, build, load
from search_spaces.errors import SpecError
from trials import Outcome, machine, torch_devices
from trials.budget import Precision
from trials.data import datasets
from trials.weights import save

from .conftest import SPACE


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
class TestWorkers:
    def test_default_workers_are_one_per_core(self) -> None:
        assert Request(device="cpu").devices() == ("cpu", 2)

    def test_fewer_workers_are_allowed(self) -> None:
        assert Request(device="cpu", workers=1).devices() == ("cpu", 1)

    def test_more_workers_than_cores_are_refused(self) -> None:
        with pytest.raises(SpecError) as error:
            Request(device="cpu", workers=8).devices()
        assert str(error.value) == (
            "workers: each needs a CPU core, and 2 cores are free here, got 8 (--workers 2 or fewer)"
        )

    def test_workers_on_gpus_are_not_limited_by_cores(self) -> None:
        require_cores("0,1,2,3", 4)


class TestWorkersPerDevice:
    @pytest.fixture(autouse=True)
    def two_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def test_each_gpu_has_so_many(self) -> None:
        assert Request(device="0,1", workers_per_device=3).devices() == ("0,1", 6)
        assert Request(device="0,1").devices() == ("0,1", 2)

    @pytest.mark.parametrize(
        ("options", "other"),
        [({"device": "cpu"}, "a CPU"), ({"device": "0", "workers": 2}, "--workers, which was given as well")],
    )
    def test_it_is_for_gpus_and_not_for_workers_that_are_counted(self, options: dict[str, Any], other: str) -> None:
        with pytest.raises(SpecError) as error:
            Request(workers_per_device=2, **options).devices()
        assert str(error.value) == (
            f"workers-per-device: for GPUs, not together with {other} (--workers N counts them all)"
        )


def test_gpu_is_deterministic_if_asked_and_a_cpu_is_anyway(scenes: datasets.DataSet) -> None:
    asked = Request(deterministic=True, precision="fp32")
    assert asked.budget(load("v9"), scenes, "0").deterministic
    assert not asked.budget(load("v9"), scenes, "cpu").deterministic


def test_default_workers_are_at_most_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 64)
    assert Request(device="cpu").devices() == ("cpu", 4)


class TestPrecision:
    """Number format of the steps of a training, by device."""

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
    def test_precision_is_as_requested_and_bf16_by_default_on_a_gpu(
        self,
        asked: Precision | None,
        device: str,
        computes: bool,
        precision: Precision,
        scenes: datasets.DataSet,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(request, "computes_bf16", lambda _device: computes)
        monkeypatch.setattr(torch_devices, "computes_bf16", lambda _device: computes)
        old = SimpleNamespace(name="NVIDIA GeForce GTX 1080", major=6, minor=1)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: old)
        requested, space = Request(precision=asked), load("v9")
        base = requested.stock_budget(space, scenes, device)
        assert base is not None
        assert {base.precision, requested.budget(space, scenes, device).precision} == {precision}

    def test_the_gpus_of_a_ray_cluster_are_not_looked_for_here(self, scenes: datasets.DataSet) -> None:
        there = Request(ray="auto", gpus_per_worker=1.0)
        assert there.budget(load("v9"), scenes, "0").precision == "fp32"
        asked = Request(ray="auto", gpus_per_worker=1.0, precision="bf16")
        assert asked.budget(load("v9"), scenes, "0").precision == "bf16"

    def test_fp16_is_refused_on_a_cpu(self, scenes: datasets.DataSet) -> None:
        with pytest.raises(SpecError) as error:
            Request(precision="fp16").budget(load("v9"), scenes, "cpu")
        assert str(error.value) == (
            "precision: fp16 is for GPUs, a CPU emulates it slowly (fp32, or bf16 if the CPU has it)"
        )

    def test_emulated_bf16_is_refused(self, scenes: datasets.DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(request, "computes_bf16", lambda _device: False)
        with pytest.raises(SpecError) as error:
            Request(precision="bf16").budget(load("v9"), scenes, "cpu")
        assert str(error.value) == (
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

        monkeypatch.setattr(worker, "evaluate", score_with_poor_stock)
        Worker(study, deadline=float("inf")).run()
        return study

    def test_refine_trains_the_front_of_another_study_first(self, coarse: Study, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        plan = Plan.of(Request(refine="small", runs=runs, device="cpu", workers=1))
        front = {record.fingerprint for record in coarse.front()} - {coarse.space.stock.fingerprint}
        assert {architecture.fingerprint for architecture in plan.space.start} == front
        assert plan.folder == runs / "small-fine"
        assert plan.file.settings.data == coarse.settings.data == "digits"
        study = plan.begin()
        assert {record.fingerprint for record in study.records() if record.role == "start"} == front

    def test_refined_space_can_be_written_to_a_file(self, coarse: Study, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["spaces", "refine", coarse.name, "--runs", str(tmp_path / "runs")])
        assert result.exit_code == 0
        assert result.stdout.startswith("name: small-fine\nbase: yolov9{scale}.yaml\nscale: t\n")

    def test_refine_excludes_another_space_or_scale(self, coarse: Study, tmp_path: Path) -> None:
        for space in ("v8", "v9"):  # of which one is the default
            with pytest.raises(SpecError) as error:
                Plan.of(Request(refine=coarse.name, space=space, scale="s", runs=tmp_path / "runs", device="cpu"))
            assert error.value.mistakes == (
                f"space: '{space}', but small is refined, a study of small (leave --space out)",
                "scale: 's', but small is refined, a study of t (leave --scale out)",
            )

    def test_refine_takes_the_space_that_is_refined(self, coarse: Study, tmp_path: Path) -> None:
        request = Request(refine=coarse.name, space="small", scale="t", runs=tmp_path / "runs", device="cpu")
        _, space, _ = resolve_space(request)
        assert space.name == "small-fine"

    def test_refine_needs_an_existing_study(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="no study 'nothing'"):
            Plan.of(Request(refine="nothing", runs=tmp_path / "runs", device="cpu"))


class TestWeights:
    """Where the stock model's training starts: read before anything is written, without running what a file says."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        """Files that are no checkpoint of a detection model, each of another kind."""
        (tmp_path / "text.pt").write_text("no checkpoint")
        (tmp_path / "empty.pt").write_bytes(b"")
        (tmp_path / "table.csv").write_text("a,b")
        torch.save({"epoch": 3}, tmp_path / "numbers.pt")
        torch.save(torch.zeros(3), tmp_path / "tensor.pt")
        torch.save({"model": {"model.0.conv.weight": torch.zeros(3)}}, tmp_path / "state.pt")
        torch.save({"model": YOLO("yolov8n-seg.yaml").model}, tmp_path / "segment.pt")
        torch.save({"model": YOLO("yolov8n-cls.yaml").model}, tmp_path / "classify.pt")
        torch.save({"model": Runs(tmp_path / "ran")}, tmp_path / "runs.pt")
        rows = {"backbone": [[-1, 1, "Conv", [24, 3, 2]]] * 2, "head": [[[1], 1, "Detect", ["nc"]]]}
        save(build.model({"nc": 1, **rows}, 1), {}, tmp_path / "foreign.pt")
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("text.pt", "not a checkpoint that Ultralytics loads: it is empty, torn, or a file of another kind"),
            ("empty.pt", "not a checkpoint that Ultralytics loads: it is empty, torn, or a file of another kind"),
            ("table.csv", "not a checkpoint that Ultralytics loads: its name does not end in .pt"),
            ("numbers.pt", "not a checkpoint that Ultralytics loads: there is no model in it"),
            ("tensor.pt", "not a checkpoint that Ultralytics loads"),
            ("state.pt", "not a checkpoint that Ultralytics loads: there is no model in it"),
            ("segment.pt", "not a checkpoint of a detection model, got a SegmentationModel with Segment"),
            ("classify.pt", "not a checkpoint of a detection model, got a ClassificationModel with Classify"),
            ("runs.pt", "loads: it holds code or classes that are neither Ultralytics' nor ours ("),
            ("foreign.pt", "of this model's parameters are in it; is it of the same base and scale?"),
        ],
    )
    def test_weights_from_a_file_without_a_detection_model_are_refused(
        self, name: str, message: str, files: Path, small_space: Path
    ) -> None:
        asked = Request(
            space=str(small_space), weights=files / name, runs=files / "runs", device="cpu", workers=1, image_size=64
        )
        with pytest.raises(SpecError) as caught:
            Plan.of(asked)
        text = str(caught.value)
        assert text.startswith(f"weights: {files / name}: ")
        assert message in text
        assert "\n" not in text
        assert not (files / "runs").exists()
        assert not (files / "ran").exists()

    def test_weights_of_the_stock_model_are_accepted(self, tmp_path: Path, small_space: Path) -> None:
        save(build.model(load(small_space).stock.document(80), 80), {}, tmp_path / "stock.pt")
        asked = Request(
            space=str(small_space), weights=tmp_path / "stock.pt", runs=tmp_path / "runs", device="cpu", workers=1
        )
        assert Plan.of(asked).file.settings.base is not None


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.fixture
def small_space(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return path


class TestPaths:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_paths_are_given_as_text_or_as_paths(self, kind: Callable[[str], str | Path]) -> None:
        request = Request.of(runs=kind("mine"), weights=kind("w.pt"), data=kind("my/data.yaml"), space=kind("v8"))
        assert (request.runs_folder, request.checkpoint) == (Path("mine"), Path("w.pt"))
        assert (request.data_name, request.space_name) == ("my/data.yaml", "v8")

    def test_numbers_are_refused_as_paths(self) -> None:
        with pytest.raises(SpecError, match=r"^runs: a path is expected, got 3$"):
            Request.of(runs=3)

    def test_runs_folder_of_open_study_and_resume_may_be_text(self, tmp_path: Path) -> None:
        for call in (open_study, resume):
            with pytest.raises(SpecError, match="no study 'none'"):
                call("none", runs=str(tmp_path))
