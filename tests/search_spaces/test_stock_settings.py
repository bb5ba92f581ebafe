"""Settings read from built layers: Ultralytics' constructors make the same layers of them."""

from inspect import signature
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn.modules import (
    C2PSA,
    C3,
    ELAN1,
    PSA,
    SPPELAN,
    SPPF,
    A2C2f,
    Bottleneck,
    C2f,
    C2fCIB,
    C3k2,
    Conv,
    RepNCSPELAN4,
)

from search_spaces import base
from search_spaces.hosts import HOSTS, sites_in
from search_spaces.stock_settings import settings_of

MODELS = [
    *("yolov5n.yaml", "yolov5x.yaml", "yolov8n.yaml", "yolov8x-p2.yaml", "yolov10n.yaml"),
    *("yolov9t.yaml", "yolov9c.yaml", "yolov9e.yaml"),
    *("yolov10x.yaml", "yolo11n.yaml", "yolo11x.yaml", "yolo12n.yaml", "yolo12l.yaml", "yolo26n.yaml", "yolo26x.yaml"),
]
READ = (Conv, C3, C2f, C3k2, C2fCIB, A2C2f, C2PSA, PSA, SPPF, SPPELAN, RepNCSPELAN4, ELAN1)


def inside(layer: nn.Module) -> list[tuple[Any, ...]]:
    """Return the parameters' shapes, which blocks add their input, and the pooling."""
    shapes = [(name, tuple(one.shape)) for name, one in layer.named_parameters()]
    added = [(name, one.add) for name, one in layer.named_modules() if isinstance(one, Bottleneck)]
    strides = [(name, one.stride) for name, one in layer.named_modules() if isinstance(one, nn.Conv2d)]
    pools = [(name, one.kernel_size) for name, one in layer.named_modules() if isinstance(one, nn.MaxPool2d)]
    pyramids = [(name, one.n, one.add) for name, one in layer.named_modules() if isinstance(one, SPPF)]
    return [*shapes, *added, *strides, *pools, *pyramids]


@pytest.mark.parametrize("model", MODELS)
def test_constructor_makes_the_same_layer_of_the_settings(model: str) -> None:
    found = base.load(model, "")
    kinds = set()
    for step in found.traced:
        kind: Any = type(step.layer)
        if kind not in READ:
            continue
        whole = HOSTS[kind.__name__].whole
        assert whole is not None
        (site,) = sites_in(step.layer, [whole], step.channels_in)
        names = list(signature(kind.__init__).parameters)
        repeats = {"n": site.repeats} if "n" in names and kind is not SPPF else {}
        with torch.device("meta"):
            settings: dict[str, Any] = dict(site.stock)
            again = kind(site.c_in, site.c_out, **repeats, **settings)
        assert inside(again) == inside(step.layer), step.index
        kinds.add(kind)
    assert len(kinds) > 1


def test_other_layers_have_none() -> None:
    assert settings_of(nn.Identity(), 8) == {}


@pytest.mark.parametrize(("c_out", "hidden"), [(c, h) for c in (48, 49, 80, 96, 99) for h in range(8, c + 1, 7)])
def test_expansion_makes_the_hidden_channels_of_any_width(c_out: int, hidden: int) -> None:
    layer = C2f(8, c_out, 1, e=(hidden + 0.5) / c_out)
    assert layer.c == hidden
    assert C2f(8, c_out, 1, e=settings_of(layer, c_out)["e"]).c == hidden
