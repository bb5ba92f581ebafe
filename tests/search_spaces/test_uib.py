"""UIB against its definition (MobileNetV4, arXiv 2404.10518, section 3)."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.models._efficientnet_blocks import UniversalInvertedResidual
from torch import Tensor, nn
from ultralytics.nn.modules import Conv
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from search_spaces.operators import OPERATORS, Site, SiteKind
from search_spaces.operators.uib import UIB, expanded

KERNELS = [(0, 3), (3, 0), (3, 5), (5, 3), (0, 0)]


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_hand(block: UIB, x: Tensor, *, stride: int, start_kernel: int, mid_kernel: int) -> Tensor:
    """Compute UIB by its definition: plain convolutions with the weights of a block."""
    weights = block.state_dict()

    def conv_norm(y: Tensor, name: str, *, kernel: int = 1, stride: int = 1, depthwise: bool = False) -> Tensor:
        groups = y.shape[1] if depthwise else 1
        y = F.conv2d(y, weights[f"{name}.conv.weight"], stride=stride, padding=kernel // 2, groups=groups)
        mean, var = weights[f"{name}.bn.running_mean"], weights[f"{name}.bn.running_var"]
        return F.batch_norm(y, mean, var, weights[f"{name}.bn.weight"], weights[f"{name}.bn.bias"], eps=1e-5)

    y = x
    if start_kernel:
        y = conv_norm(y, "start", kernel=start_kernel, stride=1 if mid_kernel else stride, depthwise=True)
    y = F.silu(conv_norm(y, "expand"))
    if mid_kernel:
        y = F.silu(conv_norm(y, "mid", kernel=mid_kernel, stride=stride, depthwise=True))
    y = conv_norm(y, "project")
    if "gamma" in weights:
        y = weights["gamma"][:, None, None] * y
    return x + y if y.shape == x.shape and stride == 1 else y


@pytest.mark.parametrize(
    ("c_in", "c_out", "start_kernel", "mid_kernel", "stride", "expansion", "expected"),
    [
        (64, 64, 0, 0, 1, 2, 16768),
        (64, 64, 0, 3, 1, 4, 36224),
        (64, 64, 3, 0, 1, 4, 34112),
        (64, 64, 3, 3, 1, 4, 36928),
        (64, 64, 3, 5, 1, 4, 41024),
        (64, 64, 5, 3, 1, 4, 37952),
        (64, 64, 5, 5, 1, 4, 42048),
        (64, 64, 0, 5, 1, 6, 60416),
        (48, 80, 3, 5, 2, 4, 30832),
        (80, 160, 3, 5, 2, 6, 130320),
        (160, 256, 5, 5, 2, 6, 432032),
        (64, 96, 5, 5, 2, 3, 38208),
        (96, 128, 3, 3, 2, 6, 137824),
        (128, 128, 0, 5, 1, 3, 109696),
        (32, 32, 3, 3, 1, 1, 2880),
        (256, 256, 0, 0, 1, 2, 263680),
        (20, 20, 3, 3, 1, 3, 3652),
    ],
)
def test_uib_has_the_expected_number_of_parameters(
    *, c_in: int, c_out: int, start_kernel: int, mid_kernel: int, stride: int, expansion: int, expected: int
) -> None:
    with torch.device("meta"):
        block = UIB(c_in, c_out, stride=stride, start_kernel=start_kernel, mid_kernel=mid_kernel, expansion=expansion)
    assert params(block) == expected


def test_layer_scale_costs_one_parameter_a_channel() -> None:
    assert params(UIB(64, 64, layer_scale=1e-5)) == 36224 + 64


@pytest.mark.parametrize(
    ("channels", "expansion", "width"),
    [(64, 4, 256), (20, 3, 64), (4, 1, 8), (10, 1, 16), (12, 1, 16), (18, 1, 24), (20, 1, 24), (26, 1, 24)],
)
def test_uib_width_is_a_multiple_of_8_never_below_nine_tenths(channels: int, expansion: int, width: int) -> None:
    assert expanded(channels, expansion) == width


@pytest.mark.parametrize(
    ("start_kernel", "mid_kernel", "c_in", "c_out", "stride", "layer_scale"),
    [(*kernels, 8, 8, 1, layer_scale) for kernels in KERNELS for layer_scale in (0.0, 0.1)]
    + [(*kernels, 8, 12, 1, 0.0) for kernels in KERNELS]
    + [(*kernels, 8, c_out, 2, 0.0) for kernels in KERNELS if any(kernels) for c_out in (8, 12)],
)
def test_uib_equals_its_definition(
    *,
    start_kernel: int,
    mid_kernel: int,
    c_in: int,
    c_out: int,
    stride: int,
    layer_scale: float,
    awake: Callable[[nn.Module], nn.Module],
) -> None:
    block = UIB(
        c_in,
        c_out,
        stride=stride,
        start_kernel=start_kernel,
        mid_kernel=mid_kernel,
        expansion=2,
        layer_scale=layer_scale,
    )
    awoken = awake(block).double().eval()
    assert isinstance(awoken, UIB)
    x = torch.randn(2, c_in, 7, 10, dtype=torch.float64)
    expected = by_hand(awoken, x, stride=stride, start_kernel=start_kernel, mid_kernel=mid_kernel)
    assert torch.allclose(awoken(x), expected, rtol=0, atol=1e-12)


def given_to_timm(block: UIB, theirs: nn.Module) -> None:
    """Copy every weight and statistic into timm's block; raise an error if any is left on either side."""
    names = {"start": "dw_start", "expand": "pw_exp", "mid": "dw_mid", "project": "pw_proj"}
    state = {}
    for name, tensor in block.state_dict().items():
        first, _, rest = name.partition(".")
        state["layer_scale.gamma" if first == "gamma" else f"{names[first]}.{rest}"] = tensor
    theirs.load_state_dict(state)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (13, 5)], ids=str)
