"""Mobile multi-query attention (MMQA) of MobileNetV4: Qin et al. 2024, arXiv 2404.10518, section 4."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class MMQA(nn.Module):
    """Self-attention over pixels in which all heads share one key and one value.

    `(batch, c_in, h, w) -> (batch, c_out, h, w)`, any h and w.

    Source: arXiv 2404.10518, equation 2; the original code (TensorFlow Model Garden) is Apache-2.0, and timm's
    `MultiQueryAttention2d` agrees with it. Differences: no dropout. Where `query_stride` does not divide the map, timm
    returns a smaller map; here the last window averages the pixels that exist, as TensorFlow's `same` pooling does,
    and the upsampled map is cropped. At `kv_stride` 4 timm pads two pixels, so that a map of 8 gives 3 keys a row; here
    one pixel is padded, as at 2, and there are 2 keys.

    The attention matrix is never stored: `scaled_dot_product_attention` reads the keys and values of all heads from
    the same memory, and computes block by block if the numbers of a head are contiguous.

    Args:
        c_in: input channels; `heads` need not divide them.
        c_out: output channels.
        heads: number of query heads.
        key_dim: channels of a query or key, per head.
        value_dim: channels of a value, per head; `key_dim` if None.
        kv_stride: stride of the depthwise 3x3 convolution and batch norm before keys and before values; 1 for none.
        query_stride: of the average pooling before the queries, undone by bilinear upsampling; 1 for none.
        activation: None for attention alone; a module for attention, batch norm and that activation, the form that
            replaces a convolution.

    Attributes:
        is_repeatable: whether gradients are added in a fixed order on a GPU, for which the attention matrix is stored;
            a training sets it.
    """

    is_repeatable = False

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        heads: int = 8,
        key_dim: int = 64,
        value_dim: int | None = None,
        kv_stride: int = 1,
        query_stride: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        value_dim = value_dim or key_dim
        self.heads, self.key_dim, self.query_stride = heads, key_dim, query_stride
        self.query_pool = (
            nn.Sequential(
                nn.AvgPool2d(query_stride, ceil_mode=True, count_include_pad=False),  # mean of the pixels that exist
                nn.BatchNorm2d(c_in),
            )
            if query_stride > 1
            else nn.Identity()
        )
        self.query = nn.Conv2d(c_in, heads * key_dim, 1, bias=False)
        self.key_down = Conv(c_in, c_in, 3, kv_stride, g=c_in, act=False) if kv_stride > 1 else nn.Identity()
        self.value_down = Conv(c_in, c_in, 3, kv_stride, g=c_in, act=False) if kv_stride > 1 else nn.Identity()
        self.key = nn.Conv2d(c_in, key_dim, 1, bias=False)
        self.value = nn.Conv2d(c_in, value_dim, 1, bias=False)
        self.output: nn.Module = (
            nn.Conv2d(heads * value_dim, c_out, 1, bias=False)
            if activation is None
            else Conv(heads * value_dim, c_out, 1, act=activation)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, h, w)`."""
        height, width = x.shape[-2:]
        query = self.query(self.query_pool(x))
        query_height, query_width = query.shape[-2:]
        query = _rows(query.reshape(-1, self.heads, self.key_dim, query_height * query_width))
        key = _rows(self.key(self.key_down(x)).flatten(2).unsqueeze(1))
        value = _rows(self.value(self.value_down(x)).flatten(2).unsqueeze(1))
        # One key and one value for all heads: (batch, 1, pixels, dim) broadcasts, nothing is repeated.
        context = _attention(query, key, value, in_order=self.is_repeatable).transpose(1, 2)
        context = context.reshape(-1, query_height, query_width, self.heads * value.shape[-1]).permute(0, 3, 1, 2)
        if not x.is_contiguous(memory_format=torch.channels_last):
            context = context.contiguous()
        if self.query_stride > 1:
            context = F.interpolate(context, scale_factor=self.query_stride, mode="bilinear", align_corners=False)
            context = context[..., :height, :width]
        return self.output(context)

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"heads={self.heads}, query_stride={self.query_stride}"


