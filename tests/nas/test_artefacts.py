"""Files of a model in several precisions: mAP and latency are of the same file, and are measured once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.cli import measured_files
from nas.deployment import formats
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.export import Exported
from nas.study.study import Study
from nas.workflows import artefacts
from nas.workflows.artefacts import Wanted
from search_spaces import build
from search_spaces.errors import SpecError, StudyError
from trials import Budget, Outcome
from trials.data import calibration_images, datasets
from trials.latency.measurement import Latency
from trials.latency.precision import Calibration
from trials.latency.runtimes import LocalRuntime
from trials.weights import keep

SIZE = 64
TORCH_MAP = 0.5


@pytest.fixture
def exported(
    make_study: Callable[..., Study],
    write_scenes: Callable[..., Path],
    score: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Study, Exported]:
    """Export of a trial whose weights are random, on scenes of squares."""
    monkeypatch.setattr(worker, "evaluate", score)
    data = datasets.load(write_scenes(tmp_path / "scenes"))
    budget = Budget(data=data.path, epochs=1, image_size=SIZE, deploy_size=SIZE)
    study = make_study(trials=1, budget=budget, classes=data.classes)
    Worker(study, deadline=float("inf")).run()
    torch.manual_seed(0)
    model = build.model(study.space.stock.document(2), 2)
    keep(model, {"imgsz": SIZE}, study.files(0).weights)
    return study, study.export(trial=0, folder=tmp_path / "out")


class Measured:
    """In the place of validations and timings: notes what is scored and timed."""

    def __init__(self) -> None:
        self.scored: list[Any] = []
        self.timed: list[Any] = []

    def accuracy(self, model: Any, data: Path, size: int, *, end_to_end: bool, device: str = "cpu") -> float:
        assert (data.name, size, end_to_end, device) == ("data.yaml", SIZE, False, "cpu")
        self.scored.append(model)
        return TORCH_MAP if isinstance(model, Path) else TORCH_MAP - 0.01

    def measure(self, deployed: Any) -> Latency:
        self.timed.append(deployed)
        return Latency(median_ms=3.0, spread_ms=0.1, p90_ms=3.1, iterations=20)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    stand_in = Measured()
    monkeypatch.setattr(formats, "accuracy", stand_in.accuracy)
    monkeypatch.setattr(LocalRuntime, "measure", stand_in.measure)
    return stand_in


def test_what_is_scored_is_what_is_timed_and_is_measured_once(
    exported: tuple[Study, Exported], measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted.of("onnx", "int8", calibration=Calibration(images=2))
    torch_row, file = artefacts.measure(*exported, wanted)
    assert (torch_row.format, torch_row.precision, torch_row.map50_95) == ("torch", "fp32", TORCH_MAP)
    assert (file.map50_95, file.measured_ms) == (TORCH_MAP - 0.01, 3.0)
    assert file.difference == pytest.approx(-0.01)
    assert file.predicted_ms is None  # there is no table
    assert file.path is not None
    assert file.path.read_bytes() == measured.timed[1].graph
    assert file.bytes == file.path.stat().st_size < (torch_row.bytes or 0)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, scored = formats._first(measured.timed[0].module(image)), measured.scored[1](image)
    assert scored.shape == whole.shape
    difference = (scored - whole).abs()
    assert 0 < difference[:, 4:].max() < 0.05
    assert difference[:, :4].max() < 0.2 * SIZE
    again = list(artefacts.measure(*exported, wanted))
    assert again == [torch_row, file]
    assert len(measured.timed) == len(measured.scored) == 2
    monkeypatch.setattr("nas.deployment.artefacts.write", lambda *_, **__: file.path.read_bytes())
    other = Wanted.of("onnx", "int8", calibration=Calibration(images=2, seed=1))
    assert list(artefacts.measure(*exported, other))[1].map50_95 is not None
    assert len(measured.timed) == 3  # other calibration images: another file, PyTorch's model as before


def test_a_file_that_cannot_be_made_is_a_row_with_the_reason(
    exported: tuple[Study, Exported], measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trials.latency.backends.find_spec", lambda name: None if name == "tensorrt" else name)
    rows = list(artefacts.measure(*exported, Wanted.of("engine", "fp32", check=False)))
    assert [(row.path is None, row.note) for row in rows] == [
        (False, ""),
        (True, "the runtime tensorrt is not installed (pip install 'nas-for-yolo[tensorrt]')"),
    ]
    assert not measured.timed
    study, whole = exported
    without = Exported(**{**whole.__dict__, "weights": None})
    with pytest.raises(StudyError, match="its weights were not saved"):
        list(artefacts.measure(study, without, Wanted.of("onnx", "fp32")))


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_a_confirmation_shows_a_table_for_each_model_whose_weights_are_saved(
    exported: tuple[Study, Exported], capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = exported
    measured_files.of_confirmation(study, Wanted.of("onnx", "fp32"))
    printed = capsys.readouterr().err.splitlines()
    first = next(number for number, line in enumerate(printed) if line.startswith("trial 0: "))
    assert printed[first + 1].split() == "format precision mAP50-95 less torch predicted ms measured ms MB".split()  # noqa: SIM905
    assert [line.split()[:6] for line in printed[first + 2 : first + 4]] == [
        ["torch", "fp32", "0.5000", "-", "-", "3.00"],
        ["onnx", "fp32", "0.4900", "-0.0100", "-", "3.00"],
    ]
    folder = study.folder / "export" / "trial-0000"
    (found,) = formats._differences(folder / "weights.pt", folder / "weights-onnxruntime-fp32.onnx", [(SIZE, SIZE)])
    assert found.is_small  # Ultralytics reads the file
    study.files(0).weights.unlink()
    measured_files.of_confirmation(study, Wanted.of("onnx", "fp32"))
    assert "no file, the weights of its trainings were not saved" in capsys.readouterr().err


def test_every_wrong_name_is_listed() -> None:
    with pytest.raises(SpecError) as caught:
        Wanted.of("onxx,openvino", "int9")
    assert caught.value.mistakes == (
        "formats: got 'onxx' (did you mean 'onnx'?)",
        "precision: got 'int9' (did you mean 'int8'?)",
    )


def test_calibration_images_are_those_of_validation(tmp_path: Path, write_scenes: Callable[..., Path]) -> None:
    data = datasets.load(write_scenes(tmp_path / "scenes", train=2, val=1, side=32))
    (image,) = calibration_images.samples([f"{data.train[0]}/000.png"], SIZE)
    assert image.shape == (1, 3, SIZE, SIZE)
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1
