"""Ultralytics' formats: their names, their arguments, and how files are compared with PyTorch."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import openvino
import pytest
import torch
from torch import nn

from nas.deployment import formats
from nas.deployment.formats import Difference, ExportedFormat
from search_spaces import Architecture, Choice, build
from search_spaces.errors import SpecError
from trials.data import datasets
from trials.weights import save


def test_every_unknown_format_is_named_with_the_nearest_right_one() -> None:
    assert formats.require_formats(["onnx", "openvino", "onnx"]) == ("onnx", "openvino")
    with pytest.raises(SpecError) as caught:
        formats.require_formats(["onxx", "torchscript", "opnvino"])
    assert caught.value.mistakes == (
        "formats: got 'onxx' (did you mean 'onnx'?)",
        "formats: got 'opnvino' (did you mean 'openvino'?)",
    )


def test_arguments_are_read_as_ultralytics_reads_them() -> None:
    found = formats.read_arguments(["imgsz=320,640", "dynamic=False", "quantize=16"])
    assert found == {"imgsz": (320, 640), "dynamic": False, "quantize": 16}
    with pytest.raises(SpecError) as caught:
        formats.read_arguments(["imgz=3", "simplify"])
    assert caught.value.mistakes[0].startswith("imgz=3: an argument of Ultralytics' export is expected (did you mean")
    assert len(caught.value.mistakes) == 2


def test_differences_of_boxes_and_scores_are_told_apart() -> None:
    expected = torch.zeros(1, 4 + 3, 50)
    actual = expected.clone()
    actual[0, 1, 7], actual[0, 5, 9] = 2.0, -0.25
    found = formats._difference(expected, actual, (64, 96))
    assert found == Difference(size=(64, 96), boxes=2.0, scores=0.25)
    assert not found.is_small
    assert Difference(size=(64, 96), boxes=0.09, scores=0.0009).is_small


def test_boxes_of_an_end_to_end_model_that_nobody_sees_are_not_compared() -> None:
    expected = torch.zeros(1, 300, 6)
    expected[0, 0] = torch.tensor([1.0, 2, 3, 4, 0.9, 1])
    actual = expected.clone()
    actual[0, 1:, :4] = 50.0
    assert formats._difference(expected, actual, (64, 64)) == Difference(size=(64, 64), boxes=0.0, scores=0.0)


def test_outputs_of_another_form_are_no_outputs() -> None:
    with pytest.raises(ValueError, match="where PyTorch's are"):
        formats._difference(torch.zeros(1, 7, 50), torch.zeros(1, 7, 49), (64, 64))
    with pytest.raises(ValueError, match="no numbers"):
        formats._difference(torch.zeros(1, 7, 50), torch.full((1, 7, 50), torch.nan), (64, 64))


def test_a_format_that_nothing_here_runs_is_said_not_to_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    for name, reason in (("ncnn", "ncnn is not installed"), ("rknn", "it runs on a device of its own")):
        exported = ExportedFormat(name=name, path=tmp_path)
        found = formats._compared(exported, tmp_path / "weights.pt", [(64, 64)], is_exact=False)
        assert found.finding == f"written, not compared: {reason}"
        assert not found.problem


class TestWrittenWhole:
    """A model in a format is written beside, and renamed when it is whole."""

    @pytest.fixture
    def weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(formats, "find_spec", lambda _: None)  # nothing is compared
        weights = tmp_path / "weights.pt"
        weights.write_bytes(b"weights")
        return weights

    @staticmethod
    def written_by(export: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a function write the files of an export, beside the weights that it is given."""
        monkeypatch.setattr(
            formats, "YOLO", lambda path, **_: SimpleNamespace(export=lambda **_: str(export(Path(path))))
        )

    def test_an_export_that_is_stopped_leaves_what_was_there(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = weights.with_suffix(".onnx")
        before.write_bytes(b"before")
        killed = weights.parent / ".onnx.part"
        killed.mkdir()
        (killed / "weights.onnx").write_bytes(b"half")

        def stopped(alone: Path) -> Path:
            assert alone.read_bytes() == b"weights"
            alone.with_suffix(".onnx").write_bytes(b"half")
            raise KeyboardInterrupt

        self.written_by(stopped, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            formats.export(weights, "onnx", 64, end_to_end=False, arguments={})
        assert sorted(weights.parent.iterdir()) == [before, weights]
        assert (before.read_bytes(), weights.read_bytes()) == (b"before", b"weights")

    def test_what_cannot_be_exported_is_a_line_and_no_graph(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def pooled(alone: Path) -> Path:
            axes = {"x": {2: "height", 3: "width"}}
            model, x, out = nn.AdaptiveAvgPool2d((None, 1)), torch.zeros(1, 3, 8, 8), alone.with_suffix(".onnx")
            torch.onnx.export(model, (x,), out, input_names=["x"], dynamic_axes=axes, dynamo=False)
            return out

        self.written_by(pooled, monkeypatch)
        problem = formats.export(weights, "onnx", 64, end_to_end=False, arguments={}).problem
        assert problem.startswith(
            "Ultralytics cannot export it: Unsupported: ONNX export of operator adaptive pooling, "
        )
        assert "; nn.AdaptiveAvgPool2d((None, 1)) is x.mean(3, keepdim=True), which exports" in problem
        assert capfd.readouterr() == ("", "")

    def test_a_file_or_a_folder_replaces_that_of_an_earlier_export(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def into_folder(alone: Path) -> Path:
            folder = alone.parent / "weights_model"
            folder.mkdir()
            (folder / f"{len(done)}.bin").touch()
            return folder / f"{len(done)}.bin"

        done = list[Path | None]()
        self.written_by(into_folder, monkeypatch)
        for _ in range(2):
            done.append(formats.export(weights, "ncnn", 64, end_to_end=False, arguments={}).path)
        folder = weights.parent / "weights_model"
        assert done == [folder / "0.bin", folder / "1.bin"]
        assert sorted(weights.parent.rglob("*")) == [weights, folder, folder / "1.bin"]


def test_a_file_computes_the_same_and_has_the_same_accuracy(scenes: datasets.DataSet, tmp_path: Path) -> None:
    architecture = Architecture.of("yolov9{scale}.yaml", "t", {4: Choice.of("UIB", {})})
    weights = tmp_path / "weights.pt"
    save(build.model(architecture.document(10), 10), {"imgsz": 64}, weights)
    found = formats.export(weights, "torchscript", 64, end_to_end=False, arguments={})
    assert (found.problem, [each.size for each in found.differences]) == ("", [(64, 64)])
    assert found.finding.startswith("differs from PyTorch by at most: 64x64 px: boxes ")
    measured = formats.with_accuracy(found, scenes.path, 64, end_to_end=False)
    assert measured.map50_95 == pytest.approx(formats.accuracy(weights, scenes.path, 64, end_to_end=False), abs=1e-3)


@pytest.mark.parametrize(
    ("by_size", "what", "tells_nothing"),
    [
        ({640: 0.5, 128: 0.55}, None, False),
        ({640: 0.2, 128: 0.55}, "what the files have at 640 px tells little of them (compare with imgsz=128)", False),
        ({640: 0.0, 128: 0.55}, "what the files have at 640 px tells nothing of them (compare with imgsz=128)", True),
        ({640: 0.0, 128: 0.004}, "the model finds nothing, so mAP50-95 tells nothing of its files", True),
    ],
)
def test_accuracy_at_another_size_than_that_of_training_says_what_it_tells(
    by_size: dict[int, float], what: str | None, tells_nothing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measured(_weights: Path, _data: Path, size: int, **_: object) -> float:
        asked.append(size)
        return by_size[size]

    monkeypatch.setattr(formats, "accuracy", measured)
    torch_accuracy = formats.torch_accuracy(tmp_path, tmp_path, 640, 128, end_to_end=False)
    remark = "" if what is None else f"at 128 px, at which it was trained, PyTorch has {by_size[128]:.4f}: {what}"
    assert (torch_accuracy.remark, torch_accuracy.tells_nothing) == (remark, tells_nothing)
    assert asked == [640, 128]
    assert formats.torch_accuracy(tmp_path, tmp_path, 128, 128, end_to_end=False).map50_95 == by_size[128]
    assert asked == [640, 128, 128]


@pytest.mark.slow
def test_every_operator_is_exported_and_computes_the_same(scenes: datasets.DataSet, tmp_path: Path) -> None:
    picks = {2: "DCNv4", 3: "DynamicConv", 4: "UIB", 8: "MMQA", 13: "DySample"}
    architecture = Architecture.of(
        "yolov9{scale}.yaml", "t", {layer: Choice.of(name, {}) for layer, name in picks.items()}
    )
    weights = tmp_path / "weights.pt"
    save(build.model(architecture.document(10), 10), {"imgsz": 96}, weights)
    found = [
        formats.export(weights, name, 96, end_to_end=False, arguments={})
        for name in ("onnx", "openvino", "torchscript")
    ]
    assert [one.problem for one in found] == ["", "", ""]
    assert [[each.size for each in one.differences] for one in found] == [[(96, 96), (32, 96)], [(96, 96)], [(96, 96)]]
    measured = formats.with_accuracy(found[0], scenes.path, 96, end_to_end=False)
    assert measured.map50_95 == pytest.approx(formats.accuracy(weights, scenes.path, 96, end_to_end=False), abs=1e-3)


def test_openvino_is_compared_in_float32() -> None:
    with formats._openvino_in_float32():
        hint = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    assert hint == openvino.Type.f32
    assert isinstance(openvino.Core, type)
