"""Dynamic convolution against its definition (arXiv 1912.03458), and its annealed temperature."""

import io
from copy import deepcopy
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.utils.torch_utils import ModelEMA

from search_spaces import Choice
from search_spaces.operators import OPERATORS, Site, SiteKind, dynamic_conv
from search_spaces.operators.dynamic_conv import DynamicConv


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_hand(layer: DynamicConv, image: Tensor, *, stride: int, groups: int) -> Tensor:
    """Compute one image `(c_in, h, w)` by the definition: mixed kernel, convolution, batch norm, SiLU."""
    shares = torch.ones(1, dtype=image.dtype)
    if layer.kernels > 1:
        pooled = image.mean(dim=(1, 2))
        hidden = (layer.squeeze.weight[:, :, 0, 0] @ pooled).relu()
        assert layer.mix.bias is not None
        logits = layer.mix.weight[:, :, 0, 0] @ hidden + layer.mix.bias
        shares = (logits / layer.temperature).exp()
        shares = shares / shares.sum()
    kernels = layer.weight.unflatten(0, (layer.kernels, layer.c_out))
    kernel = sum(share * one for share, one in zip(shares, kernels, strict=True))
    assert isinstance(kernel, Tensor)
    padding = kernel.shape[-1] // 2
    y = F.conv2d(image[None], kernel, stride=stride, padding=padding, groups=groups)
    bn = layer.bn
    y = F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
    return F.silu(y[0])


def dynamic(c_in: int = 8, c_out: int = 12, **settings: Any) -> DynamicConv:
    """Return a module in eval mode, with shares that differ between kernels and between images."""
    layer = DynamicConv(c_in, c_out, **{"temperature": 1.0, **settings}).double().eval()
    with torch.no_grad():
        if layer.kernels > 1:
            layer.squeeze.weight.mul_(3)
            nn.init.normal_(layer.mix.weight, std=2)
        nn.init.normal_(layer.bn.weight)
        nn.init.normal_(layer.bn.bias)
    return layer.requires_grad_(False)


def images(batch: int = 3, channels: int = 8, height: int = 5, width: int = 7) -> Tensor:
    return torch.randn(batch, channels, height, width, dtype=torch.float64) + torch.randn(batch, channels, 1, 1)


@pytest.mark.parametrize(
    ("c_in", "c_out", "settings", "without_norm"),
    [
        (64, 64, {}, 148_616),
        (64, 64, {"kernel": 1}, 17_544),
        (3, 16, {}, 1_760),
        (128, 256, {}, 1_184_008),
        (16, 32, {}, 18_536),
        (64, 64, {"groups": 64}, 3_720 - 4 * 64),  # the table's value has a bias for every kernel
        (64, 64, {"groups": 4, "kernels": 8}, 75_472 - 8 * 64),
    ],
)
def test_dynamic_conv_has_the_expected_number_of_parameters(
    c_in: int, c_out: int, settings: dict[str, Any], without_norm: int
) -> None:
    assert params(DynamicConv(c_in, c_out, **settings)) == without_norm + 2 * c_out


@pytest.mark.parametrize(("c_in", "c_out", "expected"), [(1024, 512, 2_362_376), (512, 256, 591_368)])
def test_dynamic_conv_parameters_in_the_neck_of_yolov5l(c_in: int, c_out: int, expected: int) -> None:
    with torch.device("meta"):
        assert params(DynamicConv(c_in, c_out, kernel=1)) == expected


