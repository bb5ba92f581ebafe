"""A module as it is shipped: what a runtime is given, in PyTorch or as an ONNX graph."""

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
from search_spaces.errors import LatencyError
from search_spaces.trace import Feature
from trials.costing.layers import IMAGE_CHANNELS

_OPSET = 17


@dataclass(frozen=True, eq=False, kw_only=True)
class Deployed:
    """A fused module in eval mode, and what enters it.

    Attributes:
        received: only the shapes count; it may lie on the meta device.
        what: enters it, in words, for an error.
    """

    module: nn.Module
    received: Feature | Sequence[Feature]
    what: str

    @classmethod
    def model(cls, document: Mapping[str, Any], classes: int, image_size: int) -> Self:
        """A whole model, and one image.

        Raises:
            SpecError: the document cannot be built.
        """
        built = build.model(document, classes).eval()
        built.fuse(verbose=False)
        image = torch.zeros(1, IMAGE_CHANNELS, image_size, image_size, device="meta")
        return cls(module=built, received=image, what=f"one {image_size} px image")

    def on(self, device: torch.device, layout: torch.memory_format) -> tuple[nn.Module, Any]:
        """A copy of the module, and zeros in the form of what it receives."""
        zeros = [
            torch.zeros(tensor.shape, device=device).contiguous(memory_format=layout)
            for tensor in _tensors(self.received)
        ]
        module = deepcopy(self.module).to(device).to(memory_format=layout).requires_grad_(False)
        return module, _nested(self.received, iter(zeros))

    def graph(self) -> bytes:
        """The module as ONNX, of fixed shapes.

        Raises:
            LatencyError: it cannot be exported.
        """
        module, _ = self.on(torch.device("cpu"), torch.contiguous_format)
        for head in module.modules():
            if isinstance(head, Detect):
                head.export, head.format, head.dynamic = True, "onnx", False  # boxes alone, as Ultralytics exports
        flat, zeros = (
            _Flat(module, self.received),
            tuple(torch.zeros(tensor.shape) for tensor in _tensors(self.received)),
        )
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter being the old one, and of shapes that become fixed
            file = Path(folder) / "module.onnx"
            try:
                torch.onnx.export(flat, zeros, file, opset_version=_OPSET, dynamo=False)
            except Exception as error:
                told = " ".join(str(error).split())[:300]
                raise LatencyError(f"what takes {self.what} cannot be exported to ONNX: {told}") from error
            return file.read_bytes()


class _Flat(nn.Module):
    """Takes the tensors of a nested feature side by side, and gives its tensors so."""

    def __init__(self, module: nn.Module, form: Feature | Sequence[Feature]) -> None:
        super().__init__()
        self.module, self.form = module, form

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The module's outputs."""
        return tuple(_tensors(self.module(_nested(self.form, iter(tensors)))))


def _tensors(feature: Feature | Sequence[Feature]) -> Iterator[Tensor]:
    if isinstance(feature, Tensor):
        yield feature
    else:
        for inner in feature:
            yield from _tensors(inner)


def _nested(form: Feature | Sequence[Feature], tensors: Iterator[Tensor]) -> Any:
    return next(tensors) if isinstance(form, Tensor) else [_nested(inner, tensors) for inner in form]