@pytest.mark.parametrize(("stride", "c_out", "layer_scale"), [(1, 16, 0.0), (1, 16, 0.1), (1, 24, 0.0), (2, 24, 0.0)])
@pytest.mark.parametrize(("start_kernel", "mid_kernel"), [*KERNELS, (7, 7)])
def test_uib_equals_timm(
    *,
    start_kernel: int,
    mid_kernel: int,
    stride: int,
    c_out: int,
    layer_scale: float,
    size: tuple[int, int],
    awake: Callable[[nn.Module], nn.Module],
) -> None:
    if stride == 2 and not (start_kernel or mid_kernel):
        stride, c_out = 1, 8  # the feed-forward form has no stride to take; another width instead
    block = awake(
        UIB(
            16,
            c_out,
            stride=stride,
            start_kernel=start_kernel,
            mid_kernel=mid_kernel,
            expansion=3,
            layer_scale=layer_scale,
            activation=nn.ReLU(),
        )
    ).eval()
    theirs = UniversalInvertedResidual(
        16,
        c_out,
        dw_kernel_size_start=start_kernel,
        dw_kernel_size_mid=mid_kernel,
        stride=stride,
        exp_ratio=3,
        layer_scale_init_value=layer_scale or None,
    ).eval()
    assert isinstance(block, UIB)
    given_to_timm(block, theirs)
    x = torch.randn(2, 16, *size)
    assert torch.allclose(block(x), theirs(x), rtol=0, atol=1e-5)


