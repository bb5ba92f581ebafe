"""UIB, the universal inverted bottleneck of MobileNetV4 (arXiv 2404.10518, section 3)."""

import math

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


def expanded(channels: int, expansion: int) -> int:
    """Channels after the expansion: the multiple of 8 nearest to the product, never below 9/10 of it."""
    wanted = channels * expansion
    rounded = max(8, (wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class UIB(nn.Module):
    """Inverted bottleneck with two optional depthwise convolutions.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`; adds its input where channels and
    stride keep the shape. Both depthwise kernels give ExtraDW, the start one alone a ConvNext-like block, the middle
    one alone MobileNetV2's inverted bottleneck, none a feed-forward block.

    Source: arXiv 2404.10518; the original code is Apache-2.0. As in timm's conv models, layer scale is off by
    default. Built from Ultralytics' `Conv`, so that `fuse()` leaves no batch norm.

    Args:
        c_in: input channels.
        c_out: output channels.
        stride: on the middle depthwise convolution if there is one, else on the start one.
        start_kernel: of the depthwise convolution before the expansion, without activation; 0 for none.
        mid_kernel: of the depthwise convolution after the expansion, with activation; 0 for none.
        expansion: of the channels between the two 1x1 convolutions, rounded to a multiple of 8.
        layer_scale: the initial factor per channel on the block's branch; 0 for none.
        residual: add the input where channels and stride keep the shape; False is not MobileNetV4's block.
        activation: inside the block; its output is linear.

    Raises:
        ValueError: stride above 1 without a depthwise convolution, or layer scale without a residual.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        stride: int = 1,
        start_kernel: int = 0,
        mid_kernel: int = 3,
        expansion: int = 4,
        layer_scale: float = 0.0,
        residual: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if stride > 1 and not (start_kernel or mid_kernel):
            raise ValueError(f"UIB: stride {stride} needs a depthwise convolution; set start_kernel or mid_kernel")
        self.residual = residual and stride == 1 and c_in == c_out
        self.layer_scale = layer_scale
        if layer_scale and not self.residual:
            raise ValueError("UIB: layer_scale needs a residual; without one it is a dead branch")
        act = nn.SiLU() if activation is None else activation
        width = expanded(c_in, expansion)
        start_stride = 1 if mid_kernel else stride
        self.start = Conv(c_in, c_in, start_kernel, start_stride, g=c_in, act=False) if start_kernel else nn.Identity()
        self.expand = Conv(c_in, width, 1, act=act)
        self.mid = Conv(width, width, mid_kernel, stride, g=width, act=act) if mid_kernel else nn.Identity()
        self.project = Conv(width, c_out, 1, act=False)
        self.gamma = nn.Parameter(torch.full((c_out,), layer_scale)) if layer_scale else None
        self._initialise()

    def _initialise(self) -> None:
        """Normal with the fan out, as timm does for this block."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, h / stride, w / stride)`."""
        branch = self.project(self.mid(self.expand(self.start(x))))
        if self.gamma is not None:
            branch = branch * self.gamma.reshape(1, -1, 1, 1)
        return x + branch if self.residual else branch

    def extra_repr(self) -> str:
        """What the children do not show."""
        return f"residual={self.residual}, layer_scale={self.layer_scale}"


def _build(site: Site, *, start_kernel: int, mid_kernel: int, expansion: int, layer_scale: float) -> UIB:
    return UIB(
        site.c_in,
        site.c_out,
        stride=site.stride,
        start_kernel=start_kernel,
        mid_kernel=mid_kernel,
        expansion=expansion,
        layer_scale=layer_scale,
        activation=site.activation,
    )


def _adopt(module: UIB, _before: nn.Module | None) -> tuple[str, ...]:
    """With a residual it starts as the identity, as a block that adds its input nearly is."""
    if module.residual:
        nn.init.zeros_(module.project.bn.weight)
    return ()


def _obstacle(site: Site, parameters: Parameters) -> str | None:
    if not (parameters["start_kernel"] or parameters["mid_kernel"]):
        return "without start_kernel and mid_kernel nothing here would mix pixels"
    if parameters["layer_scale"] and not (site.stride == 1 and site.c_in == site.c_out):
        return "layer_scale needs a residual, and there is none here"
    if site.kind is SiteKind.LAYER and site.stride == 1 and site.c_in != site.c_out:
        return f"as a layer at stride 1 it adds its input, and {site.c_in} channels are not {site.c_out}"
    return None


UIB_RECORD = Operator(
    name="UIB",
    module=UIB,
    parameters=(
        Parameter(name="start_kernel", default=0, allowed=(0, 3, 5, 7), search_values=(0, 3, 5)),
        Parameter(name="mid_kernel", default=3, allowed=(0, 3, 5, 7)),
        Parameter(name="expansion", default=4, allowed=(1, 2, 3, 4, 6), search_values=(2, 4)),
        Parameter(name="layer_scale", default=0.0, allowed=(0.0, 1e-5, 0.1)),
    ),
    kinds=(SiteKind.BLOCK, SiteKind.LAYER),
    build=_build,
    incompatibility=_obstacle,
    init_from=_adopt,
    reference="MobileNetV4, arXiv 2404.10518",
)
