"""DCNv4 against its definition (arXiv 2401.06197), in float64."""

import math
import sys
from itertools import product
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators import OPERATORS, Site, SiteKind, dcnv4
from search_spaces.operators.dcnv4 import DCNv4, DCNv4Block


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def at(plane: Tensor, x: float, y: float) -> Tensor:
    """Return a bilinear sample of a map `(channels, h, w)`, which is 0 outside."""
    left, top = math.floor(x), math.floor(y)
    total = torch.zeros(plane.shape[0], dtype=plane.dtype)
    for column, row in product((left, left + 1), (top, top + 1)):
        if 0 <= column < plane.shape[2] and 0 <= row < plane.shape[1]:
            total = total + plane[:, row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def by_hand(layer: DCNv4, x: Tensor, *, remove_center: bool = False) -> Tensor:
    """Compute DCNv4 by its definition: loops over pixels, groups, and taps in column order."""
    batch, channels, height, width = x.shape
    width_of_group = channels // layer.groups
    taps = [(i - 1, j - 1) for i in range(3) for j in range(3) if not (remove_center and i == j == 1)]
    read = x
    if isinstance(layer.offset_mask_dw, nn.Conv2d):
        weight, bias = layer.offset_mask_dw.weight, layer.offset_mask_dw.bias
        read = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=channels)
    packed = F.linear(read.permute(0, 2, 3, 1), layer.offset_mask.weight, layer.offset_mask.bias)
    value = F.linear(x.permute(0, 2, 3, 1), layer.value_proj.weight, layer.value_proj.bias)
    sampled = torch.zeros_like(value)
    for b, row, column, group in product(range(batch), range(height), range(width), range(layer.groups)):
        own = packed[b, row, column, group * 3 * len(taps) : (group + 1) * 3 * len(taps)].tolist()
        mine = slice(group * width_of_group, (group + 1) * width_of_group)
        plane = value[b, :, :, mine].permute(2, 0, 1)
        for k, (dx, dy) in enumerate(taps):
            across = column + (dx + own[2 * k]) * layer.offset_scale
            down = row + (dy + own[2 * k + 1]) * layer.offset_scale
            sampled[b, row, column, mine] += own[2 * len(taps) + k] * at(plane, across, down)
    if layer.center_feature_scale is not None:
        share = F.linear(sampled, layer.center_feature_scale.weight, layer.center_feature_scale.bias).sigmoid()
        share = share[..., None].expand(-1, -1, -1, -1, width_of_group).flatten(3)
        sampled = sampled * (1 - share) + value * share
    return F.linear(sampled, layer.output_proj.weight, layer.output_proj.bias).permute(0, 3, 1, 2)


def dcn(channels: int = 8, **settings: Any) -> DCNv4:
    """Return a module with random offsets of a pixel or two and random weights."""
    layer = DCNv4(channels, **{"groups": 2, **settings}).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer.requires_grad_(False)


def plain(channels: int = 4, groups: int = 2, *, mask: float | dict[int, float] = 1.0, **settings: Any) -> DCNv4:
    """Return a module with identity projections, no offsets, and fixed weights of the taps."""
    layer = DCNv4(channels, groups=groups, **settings).double().requires_grad_(False)
    for projection in (layer.value_proj, layer.output_proj):
        nn.init.eye_(projection.weight)
    taps = len(layer.taps)
    bias = layer.offset_mask.bias[: groups * 3 * taps].view(groups, 3 * taps)
    for tap in range(taps):
        bias[:, 2 * taps + tap] = mask if isinstance(mask, float) else mask.get(tap, 0.0)
    return layer


