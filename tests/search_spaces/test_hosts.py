"""Where operators stand: the sites of every host, what an operator is told about them, and what is no host."""

from typing import Any

import pytest
from torch import nn
from ultralytics.nn.modules import C3, ELAN1, AConv, ADown, Bottleneck, C2f, C2fCIB, C3k2, Conv, RepConv, RepNCSPELAN4
from ultralytics.nn.modules.block import C3k, RepBottleneck, RepCSP

from search_spaces.hosts import HOSTS, host_of
from search_spaces.operators import OPERATORS, SiteKind

BLOCK, CONV, LAYER, UPSAMPLE = SiteKind.BLOCK, SiteKind.CONV, SiteKind.LAYER, SiteKind.UPSAMPLE

Told = tuple[str, SiteKind, int, int, int, int]
"""Path, kind, channels in and out, kernel, stride."""


def told(operator: str, layer: nn.Module, c_in: int) -> list[Told]:
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
        ("MMQA", Conv(48, 32, 3, 1), 48, []),
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
def test_sites(operator: str, layer: nn.Module, c_in: int, expected: list[Told]) -> None:
    assert told(operator, layer, c_in) == expected


def test_a_site_is_what_the_kind_promises() -> None:
    layers: list[Any] = [C3(32, 32), C2f(32, 32), RepNCSPELAN4(32, 32, 32, 16), ELAN1(32, 32, 32, 16), AConv(32, 32)]
    for layer in layers:
        host = host_of(layer)
        assert host is not None
        for kind, types in ((BLOCK, (Bottleneck, RepBottleneck)), (CONV, (Conv, RepConv))):
            operator = next(record for record in OPERATORS.values() if record.kinds[0] is kind)
            sites = host.sites_for(operator, layer, 32) if kind in host.sites else ()
            assert all(isinstance(layer.get_submodule(site.path), types) for site in sites)


@pytest.mark.parametrize(
    "layer",
    [
        C3k(32, 32),
        RepCSP(32, 32),
        C3k2(32, 32),
        C2fCIB(32, 32),
        nn.Sequential(Conv(32, 32), Conv(32, 32)),
        nn.ConvTranspose2d(32, 32, 2, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_relative_of_a_host_is_none(layer: nn.Module) -> None:
    assert host_of(layer) is None


def test_a_host_is_its_exact_type() -> None:
    elan = ELAN1(32, 32, 32, 16)
    assert isinstance(elan, RepNCSPELAN4)
    assert host_of(elan) is HOSTS["ELAN1"]


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.1)], ids=lambda act: type(act).__name__)
def test_the_activation_is_the_hosts_own(act: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conv, "default_act", act)
    monkeypatch.setattr(RepConv, "default_act", act)
    for layer in (C3(32, 32), RepNCSPELAN4(32, 32, 32, 16), ADown(32, 32)):
        host = host_of(layer)
        assert host is not None
        for operator in OPERATORS.values():
            assert all(site.activation is act for site in host.sites_for(operator, layer, 32))


def test_a_linear_convolution_stays_linear() -> None:
    (site,) = HOSTS["Conv"].sites_for(OPERATORS["DynamicConv"], Conv(32, 32, 1, act=False), 32)
    assert isinstance(site.activation, nn.Identity)


def test_a_site_knows_its_place_in_the_image_if_the_caller_does() -> None:
    layer, mmqa = C3(32, 32), OPERATORS["MMQA"]
    assert [site.reduction for site in HOSTS["C3"].sites_for(mmqa, layer, 32, 16)] == [16]
    assert [site.reduction for site in HOSTS["C3"].sites_for(mmqa, layer, 32)] == [None]