@pytest.mark.parametrize("size", [(6, 6), (5, 7)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [{}, {"groups": 4}, {"c_out": 8, "groups": 8}, {"kernels": 8}, {"kernels": 1}, {"temperature": 30.0}],
    ids=str,
)
def test_dynamic_conv_equals_its_definition(
    settings: dict[str, Any], stride: int, kernel: int, size: tuple[int, int]
) -> None:
    layer = dynamic(stride=stride, kernel=kernel, **settings)
    x = images(3, 8, *size)
    expected = [by_hand(layer, image, stride=stride, groups=settings.get("groups", 1)) for image in x]
    assert torch.allclose(layer(x), torch.stack(expected), rtol=0, atol=1e-12)


def test_dynamic_conv_with_an_even_kernel_halves_the_map_as_the_stem_of_v5() -> None:
    stem = nn.Conv2d(3, 16, 6, 2, 2)
    x = torch.randn(2, 3, 32, 48)
    assert DynamicConv(3, 16, kernel=6, stride=2)(x).shape == stem(x).shape


def test_kernel_shares_sum_to_one_and_depend_on_the_image() -> None:
    shares = dynamic().shares(images())
    assert shares.shape == (3, 4)
    assert torch.allclose(shares.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert shares.std(dim=0).max() > 0.1


def test_order_of_the_mixed_kernels_does_not_matter() -> None:
    layer, x = dynamic(), images()
    expected = layer(x)
    order = torch.tensor([2, 0, 3, 1])
    layer.weight.copy_(layer.weight.unflatten(0, (4, 12))[order].flatten(0, 1))
    layer.mix.weight.copy_(layer.mix.weight[order])
    assert layer.mix.bias is not None
    layer.mix.bias.copy_(layer.mix.bias[order])
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


def test_one_kernel_is_a_static_convolution_at_any_temperature() -> None:
    layer, x = dynamic(kernels=1), images()
    expected = layer.act(layer.bn(F.conv2d(x, layer.weight, padding=1)))
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)
    layer.temperature.fill_(30)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


def test_high_temperature_mixes_kernels_evenly() -> None:
    layer, x = dynamic(temperature=1e9), images()
    mean = layer.weight.unflatten(0, (4, 12)).mean(dim=0)
    expected = layer.act(layer.bn(F.conv2d(x, mean, padding=1)))
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-6)


def test_dynamic_conv_of_an_image_does_not_depend_on_the_batch() -> None:
    layer, x = dynamic(groups=4), images()
    alone = torch.cat([layer(image[None]) for image in x])
    assert torch.allclose(layer(x), alone, rtol=0, atol=1e-12)


def test_mixing_kernels_equals_mixing_their_convolutions() -> None:
    layer, x = dynamic(), images()
    each = F.conv2d(x, layer.weight, padding=1).unflatten(1, (4, 12))
    mixed = (layer.shares(x)[:, :, None, None, None] * each).sum(dim=1)
    assert torch.allclose(layer(x), layer.act(layer.bn(mixed)), rtol=0, atol=1e-12)


def test_dynamic_conv_refuses_a_temperature_below_the_final_one() -> None:
    with pytest.raises(ValueError, match=r"temperature 0\.5 is below the final 1\.0"):
        DynamicConv(8, 8, temperature=0.5)


@pytest.mark.parametrize("channels", [(8, 12), (12, 8)])
def test_dynamic_conv_refuses_groups_that_do_not_divide(channels: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="8 groups do not divide"):
        DynamicConv(*channels, groups=8)


def site(c_out: int = 16, *, kind: SiteKind = SiteKind.CONV, kernel: int = 3, groups: int = 1) -> Site:
    return Site(
        path="cv1", kind=kind, c_in=16, c_out=c_out, kernel=kernel, stride=1, groups=groups, activation=nn.SiLU()
    )


def test_dynamic_conv_replaces_a_convolution_with_groups() -> None:
    record = OPERATORS["DynamicConv"]
    layer = record.build(site(32, groups=16), **record.complete({}))
    assert layer.weight.shape == (4 * 32, 1, 3, 3)
    assert record.incompatibility(site(32, groups=16), record.complete({})) is None
    assert (
        record.incompatibility(site(24, groups=16), record.complete({}))
        == "its 16 groups do not divide 16 and 24 channels"
    )


