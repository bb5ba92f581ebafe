"""Sites of every host, their descriptions, and layers that are no hosts."""

from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import (
    C2,
    C3,
    ELAN1,
    SPPELAN,
    SPPF,
    AConv,
    ADown,
    Bottleneck,
    C2f,
    Concat,
    Conv,
    DWConv,
    RepConv,
    RepNCSPELAN4,
    SCDown,
)
from ultralytics.nn.modules.block import CIB, AAttn, Attention, C3k, RepBottleneck, RepCSP

from search_spaces import base as bases
from search_spaces.base import Base
from search_spaces.hosts import HOSTS, host_of
from search_spaces.operators import OPERATORS, SiteKind

POINTWISE = SiteKind.POINTWISE
BLOCK, CONV, LAYER, UPSAMPLE = SiteKind.BLOCK, SiteKind.CONV, SiteKind.LAYER, SiteKind.UPSAMPLE

Description = tuple[str, SiteKind, int, int, int, int]
"""Path, kind, input and output channels, kernel and stride of a site."""


def sites_of(operator: str, layer: nn.Module, c_in: int) -> list[Description]:
    host = host_of(layer)
    assert host is not None
    sites = host.sites_for(OPERATORS[operator], layer, c_in)
    return [(site.path, site.kind, site.c_in, site.c_out, site.kernel, site.stride) for site in sites]


