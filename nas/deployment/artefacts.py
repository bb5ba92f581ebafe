"""A trained model as the file that a runtime runs, in a precision: its accuracy, latency and size are of that file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel

from search_spaces.errors import SpecError, nearest, unwrapped
from search_spaces.files import write_atomically
from search_spaces.stored_model import StoredModel
from trials.latency.backends import BACKENDS, Backend, ExecutionSettings
from trials.latency.deployed import Deployed
from trials.latency.precision import FloatArray
from trials.latency.session import Inference

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "engine": "tensorrt"}
"""Runtime of each format of Ultralytics that has one here."""
TORCH = "torch"


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A file that a runtime runs, and what was measured of it. The first one is PyTorch's, in float32.

    Attributes:
        format: of Ultralytics; `torch` for PyTorch.
        path: None if it cannot be made.
        bytes: size of the file.
        map50_95: on the validation images; None if it was not measured.
        difference: to PyTorch's in float32.
        predicted_ms: from the latency table of its runtime and precision; None if there is none that has the layers.
        measured_ms: on this machine.
        steady: whether the device was steady meanwhile.
        note: what is to be known about it, such as why a figure is missing.
    """

    format: str
    precision: str
    path: Path | None
    bytes: int | None = None
    map50_95: float | None = None
    difference: float | None = None
    predicted_ms: float | None = None
    measured_ms: float | None = None
    steady: bool | None = None
    note: str = ""

    def as_row(self) -> dict[str, Any]:
        """Return the values for a table, for JSON and for CSV."""
        return {
            "format": self.format,
            "precision": self.precision,
            "map50_95": self.map50_95,
            "difference": self.difference,
            "predicted_ms": self.predicted_ms,
            "measured_ms": self.measured_ms,
            "steady": self.steady,
            "megabytes": None if self.bytes is None else self.bytes / 1e6,
            "path": None if self.path is None else str(self.path),
            "note": self.note,
        }


def require_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of formats that have a runtime here, each once.

    Raises:
        SpecError: lists every other name.
    """
    unknown = [name for name in names if name not in RUNTIMES]
    if unknown:
        raise SpecError([f"formats: got {name!r} ({nearest(name, RUNTIMES)})" for name in unknown])
    return tuple(dict.fromkeys(names))


def fused(stored: StoredModel, *, end_to_end: bool) -> DetectionModel:
    """Return a stored model, fused, in eval mode, with the head that is deployed."""
    model = stored.build().float().eval()
    if end_to_end:
        model.end2end = True
    model.fuse(verbose=False)
    return model


def write(
    model: DetectionModel,
    path: Path,
    backend: Backend,
    *,
    execution: ExecutionSettings,
    size: int,
    samples: Iterable[Sequence[FloatArray]],
) -> bytes:
    """Write the ONNX file that a backend runs, and return its graph.

    `YOLO(path)` reads it, too: it has the metadata of Ultralytics.

    Args:
        size: of images, in pixels.
        samples: images for the calibration of an int8 model.

    Raises:
        LatencyError: it cannot be exported or quantised.
    """
    graph = with_metadata(backend.graph_of(Deployed.of(model, size), execution, samples), model, size)
    write_atomically(path, graph)
    return graph


def with_metadata(graph: bytes, model: DetectionModel, size: int) -> bytes:
    """Return an ONNX graph with the metadata by which Ultralytics reads it."""
    import onnx  # noqa: PLC0415 - slow, and needed only for this

    described = onnx.load_from_string(graph)
    metadata = {
        "task": "detect",
        "stride": max(int(model.stride.max()), 32),
        "batch": 1,
        "imgsz": [size, size],
        "names": dict(model.names),
        "channels": 3,
        "end2end": bool(getattr(model, "end2end", False)),
    }
    onnx.helper.set_model_props(described, {name: str(value) for name, value in metadata.items()})
    return bytes(described.SerializeToString())


def in_runtime(graph: bytes, model: DetectionModel, backend: Backend, execution: ExecutionSettings) -> nn.Module:
    """Return a module that a runtime computes from a graph as it is timed, for `formats.accuracy`.

    Args:
        model: from which the graph was made.

    Raises:
        LatencyError: the runtime does not take the graph.
    """
    return _InRuntime(backend.load(graph, execution, description="a trained model").infer, model)


class _InRuntime(nn.Module):
    """Module that a runtime computes, with the attributes by which Ultralytics validates a model."""

    def __init__(self, infer: Inference, model: DetectionModel) -> None:
        super().__init__()
        self._infer = infer
        self.names, self.end2end = dict(model.names), bool(getattr(model, "end2end", False))
        self.stride = model.stride.clone()

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs for a batch, image by image."""
        found = [torch.from_numpy(self._infer(image[None].cpu().float().numpy())) for image in images]
        return torch.cat(found).to(images.device)


def cannot(format_name: str, precision: str, error: Exception) -> Artefact:
    """Return an artefact that cannot be made, with the reason."""
    return Artefact(format=format_name, precision=precision, path=None, note=unwrapped(error)[:300])


def backend_of(format_name: str) -> Backend:
    """Return the backend that runs a format."""
    return BACKENDS[RUNTIMES.get(format_name, TORCH)]
