"""What a whole model promises, before anybody trains it for days: its file, not one operator of it.

What the operators in it promise one by one is `trials/contract.py`.
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
from trials import cost
from trials.contract import REORDERED, Failure, distance, raised, undisturbed, wake
from trials.portability import run_onnx

_PASSED, _EXPORTED, _RUN = (2, 3, 64, 96), (2, 3, 64, 64), (1, 3, 96, 160)
_IMAGE_SIZE = 640
_OPSET = 17
_FROZEN = "dfl.conv.weight"
"""Ultralytics freezes it."""

Document = Mapping[str, Any]
Promise = Callable[[Document], Iterator[str]]


def check(document: Document) -> tuple[Failure, ...]:
    """Ask a model YAML for every promise of this file."""
    failures: list[Failure] = []
    with undisturbed():
        for name, promise in PROMISES.items():
            try:
                seen = list(promise(document))
            except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
                seen = [raised(error)]
            failures += [Failure(operator="the model", promise=name, seen=one) for one in seen]
            if failures and name == "build":
                break
    return tuple(failures)


def _build(document: Document) -> Iterator[str]:
    """It can be built, as it is trained and as it is deployed, and every layer of it counted."""
    _in_training(document)
    for deployed in (False, True):
        cost.measure(document, document["nc"], _IMAGE_SIZE, deployed=deployed)
    yield from ()


def _train(document: Document) -> Iterator[str]:
    """A training step is finite, and its gradient reaches every parameter."""
    model = _in_training(document).train()
    batch = {
        "img": _image(_PASSED),
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
    """Without its auxiliary half it predicts the same, bit for bit."""
    model = wake(_in_training(document)).eval()
    if not isinstance(model, pgi.PGIModel):
        return
    with torch.no_grad():
        before = model(_image(_PASSED))[0]
        after = pgi.drop_auxiliary(model)(_image(_PASSED))[0]
    if not torch.equal(before, after):
        yield f"the predictions differ by {distance(after, before):.2%}"


def _fuse(document: Document) -> Iterator[str]:
    """Fused, as it is deployed, it predicts the same."""
    model = pgi.drop_auxiliary(wake(_in_training(document)).eval())
    with torch.no_grad():
        before = model(_image(_PASSED))[0]
        after = deepcopy(model).fuse(verbose=False)(_image(_PASSED))[0]
    if (far := distance(after, before)) > 10 * REORDERED:
        yield f"the predictions differ by {far:.2%}"


def _export(document: Document) -> Iterator[str]:
    """Exported to ONNX, it predicts the same for images of another size."""
    model = _in_training(document).eval().fuse(verbose=False).requires_grad_(False)
    model.end2end = False  # all boxes; the best 300 of equal ones may change places
    head = model.model[-1]
    head.export, head.dynamic, head.format = True, True, "onnx"
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (_image(_EXPORTED),),
            graph,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["boxes"],
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, "boxes": {0: "batch", 2: "places"}},
            dynamo=False,
        )
        out = torch.from_numpy(run_onnx(graph, {"images": _image(_RUN).numpy()})[0])
    with torch.no_grad():
        expected = model(_image(_RUN))
    if (far := distance(out, expected)) > 10 * REORDERED:
        yield f"exported at {_shown(_EXPORTED)}, it is wrong by {far:.2%} at {_shown(_RUN)}"


def _in_training(document: Document) -> DetectionModel:
    """The model as it is trained, always with the same weights."""
    torch.manual_seed(0)
    document = auxiliary.trained(document) if document.get("pgi") else document
    model = build.model(document, document["nc"])
    model.args = get_cfg()
    return model


def _image(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[-2:]))


PROMISES: dict[str, Promise] = {
    "build": _build,
    "train": _train,
    "auxiliary": _auxiliary,
    "fuse": _fuse,
    "export": _export,
}
"""By the names that failures carry; their docstrings are the promises."""
