"""SPDConv against its definition (SPD-Conv, arXiv 2208.03641)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from ultralytics.nn.modules import Conv

from search_spaces.operators import OPERATORS, Site, SiteKind
from trials.costing import cost

Array = NDArray[np.float64]
Awake = Callable[[nn.Module], nn.Module]
Build = Callable[..., Any]


def site_of(c_in: int, c_out: int, stride: int = 2) -> Site:
    return Site(path="", kind=SiteKind.LAYER, c_in=c_in, c_out=c_out, kernel=3, stride=stride, activation=nn.SiLU())


@pytest.fixture
def of(built: Build) -> Build:
    return lambda c_in, c_out, **given: built("SPDConv", site_of(c_in, c_out), **given)


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize(("channels", "kernel"), [(4, 3), (4, 1), (1, 3)])
def test_spd_conv_equals_its_definition(
    channels: int, kernel: int, size: tuple[int, int], awake: Awake, of: Build, conv_norm: Build
) -> None:
    module = awake(of(channels, 6, kernel=kernel)).double()
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    height, width = (-(-side // 2) for side in size)
    depth = torch.zeros(2, 4 * channels, height, width, dtype=torch.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            part = row % 2 + 2 * (column % 2)
            depth[:, part * channels : (part + 1) * channels, row // 2, column // 2] = x[:, :, row, column]
    torch.testing.assert_close(module(x), conv_norm(module, "mix", depth, kernel), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)], ids=str)
def test_spd_conv_starts_as_the_strided_convolution_that_it_replaces(
    size: tuple[int, int], awake: Awake, of: Build
) -> None:
    before, module, x = awake(Conv(4, 6, 3, 2)).eval(), of(4, 6), torch.randn(2, 4, *size)
    with torch.no_grad():
        names = OPERATORS["SPDConv"].init_from(module, before)  # type: ignore[misc]  # it has one
    assert names == ("mix.conv.weight", "mix.bn.weight", "mix.bn.bias")
    torch.testing.assert_close(module(x), before(x))


def test_spd_conv_copies_nothing_from_another_convolution(of: Build) -> None:
    for before in (None, Conv(4, 6, 3, 1), Conv(4, 6, 5, 2), Conv(2, 6, 3, 2), Conv(4, 6, 3, 2, g=2)):
        with torch.no_grad():
            assert OPERATORS["SPDConv"].init_from(of(4, 6), before) == ()  # type: ignore[misc]
    with torch.no_grad():
        module = of(4, 6, kernel=1)
        assert OPERATORS["SPDConv"].init_from(module, Conv(4, 6, 3, 2)) == ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "params", "macs"),
    [
        ({}, 9 * 64 * 24 + 48, 9 * 64 * 24 * 12),
        ({"kernel": 1}, 64 * 24 + 48, 64 * 24 * 12),
    ],
)  # fmt: skip
def test_parameters_and_multiply_adds_of_spdconv_are_those_by_hand(
    given: dict[str, int], params: int, macs: int, of: Build
) -> None:
    module = of(16, 24, **given)
    assert sum(parameter.numel() for parameter in module.parameters()) == params
    assert cost.macs_of(cost.fused(module).to("meta"), torch.zeros(1, 16, 6, 8, device="meta")) == macs


def test_spd_conv_halves_only() -> None:
    record = OPERATORS["SPDConv"]
    reason = record.incompatibility(site_of(8, 8, stride=1), record.complete({}))
    assert reason == "it halves the map, and the stride here is 1"