def test_fused_uib_has_no_batch_norm(awake: Callable[[nn.Module], nn.Module]) -> None:
    block = awake(UIB(16, 16, start_kernel=3, mid_kernel=5)).eval()
    x = torch.randn(2, 16, 6, 8)
    expected = block(x)
    for module in block.modules():
        if isinstance(module, Conv):  # as Ultralytics' `fuse()` does
            module.conv = fuse_conv_and_bn(module.conv, module.bn)
            del module.bn
            module.forward = module.forward_fuse
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())
    assert torch.allclose(block(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("start_kernel", "mid_kernel"), KERNELS)
def test_uib_is_the_identity_when_its_last_norm_is_zero(start_kernel: int, mid_kernel: int) -> None:
    block = UIB(16, 16, start_kernel=start_kernel, mid_kernel=mid_kernel).eval()
    assert isinstance(block.project, Conv)
    nn.init.zeros_(block.project.bn.weight)
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("c_out", "stride"), [(24, 1), (16, 2), (24, 2)])
def test_uib_has_no_skip_where_the_shape_changes(c_out: int, stride: int) -> None:
    block = UIB(16, c_out, stride=stride).eval()
    assert isinstance(block.project, Conv)
    nn.init.zeros_(block.project.bn.weight)
    assert not block(torch.randn(2, 16, 6, 8)).any()


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
@pytest.mark.parametrize(("start_kernel", "mid_kernel"), [(0, 3), (3, 0), (5, 5)])
def test_uib_with_a_stride_halves_the_map_rounding_up(
    start_kernel: int, mid_kernel: int, size: tuple[int, int]
) -> None:
    block = UIB(8, 8, stride=2, start_kernel=start_kernel, mid_kernel=mid_kernel)
    assert block(torch.randn(2, 8, *size)).shape == (2, 8, -(-size[0] // 2), -(-size[1] // 2))


@pytest.mark.parametrize(
    ("start_kernel", "mid_kernel", "strides"),
    [(3, 0, [2, 1, 1]), (3, 3, [1, 1, 2, 1]), (0, 3, [1, 2, 1])],
)
def test_stride_of_uib_is_that_of_the_middle_convolution_if_there_is_one(
    start_kernel: int, mid_kernel: int, strides: list[int]
) -> None:
    block = UIB(8, 8, stride=2, start_kernel=start_kernel, mid_kernel=mid_kernel)
    assert [m.stride[0] for m in block.modules() if isinstance(m, nn.Conv2d)] == strides


def test_uib_refuses_a_stride_without_a_depthwise_convolution() -> None:
    with pytest.raises(ValueError, match="needs a depthwise convolution; set start_kernel or mid_kernel"):
        UIB(8, 8, stride=2, start_kernel=0, mid_kernel=0)


@pytest.mark.parametrize(("c_out", "stride"), [(24, 1), (16, 2)])
def test_uib_refuses_layer_scale_without_a_residual(c_out: int, stride: int) -> None:
    with pytest.raises(ValueError, match="layer_scale needs a residual"):
        UIB(16, c_out, stride=stride, layer_scale=0.1)


def test_uib_activates_only_the_expansion_and_the_middle() -> None:
    block = UIB(8, 8, start_kernel=3, mid_kernel=3, activation=nn.ReLU())
    activations = {name: type(conv.act) for name, conv in block.named_children() if isinstance(conv, Conv)}
    assert activations == {"start": nn.Identity, "expand": nn.ReLU, "mid": nn.ReLU, "project": nn.Identity}


def test_uib_weights_start_with_the_variance_of_the_fan_out() -> None:
    block = UIB(64, 64, start_kernel=5, mid_kernel=3, expansion=4)
    for name, fan_out in (("start", 25), ("expand", 256), ("mid", 9), ("project", 64)):
        weight = block.get_submodule(name).get_parameter("conv.weight")
        assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_macs_of_uib_are_those_of_its_children() -> None:
    assert OPERATORS["UIB"].extra_macs is None


def site(kind: SiteKind, c_out: int = 16, stride: int = 1) -> Site:
    return Site(path="", kind=kind, c_in=16, c_out=c_out, kernel=0, stride=stride, activation=nn.SiLU())


@pytest.mark.parametrize(
    ("where", "given", "expected"),
    [
        (site(SiteKind.BLOCK), {}, None),
        (site(SiteKind.BLOCK), {"layer_scale": 0.1}, None),
        (site(SiteKind.LAYER, stride=2), {}, None),
        (
            site(SiteKind.BLOCK),
            {"mid_kernel": 0},
            "without start_kernel and mid_kernel nothing here would mix pixels",
        ),
        (
            site(SiteKind.BLOCK, c_out=24),
            {"layer_scale": 0.1},
            "layer_scale needs a residual, and there is none here",
        ),
        (site(SiteKind.LAYER), {"layer_scale": 0.1}, None),
        (site(SiteKind.LAYER, c_out=24, stride=2), {}, None),
        (
            site(SiteKind.LAYER, c_out=24),
            {},
            "as a whole layer at stride 1 it adds its input, and 16 channels are not 24",
        ),
        (
            site(SiteKind.LAYER, stride=2),
            {"layer_scale": 0.1},
            "layer_scale needs a residual, and there is none here",
        ),
    ],
)
def test_uib_incompatibilities_are_reported(where: Site, given: dict[str, float], expected: str | None) -> None:
    record = OPERATORS["UIB"]
    assert record.incompatibility(where, record.complete(given)) == expected
