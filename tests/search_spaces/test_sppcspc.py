"""SPPCSPC against its definition (YOLOv7, arXiv 2207.02696)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from ultralytics.nn.modules import SPPF

from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, Site, SiteKind
from trials.costing import cost

Array = NDArray[np.float64]
Awake = Callable[[nn.Module], nn.Module]
Build = Callable[..., Any]


def site_of(c_in: int, c_out: int, stride: int = 1) -> Site:
    return Site(path="", kind=SiteKind.PYRAMID, c_in=c_in, c_out=c_out, kernel=3, stride=stride, activation=nn.SiLU())


@pytest.fixture
def of(built: Build) -> Build:
    return lambda c_in, c_out, **given: built("SPPCSPC", site_of(c_in, c_out), **given)


@pytest.mark.parametrize(
    ("c_in", "c_out", "size", "given"),
    [(6, 8, (7, 9), {}), (6, 8, (3, 2), {"kernel": 3}), (1, 1, (1, 1), {"expansion": 0.25})],
    ids=str,
)
def test_sppcspc_equals_pools_side_by_side(
    c_in: int, c_out: int, size: tuple[int, int], given: dict[str, float], awake: Awake, of: Build, conv_norm: Build
) -> None:
    """In YOLOv7 the pools are of 5, 9 and 13 pixels; one behind the other they give the same maxima."""
    module = awake(of(c_in, c_out, **given)).double()
    x, first = torch.randn(2, c_in, *size, dtype=torch.float64), int(given.get("kernel", 5))
    y = x
    for index, kernel in enumerate((1, 3, 1)):
        y = conv_norm(module, f"enter.{index}", y, kernel)
    sides = (first, 2 * first - 1, 3 * first - 2)
    maps = torch.cat([y, *(F.max_pool2d(y, side, 1, side // 2) for side in sides)], 1)
    pooled = conv_norm(module, "pooled.1", conv_norm(module, "pooled.0", maps, 1), 3)
    expected = conv_norm(module, "leave", torch.cat((pooled, conv_norm(module, "beside", x, 1)), 1), 1)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "params", "macs"),
    [
        (
            {}, 2 * 16 * 24 + 2 * 9 * 24 * 24 + (1 + 4 + 2) * 24 * 24 + 7 * 48,
            (2 * 16 * 24 + 2 * 9 * 24 * 24 + (1 + 4 + 2) * 24 * 24) * 48,
        ),
    ],
)  # fmt: skip
def test_parameters_and_multiply_adds_of_sppcspc_are_those_by_hand(
    given: dict[str, int], params: int, macs: int, of: Build
) -> None:
    module = of(16, 24, **given)
    assert sum(parameter.numel() for parameter in module.parameters()) == params
    assert cost.macs_of(cost.fused(module).to("meta"), torch.zeros(1, 16, 6, 8, device="meta")) == macs


def test_sppcspc_stands_for_the_whole_of_sppf() -> None:

    (site,) = HOSTS["SPPF"].sites_for(OPERATORS["SPPCSPC"], SPPF(16, 24), 16)
    assert (site.path, site.kind, site.c_in, site.c_out) == ("", SiteKind.PYRAMID, 16, 24)
