"""Mobile MQA, the multi-query attention of MobileNetV4 (arXiv 2404.10518, section 4)."""

import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class MMQA(nn.Module):
    """Self-attention over pixels in which all heads share one key and one value.

    `(batch, c_in, h, w) -> (batch, c_out, h, w)`, any h and w that `query_stride` divides.

    Source: arXiv 2404.10518, equation 2; TensorFlow's original is Apache-2.0, timm's `MultiQueryAttention2d` agrees
    with it. Where we differ: no dropout.

    Args:
        c_in: input channels; `heads` need not divide them.
        c_out: output channels.
        heads: number of query heads.
        key_dim: channels of a query or key, per head.
        value_dim: channels of a value, per head; `key_dim` if None.
        kv_stride: stride of the depthwise 3x3 convolution and batch norm before keys and before values; 1 for none.
        query_stride: of the average pooling before the queries, undone by bilinear upsampling; 1 for none.
        activation: None for the bare attention; a module for attention, batch norm and that activation, the form
            that stands in for a convolution.
    """

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
            nn.Sequential(nn.AvgPool2d(query_stride), nn.BatchNorm2d(c_in)) if query_stride > 1 else nn.Identity()
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
        query = query.reshape(-1, self.heads, self.key_dim, query_height * query_width).transpose(2, 3)
        key = self.key(self.key_down(x)).flatten(2).transpose(1, 2).unsqueeze(1)
        value = self.value(self.value_down(x)).flatten(2).transpose(1, 2).unsqueeze(1)
        # One key and one value for all heads: (batch, 1, pixels, dim) broadcasts, nothing is repeated.
        context = F.scaled_dot_product_attention(query, key, value)
        context = context.transpose(2, 3).reshape(-1, self.heads * value.shape[-1], query_height, query_width)
        if self.query_stride > 1:
            context = F.interpolate(context, size=(height, width), mode="bilinear", align_corners=False)
        return self.output(context)

    def extra_repr(self) -> str:
        """What the children do not show."""
        return f"heads={self.heads}, query_stride={self.query_stride}"


def _attention_macs(module: nn.Module, x: Tensor, _y: Tensor) -> int:
    """Both products of every head: `heads * queries * keys * (key_dim + value_dim)` per image."""
    assert isinstance(module, MMQA)  # noqa: S101 - narrows the type; the counter asks by this class
    batch, _, height, width = x.shape
    queries = (height // module.query_stride) * (width // module.query_stride)
    down = module.key_down.conv.stride[0] if isinstance(module.key_down, Conv) else 1
    keys = -(-height // down) * -(-width // down)
    return batch * module.heads * queries * keys * (module.key_dim + module.value.out_channels)


def _build(site: Site, *, heads: int, key_dim: int, kv_stride: int, query_stride: int) -> MMQA:
    return MMQA(
        site.c_in,
        site.c_out,
        heads=heads,
        key_dim=key_dim,
        kv_stride=kv_stride,
        query_stride=query_stride,
        activation=site.activation,
    )


def _obstacle(site: Site, parameters: Parameters) -> str | None:
    if site.stride != 1:
        return "it keeps the map's size, and stands at stride 1 only"
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
        Parameter(name="heads", default=4, allowed=(1, 2, 4, 8, 16)),
        Parameter(name="key_dim", default=32, allowed=(8, 16, 32, 48, 64)),
        Parameter(name="kv_stride", default=1, allowed=(1, 2, 4)),
        Parameter(name="query_stride", default=1, allowed=(1, 2)),
    ),
    kinds=(SiteKind.CONV,),
    build=_build,
    obstacle=_obstacle,
    unseen_macs=_attention_macs,
    reference="MobileNetV4, arXiv 2404.10518",
)
