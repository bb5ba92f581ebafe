"""DySample against its definition (arXiv 2308.15085), in float64."""

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators import OPERATORS, Site, SiteKind
from search_spaces.operators.dysample import DySample

STYLES = [(style, dynamic_scope) for style in ("lp", "pl") for dynamic_scope in (False, True)]


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def at(plane: Tensor, x: float, y: float) -> Tensor:
    """Return a bilinear sample of a map `(channels, h, w)`; points outside are moved to its border."""
    x, y = min(max(x, 0), plane.shape[2] - 1), min(max(y, 0), plane.shape[1] - 1)
    left, top = math.floor(x), math.floor(y)
    total = torch.zeros(plane.shape[0], dtype=plane.dtype)
    for column, row in product((left, left + 1), (top, top + 1)):
        weight = (1 - abs(x - column)) * (1 - abs(y - row))
        if weight:
            total = total + plane[:, row, column] * weight
    return total


def by_hand(layer: DySample, x: Tensor) -> Tensor:
    """Compute DySample by its definition: loops over output pixels and groups."""
    scale, groups = layer.scale, layer.groups
    read = F.pixel_shuffle(x, scale) if layer.style == "pl" else x
    shift = F.conv2d(read, layer.offset.weight, layer.offset.bias)
    shift = shift * (0.25 if layer.scope is None else 0.5 * F.conv2d(read, layer.scope.weight).sigmoid())
    if layer.style == "pl":
        shift = F.pixel_unshuffle(shift, scale)
    batch, channels, height, width = x.shape
    # Channels of a shift: x or y, then the group, then the row and the column inside the finer cell.
    shift = shift.reshape(batch, 2, groups, scale, scale, height, width)
    out = x.new_zeros(batch, channels, height * scale, width * scale)
    wide = channels // groups
    for b, g, i, j in product(range(batch), range(groups), range(height * scale), range(width * scale)):
        (row, sub_row), (column, sub_column) = divmod(i, scale), divmod(j, scale)
        dx, dy = shift[b, :, g, sub_row, sub_column, row, column].tolist()
        across = column + (sub_column - (scale - 1) / 2) / scale + dx
        down = row + (sub_row - (scale - 1) / 2) / scale + dy
        mine = slice(g * wide, (g + 1) * wide)
        out[b, mine, i, j] = at(x[b, mine], across, down)
    return out


def dysample(channels: int = 16, **settings: Any) -> DySample:
    """Return a module with offsets of about a pixel."""
    layer = DySample(channels, **settings).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.requires_grad_(False)


@pytest.mark.parametrize(
    ("channels", "settings", "expected"),
    [
        (32, {}, 1056),
        (64, {}, 2080),
        (64, {"dynamic_scope": True}, 4128),
        (256, {}, 8224),
        (256, {"dynamic_scope": True}, 16416),
        (512, {}, 16416),
        (512, {"dynamic_scope": True}, 32800),
        (128, {"groups": 8}, 8256),
        (64, {"scale": 4}, 8320),
        (64, {"scale": 3}, 4680),
        (256, {"groups": 1}, 2056),
        (64, {"style": "pl"}, 136),
        (64, {"style": "pl", "dynamic_scope": True}, 264),
        (256, {"style": "pl"}, 520),
        (256, {"style": "pl", "dynamic_scope": True}, 1032),
    ],
)
def test_dysample_has_the_expected_number_of_parameters(channels: int, settings: dict[str, Any], expected: int) -> None:
    assert params(DySample(channels, **settings)) == expected


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
@pytest.mark.parametrize(("scale", "groups"), [(2, 4), (2, 1), (2, 8), (4, 2)])
@pytest.mark.parametrize(("style", "dynamic_scope"), STYLES)
def test_dysample_equals_its_definition(
    style: str, dynamic_scope: bool, scale: int, groups: int, size: tuple[int, int]
) -> None:
    layer = dysample(style=style, dynamic_scope=dynamic_scope, scale=scale, groups=groups)
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    assert torch.allclose(layer(x), by_hand(layer, x), rtol=0, atol=1e-12)


