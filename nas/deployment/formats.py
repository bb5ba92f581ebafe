"""Export a model to the formats of Ultralytics, and compare each file with PyTorch: its outputs, and its mAP."""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.cfg import smart_value
from ultralytics.engine.exporter import export_formats
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import LOGGER

from nas.records.record import LEARNED
from search_spaces.errors import SpecError, nearest
from search_spaces.files import sync_file
from trials.contracts.probing import explained, no_onnx_log
from trials.training.user_data import UserDataValidator

FORMATS: tuple[str, ...] = tuple(export_formats()["Argument"][1:])
"""Names of formats, as Ultralytics' `format=` takes them."""
DYNAMIC = {"onnx"}
"""Formats whose file takes images of any size, unless `dynamic=False` is given."""
_RUNTIMES = {
    "torchscript": "torch",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "mnn": "MNN",
    "engine": "tensorrt",
    "saved_model": "tensorflow",
    "pb": "tensorflow",
    "litert": "ai_edge_litert",
    "paddle": "paddle",
    "executorch": "executorch",
}
"""Module that runs a format on this machine; others run on devices of their own."""
_EXACT = {"torchscript", "onnx", "openvino"}
"""Formats that compute in float32, unless `quantize` is given: their outputs must be PyTorch's."""
_ARGUMENTS = sorted(
    {"device", "imgsz", *(name for names in export_formats()["Arguments"] for name in names)} - {"data"}
)
_STRIDE = 32
_SCORE_TOLERANCE = 1e-3
_BOX_TOLERANCE = 1e-3
"""Greatest difference of a box as a share of the image size."""
_SHOWN = 0.01
"""Least score of a box of an end-to-end model that is compared: the others are in no order."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Greatest differences to the outputs of PyTorch for one image.

    Attributes:
        size: height and width of the image, in pixels.
        boxes: of coordinates, in pixels.
        scores: of scores, which are from 0 to 1.
    """

    size: tuple[int, int]
    boxes: float
    scores: float

    @property
    def is_small(self) -> bool:
        """Whether the order of float32 sums explains it."""
        return self.boxes <= _BOX_TOLERANCE * max(self.size) and self.scores <= _SCORE_TOLERANCE

    @property
    def sentence(self) -> str:
        """Differences in words."""
        height, width = self.size
        return f"{height}x{width} px: boxes {self.boxes:.1g} px, scores {self.scores:.1g}"


@dataclass(frozen=True, kw_only=True)
class ExportedFormat:
    """Model in one format.

    Attributes:
        path: of the file or folder; None if it could not be written.
        differences: to PyTorch; empty if nothing here runs the format.
        map50_95: of the file on the validation images; None if it was not measured.
        problem: why it was not written, or cannot be used; empty if there is none.
        unchecked: why it was not compared; empty if it was.
    """

    name: str
    path: Path | None = None
    differences: tuple[Difference, ...] = ()
    map50_95: float | None = None
    problem: str = ""
    unchecked: str = ""

    @property
    def finding(self) -> str:
        """Result of the comparison with PyTorch in words."""
        compared = "; ".join(one.sentence for one in self.differences)
        if self.problem:
            return f"{self.problem}{f' ({compared})' if compared else ''}"
        if self.unchecked:
            return f"written, not compared: {self.unchecked}"
        return f"differs from PyTorch by at most: {compared}"


@dataclass(frozen=True, kw_only=True)
class TorchAccuracy:
    """Accuracy of the PyTorch model, with which those of its files are compared.

    Attributes:
        size: of the images of that comparison, in pixels.
        map50_95: at that size.
        trained_size: of the images of the trial's training, in pixels.
        at_trained_size: mAP50-95 at that size; the same number if the sizes are equal.
    """

    size: int | tuple[int, int]
    map50_95: float
    trained_size: int
    at_trained_size: float

    @property
    def tells_nothing(self) -> bool:
        """Whether the model finds nothing, so that a file which finds nothing either would look right."""
        return self.map50_95 < LEARNED

    @property
    def remark(self) -> str:
        """Limits of the comparison in one sentence; empty if it has none."""
        if self.map50_95 >= self.at_trained_size / 2 and not self.tells_nothing:
            return ""
        trained = f"{self.trained_size} px, at which it was trained, PyTorch has {self.at_trained_size:.4f}"
        here = f"at {self.size} px" if self.size != self.trained_size else "here"
        if self.at_trained_size < LEARNED:
            return f"at {trained}: the model finds nothing, so mAP50-95 tells nothing of its files"
        judged = "nothing" if self.tells_nothing else "little"
        return (
            f"at {trained}: what the files have {here} tells {judged} of them (compare with imgsz={self.trained_size})"
        )


