"""Deployed modules: fused, in eval mode, for PyTorch or exported to ONNX."""

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Detect

from search_spaces import build
from search_spaces.errors import LatencyError, unwrapped
from search_spaces.trace import Feature
from trials.costing.layers import IMAGE_CHANNELS

_OPSET = 17


@dataclass(frozen=True, eq=False, kw_only=True)
class Deployed:
    """Fused module in eval mode, and its input.

    Attributes:
        inputs: only the shapes count; tensors may be on the meta device.
        description: of the module or of its input, for errors.
    """

    module: nn.Module
    inputs: Feature | Sequence[Feature]
    description: str

    @classmethod
    def of(cls, model: nn.Module, image_size: int) -> Self:
        """Return a whole model that is fused already, for one image `(1, 3, image_size, image_size)`."""
        image = torch.zeros(1, IMAGE_CHANNELS, image_size, image_size, device="meta")
        return cls(module=model, inputs=image, description=f"one {image_size} px image")

    @classmethod
    def model(cls, document: Mapping[str, Any], classes: int, image_size: int) -> Self:
        """Build and fuse a whole model; its input is one image `(1, 3, image_size, image_size)`.

        Raises:
            SpecError: the document cannot be built.
        """
        built = build.model(document, classes).eval()
        built.fuse(verbose=False)
        return cls.of(built, image_size)

    def on(
        self, device: torch.device, layout: torch.memory_format, dtype: torch.dtype = torch.float32
    ) -> tuple[nn.Module, Any]:
        """Return a copy of the module on a device, and zeros as its input."""
        zeros = [
            torch.zeros(tensor.shape, device=device, dtype=dtype).contiguous(memory_format=layout)
            for tensor in _tensors(self.inputs)
        ]
        module = deepcopy(self.module).to(device, dtype).to(memory_format=layout).requires_grad_(False)
        return module, _nested(self.inputs, iter(zeros))

    @property
    def float_scopes(self) -> tuple[str, ...]:
        """Scopes of the detection heads in the names of an ONNX graph's nodes, such as `/module/model.22/`."""
        heads = [name for name, module in self.module.named_modules() if isinstance(module, Detect)]
        return tuple(f"/module/{name}/" if name else "/module/" for name in heads)

    def to_onnx(self) -> bytes:
        """Export the module to ONNX, opset 17, with fixed shapes.

        Raises:
            LatencyError: it cannot be exported.
        """
        module, _ = self.on(torch.device("cpu"), torch.contiguous_format)
        for head in module.modules():
            if isinstance(head, Detect):
                head.export, head.format, head.dynamic = True, "onnx", False  # boxes alone, as Ultralytics exports
        flat, zeros = (
            _Flat(module, self.inputs),
            tuple(torch.zeros(tensor.shape) for tensor in _tensors(self.inputs)),
        )
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter is the old one, and shapes become constants
            file = Path(folder) / "module.onnx"
            try:
                torch.onnx.export(flat, zeros, file, opset_version=_OPSET, dynamo=False)
            except Exception as error:
                reason = unwrapped(error)[:300]
                raise LatencyError(f"export of {self.description} to ONNX failed: {reason}") from error
            return file.read_bytes()


@dataclass(frozen=True, eq=False, kw_only=True)
class DeployedGraph:
    """ONNX graph in the precision in which it runs, such as that of a file.

    Attributes:
        description: of its input, for errors.
    """

    graph: bytes
    description: str


class _Flat(nn.Module):
    """Wrapper with flat inputs and outputs around a module with nested ones: an ONNX graph has flat ones."""

    def __init__(self, module: nn.Module, structure: Feature | Sequence[Feature]) -> None:
        super().__init__()
        self.module, self.structure = module, structure

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the module's outputs as a flat tuple."""
        return tuple(_tensors(self.module(_nested(self.structure, iter(tensors)))))


def _tensors(feature: Feature | Sequence[Feature]) -> Iterator[Tensor]:
    if isinstance(feature, Tensor):
        yield feature
    else:
        for inner in feature:
            yield from _tensors(inner)


def _nested(structure: Feature | Sequence[Feature], tensors: Iterator[Tensor]) -> Any:
    return next(tensors) if isinstance(structure, Tensor) else [_nested(inner, tensors) for inner in structure]