@pytest.mark.parametrize(
    ("operator", "layer", "c_in", "expected"),
    [
        ("UIB", C3(48, 32, n=2), 48, [("m.0", BLOCK, 16, 16, 0, 1), ("m.1", BLOCK, 16, 16, 0, 1)]),
        ("MMQA", C3(48, 32, n=2), 48, [("m.0.cv2", CONV, 16, 16, 3, 1), ("m.1.cv2", CONV, 16, 16, 3, 1)]),
        ("UIB", C2f(48, 32, n=2), 48, [("m.0", BLOCK, 16, 16, 0, 1), ("m.1", BLOCK, 16, 16, 0, 1)]),
        ("DCNv4", C2f(48, 32, n=1), 48, [("m.0.cv2", CONV, 16, 16, 3, 1)]),
        (
            "UIB",
            RepNCSPELAN4(48, 64, 40, 24, 2),
            48,
            [
                ("cv2.0.m.0", BLOCK, 12, 12, 0, 1),
                ("cv2.0.m.1", BLOCK, 12, 12, 0, 1),
                ("cv3.0.m.0", BLOCK, 12, 12, 0, 1),
                ("cv3.0.m.1", BLOCK, 12, 12, 0, 1),
            ],
        ),
        (
            "DynamicConv",
            RepNCSPELAN4(48, 64, 40, 24, 2),
            48,
            [("cv2.1", CONV, 24, 24, 3, 1), ("cv3.1", CONV, 24, 24, 3, 1)],
        ),
        ("UIB", ELAN1(48, 64, 40, 24), 48, []),
        ("DCNv4", ELAN1(48, 64, 40, 24), 48, [("cv2", CONV, 20, 24, 3, 1), ("cv3", CONV, 24, 24, 3, 1)]),
        ("UIB", Conv(48, 32, 3, 2), 48, [("", LAYER, 48, 32, 3, 2)]),
        ("DynamicConv", Conv(48, 32, 6, 2, 2), 48, [("", LAYER, 48, 32, 6, 2)]),
        ("MMQA", Conv(48, 32, 3, 1), 48, [("", LAYER, 48, 32, 3, 1)]),
        ("UIB", Bottleneck(48, 48), 48, [("", BLOCK, 48, 48, 0, 1)]),
        (
            "DynamicConv",
            nn.Sequential(Bottleneck(8, 8), Bottleneck(8, 8)),
            8,
            [("0.cv2", CONV, 4, 8, 3, 1), ("1.cv2", CONV, 4, 8, 3, 1)],
        ),
        ("DCNv4", nn.Sequential(Conv(8, 8, 3), Conv(8, 8, 3)), 8, [("0", LAYER, 8, 8, 3, 1), ("1", LAYER, 8, 8, 3, 1)]),
        ("DynamicConv", SPPF(32, 48), 32, [("cv1", POINTWISE, 32, 16, 1, 1), ("cv2", POINTWISE, 64, 48, 1, 1)]),
        ("DynamicConv", SCDown(32, 48, 3, 2), 32, [("cv1", POINTWISE, 32, 48, 1, 1)]),
        ("UIB", SCDown(32, 48, 3, 2), 32, [("", LAYER, 32, 48, 3, 2)]),
        ("DySample", nn.ConvTranspose2d(32, 32, 2, 2), 32, [("", UPSAMPLE, 32, 32, 0, 2)]),
        ("DySample", nn.ConvTranspose2d(32, 16, 2, 2), 32, []),
        ("UIB", AConv(48, 32), 48, [("", LAYER, 48, 32, 3, 2)]),
        ("DynamicConv", AConv(48, 32), 48, [("cv1", CONV, 48, 32, 3, 2)]),
        ("UIB", ADown(48, 32), 48, [("", LAYER, 48, 32, 3, 2)]),
        ("DynamicConv", ADown(48, 32), 48, [("cv1", CONV, 24, 16, 3, 2)]),
        ("DySample", nn.Upsample(None, 2, "nearest"), 48, [("", UPSAMPLE, 48, 48, 0, 2)]),
        ("UIB", nn.Upsample(None, 2, "nearest"), 48, []),
        ("DySample", C3(48, 32), 48, []),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_sites_of_every_host_are_listed(
    operator: str, layer: nn.Module, c_in: int, expected: list[Description]
) -> None:
    assert sites_of(operator, layer, c_in) == expected


STANDING: dict[SiteKind, tuple[type[nn.Module], ...]] = {
    SiteKind.BLOCK: (Bottleneck, RepBottleneck, CIB),
    SiteKind.CONV: (Conv, RepConv),
    SiteKind.POINTWISE: (Conv,),
    SiteKind.ATTENTION: (Attention, AAttn),
    SiteKind.LAYER: (Conv, AConv, ADown, SCDown),
    SiteKind.UPSAMPLE: (nn.Upsample, nn.ConvTranspose2d),
    SiteKind.STAGE: (C3, C2f, RepNCSPELAN4),
    SiteKind.PYRAMID: (SPPF, SPPELAN),
    SiteKind.FUSION: (Concat,),
    SiteKind.INSERTED: (nn.Identity,),
}
SCALES = {"v3": " ", "v5": "nsmlx", "v6": "nsmlx", "v8": "nsmlx", "v9": "tsmce", "v10": "nsmblx"}
SCALES |= {"11": "nsmlx", "12": "nsmlx", "26": "nsmlx"}


@cache
def family(name: str) -> tuple[Base, ...]:
    """Yield the base models of a family at all scales."""
    return tuple(bases.load(f"yolo{name}{{scale}}.yaml", scale.strip()) for scale in SCALES[name])


@pytest.mark.parametrize("name", SCALES)
def test_site_has_what_its_kind_promises(name: str) -> None:
    for base in family(name):
        for step, operator in product(base.traced, OPERATORS.values()):
            host = host_of(step.layer)
            if host is None:
                assert base.rows[step.index][2] not in HOSTS
                continue
            assert host.name == base.rows[step.index][2]
            for site in base.sites(step.index, operator):
                there = step.layer.get_submodule(site.path)
                assert isinstance(there, STANDING[site.kind]), (host.name, site)
                assert site.kind in (*host.inner, host.whole)
                assert site.kind is not SiteKind.POINTWISE or site.kernel == 1
                assert site.kind is not SiteKind.CONV or site.kernel == 3


def shapes_of(read: Tensor | list[Tensor]) -> list[torch.Size]:
    return [read.shape] if isinstance(read, Tensor) else [one.shape for one in read]


@pytest.mark.parametrize("name", SCALES)
def test_every_site_has_the_shapes_of_its_maps(name: str) -> None:
    base = family(name)[0]
    for step in (step for step in base.traced if host_of(step.layer)):
        several = (site for operator in OPERATORS.values() for site in base.sites(step.index, operator))
        for site in {(site.path, site.kind): site for site in several}.values():  # the same for many operators
            flow: list[tuple[list[torch.Size], torch.Size]] = []
            there = step.layer.get_submodule(site.path)
            handle = there.register_forward_hook(lambda _m, x, y, flow=flow: flow.append((shapes_of(x[0]), y.shape)))
            step.layer(step.received)
            handle.remove()
            ((maps, left),) = flow
            entered, channels = maps[0], tuple(one[1] for one in maps)
            assert (site.c_in, site.c_out) == (sum(channels), left[1])
            assert site.inputs == (channels if site.kind is SiteKind.FUSION else ())
            if site.kind is SiteKind.UPSAMPLE:
                assert left[2:] == (entered[2] * site.stride, entered[3] * site.stride)
            else:
                assert left[2:] == (-(-entered[2] // site.stride), -(-entered[3] // site.stride))


def test_sites_of_a_host_depend_on_scale_and_arguments() -> None:
    nano, medium = bases.load("yolo11{scale}.yaml", "n"), bases.load("yolo11{scale}.yaml", "m")
    uib, mmqa = OPERATORS["UIB"], OPERATORS["MMQA"]
    assert [site.path for site in nano.sites(2, uib)] == ["m.0"]
    assert [site.path for site in medium.sites(2, uib)] == ["m.0.m.0", "m.0.m.1"]
    last = bases.load("yolo26{scale}.yaml", "n")
    assert [site.path for site in last.sites(22, uib)] == ["m.0.0"]
    assert [(site.path, site.kind) for site in last.sites(22, mmqa)] == [("m.0.1.attn", SiteKind.ATTENTION)]
    area = bases.load("yolo12{scale}.yaml", "n")
    assert {site.kind for site in area.sites(6, mmqa)} == {SiteKind.ATTENTION}
    assert {site.kind for site in area.sites(11, mmqa)} == {SiteKind.CONV}


@pytest.mark.parametrize(
    "layer",
    [
        C3k(32, 32),
        RepCSP(32, 32),
        C2(32, 32),
        DWConv(32, 32),
        nn.Sequential(nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_subclass_of_a_host_is_no_host(layer: nn.Module) -> None:
    assert host_of(layer) is None


def test_a_host_is_its_exact_type() -> None:
    elan = ELAN1(32, 32, 32, 16)
    assert isinstance(elan, RepNCSPELAN4)
    assert host_of(elan) is HOSTS["ELAN1"]


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.1)], ids=lambda act: type(act).__name__)
def test_activation_of_a_site_is_that_of_the_host(act: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conv, "default_act", act)
    monkeypatch.setattr(RepConv, "default_act", act)
    for layer in (C3(32, 32), RepNCSPELAN4(32, 32, 32, 16), ADown(32, 32)):
        host = host_of(layer)
        assert host is not None
        for operator in OPERATORS.values():
            assert all(site.activation is act for site in host.sites_for(operator, layer, 32))


def test_site_of_a_linear_convolution_is_linear() -> None:
    (site,) = HOSTS["Conv"].sites_for(OPERATORS["DynamicConv"], Conv(32, 32, 1, act=False), 32)
    assert isinstance(site.activation, nn.Identity)


def test_a_site_has_the_reduction_that_the_caller_gives() -> None:
    layer, mmqa = C3(32, 32), OPERATORS["MMQA"]
    assert [site.reduction for site in HOSTS["C3"].sites_for(mmqa, layer, 32, 16)] == [16]
    assert [site.reduction for site in HOSTS["C3"].sites_for(mmqa, layer, 32)] == [None]
