"""Mobile MQA compared with its definition (MobileNetV4, arXiv 2404.10518, equation 2)."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers.attention2d import MultiQueryAttention2d
from timm.models import _efficientnet_blocks as timm_blocks
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.nn.modules import Conv

from search_spaces.operators import OPERATORS, Site, SiteKind
from search_spaces.operators.mmqa import MMQA, MobileAttention


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def norm(x: Tensor, module: nn.BatchNorm2d) -> Tensor:
    assert module.running_mean is not None
    assert module.running_var is not None
    scale = module.weight / (module.running_var + module.eps).sqrt()
    return (x - module.running_mean[:, None, None]) * scale[:, None, None] + module.bias[:, None, None]


def down(x: Tensor, module: nn.Module) -> Tensor:
    if not isinstance(module, Conv):
        return x
    y = F.conv2d(x, module.conv.weight, stride=module.conv.stride, padding=1, groups=x.shape[1])
    return norm(y, module.bn)


def pool(x: Tensor, stride: int) -> Tensor:
    """Average window by window; the last windows hold only the pixels that exist."""
    rows = [x[:, :, row : row + stride] for row in range(0, x.shape[2], stride)]
    windows = [[row[..., column : column + stride] for column in range(0, x.shape[3], stride)] for row in rows]
    return torch.stack([torch.stack([w.mean(dim=(2, 3)) for w in row], dim=-1) for row in windows], dim=-2)


def by_hand(attention: MMQA, x: Tensor) -> Tensor:
    """Compute attention by its definition: one softmax per head, all heads with the same keys and values."""
    keys = down(x, attention.key_down).flatten(2).transpose(1, 2) @ attention.key.weight[:, :, 0, 0].T
    values = down(x, attention.value_down).flatten(2).transpose(1, 2) @ attention.value.weight[:, :, 0, 0].T
    pooled = x
    if isinstance(attention.query_pool, nn.Sequential):
        _, bn = attention.query_pool
        assert isinstance(bn, nn.BatchNorm2d)
        pooled = norm(pool(x, attention.query_stride), bn)
    pixels = pooled.flatten(2).transpose(1, 2)
    heads = []
    for weight in attention.query.weight[:, :, 0, 0].chunk(attention.heads):
        queries = pixels @ weight.T
        shares = (queries @ keys.transpose(1, 2) / math.sqrt(attention.key_dim)).softmax(dim=-1)
        heads.append(shares @ values)
    context = torch.cat(heads, dim=-1).transpose(1, 2).unflatten(2, pooled.shape[-2:])
    if attention.query_stride > 1:
        context = F.interpolate(context, scale_factor=attention.query_stride, mode="bilinear", align_corners=False)
        context = context[..., : x.shape[2], : x.shape[3]]
    output = attention.output
    if isinstance(output, Conv):
        return output.act(norm(F.conv2d(context, output.conv.weight), output.bn))
    assert isinstance(output, nn.Conv2d)
    return F.conv2d(context, output.weight)


def mmqa(c_in: int = 12, c_out: int = 12, **settings: Any) -> MMQA:
    return MMQA(c_in, c_out, **{"heads": 3, "key_dim": 4, **settings}).double().eval()


@pytest.mark.parametrize(
    ("channels", "heads", "key_dim", "value_dim", "kv_stride", "query_stride", "expected"),
    [
        (64, 8, 48, 48, 1, 1, 55296),
        (128, 8, 48, 48, 1, 1, 110592),
        (256, 8, 48, 48, 1, 1, 221184),
        (160, 4, 64, 64, 2, 1, 105920),
        (256, 4, 64, 64, 1, 1, 163840),
        (192, 8, 48, 48, 2, 1, 170112),
        (512, 8, 64, 64, 1, 1, 589824),
        (64, 8, 64, 64, 1, 1, 73728),
        (64, 4, 16, 16, 2, 2, 11776),
        (64, 8, 8, 8, 1, 1, 9216),
        (96, 4, 32, 48, 2, 1, 40512),
    ],
)
def test_mmqa_has_the_expected_number_of_parameters(
    *, channels: int, heads: int, key_dim: int, value_dim: int, kv_stride: int, query_stride: int, expected: int
) -> None:
    with torch.device("meta"):
        bare = MMQA(
            channels,
            channels,
            heads=heads,
            key_dim=key_dim,
            value_dim=value_dim,
            kv_stride=kv_stride,
            query_stride=query_stride,
        )
    assert params(bare) == expected


def test_mmqa_replaces_a_convolution_with_norm_and_activation() -> None:
    dressed = MMQA(64, 32, activation=nn.ReLU())
    assert isinstance(dressed.output, Conv)
    assert isinstance(dressed.output.act, nn.ReLU)
    assert params(dressed) == params(MMQA(64, 32)) + 2 * 32


@pytest.mark.parametrize("size", [(6, 6), (4, 10), (5, 7), (13, 1), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"value_dim": 5},
        {"kv_stride": 2},
        {"kv_stride": 4},
        {"query_stride": 2},
        {"kv_stride": 2, "query_stride": 2},
        {"activation": nn.SiLU()},
        {"c_out": 7},
        {"heads": 1},
    ],
    ids=str,
)
def test_mmqa_equals_multi_head_attention_with_tied_keys_and_values(
    settings: dict[str, Any], size: tuple[int, int], awake: Callable[[nn.Module], nn.Module]
) -> None:
    attention = awake(mmqa(**settings))
    assert isinstance(attention, MMQA)
    x = torch.randn(2, 12, *size, dtype=torch.float64)
    assert torch.allclose(attention(x), by_hand(attention, x), rtol=0, atol=1e-12)


TIMM_NAMES = {
    "query_pool.1": "query.norm",
    "query": "query.proj",
    "key_down.conv": "key.down_conv",
    "key_down.bn": "key.norm",
    "key": "key.proj",
    "value_down.conv": "value.down_conv",
    "value_down.bn": "value.norm",
    "value": "value.proj",
    "output": "output.proj",
}


def in_timms_words(attention: MMQA) -> dict[str, Tensor]:
    state = {}
    for name, tensor in attention.state_dict().items():
        module, _, last = name.rpartition(".")
        state[f"{TIMM_NAMES[module]}.{last}"] = tensor
    return state


@pytest.mark.parametrize("size", [(8, 8), (4, 10), (7, 5), (13, 13)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"value_dim": 5}, {"kv_stride": 2}, {"query_stride": 2}, {"heads": 1}, {"c_out": 7}],
    ids=str,
)
def test_mmqa_equals_timm(
    settings: dict[str, Any],
    layout: torch.memory_format,
    size: tuple[int, int],
    awake: Callable[[nn.Module], nn.Module],
) -> None:
    if "query_stride" in settings:
        size = (size[0] // 2 * 2, size[1] // 2 * 2)  # where the stride does not divide the map, timm returns another
    attention = awake(mmqa(**settings).float())
    assert isinstance(attention, MMQA)
    theirs = MultiQueryAttention2d(
        12,
        settings.get("c_out", 12),
        num_heads=attention.heads,
        key_dim=4,
        value_dim=settings.get("value_dim", 4),
        query_strides=attention.query_stride,
        kv_stride=settings.get("kv_stride", 1),
    ).eval()
    theirs.load_state_dict(in_timms_words(attention))
    attention.to(memory_format=layout)
    x = torch.randn(2, 12, *size).to(memory_format=layout)
    assert torch.allclose(attention(x), theirs(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer_scale", [0.0, 0.1])
def test_mmqa_block_equals_that_of_timm(layer_scale: float, awake: Callable[[nn.Module], nn.Module]) -> None:
    block = awake(MobileAttention(12, attention=mmqa(kv_stride=2).float(), layer_scale=layer_scale)).eval()
    assert isinstance(block, MobileAttention)
    theirs = timm_blocks.MobileAttention(
        12,
        12,
        num_heads=3,
        key_dim=4,
        value_dim=4,
        kv_stride=2,
        use_multi_query=True,
        layer_scale_init_value=layer_scale or None,
    ).eval()
    state = {f"attn.{name}": tensor for name, tensor in in_timms_words(block.attention).items()}
    state.update({f"norm.{name}": tensor for name, tensor in block.norm.state_dict().items()})
    if block.gamma is not None:
        state["layer_scale.gamma"] = block.gamma.detach()
    theirs.load_state_dict(state)
    x = torch.randn(2, 12, 7, 10)
    assert torch.allclose(block(x), theirs(x), rtol=0, atol=1e-5)


def test_mmqa_block_is_the_identity_at_a_gamma_of_zero() -> None:
    block = MobileAttention(12, attention=mmqa().float(), layer_scale=0.1).eval()
    assert block.gamma is not None
    nn.init.zeros_(block.gamma)
    x = torch.randn(2, 12, 5, 7)
    assert torch.equal(block(x), x)


def test_mmqa_block_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        attention = MMQA(160, 160, heads=4, key_dim=64, kv_stride=2)
        assert params(MobileAttention(160, attention=attention, layer_scale=1e-5)) == 106_400
        assert params(MobileAttention(160, attention=attention)) == 106_400 - 160


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
def test_mmqa_never_stores_the_attention_matrix(layout: torch.memory_format) -> None:
    attention = MMQA(12, 12, heads=3, key_dim=4).to(memory_format=layout)
    with Sizes() as found:
        attention(torch.randn(1, 12, 24, 24).to(memory_format=layout)).sum().backward()
    assert found.largest < 24**2 * 24**2


class Sizes(TorchDispatchMode):
    """Largest number of elements that an operation returned."""

    largest = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple) else (out,):
            if isinstance(one, Tensor):
                self.largest = max(self.largest, one.numel())
        return out


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_mmqa_traced_at_an_even_size_is_right_at_an_odd_one(awake: Callable[[nn.Module], nn.Module]) -> None:
    attention = awake(mmqa(query_stride=2, kv_stride=2))
    traced = torch.jit.trace(attention, torch.randn(1, 12, 8, 8, dtype=torch.float64), check_trace=False)
    x = torch.randn(2, 12, 13, 7, dtype=torch.float64)
    assert torch.allclose(traced(x), attention(x), rtol=0, atol=1e-12)


def test_mmqa_keys_of_odd_sizes_are_rounded_up() -> None:
    attention, x = mmqa(kv_stride=2), torch.randn(1, 12, 5, 7, dtype=torch.float64)
    assert attention.key_down(x).shape[-2:] == (3, 4)
    assert torch.allclose(attention(x), by_hand(attention, x), rtol=0, atol=1e-12)


def test_mmqa_does_not_depend_on_the_order_of_pixels() -> None:
    attention, x = mmqa(), torch.randn(2, 12, 5, 7, dtype=torch.float64)
    order = torch.randperm(35)
    shuffled = x.flatten(2)[..., order].unflatten(2, (5, 7))
    expected = attention(x).flatten(2)[..., order].unflatten(2, (5, 7))
    assert torch.allclose(attention(shuffled), expected, rtol=0, atol=1e-12)


def test_mmqa_of_a_constant_map_is_constant() -> None:
    out = mmqa()(torch.randn(2, 12, 1, 1, dtype=torch.float64).expand(-1, -1, 5, 7))
    assert torch.allclose(out, out[..., :1, :1].expand_as(out), rtol=0, atol=1e-12)


def test_mmqa_allows_more_heads_than_channels_of_a_key() -> None:
    assert mmqa(heads=8, key_dim=2)(torch.randn(1, 12, 3, 3, dtype=torch.float64)).isfinite().all()


def test_keys_and_values_are_never_repeated_per_head() -> None:
    few, many = mmqa(heads=1), mmqa(heads=16)
    assert few.key.weight.shape == many.key.weight.shape
    assert few.value.weight.shape == many.value.weight.shape


@pytest.mark.parametrize(
    ("settings", "size", "expected"),
    [
        # 64 channels, 8 heads of 48, 40x40: 2,054,553,600 in all, 88,473,600 of them in the projections.
        ({"heads": 8, "key_dim": 48}, (40, 40), 2_054_553_600 - 88_473_600),
        ({"heads": 8, "key_dim": 48, "kv_stride": 2}, (40, 40), 8 * 1600 * 400 * 96),
        ({"heads": 2, "key_dim": 8, "value_dim": 16, "kv_stride": 2}, (5, 7), 2 * 35 * 12 * 24),
        ({"heads": 2, "key_dim": 8, "query_stride": 2}, (4, 6), 2 * 6 * 24 * 16),
        ({"heads": 2, "key_dim": 8, "query_stride": 2}, (5, 7), 2 * 12 * 35 * 16),
    ],
)
def test_mmqa_counts_both_products_of_every_head(
    settings: dict[str, Any], size: tuple[int, int], expected: int
) -> None:
    count = OPERATORS["MMQA"].extra_macs
    assert count is not None
    x = torch.empty(1, 64, *size, device="meta")
    assert count(MMQA(64, 64, **settings), x, x) == expected
    twice = torch.empty(2, 64, *size, device="meta")
    assert count(MMQA(64, 64, **settings), twice, twice) == 2 * expected


@pytest.mark.parametrize(
    ("reduction", "stride", "kv_stride", "expected"),
    [
        (None, 1, 1, None),
        (32, 1, 1, None),
        (16, 1, 1, None),
        (8, 1, 4, None),
        (
            8,
            1,
            2,
            "the attention matrix grows with the square of the pixels; at 1/8 of the image it needs kv_stride 4",
        ),
        (
            4,
            1,
            4,
            "the attention matrix grows with the square of the pixels; at 1/4 of the image it needs too much memory",
        ),
        (32, 2, 1, "it keeps the size of the map and needs stride 1"),
    ],
)
@pytest.mark.parametrize("kind", [SiteKind.ATTENTION, SiteKind.CONV, SiteKind.LAYER])
def test_mmqa_incompatibilities_are_reported(
    kind: SiteKind, reduction: int | None, stride: int, kv_stride: int, expected: str | None
) -> None:
    record = OPERATORS["MMQA"]
    where = site(kind, stride=stride, reduction=reduction)
    assert record.incompatibility(where, record.complete({"kv_stride": kv_stride})) == expected


def site(kind: SiteKind, *, c_out: int = 16, stride: int = 1, reduction: int | None = None) -> Site:
    return Site(
        path="", kind=kind, c_in=16, c_out=c_out, kernel=3, stride=stride, activation=nn.ReLU(), reduction=reduction
    )


@pytest.mark.parametrize(
    ("where", "given", "expected"),
    [
        (site(SiteKind.LAYER), {"layer_scale": 1e-5}, None),
        (
            site(SiteKind.LAYER, c_out=24),
            {},
            "as a whole layer it adds its input, and 16 channels are not 24",
        ),
        (site(SiteKind.CONV, c_out=24), {}, None),
        *(
            (
                site(kind),
                {"layer_scale": 0.1},
                "layer_scale needs a residual, which it has as a whole layer only",
            )
            for kind in (SiteKind.CONV, SiteKind.ATTENTION)
        ),
    ],
)
def test_mmqa_is_a_layer_only_where_it_can_add_its_input(
    where: Site, given: dict[str, float], expected: str | None
) -> None:
    record = OPERATORS["MMQA"]
    assert record.incompatibility(where, record.complete(given)) == expected


def test_mmqa_has_a_form_for_each_kind_of_site() -> None:
    record = OPERATORS["MMQA"]
    given = record.complete({})
    bare, dressed, block = (
        record.build(site(kind), **given) for kind in (SiteKind.ATTENTION, SiteKind.CONV, SiteKind.LAYER)
    )
    assert isinstance(bare, MMQA)
    assert isinstance(bare.output, nn.Conv2d)
    assert isinstance(dressed, MMQA)
    assert isinstance(dressed.output, Conv)
    assert isinstance(dressed.output.act, nn.ReLU)
    assert isinstance(block, MobileAttention)
    assert isinstance(block.attention.output, nn.Conv2d)
