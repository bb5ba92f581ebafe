"""Attention operators against their definitions, written with NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.layers.coord_attn import CoordAttn
from timm.layers.eca import EcaModule
from timm.layers.squeeze_excite import SEModule
from torch import nn

from search_spaces.operators import OPERATORS, Site, SiteKind, Value
from search_spaces.operators.eca import kernel_size
from trials.costing import cost

Array = NDArray[np.float64]
Weights = dict[str, Array]
Build = Callable[..., Any]

NAMES = ["SE", "ECA", "CBAM", "CoordAtt", "SimAM", "EMA", "GAM", "ShuffleAttention", "LSKA"]


@pytest.fixture
def build(built: Build) -> Build:
    def building(name: str, channels: int, **parameters: Value) -> Any:
        site = Site(
            path="", kind=SiteKind.INSERTED, c_in=channels, c_out=channels, kernel=0, stride=1, activation=nn.Identity()
        )
        return built(name, site, **parameters)

    return building


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def pointwise(w: Weights, name: str, x: Array) -> Array:
    """Apply a 1x1 convolution to `(batch, channels, ...)`."""
    y = np.einsum("oc,bc...->bo...", w[f"{name}.weight"][:, :, 0, 0], x)
    return y + w[f"{name}.bias"].reshape(1, -1, *[1] * (x.ndim - 2)) if f"{name}.bias" in w else y


def convolution(weight: Array, x: Array, *, dilation: int = 1, depthwise: bool = False) -> Array:
    """Sum over the taps of a centred kernel; the map is padded with zeros and keeps its size."""
    rows, columns = weight.shape[2:]
    down, across = (dilation * (side - 1) // 2 for side in (rows, columns))
    padded = np.pad(x, ((0, 0), (0, 0), (down, down), (across, across)))
    total = np.zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
    for row in range(rows):
        for column in range(columns):
            top, left = dilation * row, dilation * column
            seen = padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            tap = weight[:, :, row, column]
            total += tap[:, 0, None, None] * seen if depthwise else np.einsum("oc,bchw->bohw", tap, seen)
    return total


def normal(w: Weights, name: str, x: Array) -> Array:
    """Apply batch norm with its running statistics."""
    mean, variance, weight, bias = (
        w[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def group_normal(w: Weights, x: Array) -> Array:
    """Normalise each channel of each image, as `GroupNorm` with one channel a group."""
    mean, variance = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w["norm.weight"][:, None, None] + w["norm.bias"][:, None, None]


def se(w: Weights, x: Array, **_: Any) -> Array:
    hidden = np.maximum(pointwise(w, "squeeze", x.mean((2, 3))), 0)
    return x * sigmoid(pointwise(w, "excite", hidden))[..., None, None]


def eca(w: Weights, x: Array, **_: Any) -> Array:
    kernel, means = w["conv.weight"][0, 0], x.mean((2, 3))
    gate = np.zeros_like(means)
    for channel in range(x.shape[1]):
        for tap, weight in enumerate(kernel):
            other = channel + tap - len(kernel) // 2
            if 0 <= other < x.shape[1]:
                gate[:, channel] += weight * means[:, other]
    return x * sigmoid(gate)[..., None, None]


def cbam(w: Weights, x: Array, **_: Any) -> Array:
    def hidden(pooled: Array) -> Array:
        return pointwise(w, "excite", np.maximum(pointwise(w, "squeeze", pooled), 0))

    y = x * sigmoid(hidden(x.mean((2, 3))) + hidden(x.max((2, 3))))[..., None, None]
    pooled = np.stack((y.max(1), y.mean(1)), 1)
    return y * sigmoid(normal(w, "spatial.bn", convolution(w["spatial.conv.weight"], pooled)))


def coord_att(w: Weights, x: Array, **_: Any) -> Array:
    def hidden(means: Array) -> Array:
        y = pointwise(w, "hidden.conv", means)[..., None]
        y = normal(w, "hidden.bn", y)[..., 0]
        return y * np.clip(y + 3, 0, 6) / 6

    rows = sigmoid(pointwise(w, "rows", hidden(x.mean(3))))
    columns = sigmoid(pointwise(w, "columns", hidden(x.mean(2))))
    return x * rows[:, :, :, None] * columns[:, :, None, :]


def simam(_w: Weights, x: Array, **_: Any) -> Array:
    square = (x - x.mean((2, 3), keepdims=True)) ** 2
    variance = x.var((2, 3), keepdims=True, ddof=1)
    return x * sigmoid(square / (4 * (variance + 1e-4)) + 0.5)


def ema(w: Weights, x: Array, *, groups: int) -> Array:
    out = np.zeros_like(x)
    for part in np.split(np.arange(x.shape[1]), groups):
        maps = x[:, part]
        gated = maps * sigmoid(pointwise(w, "strips", maps.mean(3)))[:, :, :, None]
        gated = gated * sigmoid(pointwise(w, "strips", maps.mean(2)))[:, :, None, :]
        first = group_normal(w, gated)
        second = convolution(w["local.weight"], maps) + w["local.bias"][:, None, None]
        shares = [np.exp(branch.mean((2, 3))) for branch in (first, second)]
        shares = [share / share.sum(1, keepdims=True) for share in shares]
        logits = np.einsum("bc,bchw->bhw", shares[0], second) + np.einsum("bc,bchw->bhw", shares[1], first)
        out[:, part] = maps * sigmoid(logits)[:, None]
    return out


def gam(w: Weights, x: Array, **_: Any) -> Array:
    y = x * pointwise(w, "excite", np.maximum(pointwise(w, "squeeze", x), 0))
    hidden = np.maximum(normal(w, "gather.bn", convolution(w["gather.conv.weight"], y)), 0)
    return y * sigmoid(normal(w, "spread.bn", convolution(w["spread.conv.weight"], hidden)))


def shuffle_attention(w: Weights, x: Array, *, groups: int) -> Array:
    gated = np.zeros_like(x)
    for part in np.split(np.arange(x.shape[1]), groups):
        first, second = np.split(part, 2)
        means = x[:, first].mean((2, 3), keepdims=True)
        gated[:, first] = x[:, first] * sigmoid(w["channel_weight"] * means + w["channel_bias"])
        pixels = w["spatial_weight"] * group_normal(w, x[:, second]) + w["spatial_bias"]
        gated[:, second] = x[:, second] * sigmoid(pixels)
    half = x.shape[1] // 2
    return gated[:, [half * (index % 2) + index // 2 for index in range(x.shape[1])]]


def lska(w: Weights, x: Array, *, kernel: int) -> Array:
    y = x
    for name in ("local_row", "local_column", "dilated_row", "dilated_column"):
        dilation = (1 if "local" in name else 2) if kernel < 23 else (1 if "local" in name else 3)
        y = convolution(w[f"{name}.weight"], y, dilation=dilation, depthwise=True) + w[f"{name}.bias"][:, None, None]
    return x * pointwise(w, "mix", y)


DEFINITIONS: dict[str, Callable[..., Array]] = {
    "SE": se, "ECA": eca, "CBAM": cbam, "CoordAtt": coord_att, "SimAM": simam, "EMA": ema, "GAM": gam,
    "ShuffleAttention": shuffle_attention, "LSKA": lska,
}  # fmt: skip
CASES: list[tuple[str, int, dict[str, int]]] = [
    ("SE", 16, {"reduction": 4}), ("SE", 1, {}), ("ECA", 16, {}), ("ECA", 64, {"gamma": 1}), ("ECA", 1, {}),
    ("CBAM", 16, {}), ("CBAM", 16, {"reduction": 4, "kernel": 3}), ("CBAM", 1, {}), ("CoordAtt", 24, {}),
    ("CoordAtt", 1, {}), ("SimAM", 3, {}), ("SimAM", 1, {}), ("EMA", 16, {"groups": 4}), ("EMA", 1, {"groups": 1}),
    ("GAM", 8, {}), ("GAM", 1, {}), ("ShuffleAttention", 16, {"groups": 2}), ("ShuffleAttention", 2, {"groups": 1}),
    ("LSKA", 4, {"kernel": 7}), ("LSKA", 4, {}), ("LSKA", 4, {"kernel": 23}), ("LSKA", 1, {"kernel": 35}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "channels", "parameters"), CASES, ids=str)
def test_attention_equals_its_definition(
    name: str, channels: int, parameters: dict[str, int], awake: Callable[[nn.Module], Any], build: Build
) -> None:
    module = awake(build(name, channels, **parameters)).double()
    x = torch.randn(2, channels, 5, 7, dtype=torch.float64)
    weights = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    given = {key: value for key, value in OPERATORS[name].complete(parameters).items() if key in {"groups", "kernel"}}
    with torch.no_grad():
        out = module(x).numpy()
    np.testing.assert_allclose(out, DEFINITIONS[name](weights, x.numpy(), **given), rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (13, 2)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_attention_keeps_maps_of_any_size_finite(name: str, size: tuple[int, int], build: Build) -> None:
    module = build(name, 64)
    x = torch.randn(2, 64, *size)
    with torch.no_grad():
        out = module(x)
        half = module.half()(x.half())
    assert out.shape == half.shape == x.shape
    assert out.isfinite().all()
    assert half.isfinite().all()


START = {"SE": 0.982, "CBAM": 0.982**2, "CoordAtt": 0.982**2, "EMA": 0.982, "GAM": 0.982, "LSKA": 1}


@pytest.mark.parametrize("name", NAMES)
def test_attention_starts_near_the_identity_where_its_form_allows(
    name: str, awake: Callable[[nn.Module], Any], build: Build
) -> None:
    record, module, x = OPERATORS[name], awake(build(name, 64)), torch.randn(2, 64, 6, 8)
    assert (record.init_from is not None) == (name in START)
    if record.init_from is not None:
        with torch.no_grad():
            assert record.init_from(module, None) == ()
            for mode in (module.eval(), module.train()):
                torch.testing.assert_close(mode(x), START[name] * x, rtol=1e-3, atol=0)


def test_shuffle_attention_would_reorder_channels(build: Build) -> None:
    """Open gates of it do not give the identity; that is why it has no `init_from`."""
    module, x = build("ShuffleAttention", 16), torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        for bias in (module.channel_bias, module.spatial_bias):
            bias.fill_(30)
        torch.testing.assert_close(module(x)[:, ::2], x[:, :8])


C, PIXELS = 64, 6 * 8
MACS = {
    "SE": 2 * C * 4 + C * PIXELS,
    "ECA": 3 * C + C * PIXELS,
    "CBAM": 2 * 2 * C * 4 + 2 * 49 * PIXELS + 2 * C * PIXELS,
    "CoordAtt": 2 * C * 8 * (6 + 8) + 2 * C * PIXELS,
    "SimAM": 3 * C * PIXELS,
    "EMA": 2 * C * (6 + 8) + 9 * 2 * C * PIXELS + 5 * C * PIXELS,
    "GAM": 2 * C * 16 * PIXELS * (1 + 49) + 2 * C * PIXELS,
    "ShuffleAttention": C * PIXELS * 3 // 2 + C // 2,
    "LSKA": (3 + 3 + 5 + 5 + C) * C * PIXELS + C * PIXELS,
}
PARAMETERS = {
    "SE": 2 * C * 4 + 4 + C,
    "ECA": 3,
    "CBAM": 2 * C * 4 + 4 + C + 2 * 49 + 2,
    "CoordAtt": C * 8 + 2 * 8 + 2 * (8 * C + C),
    "SimAM": 0,
    "EMA": (4 + 2) + 4 + (9 * 4 + 2),
    "GAM": 2 * C * 16 + 16 + C + 2 * 49 * C * 16 + 2 * (16 + C),
    "ShuffleAttention": 6 * 4,
    "LSKA": C * (3 + 3 + 5 + 5 + 4) + C * C + C,
}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_multiply_adds_of_attention_are_those_by_hand(name: str, build: Build) -> None:
    with torch.device("meta"):
        module, x = build(name, C), torch.zeros(1, C, 6, 8)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]
    assert cost.macs_of(module, x) == MACS[name]


def given_to(theirs: nn.Module, module: nn.Module, names: dict[str, str]) -> nn.Module:
    """Copy every weight into a module of timm; raise an error if any is left on either side."""
    state = module.state_dict()
    renamed = {new: state[old] for new, old in names.items()}
    theirs.load_state_dict({key: value.reshape(theirs.state_dict()[key].shape) for key, value in renamed.items()})
    assert {*names.values()} == {*state}
    return theirs.eval()


def norm(theirs: str, ours: str) -> dict[str, str]:
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{theirs}.{part}": f"{ours}.{part}" for part in parts}


def test_attention_equals_that_of_timm(awake: Callable[[nn.Module], Any], build: Build) -> None:
    x = torch.randn(2, 64, 7, 9)
    both = {"fc1": "squeeze", "fc2": "excite"}
    linear = {f"{new}.{part}": f"{old}.{part}" for new, old in both.items() for part in ("weight", "bias")}
    theirs: dict[str, tuple[nn.Module, dict[str, str]]] = {
        "SE": (SEModule(64, rd_channels=4), linear),
        "ECA": (EcaModule(64, gamma=2, beta=1), {"conv.weight": "conv.weight"}),
    }
    for name, (module, names) in theirs.items():
        ours = awake(build(name, 64))
        torch.testing.assert_close(given_to(module, ours, names)(x), ours(x))


def test_coordinate_attention_equals_that_of_timm(awake: Callable[[nn.Module], Any], build: Build) -> None:
    ours, x = awake(build("CoordAtt", 64)), torch.randn(2, 64, 7, 9)
    with torch.no_grad():
        for conv in (ours.rows, ours.columns):
            conv.bias.zero_()  # timm's have biases in all convolutions, or in none
    names = {"conv1.weight": "hidden.conv.weight", "conv_h.weight": "rows.weight", "conv_w.weight": "columns.weight"}
    theirs = CoordAttn(64, rd_channels=8)
    theirs.load_state_dict({new: ours.state_dict()[old] for new, old in (names | norm("bn1", "hidden.bn")).items()})
    torch.testing.assert_close(theirs.eval()(x), ours(x))


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5)])
def test_kernel_of_eca_grows_with_the_channels(channels: int, size: int) -> None:
    assert kernel_size(channels, 2) == size


@pytest.mark.parametrize(
    ("name", "channels", "given", "expected"),
    [
        ("SE", 64, {"reduction": 32}, None),
        ("SE", 16, {"reduction": 32}, "reduction 32 leaves 1 of 16 channels, as reduction 16 does"),
        ("GAM", 8, {"reduction": 16}, "reduction 16 leaves 1 of 8 channels, as reduction 8 does"),
        ("CoordAtt", 64, {"reduction": 16}, "reduction 16 leaves 8 of 64 channels, as reduction 32 does"),
        ("ECA", 1, {"gamma": 1}, "gamma 1 gives 1 channels the kernel of gamma 2"),
        ("EMA", 24, {}, "32 groups do not divide 24 channels"),
        ("ShuffleAttention", 24, {}, "8 groups of two halves do not divide 24 channels"),
    ],
)
def test_attention_is_not_offered_where_it_is_another_choice_or_impossible(
    name: str, channels: int, given: dict[str, int], expected: str | None
) -> None:
    record = OPERATORS[name]
    site = Site(
        path="", kind=SiteKind.INSERTED, c_in=channels, c_out=channels, kernel=0, stride=1, activation=nn.Identity()
    )
    assert record.incompatibility(site, record.complete(given)) == expected