def test_dynamic_conv_replaces_a_1x1_convolution() -> None:
    record, where = OPERATORS["DynamicConv"], site(kind=SiteKind.POINTWISE, kernel=1)
    assert where.kind in record.kinds
    assert record.incompatibility(where, record.complete({})) is None
    assert record.build(where, **record.complete({})).weight.shape == (4 * 16, 16, 1, 1)


def annealing(anneal_steps: int = 10, **settings: Any) -> DynamicConv:
    return DynamicConv(4, 4, anneal_steps=anneal_steps, **settings)


def test_temperature_falls_linearly_in_training_and_stays_at_one() -> None:
    layer, x = annealing(), torch.randn(2, 4, 3, 3)
    found = []
    for _ in range(12):
        layer(x)
        found.append(round(layer.temperature.item(), 4))
    assert found == [27.1, 24.2, 21.3, 18.4, 15.5, 12.6, 9.7, 6.8, 3.9, 1.0, 1.0, 1.0]


def test_temperature_stays_in_eval() -> None:
    layer = annealing().eval()
    layer(torch.randn(2, 4, 3, 3))
    assert layer.temperature.item() == 30.0


def test_temperature_is_reached_after_a_thousand_steps_by_default() -> None:
    layer = DynamicConv(4, 4)
    for _ in range(999):
        layer._anneal()
    assert layer.temperature.item() > 1
    layer._anneal()
    layer._anneal()  # float32 adds up to a hair more than a thousand steps
    assert layer.temperature.item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_temperature_falls_in_a_model_of_low_precision(dtype: torch.dtype) -> None:
    layer = DynamicConv(4, 4).to(dtype)
    for _ in range(500):
        layer._anneal()
    assert layer.weight.dtype is dtype
    assert layer.temperature.item() == pytest.approx(15.5, abs=0.01)
    assert DynamicConv(4, 4).to("meta").to(dtype).temperature.is_meta
    layer(torch.randn(2, 4, 3, 3, dtype=dtype)).sum().backward()


def test_falling_temperature_does_not_break_the_backward_pass() -> None:
    layer, x = annealing(), torch.randn(2, 4, 3, 3)
    (layer(x).sum() + layer(x).sum()).backward()
    assert layer.mix.weight.grad is not None


def test_temperature_is_saved_and_resumed() -> None:
    layer = annealing()
    layer(torch.randn(2, 4, 3, 3))
    temperature = layer.state_dict()["temperature"]
    assert temperature.dtype is torch.float32
    resumed = annealing()
    resumed.load_state_dict(layer.state_dict())
    assert resumed.temperature.item() == pytest.approx(27.1)
    assert deepcopy(layer).temperature.item() == pytest.approx(27.1)
    resumed(torch.randn(2, 4, 3, 3))
    assert resumed.temperature.item() == pytest.approx(24.2)


def test_temperature_of_the_ema_follows_the_model() -> None:
    layer = annealing(100)
    ema = ModelEMA(layer)
    for _ in range(80):
        layer(torch.randn(2, 4, 3, 3))
        ema.update(layer)
    assert layer.temperature.item() == pytest.approx(30 - 0.8 * 29, abs=1e-3)
    assert layer.temperature.item() < ema.ema.temperature.item() < 15


def test_dynamic_conv_weights_start_as_in_the_common_reimplementation() -> None:
    layer = DynamicConv(64, 64)
    kernels = layer.weight.unflatten(0, (4, 64))
    bound = (6 / (64 * 9)) ** 0.5
    assert all(kernel.abs().max() <= bound < 1.01 * kernel.abs().max() for kernel in kernels)
    assert layer.squeeze.weight.std().item() == pytest.approx((2 / 17) ** 0.5, rel=0.1)
    assert layer.mix.bias is not None
    assert not layer.mix.bias.any()


