"""Convolution operators against their definitions, written with NumPy, and against public implementations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.models.byobnet import RepVggBlock
from timm.models.fasternet import MLPBlock
from timm.models.ghostnet import GhostModule as TimmGhost
from torch import nn
from ultralytics.nn.modules import Conv, GhostConv

from search_spaces.operators import OPERATORS, Site, SiteKind
from search_spaces.operators.gsconv import GSConv, shuffled
from trials.costing import cost

Array = NDArray[np.float64]
Weights = dict[str, Array]
Awake = Callable[[nn.Module], Any]
Build = Callable[..., Any]


def site_of(
    c_in: int, c_out: int, *, kind: SiteKind = SiteKind.LAYER, kernel: int = 3, stride: int = 1, groups: int = 1
) -> Site:
    return Site(
        path="", kind=kind, c_in=c_in, c_out=c_out, kernel=kernel, stride=stride, groups=groups, activation=nn.SiLU()
    )


def conv(weight: Array, x: Array, *, stride: int = 1, groups: int = 1) -> Array:
    """Sum over the taps of an odd kernel; the map is padded with zeros."""
    side = weight.shape[2]
    pad = side // 2
    height, width = (-(-size // stride) for size in x.shape[2:])
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((len(x), len(weight), height, width))
    inputs, outputs = np.split(np.arange(x.shape[1]), groups), np.split(np.arange(len(weight)), groups)
    for theirs, ours in zip(inputs, outputs, strict=True):
        for row in range(side):
            for column in range(side):
                seen = padded[:, theirs, row::stride, column::stride][:, :, :height, :width]
                out[:, ours] += np.einsum("oc,bchw->bohw", weight[ours][:, :, row, column], seen)
    return out


def normal(w: Weights, name: str, x: Array) -> Array:
    mean, variance, weight, bias = (
        w[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def conv_norm(w: Weights, name: str, x: Array, *, stride: int = 1, groups: int = 1) -> Array:
    return normal(w, f"{name}.bn", conv(w[f"{name}.conv.weight"], x, stride=stride, groups=groups))


def pconv(w: Weights, x: Array, *, part: int, **_: Any) -> Array:
    touched = x.shape[1] // part
    mixed = np.concatenate((conv(w["partial.weight"], x[:, :touched]), x[:, touched:]), 1)
    y = silu(conv_norm(w, "expand", mixed))
    return x + conv(w["project.weight"], y) if "project.weight" in w else y


def gsconv(w: Weights, x: Array, *, stride: int, name: str = "", activation: Callable[[Array], Array] = silu) -> Array:
    dense = activation(conv_norm(w, f"{name}dense", x, stride=stride))
    cheap = activation(conv_norm(w, f"{name}cheap", dense, groups=dense.shape[1]))
    both = np.concatenate((dense, cheap), 1)
    return np.concatenate((both[:, 0::2], both[:, 1::2]), 1)


def ghost(w: Weights, x: Array, *, stride: int, **_: Any) -> Array:
    primary = silu(conv_norm(w, "primary", x, stride=stride))
    return np.concatenate((primary, silu(conv_norm(w, "cheap", primary, groups=primary.shape[1]))), 1)


def repvgg(w: Weights, x: Array, *, stride: int) -> Array:
    y = conv_norm(w, "branches.conv1", x, stride=stride) + conv_norm(w, "branches.conv2", x, stride=stride)
    return silu(y + normal(w, "branches.bn", x) if "branches.bn.weight" in w else y)


def dsconv(w: Weights, x: Array, *, stride: int, **_: Any) -> Array:
    return silu(conv_norm(w, "pointwise", conv(w["depthwise.weight"], x, stride=stride, groups=x.shape[1])))


def vovgscsp(w: Weights, x: Array, *, repeats: int, **_: Any) -> Array:
    y = silu(conv_norm(w, "enter", x))
    for block in range(repeats):
        name = f"blocks.{block}."
        first = gsconv(w, y, stride=1, name=f"{name}first.")
        second = gsconv(w, first, stride=1, name=f"{name}second.", activation=lambda z: z)
        y = second + conv_norm(w, f"{name}shortcut", y)
    return silu(conv_norm(w, "leave", np.concatenate((silu(conv_norm(w, "beside", x)), y), 1)))


DEFINITIONS: dict[str, Callable[..., Array]] = {
    "PConv": pconv, "GSConv": gsconv, "GhostModule": ghost, "RepVGG": repvgg, "DSConv": dsconv, "VoVGSCSP": vovgscsp,
}  # fmt: skip
BLOCK, STAGE = SiteKind.BLOCK, SiteKind.STAGE
CASES: list[tuple[str, Site, dict[str, int]]] = [
    ("PConv", site_of(8, 8, kind=BLOCK), {}), ("PConv", site_of(8, 8, kind=BLOCK), {"part": 2, "expansion": 3}),
    ("PConv", site_of(8, 12), {"part": 8}), ("PConv", site_of(4, 4), {}),
    ("GSConv", site_of(4, 8), {}), ("GSConv", site_of(4, 10, stride=2), {"dw_kernel": 3}),
    ("GSConv", site_of(1, 2, kernel=1), {}),
    ("GhostModule", site_of(4, 12), {"ratio": 3, "dw_kernel": 5}), ("GhostModule", site_of(1, 2, stride=2), {}),
    ("RepVGG", site_of(6, 6), {}), ("RepVGG", site_of(6, 8), {}), ("RepVGG", site_of(6, 6, stride=2), {}),
    ("RepVGG", site_of(1, 1), {}),
    ("DSConv", site_of(6, 8), {}), ("DSConv", site_of(1, 1, stride=2), {"kernel": 5}),
    ("VoVGSCSP", site_of(6, 8, kind=STAGE), {"repeats": 2}), ("VoVGSCSP", site_of(1, 4, kind=STAGE), {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "site", "parameters"), CASES, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_convolution_equals_its_definition(
    name: str, site: Site, parameters: dict[str, int], awake: Awake, built: Build
) -> None:
    module = awake(built(name, site, **parameters)).double()
    x = torch.randn(2, site.c_in, 7, 5, dtype=torch.float64)
    weights = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    given = {key: value for key, value in OPERATORS[name].complete(parameters).items() if key in {"part", "repeats"}}
    with torch.no_grad():
        out = module(x).numpy()
    assert out.shape == (2, site.c_out, -(-7 // site.stride), -(-5 // site.stride))
    expected = DEFINITIONS[name](weights, x.numpy(), stride=site.stride, **given)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-10)


def given_to(theirs: nn.Module, ours: nn.Module, names: dict[str, str]) -> nn.Module:
    """Copy the parameters and statistics below some names to others; raise an error if any is left."""
    state = {}
    for key, value in ours.state_dict().items():
        (old,) = (old for old in names if key.startswith(f"{old}."))
        state[names[old] + key.removeprefix(old)] = value
    theirs.load_state_dict(state)
    return theirs.eval()


def test_block_of_pconv_equals_that_of_timm(awake: Awake, built: Build) -> None:
    ours = awake(built("PConv", site_of(16, 16, kind=BLOCK)))
    theirs = MLPBlock(16, 4, 2, 0.0, 0.0, act_layer=nn.SiLU)
    names = {
        "partial": "spatial_mixing.partial_conv3",
        "expand.conv": "mlp.0",
        "expand.bn": "mlp.1",
        "project": "mlp.3",
    }
    x = torch.randn(2, 16, 6, 9)
    torch.testing.assert_close(given_to(theirs, ours, names)(x), ours(x))


def test_ghost_module_equals_that_of_ultralytics_and_of_timm(awake: Awake, built: Build) -> None:
    x = torch.randn(2, 8, 7, 9)
    ours = awake(built("GhostModule", site_of(8, 16, kernel=3, stride=2), dw_kernel=5))
    names = {"primary": "cv1", "cheap": "cv2"}
    torch.testing.assert_close(given_to(GhostConv(8, 16, 3, 2), ours, names)(x), ours(x))
    ours = awake(built("GhostModule", site_of(8, 16, kernel=1)))
    names = {
        "primary.conv": "primary_conv.0", "primary.bn": "primary_conv.1",
        "cheap.conv": "cheap_operation.0", "cheap.bn": "cheap_operation.1",
    }  # fmt: skip
    theirs = given_to(TimmGhost(8, 16, act_layer=nn.SiLU), ours, names)
    torch.testing.assert_close(theirs(x), ours(x))


@pytest.mark.parametrize(("c_out", "stride"), [(8, 1), (8, 2), (12, 1)])
def test_repvgg_equals_that_of_timm(c_out: int, stride: int, awake: Awake, built: Build) -> None:
    ours = awake(built("RepVGG", site_of(8, c_out, stride=stride)))
    theirs = RepVggBlock(8, c_out, 3, stride)
    theirs.act = nn.SiLU()
    names = {"branches.conv1": "conv_kxk", "branches.conv2": "conv_1x1", "branches.bn": "identity"}
    x = torch.randn(2, 8, 7, 9)
    torch.testing.assert_close(given_to(theirs, ours, names)(x), ours(x))


def test_fused_repvgg_is_one_convolution(awake: Awake, built: Build) -> None:
    ours, x = awake(built("RepVGG", site_of(8, 8))), torch.randn(2, 8, 7, 9)
    fused = cost.fused(ours)
    assert [type(module) for module in fused.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))] == [
        nn.Conv2d
    ]
    torch.testing.assert_close(fused(x), ours(x))
    stock = cost.fused(Conv(8, 8, 3))
    assert sum(p.numel() for p in fused.parameters()) == sum(p.numel() for p in stock.parameters())


def replaced_conv(c_in: int, c_out: int, stride: int, awake: Awake) -> Any:
    return awake(Conv(c_in, c_out, 3, stride)).eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("c_out", [8, 12])
def test_repvgg_starts_as_the_replaced_convolution(c_out: int, stride: int, awake: Awake, built: Build) -> None:
    before, x = replaced_conv(8, c_out, stride, awake), torch.randn(2, 8, 7, 9)
    ours = awake(built("RepVGG", site_of(8, c_out, stride=stride)))
    with torch.no_grad():
        names = OPERATORS["RepVGG"].init_from(ours, before)  # type: ignore[misc]  # it has one
        for branch in (ours.branches.conv2.bn, ours.branches.bn):
            if branch is not None:
                branch.bias.zero_()  # a new batch norm has none; `awake` gave it one
    assert names == ("branches.conv1.conv.weight", "branches.conv1.bn.weight", "branches.conv1.bn.bias")
    torch.testing.assert_close(ours(x), before(x))


@pytest.mark.parametrize(("name", "first"), [("GSConv", "dense"), ("GhostModule", "primary")])
def test_dense_channels_start_as_those_of_the_replaced_convolution(
    name: str, first: str, awake: Awake, built: Build
) -> None:
    before, x = replaced_conv(8, 12, 2, awake), torch.randn(2, 8, 7, 9)
    ours = built(name, site_of(8, 12, stride=2))
    with torch.no_grad():
        names = OPERATORS[name].init_from(ours, before)  # type: ignore[misc]  # it has one
    assert names == tuple(f"{first}.{part}" for part in ("conv.weight", "bn.weight", "bn.bias"))
    computed = shuffled(12) if name == "GSConv" else range(12)
    dense = [place for place, channel in enumerate(computed) if channel < 6]
    torch.testing.assert_close(ours(x)[:, dense], before(x)[:, dense])


def test_dsconv_starts_as_a_separable_convolution_that_it_replaces(awake: Awake, built: Build) -> None:
    before, x = replaced_conv(6, 8, 2, awake), torch.randn(2, 6, 7, 9)
    ours = built("DSConv", site_of(6, 8, stride=2))
    with torch.no_grad():
        rank_one = torch.einsum("oc,cyx->ocyx", torch.randn(8, 6), torch.randn(6, 3, 3))
        before.conv.weight.copy_(rank_one)
        assert OPERATORS["DSConv"].init_from(ours, before) == ("pointwise.bn.weight", "pointwise.bn.bias")  # type: ignore[misc]
    torch.testing.assert_close(ours(x), before(x), rtol=1e-4, atol=1e-4)


def test_dsconv_starts_nearer_than_any_of_many_others(awake: Awake, built: Build) -> None:
    before = replaced_conv(4, 5, 1, awake)
    ours = built("DSConv", site_of(4, 5))

    def distance() -> float:
        kernel = torch.einsum("oc,cyx->ocyx", ours.pointwise.conv.weight[..., 0, 0], ours.depthwise.weight[:, 0])
        return float((kernel - before.conv.weight).square().sum())

    with torch.no_grad():
        OPERATORS["DSConv"].init_from(ours, before)  # type: ignore[misc]  # it has one
        nearest = distance()
        for parameter in (ours.pointwise.conv.weight, ours.depthwise.weight):
            for _ in range(20):
                change = 0.05 * torch.randn_like(parameter)
                parameter.add_(change)
                assert distance() > nearest
                parameter.sub_(change)


def test_block_of_pconv_starts_as_the_identity(awake: Awake, built: Build) -> None:
    ours, x = awake(built("PConv", site_of(8, 8, kind=BLOCK))), torch.randn(2, 8, 5, 7)
    with torch.no_grad():
        assert OPERATORS["PConv"].init_from(ours, None) == ()  # type: ignore[misc]  # it has one
    assert torch.equal(ours(x), x)


@pytest.mark.parametrize("name", ["GSConv", "GhostModule", "RepVGG", "DSConv"])
def test_nothing_is_copied_from_another_convolution(name: str, built: Build) -> None:
    site = site_of(8, 8)
    for before in (None, nn.Identity(), Conv(8, 8, 5), Conv(8, 8, 3, 2), Conv(4, 8, 3), Conv(8, 8, 3, g=2)):
        with torch.no_grad():
            assert OPERATORS[name].init_from(built(name, site), before) == ()  # type: ignore[misc]  # it has one


PIXELS = 6 * 8
COSTS: list[tuple[str, Site, dict[str, int], int, int]] = [
    ("PConv", site_of(16, 16, kind=BLOCK), {}, 9 * 4 * 4 + 2 * 16 * 32 + 2 * 32, (9 * 4 * 4 + 2 * 16 * 32) * PIXELS),
    ("PConv", site_of(16, 24), {}, 9 * 4 * 4 + 16 * 24 + 2 * 24, (9 * 4 * 4 + 16 * 24) * PIXELS),
    ("GSConv", site_of(16, 24), {}, 9 * 16 * 12 + 25 * 12 + 2 * 24, (9 * 16 * 12 + 25 * 12) * PIXELS),
    ("GhostModule", site_of(16, 24), {}, 9 * 16 * 12 + 9 * 12 + 2 * 24, (9 * 16 * 12 + 9 * 12) * PIXELS),
    ("GhostModule", site_of(16, 24), {"ratio": 4}, 9 * 16 * 6 + 9 * 18 + 2 * 24, (9 * 16 * 6 + 9 * 18) * PIXELS),
    ("RepVGG", site_of(16, 16), {}, 10 * 16 * 16 + 6 * 16, 9 * 16 * 16 * PIXELS),
    ("DSConv", site_of(16, 24), {}, 9 * 16 + 16 * 24 + 2 * 24, (9 * 16 + 16 * 24) * PIXELS),
    (
        "VoVGSCSP", site_of(16, 32, kind=STAGE), {},
        2 * (16 * 16 + 32) + 32 * 32 + 64 + 16 * 8 + 9 * 16 * 8 + 2 * 25 * 8 + 2 * 32 + 16 * 16 + 32,
        (2 * 16 * 16 + 32 * 32 + 16 * 8 + 9 * 16 * 8 + 2 * 25 * 8 + 16 * 16) * PIXELS,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "site", "given", "params", "macs"), COSTS)
def test_parameters_and_multiply_adds_of_convolutions_are_those_by_hand(
    name: str, site: Site, given: dict[str, int], params: int, macs: int, built: Build
) -> None:
    module = built(name, site, **given)
    assert sum(parameter.numel() for parameter in module.parameters()) == params
    assert cost.macs_of(cost.fused(module).to("meta"), torch.zeros(1, site.c_in, 6, 8, device="meta")) == macs


@pytest.mark.parametrize(
    ("name", "site", "given", "expected"),
    [
        ("PConv", site_of(8, 8, stride=2), {}, "channels that are passed on keep their size, so it needs stride 1"),
        ("PConv", site_of(3, 8), {}, "3 channels have no part of 1/4"),
        ("PConv", site_of(8, 12, kind=BLOCK), {}, "as a block it adds its input, and 8 channels are not 12"),
        ("PConv", site_of(8, 12), {"expansion": 1}, "expansion is the block's, and this is a convolution"),
        ("GSConv", site_of(8, 9), {}, "half of its channels are computed from the others, and 9 have no half"),
        ("GSConv", site_of(3, 8, kernel=6), {}, "a kernel of 6 has no centre, and would change the size of the map"),
        ("GhostModule", site_of(8, 16), {"ratio": 3}, "ratio 3 does not divide 16 channels"),
        (
            "GhostModule",
            site_of(3, 8, kernel=6),
            {},
            "a kernel of 6 has no centre, and would change the size of the map",
        ),
        ("RepVGG", site_of(8, 8, kernel=1), {}, "its branches make one 3x3 convolution, and the kernel here is 1"),
        ("VoVGSCSP", site_of(8, 18, kind=STAGE), {}, "it halves its channels twice, and 18 are no multiple of 4"),
    ],
)
def test_incompatibilities_of_convolutions_are_reported(
    name: str, site: Site, given: dict[str, int], expected: str
) -> None:
    record = OPERATORS[name]
    assert record.incompatibility(site, record.complete(given)) == expected


def test_channels_of_gsconv_are_shuffled_as_in_the_original() -> None:
    """The original reshapes neighbouring channels to pairs; here all first ones, then all second ones are taken."""
    module, x = GSConv(4, 8).eval(), torch.randn(2, 4, 3, 5)
    dense = module.dense(x)
    both = torch.cat((dense, module.cheap(dense)), 1)
    pairs = both.reshape(2 * 8 // 2, 2, 3 * 5).permute(1, 0, 2).reshape(2, -1, 4, 3, 5)
    assert torch.equal(module(x), torch.cat((pairs[0], pairs[1]), 1))
    assert torch.equal(module(x), both[:, shuffled(8)])
