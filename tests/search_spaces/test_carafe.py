"""CARAFE against its definition (arXiv 1905.02188), pixel by pixel."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from search_spaces.operators import OPERATORS, Site, SiteKind
from trials.costing import cost

Array = NDArray[np.float64]
Awake = Callable[[nn.Module], Any]
Build = Callable[..., Any]


def site_of(c_in: int, c_out: int, stride: int = 2) -> Site:
    return Site(path="", kind=SiteKind.UPSAMPLE, c_in=c_in, c_out=c_out, kernel=3, stride=stride, activation=nn.SiLU())


@pytest.fixture
def of(built: Build) -> Build:
    return lambda c_in, c_out, **given: built("CARAFE", site_of(c_in, c_out), **given)


def reassembled(module: nn.Module, x: Array, *, kernel: int, encoder: int, scale: int) -> Array:
    """Compute CARAFE pixel by pixel, as the paper's equation 4."""
    w = {key: value.numpy() for key, value in module.state_dict().items()}
    batch, channels, height, width = x.shape
    hidden = np.einsum("oc,bchw->bohw", w["compress.weight"][:, :, 0, 0], x) + w["compress.bias"][:, None, None]
    pad, reach = encoder // 2, kernel // 2
    hidden = np.pad(hidden, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    around = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    out = np.zeros((batch, channels, height * scale, width * scale))
    for image in range(batch):
        for row in range(height * scale):
            for column in range(width * scale):
                top, left = row // scale, column // scale
                seen = hidden[image, :, top : top + encoder, left : left + encoder]
                logits = np.einsum("ocyx,cyx->o", w["encode.weight"], seen) + w["encode.bias"]
                phase = row % scale * scale + column % scale
                weights = np.exp(logits.reshape(kernel**2, scale**2)[:, phase])
                weights = (weights / weights.sum()).reshape(kernel, kernel)
                place = around[image, :, top : top + kernel, left : left + kernel]
                out[image, :, row, column] = (place * weights).sum((1, 2))
    return out


@pytest.mark.parametrize(
    ("channels", "size", "given"),
    [(3, (3, 4), {}), (1, (1, 1), {}), (2, (3, 2), {"up_kernel": 3, "encoder_kernel": 5, "compressed": 16})],
    ids=str,
)
def test_carafe_equals_its_definition(
    channels: int, size: tuple[int, int], given: dict[str, int], awake: Awake, of: Build
) -> None:
    module = awake(of(channels, channels, **given)).double()
    with torch.no_grad():
        module.encode.weight.normal_(std=0.1)
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    kernels = {"kernel": given.get("up_kernel", 5), "encoder": given.get("encoder_kernel", 3)}
    expected = reassembled(module, x.numpy(), scale=2, **kernels)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("up_kernel", [3, 5, 7])
def test_carafe_starts_near_the_nearest_pixel(up_kernel: int, of: Build) -> None:
    module, x = of(8, 8, up_kernel=up_kernel), torch.randn(2, 8, 5, 6)
    with torch.no_grad():
        assert OPERATORS["CARAFE"].init_from(module, None) == ()  # type: ignore[misc]  # it has one
    module.requires_grad_(False)
    nearest = F.interpolate(x, scale_factor=2)
    assert (module(x) - nearest).abs().max() < 0.06
    share = float(np.exp(8) / (np.exp(8) + up_kernel**2 - 1))
    assert module(torch.ones(1, 8, 9, 9))[0, 0, 9, 9] == pytest.approx(1)
    single = torch.zeros(1, 8, 9, 9)
    single[..., 4, 4] = 1
    assert module(single)[0, 0, 8, 8] == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "params", "macs"),
    [
        ({}, 17 * 64 + 9 * 64 * 100 + 100, (16 * 64 + 9 * 64 * 100 + 16 * 4 * 25) * 48),
        ({"up_kernel": 3, "compressed": 16}, 17 * 16 + 9 * 16 * 36 + 36, (256 + 5184 + 16 * 4 * 9) * 48),
    ],
)  # fmt: skip
def test_parameters_and_multiply_adds_of_carafe_are_those_by_hand(
    given: dict[str, int], params: int, macs: int, of: Build
) -> None:
    module = of(16, 16, **given)
    assert sum(parameter.numel() for parameter in module.parameters()) == params
    assert cost.macs_of(cost.fused(module).to("meta"), torch.zeros(1, 16, 6, 8, device="meta")) == macs