def test_dysample_of_an_odd_scale_equals_its_definition() -> None:
    layer, x = dysample(18, scale=3, groups=3), torch.randn(1, 18, 3, 4, dtype=torch.float64)
    assert torch.allclose(layer(x), by_hand(layer, x), rtol=0, atol=1e-6)  # the buffer's thirds are float32


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("style", "dynamic_scope"), STYLES)
def test_dysample_without_shifts_is_bilinear(style: str, dynamic_scope: bool, scale: int) -> None:
    layer = DySample(144, style=style, dynamic_scope=dynamic_scope, scale=scale).double()
    nn.init.zeros_(layer.offset.weight)
    x = torch.randn(2, 144, 5, 7, dtype=torch.float64)
    expected = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-6 if scale == 3 else 1e-12)


def test_initial_shifts_of_dysample_are_those_of_the_original() -> None:
    shift = DySample(64).initial_shift.flatten().tolist()
    assert shift[:16] == [-0.25, 0.25] * 8
    assert shift[16:] == [-0.25, -0.25, 0.25, 0.25] * 4


@pytest.mark.parametrize(("style", "dynamic_scope"), STYLES)
def test_new_dysample_is_almost_bilinear_and_not_nearest(style: str, dynamic_scope: bool) -> None:
    x = torch.randn(1, 64, 20, 20)
    out = DySample(64, style=style, dynamic_scope=dynamic_scope)(x)
    assert (out - F.interpolate(x, scale_factor=2, mode="bilinear")).abs().max() < 0.05
    assert (out - F.interpolate(x, scale_factor=2)).abs().max() > 1


@pytest.mark.parametrize("style", ["lp", "pl"])
def test_initial_dynamic_scope_equals_the_fixed_one(style: str) -> None:
    static, dynamic = DySample(16, style=style), DySample(16, style=style, dynamic_scope=True)
    dynamic.offset.load_state_dict(static.offset.state_dict())
    x = torch.randn(1, 16, 6, 8)
    assert torch.equal(static(x), dynamic(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.parametrize(("style", "dynamic_scope"), STYLES)
def test_dysample_traced_at_one_size_is_right_at_another(style: str, dynamic_scope: bool) -> None:
    layer = dysample(style=style, dynamic_scope=dynamic_scope)
    traced = torch.jit.trace(layer, torch.randn(1, 16, 8, 8, dtype=torch.float64))
    x = torch.randn(3, 16, 12, 10, dtype=torch.float64)
    assert torch.allclose(traced(x), layer(x), rtol=0, atol=1e-12)


def test_dysample_gradients_are_those_of_the_formula() -> None:
    layer = dysample(8, groups=2, dynamic_scope=True).requires_grad_()
    x = torch.randn(1, 8, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_dysample_in_half_precision_samples_at_exact_places() -> None:
    layer = DySample(4, groups=1)
    nn.init.zeros_(layer.offset.weight)
    x = torch.arange(320.0).expand(1, 4, 1, 320)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")
    assert torch.allclose(layer.half()(x.half()).float(), expected, rtol=0, atol=0.13)  # the values' own rounding


@pytest.mark.parametrize(
    ("channels", "settings", "message"),
    [
        (16, {"style": "lq"}, "unknown style 'lq', not lp or pl"),
        (18, {"groups": 4}, "4 groups do not divide 18 channels"),
        (6, {"groups": 2, "style": "pl"}, "style pl at scale 2 needs 6 channels to divide by 4"),
    ],
)
def test_dysample_refuses_invalid_settings(channels: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DySample(channels, **settings)


def test_dysample_sampling_is_counted() -> None:
    count = OPERATORS["DySample"].extra_macs
    assert count is not None
    x, y = torch.empty(1, 256, 20, 20, device="meta"), torch.empty(1, 256, 40, 40, device="meta")
    assert count(DySample(256), x, y) == 1_638_400


@pytest.mark.parametrize(
    ("channels", "given", "expected"),
    [
        (64, {}, None),
        (64, {"style": "pl", "groups": 8}, None),
        (18, {}, "4 groups do not divide 18 channels"),
        (6, {"groups": 2, "style": "pl"}, "style pl needs 6 channels to divide by 4"),
    ],
)
def test_dysample_incompatibilities_are_reported(
    channels: int, given: dict[str, int | str], expected: str | None
) -> None:
    record = OPERATORS["DySample"]
    site = Site(
        path="",
        kind=SiteKind.UPSAMPLE,
        c_in=channels,
        c_out=channels,
        kernel=0,
        stride=2,
        activation=nn.Identity(),
    )
    assert record.incompatibility(site, record.complete(given)) == expected