def _attention(query: Tensor, key: Tensor, value: Tensor, *, in_order: bool) -> Tensor:
    """Return the attention of each head, `(batch, heads, pixels, dim)`.

    CUDA's kernels that store no attention matrix add gradients in any order under `warn_only=True`, with which
    Ultralytics asks for deterministic algorithms.

    Args:
        in_order: whether gradients are added in a fixed order: by products with the stored matrix.
    """
    if in_order:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def _rows(maps: Tensor) -> Tensor:
    """Map `(batch, heads, dim, pixels)` to `(batch, heads, pixels, dim)`, with the last dimension contiguous.

    Otherwise PyTorch stores the whole attention matrix. channels_last maps have this layout already.
    """
    rows = maps.transpose(2, 3)
    return rows if rows.stride(-1) == 1 else rows.contiguous()


class MobileAttention(nn.Module):
    """Attention block of MobileNetV4: `x + gamma * attention(norm(x))`.

    `(batch, channels, h, w) -> (batch, channels, h, w)`.

    Source: arXiv 2404.10518; timm's class of this name (Apache-2.0), without its optional position encoding and drop
    path.

    Args:
        channels: of the input and the output.
        attention: a module that keeps channels and size.
        layer_scale: initial value of gamma, one per channel; 0 for none.
    """

    def __init__(self, channels: int, *, attention: MMQA, layer_scale: float = 0.0) -> None:
        super().__init__()
        self.layer_scale = layer_scale
        self.norm = nn.BatchNorm2d(channels)
        self.attention = attention
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale)) if layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        branch = self.attention(self.norm(x))
        if self.gamma is not None:
            branch = branch * self.gamma.reshape(1, -1, 1, 1)
        return x + branch

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"layer_scale={self.layer_scale}"


def _attention_macs(module: nn.Module, x: Tensor, _y: Tensor) -> int:
    """Count both products of every head: `heads * queries * keys * (key_dim + value_dim)` per image."""
    assert isinstance(module, MMQA)  # noqa: S101 - narrows the type; the counter asks by this class
    batch, _, height, width = x.shape
    queries = -(-height // module.query_stride) * -(-width // module.query_stride)
    down = module.key_down.conv.stride[0] if isinstance(module.key_down, Conv) else 1
    keys = -(-height // down) * -(-width // down)
    return batch * module.heads * queries * keys * (module.key_dim + module.value.out_channels)


def _build(
    site: Site, *, heads: int, key_dim: int, kv_stride: int, query_stride: int, layer_scale: float
) -> MMQA | MobileAttention:
    attention = MMQA(
        site.c_in,
        site.c_out,
        heads=heads,
        key_dim=key_dim,
        kv_stride=kv_stride,
        query_stride=query_stride,
        activation=site.activation if site.kind is SiteKind.CONV else None,
    )
    if site.kind is SiteKind.LAYER:
        return MobileAttention(site.c_in, attention=attention, layer_scale=layer_scale)
    return attention


def _init_from(module: MMQA, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start attention that its host adds to the input as 0, so that the residual block starts as the identity."""
    if isinstance(module.output, nn.Conv2d):
        nn.init.zeros_(module.output.weight)
    return ()


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    if site.stride != 1:
        return "it keeps the size of the map and needs stride 1"
    if site.kind is SiteKind.LAYER and site.c_in != site.c_out:
        return f"as a whole layer it adds its input, and {site.c_in} channels are not {site.c_out}"
    if site.kind is not SiteKind.LAYER and parameters["layer_scale"]:
        return "layer_scale needs a residual, which it has as a whole layer only"
    if site.reduction is None or site.reduction >= 16:
        return None
    if site.reduction == 8 and int(parameters["kv_stride"]) >= 4:
        return None
    return f"the attention matrix grows with the square of the pixels; at 1/{site.reduction} of the image it needs " + (
        "kv_stride 4" if site.reduction == 8 else "too much memory"
    )


MMQA_RECORD = Operator(
    name="MMQA",
    module=MMQA,
    parameters=(
        Parameter(name="heads", default=4, allowed=(1, 2, 4, 8, 16), search_values=(2, 4)),
        Parameter(name="key_dim", default=32, allowed=(8, 16, 32, 48, 64), search_values=(16, 32)),
        Parameter(name="kv_stride", default=1, allowed=(1, 2, 4), search_values=(1, 2)),
        Parameter(name="query_stride", default=1, allowed=(1, 2)),
        Parameter(name="layer_scale", default=0.0, allowed=(0.0, 1e-5, 0.1)),
    ),
    kinds=(SiteKind.ATTENTION, SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    extra_macs=_attention_macs,
    reference="MobileNetV4, arXiv 2404.10518",
)