@pytest.mark.parametrize(
    ("channels", "groups", "settings", "expected"),
    [
        (16, 1, {}, 1088),
        (32, 2, {}, 3960),
        (64, 1, {}, 10400),
        (64, 4, {}, 15600),
        (128, 8, {}, 60888),
        (256, 16, {}, 242608),
        (512, 1, {}, 541728),
        (512, 4, {}, 582768),
        (512, 32, {}, 968544),
        (64, 4, {"dw_kernel": 3}, 16240),
        (64, 4, {"center_scale": True}, 15860),
        (64, 4, {"remove_center": True}, 14560),
    ],
)
def test_dcnv4_has_the_expected_number_of_parameters(
    channels: int, groups: int, settings: dict[str, Any], expected: int
) -> None:
    with torch.device("meta"):
        assert params(DCNv4(channels, groups=groups, **settings)) == expected


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"groups": 1},
        {"groups": 8},
        {"offset_scale": 2.0},
        {"offset_scale": 0.5},
        {"dw_kernel": 3},
        {"dw_kernel": 5},
        {"remove_center": True},
        {"center_scale": True},
        {"remove_center": True, "center_scale": True, "dw_kernel": 3, "offset_scale": 2.0},
    ],
    ids=str,
)
def test_dcnv4_equals_its_definition(settings: dict[str, Any], size: tuple[int, int]) -> None:
    layer, x = dcn(**settings), torch.randn(2, 8, *size, dtype=torch.float64)
    expected = by_hand(layer, x, remove_center=settings.get("remove_center", False))
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 5), (4, 7)])
def test_equal_weights_without_offsets_sum_the_neighbourhood(size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    assert torch.allclose(plain()(x), F.avg_pool2d(x, 3, 1, 1) * 9, rtol=0, atol=1e-13)


def test_offset_scale_widens_the_fixed_taps_too() -> None:
    x = torch.randn(1, 4, 6, 7, dtype=torch.float64)
    box = torch.ones(4, 1, 3, 3, dtype=torch.float64)
    expected = F.conv2d(x, box, padding=2, dilation=2, groups=4)
    assert torch.allclose(plain(offset_scale=2.0)(x), expected, rtol=0, atol=1e-13)


def test_remove_center_sums_only_the_neighbours() -> None:
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    expected = F.avg_pool2d(x, 3, 1, 1) * 9 - x
    assert torch.allclose(plain(remove_center=True)(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("tap", range(9))
def test_each_tap_samples_its_neighbour(tap: int) -> None:
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    dx, dy = tap // 3 - 1, tap % 3 - 1
    padded = F.pad(x, (1, 1, 1, 1))
    expected = padded[..., 1 + dy : 6 + dy, 1 + dx : 7 + dx]
    assert torch.allclose(plain(mask={tap: 1.0})(x), expected, rtol=0, atol=1e-13)


def test_the_first_of_a_pair_of_offsets_points_right() -> None:
    layer, x = plain(groups=1, mask={4: 1.0}), torch.randn(1, 4, 5, 6, dtype=torch.float64)
    layer.offset_mask.bias[8] = 1.0
    assert torch.allclose(layer(x), F.pad(x, (0, 1))[..., 1:], rtol=0, atol=1e-13)


def test_dcnv4_sample_half_outside_counts_half() -> None:
    layer, x = plain(groups=1, mask={4: 1.0}), torch.randn(1, 4, 5, 6, dtype=torch.float64)
    layer.offset_mask.bias[8] = -0.5
    assert torch.allclose(layer(x)[..., 0], 0.5 * x[..., 0], rtol=0, atol=1e-13)


def test_dcnv4_weights_are_not_normalised() -> None:
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    assert torch.allclose(plain(mask=-7.5)(x), -7.5 * plain()(x), rtol=0, atol=1e-12)


def test_the_padding_of_the_packed_row_is_ignored() -> None:
    layer, x = dcn(), torch.randn(1, 8, 4, 4, dtype=torch.float64)
    before = layer(x)
    assert layer.offset_mask.weight.shape[0] == 56  # 2 groups of 27, padded to a multiple of 8
    layer.offset_mask.weight[54:] = 100.0
    layer.offset_mask.bias[54:] = math.inf
    assert torch.equal(layer(x), before)


def test_dcnv4_gradients_are_those_of_the_formula() -> None:
    layer = dcn(4, center_scale=True, dw_kernel=3).requires_grad_()
    x = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_new_dcnv4_returns_zero_and_passes_no_gradient() -> None:
    layer, x = DCNv4(16), torch.randn(1, 16, 5, 5, requires_grad=True)
    out = layer(x)
    assert not out.any()
    out.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_new_dcnv4_block_passes_its_input_and_gradient() -> None:
    block = DCNv4Block(16, 16, core=DCNv4(16), activation=nn.SiLU()).eval()
    x = torch.randn(1, 16, 5, 5, requires_grad=True)
    out = block(x)
    assert torch.allclose(out, F.silu(x / (1 + 1e-5) ** 0.5))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.all()


def test_a_block_has_a_stem_only_where_channels_change() -> None:
    assert isinstance(DCNv4Block(16, 16, core=DCNv4(16), activation=nn.ReLU()).stem, nn.Identity)
    stem = DCNv4Block(8, 16, core=DCNv4(16), activation=nn.ReLU()).stem
    assert isinstance(stem, Conv)
    assert isinstance(stem.act, nn.ReLU)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("settings", [{}, {"remove_center": True, "center_scale": True, "dw_kernel": 3}], ids=str)
def test_dcnv4_traced_at_one_size_is_right_at_another(settings: dict[str, Any]) -> None:
    layer = dcn(**settings)
    traced = torch.jit.trace(layer, torch.randn(1, 8, 8, 8, dtype=torch.float64))
    x = torch.randn(3, 8, 12, 10, dtype=torch.float64)
    assert torch.allclose(traced(x), layer(x), rtol=0, atol=1e-12)


def test_dcnv4_in_half_precision_samples_at_exact_places() -> None:
    layer = plain(groups=1, mask={4: 1.0}).half()
    x = torch.arange(320.0).expand(1, 4, 1, 320).half()
    assert torch.allclose(layer(x), x, rtol=0, atol=1e-3)  # float16 coordinates would be off by 0.1 pixels there


class Kernel:
    """Fake of the original's `autograd.Function`: records its calls and samples in plain PyTorch."""

    def __init__(self, layer: DCNv4) -> None:
        self.layer, self.calls = layer, list[tuple[Any, ...]]()

    def apply(self, value: Tensor, offset_mask: Tensor, *rest: Any) -> Tensor:
        assert value.is_contiguous()
        assert offset_mask.is_contiguous()
        self.calls.append((tuple(value.shape), tuple(offset_mask.shape), *rest))
        return self.layer._sample_by_taps(value, offset_mask)


@pytest.mark.parametrize("remove_center", [False, True])
def test_dcnv4_calls_the_cuda_kernel_as_the_original_module_does(
    remove_center: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = dcn(32, groups=2, offset_scale=0.5, remove_center=remove_center)
    kernel = Kernel(layer)
    x = torch.randn(2, 32, 8, 16, dtype=torch.float64)
    expected = layer(x)
    monkeypatch.setattr(dcnv4, "_cuda_function", lambda: kernel)
    monkeypatch.setattr(dcnv4, "_is_supported_on_cuda", lambda _value, _groups: True)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-13)
    packed = 48 if remove_center else 56
    sizes = (3, 3, 1, 1, 1, 1, 1, 1, 2, 16)  # kernel, stride, padding, dilation, groups, channels of a group
    assert kernel.calls == [((2, 8, 16, 32), (2, 8, 16, packed), *sizes, 0.5, 2, int(remove_center))]


def test_the_cuda_kernel_gets_single_images_if_a_block_could_span_two(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = dcn(32, groups=2)
    kernel = Kernel(layer)
    x = torch.randn(2, 32, 5, 5, dtype=torch.float64)  # blocks of 2 pixels fit into 50, not into 25
    expected = layer(x)
    monkeypatch.setattr(dcnv4, "_cuda_function", lambda: kernel)
    monkeypatch.setattr(dcnv4, "_is_supported_on_cuda", lambda _value, _groups: True)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-13)
    assert [call[0] for call in kernel.calls] == [(1, 5, 5, 32)] * 2


@pytest.mark.parametrize(
    ("is_cuda", "channels", "groups", "dtype", "suits"),
    [
        (True, 64, 4, torch.float32, True),
        (True, 64, 4, torch.float16, True),
        (True, 96, 3, torch.float32, True),
        (False, 64, 4, torch.float32, False),
        (True, 60, 4, torch.float32, False),
        (True, 64, 8, torch.float32, False),
        (True, 64, 4, torch.bfloat16, False),
        (True, 64, 4, torch.float64, False),
    ],
)
def test_the_cuda_kernel_is_for_wide_groups_on_a_gpu(
    is_cuda: bool, channels: int, groups: int, dtype: torch.dtype, suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    value: Any = SimpleNamespace(is_cuda=is_cuda, shape=(2, 20, 20, channels), dtype=dtype)
    assert dcnv4._is_supported_on_cuda(value, groups) is suits
    monkeypatch.setattr(dcnv4, "is_exporting", lambda: True)
    assert not dcnv4._is_supported_on_cuda(value, groups)


def test_a_cpu_samples_in_plain_pytorch_even_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = dcn(32, groups=2).float(), torch.randn(1, 32, 4, 4)
    kernel, expected = Kernel(layer), layer(x)
    monkeypatch.setattr(dcnv4, "_cuda_function", lambda: kernel)
    assert torch.equal(layer(x), expected)
    assert not kernel.calls


def test_original_dcnv4_package_is_found_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = dcnv4._cuda_function.__wrapped__
    monkeypatch.setitem(sys.modules, "DCNv4.functions", None)  # importing it fails
    assert find() is None
    package, functions = ModuleType("DCNv4"), ModuleType("DCNv4.functions")
    vars(functions)["DCNv4Function"] = Kernel
    monkeypatch.setitem(sys.modules, "DCNv4", package)
    monkeypatch.setitem(sys.modules, "DCNv4.functions", functions)
    assert find() is Kernel


def test_dcnv4_state_dict_is_that_of_the_original() -> None:
    names = {name.partition(".")[0] for name in dcn(center_scale=True, dw_kernel=3).state_dict()}
    assert names == {"offset_mask_dw", "offset_mask", "value_proj", "output_proj", "center_feature_scale"}


def test_dcnv4_refuses_groups_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="3 groups do not divide 16 channels"):
        DCNv4(16, groups=3)


@pytest.mark.parametrize(("remove_center", "expected"), [(False, 1_152_000), (True, 1_024_000)])
def test_dcnv4_sampling_is_counted(remove_center: bool, expected: int) -> None:
    count = OPERATORS["DCNv4"].extra_macs
    assert count is not None
    x = torch.empty(1, 64, 20, 20, device="meta")
    assert count(DCNv4(64, remove_center=remove_center), x, x) == expected


@pytest.mark.parametrize(
    ("c_out", "stride", "groups", "expected"),
    [
        (24, 1, 4, None),
        (24, 1, 16, "16 groups do not divide 24 channels"),
        (24, 1, 8, "8 groups of 24 channels are too narrow to share offsets"),
        (24, 2, 4, "it needs stride 1"),
    ],
)
def test_dcnv4_incompatibilities_are_reported(c_out: int, stride: int, groups: int, expected: str | None) -> None:
    record = OPERATORS["DCNv4"]
    site = Site(path="cv2.1", kind=SiteKind.CONV, c_in=24, c_out=c_out, kernel=3, stride=stride, activation=nn.SiLU())
    assert record.incompatibility(site, record.complete({"groups": groups})) == expected
