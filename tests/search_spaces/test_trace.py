"""Trace compared with Ultralytics' forward pass."""

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn import tasks

from search_spaces import base as bases
from search_spaces import build
from search_spaces.trace import first, trace


@pytest.mark.parametrize(("name", "scale"), [("yolov8{scale}.yaml", "n"), ("yolov9{scale}.yaml", "t")])
def test_trace_follows_ultralytics(name: str, scale: str) -> None:
    model = build.model(bases.load(name, scale).document, 3).eval()
    returned: dict[int, Tensor] = {}

    def remember(index: int) -> None:
        layers[index].register_forward_hook(lambda _layer, _args, out: returned.__setitem__(index, first(out)))

    layers: nn.Sequential = model.model
    for index in range(len(layers)):
        remember(index)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        model(image)
    expected = dict(returned)
    traced = trace(layers, image)
    assert [step.index for step in traced] == list(range(len(layers)))
    assert all(torch.equal(first(step.returned), expected[step.index]) for step in traced)
    assert not any(first(step.returned).requires_grad for step in traced)


@pytest.mark.parametrize(
    ("layer", "module", "c_in", "c_out", "sources"),
    [
        (0, "Identity", 3, 3, 1),
        (11, "CBLinear", 256, 64, 1),
        (16, "CBFuse", 64, 64, 6),
        (31, "Concat", 512, 1536, 2),
        (35, "RepNCSPELAN4", 1024, 256, 1),
    ],
)
def test_trace_reads_the_sources_of_two_backbones(
    *, layer: int, module: str, c_in: int, c_out: int, sources: int
) -> None:
    step = bases.load("yolov9{scale}.yaml", "e").traced[layer]
    assert (step.index, type(step.layer).__name__, step.c_in, step.c_out) == (layer, module, c_in, c_out)
    assert (len(step.received) if isinstance(step.received, list) else 1) == sources


def test_trace_of_a_base_uses_the_meta_device() -> None:
    *body, head = bases.load("yolov9{scale}.yaml", "e").traced
    assert all(first(step.returned).is_meta for step in body)
    assert isinstance(head.layer, tasks.Detect)


def test_trace_on_the_meta_device_has_real_shapes_and_restores_batch_norms() -> None:
    document = bases.load("yolov9{scale}.yaml", "t").document
    built = build.model(document, 3).eval().model
    skeleton = build.skeleton(document, 3)
    skeleton[-1].training = built[-1].training = True  # raw outputs: decoding needs strides
    real, meta = trace(built, torch.zeros(1, 3, 64, 64)), trace(skeleton, torch.zeros(1, 3, 64, 64, device="meta"))
    assert [first(step.returned).shape for step in meta[:-1]] == [first(step.returned).shape for step in real[:-1]]
    norms = [module for module in skeleton.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any("forward" in vars(norm) for norm in norms)