def test_dynamic_conv_counts_the_convolution_and_the_mixing() -> None:
    count = OPERATORS["DynamicConv"].extra_macs
    assert count is not None
    x, y = torch.empty(1, 64, 40, 40, device="meta"), torch.empty(1, 64, 40, 40, device="meta")
    shares = 64 * 17 + 17 * 4
    assert count(DynamicConv(64, 64), x, y) == 64 * 64 * 9 * 1600 + 4 * 64 * 64 * 9 + shares
    assert count(DynamicConv(64, 64, groups=4), x, y) == (64 * 16 * 9 * 1600 + 4 * 64 * 16 * 9) + shares


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"groups": 4}, {"kernel": 1}], ids=str)
def test_dynamic_conv_divides_a_large_batch(
    settings: dict[str, Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = dynamic(**settings), images(5)
    expected = layer(x)
    monkeypatch.setattr(dynamic_conv, "CPU_NUMBERS_AT_ONCE", at_once * layer.weight.numel() // 4)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels last"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"groups": 4}, {"c_out": 8, "groups": 8}, {"kernel": 1}, {"kernel": 1, "stride": 2}, {"stride": 2}],
    ids=str,
)
def test_dynamic_conv_learns_what_its_definition_learns(settings: dict[str, Any], layout: torch.memory_format) -> None:
    layer = dynamic(**settings).to(memory_format=layout).requires_grad_()
    x = images(3, 8, 6, 7).to(memory_format=layout).requires_grad_()
    out = layer(x)
    stride, groups = layer.stride, layer.groups
    expected = torch.stack([by_hand(layer, image, stride=stride, groups=groups) for image in x.contiguous()])
    assert torch.allclose(out, expected, rtol=0, atol=1e-12)
    assert out.is_contiguous(memory_format=layout)
    learned = (x, *layer.parameters())
    toward = torch.randn(out.shape, dtype=out.dtype)
    ours, theirs = torch.autograd.grad(out, learned, toward), torch.autograd.grad(expected, learned, toward)
    assert all(torch.allclose(mine, its, rtol=0, atol=1e-11) for mine, its in zip(ours, theirs, strict=True))


@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Constant folding:UserWarning")  # the exporter's own, at every padding
@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels last"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2},
        {"kernel": 1},
        {"kernel": 1, "stride": 2},
        {"kernel": 6, "stride": 2},
        {"groups": 4},
        {"groups": 4, "kernel": 1},
        {"c_out": 8, "groups": 8, "stride": 2},
    ],
    ids=str,
)
def test_dynamic_conv_exported_from_one_image_is_right_for_three_larger_ones(
    settings: dict[str, Any], layout: torch.memory_format
) -> None:
    layer = dynamic(**settings).float().to(memory_format=layout)
    file = io.BytesIO()
    torch.onnx.export(
        layer,
        (torch.randn(1, 8, 16, 16),),
        file,  # type: ignore[arg-type]  # a file that is open will do
        dynamo=False,
        opset_version=13,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}, "y": {0: "batch", 2: "height", 3: "width"}},
    )
    x = images(3, 8, 20, 28).float().to(memory_format=layout)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (out,), expected = session.run(None, {"x": x.numpy()}), layer(x)
    assert (torch.from_numpy(out) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_dynamic_conv_traced_with_one_image_is_right_for_three() -> None:
    layer, x = dynamic(groups=4), images(3, 8, 9, 11)
    traced = torch.jit.trace(layer, images(1, 8, 6, 6))
    assert torch.allclose(traced(x), layer(x), rtol=0, atol=1e-12)


def test_a_single_kernel_has_neither_temperature_nor_hidden_layer() -> None:
    one = [Choice.of("DynamicConv", {"kernels": 1, "temperature": t}) for t in (1.0, 10.0, 30.0)]
    one += [Choice.of("DynamicConv", {"kernels": 1, "reduction": r}) for r in (4, 8, 16)]
    single = [name for name, _ in dynamic(kernels=1).named_parameters()]
    assert single == ["weight", "bn.weight", "bn.bias"]
    two = [Choice.of("DynamicConv", {"kernels": 2, "temperature": t}) for t in (1.0, 10.0, 30.0)]
    assert len(set(one)) == 1
    assert len(set(two)) == 3