def require_formats(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of formats, each once.

    Args:
        names: several, or one text in which commas separate them.

    Raises:
        SpecError: lists every unknown name, with the nearest right one.
    """
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise SpecError([f"formats: got {name!r} ({nearest(name, FORMATS)})" for name in unknown])
    return tuple(dict.fromkeys(names))


def read_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Return Ultralytics' arguments of an export, such as `imgsz=320` or `quantize=16`.

    Raises:
        SpecError: lists every word that is none.
    """
    mistakes, found = [], {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _ARGUMENTS:
            mistakes.append(f"{word}: an argument of Ultralytics' export is expected ({nearest(name, _ARGUMENTS)})")
        else:
            found[name] = smart_value(value)
    if mistakes:
        raise SpecError(mistakes)
    return found


def export(weights: Path, name: str, size: int, *, end_to_end: bool, arguments: Mapping[str, Any]) -> ExportedFormat:
    """Write a model in a format, beside its weights, and compare its outputs with PyTorch's.

    Args:
        weights: file of the model.
        name: of the format.
        size: of the images, in pixels.
        end_to_end: whether the model has a one-to-one head, which needs no non-maximum suppression.
        arguments: of Ultralytics' export.
    """
    options: dict[str, Any] = {"imgsz": size, "dynamic": name in DYNAMIC, **arguments}
    if not options["dynamic"]:
        del options["dynamic"]
    if end_to_end:
        options.setdefault("nms", False)
    try:
        with _quiet(), _written_whole(weights, name) as (alone, moved):
            path = moved(Path(YOLO(alone, task="detect").export(format=name, **options)))
    except Exception as error:  # noqa: BLE001 - each format has its own libraries, which raise anything
        return ExportedFormat(name=name, problem=f"Ultralytics cannot export it: {_reason(error)}")
    exported = ExportedFormat(name=name, path=path)
    sizes = _sizes(options["imgsz"], is_dynamic=bool(options.get("dynamic")))
    return _compared(exported, weights, sizes, is_exact=name in _EXACT and "quantize" not in options)


@contextmanager
def _written_whole(weights: Path, name: str) -> Iterator[tuple[Path, Callable[[Path], Path]]]:
    """Let Ultralytics, which writes beside the weights, write elsewhere; what an export that is stopped leaves is gone.

    Args:
        weights: file of the model.
        name: of the format; what a killed export of it has left is deleted.

    Yields:
        The weights file in a temporary folder on the same file system, and a function to call with the path that was
        written there: it moves the whole file or folder to where it belongs, and returns its path there.
    """
    folder = weights.parent / f".{name}.part"

    def moved(path: Path) -> Path:
        if not path.is_relative_to(folder):
            return path
        entry = folder / path.relative_to(folder).parts[0]
        target = weights.parent / entry.name
        for file in (entry, *entry.rglob("*")):
            if file.is_file():
                sync_file(file)
        if target.is_dir():  # a folder does not replace another one
            target.rename(folder / f"{target.name}.before")
        entry.replace(target)
        return weights.parent / path.relative_to(folder)

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        alone = folder / weights.name
        try:
            alone.hardlink_to(weights)
        except OSError:  # a file system without such links
            shutil.copyfile(weights, alone)
        yield alone, moved
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def torch_accuracy(
    weights: Path, data: Path, size: int, trained_size: int, *, end_to_end: bool, device: Any = "cpu"
) -> TorchAccuracy:
    """Return the accuracy of a model's weights at the size of its files, and at that of its training."""
    measured = {
        one: accuracy(weights, data, one, end_to_end=end_to_end, device=device)
        for one in dict.fromkeys((size, trained_size))
    }
    return TorchAccuracy(
        size=size, map50_95=measured[size], trained_size=trained_size, at_trained_size=measured[trained_size]
    )


def accuracy(model: Path | nn.Module, data: Path, size: int, *, end_to_end: bool, device: Any = "cpu") -> float:
    """Return mAP50-95 of a model on the validation images of a data set.

    Args:
        model: file in any format that runs here; or a module with `names`, `stride` and `end2end`, which takes one
            image `(1, 3, size, size)`.
    """
    options: dict[str, Any] = {"nms": False} if end_to_end else {}
    options |= {"data": str(data), "imgsz": size, "batch": 1, "rect": False, "plots": False, "workers": 0}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        options |= {"device": device, "project": folder, "name": "val"}
        if isinstance(model, Path):
            measured = YOLO(model, task="detect").val(validator=UserDataValidator, **options)
        else:
            validator = UserDataValidator(args={"task": "detect", "mode": "val", "model": "module", **options})
            validator(model=model)
            measured = validator.metrics
    return float(measured.box.map)


def with_accuracy(
    exported: ExportedFormat, data: Path, size: int, *, end_to_end: bool, device: Any = "cpu"
) -> ExportedFormat:
    """Return an exported format with the mAP50-95 of its file; as it is if nothing here runs it."""
    if exported.path is None or exported.problem or exported.unchecked:
        return exported
    measured = accuracy(exported.path, data, size, end_to_end=end_to_end, device=device)
    return replace(exported, map50_95=measured)


def _compared(
    exported: ExportedFormat, weights: Path, sizes: Sequence[tuple[int, int]], *, is_exact: bool
) -> ExportedFormat:
    runtime = _RUNTIMES.get(exported.name)
    if runtime is None:
        return replace(exported, unchecked="it runs on a device of its own")
    if find_spec(runtime) is None:
        return replace(exported, unchecked=f"{runtime} is not installed")
    try:
        with _quiet(), _openvino_in_float32() if exported.name == "openvino" else nullcontext():
            differences = _differences(weights, Path(str(exported.path)), sizes)
    except Exception as error:  # noqa: BLE001 - each runtime raises its own errors
        return replace(exported, problem=f"{runtime} cannot run it: {_reason(error)}")
    wrong = is_exact and not all(one.is_small for one in differences)
    return replace(exported, differences=differences, problem="its outputs differ from PyTorch's" if wrong else "")


@contextmanager
def _openvino_in_float32() -> Iterator[None]:
    """Let OpenVINO compute in float32 also on a CPU with bfloat16, which it takes there by default."""
    import openvino  # noqa: PLC0415 - an extra

    core = openvino.Core

    def exact() -> Any:
        made = core()
        made.set_property("CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32})
        return made

    openvino.Core = exact
    try:
        yield
    finally:
        openvino.Core = core


def _differences(weights: Path, file: Path, sizes: Sequence[tuple[int, int]]) -> tuple[Difference, ...]:
    device = torch.device("cpu")
    expected, actual = (AutoBackend(str(path), device=device, verbose=False).eval() for path in (weights, file))
    found = []
    for height, width in sizes:
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(_difference(_first(expected(image)), _first(actual(image)), (height, width)))
    return tuple(found)


def _difference(expected: Tensor, actual: Tensor, size: tuple[int, int]) -> Difference:
    """Compare outputs: `(1, 4 + classes, boxes)`, or `(1, boxes, 6)` of an end-to-end model."""
    if expected.shape != actual.shape:
        raise ValueError(f"outputs of {tuple(actual.shape)}, where PyTorch's are {tuple(expected.shape)}")
    if expected.shape[-1] == 6:
        shown = expected[..., 4] > _SHOWN
        expected, actual = expected[shown].T[None], actual[shown].T[None]
    if not actual.isfinite().all():
        raise ValueError("outputs that are no numbers")
    difference = (expected.float() - actual.float()).abs()
    boxes, scores = difference[:, :4], difference[:, 4:]
    return Difference(size=size, boxes=_greatest(boxes), scores=_greatest(scores))


def _greatest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _sizes(written: Any, *, is_dynamic: bool) -> tuple[tuple[int, int], ...]:
    """Return the sizes of the images that are compared: that of the export, and a lower one if it takes any."""
    height, width = (written, written) if isinstance(written, int) else (written[0], written[-1])
    lower = max(_STRIDE, height // 2 // _STRIDE * _STRIDE)
    return ((height, width), (lower, width)) if is_dynamic else ((height, width),)


def _first(value: Any) -> Tensor:
    while isinstance(value, list | tuple):
        value = value[0]
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name} is not installed (pip install {error.name})"
    return explained(error) or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages and warnings of Ultralytics and of exporters; errors are raised, too."""
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), no_onnx_log():
            warnings.simplefilter("ignore")
            yield
    finally:
        LOGGER.setLevel(level)
