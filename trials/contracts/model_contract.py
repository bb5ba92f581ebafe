"""Contract of a whole model, from its YAML: it is built, trained, fused and exported as it should be.

The contract of single operators is in `trials.contracts.operator_contract`.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from search_spaces import auxiliary, build, pgi
from trials.contracts.case import Failure
from trials.contracts.export_contract import run_onnx
from trials.contracts.probing import REORDERED, as_if_trained, isolated, observe, relative_difference
from trials.costing import cost

_FORWARD, _TRACED, _RUN = (2, 2, 3), (2, 2, 2), (1, 3, 5)
"""Batch, height and width of images; height and width in units of the model's greatest stride."""
_LEAST_STRIDE = 32
"""Least unit: a model with one small stride has too few places on an image of two strides for the loss."""
_IMAGE_SIZE = 640
_OPSET = 17
_FROZEN = "dfl.conv.weight"
"""Parameter that Ultralytics freezes."""

Document = Mapping[str, Any]
Promise = Callable[[Document], Iterator[str]]


def check(document: Document) -> tuple[Failure, ...]:
    """Check all promises of this module for a model YAML."""
    failures: list[Failure] = []
    with isolated():
        for name, promise in PROMISES.items():
            observations = observe(promise, document)
            failures += [Failure(operator="the model", promise=name, seen=one) for one in observations]
            if failures and name == "build":
                break
    return tuple(failures)


def _build(document: Document) -> Iterator[str]:
    """Models are built as they are trained and as they are deployed, and all layers can be counted."""
    _in_training(document)
    for deployed in (False, True):
        cost.measure(document, document["nc"], _IMAGE_SIZE, deployed=deployed)
    yield from ()


def _train(document: Document) -> Iterator[str]:
    """Training steps have a finite loss, whose gradient reaches every parameter."""
    model = _in_training(document).train()
    batch = {
        "img": _image(model, _FORWARD),
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "cls": torch.zeros(3, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.3, 0.4, 0.5, 0.4], [0.6, 0.6, 0.8, 0.8]]),
    }
    loss, _ = model(batch)
    if not loss.isfinite().all():
        yield "the loss is NaN or infinite"
    loss.sum().backward()
    starved = [name for name, one in model.named_parameters() if one.grad is None and not name.endswith(_FROZEN)]
    if starved:
        yield f"no gradient reaches {', '.join(starved[:3])}" + (f" and {len(starved) - 3} more" * (len(starved) > 3))


def _auxiliary(document: Document) -> Iterator[str]:
    """Predictions without the auxiliary branch are equal, bit for bit."""
    model = as_if_trained(_in_training(document)).eval()
    if not isinstance(model, pgi.PGIModel):
        return
    with torch.no_grad():
        before = model(_image(model, _FORWARD))[0]
        after = pgi.drop_auxiliary(model)(_image(model, _FORWARD))[0]
    if not torch.equal(before, after):
        yield f"the predictions differ by {relative_difference(after, before):.2%}"


def _fuse(document: Document) -> Iterator[str]:
    """Predictions of the fused model, as it is deployed, are the same."""
    model = _with_all_predictions(pgi.drop_auxiliary(as_if_trained(_in_training(document)).eval()))
    with torch.no_grad():
        before = model(_image(model, _FORWARD))[0]
        after = deepcopy(model).fuse(verbose=False)(_image(model, _FORWARD))[0]
    if (far := relative_difference(after, before)) > 10 * REORDERED:
        yield f"the predictions differ by {far:.2%}"


def _export(document: Document) -> Iterator[str]:
    """Predictions of the ONNX export are the same, for images of another size."""
    model = _with_all_predictions(_in_training(document).eval().fuse(verbose=False).requires_grad_(False))
    head: Any = model.model[-1]
    traced, other = _image(model, _TRACED), _image(model, _RUN)
    head.export, head.dynamic, head.format = True, True, "onnx"
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (traced,),
            graph,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["boxes"],
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, "boxes": {0: "batch", 1: "a", 2: "b"}},
            dynamo=False,
        )
        out = torch.from_numpy(run_onnx(graph, {"images": other.numpy()})[0])
    with torch.no_grad():
        expected = model(other)
    if out.shape != expected.shape:
        shapes = f"{tuple(out.shape)} at {_shown(other)}, not {tuple(expected.shape)}"
        yield f"exported at {_shown(traced)}, it gives {shapes}"
    elif (far := relative_difference(out, expected)) > 10 * REORDERED:
        yield f"exported at {_shown(traced)}, it is wrong by {far:.2%} at {_shown(other)}"


def _in_training(document: Document) -> DetectionModel:
    """Build the model as it is trained, always with the same weights."""
    torch.manual_seed(0)
    document = auxiliary.with_branch(document) if document.get("pgi") else document
    model = build.model(document, document["nc"])
    model.args = get_cfg()
    return model


def _with_all_predictions(model: Any) -> Any:
    """Let an end-to-end head return all predictions, as other heads do.

    By default it returns the best 300. A fresh model has nearly equal scores, so rounding changes which ones these are;
    and the small images that make these checks fast have fewer predictions.
    """
    if model.end2end:
        model.model[-1].postprocess = _unchanged
    return model


def _unchanged(predictions: Tensor) -> Tensor:
    return predictions


def _image(model: Any, shape: tuple[int, int, int]) -> Tensor:
    """Return random images `(batch, 3, h, w)` that the model takes, always the same; see `_FORWARD`."""
    batch, height, width = shape
    stride = max(int(model.stride.max()), _LEAST_STRIDE)
    return torch.rand(batch, 3, height * stride, width * stride, generator=torch.Generator().manual_seed(0))


def _shown(images: Tensor) -> str:
    return "x".join(map(str, images.shape[-2:]))


PROMISES: dict[str, Promise] = {
    "build": _build,
    "train": _train,
    "auxiliary": _auxiliary,
    "fuse": _fuse,
    "export": _export,
}
"""Promises by the names in failures; `nas check` prints the first line of their docstrings."""
