"""Universal inverted bottleneck (UIB) of MobileNetV4: Qin et al. 2024, arXiv 2404.10518, section 3."""

import math

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


def expanded(channels: int, expansion: int) -> int:
    """Channels after the expansion: the product rounded to the nearest multiple of 8, but not below 9/10 of it.

    This is `make_divisible` of MobileNet's implementations.
    """
    wanted = channels * expansion
    rounded = max(8, (wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class UIB(nn.Module):
    """Inverted bottleneck with two optional depthwise convolutions.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`. The input is added where `c_in` is
    `c_out` and `stride` is 1. The two kernel sizes select the block: both give ExtraDW, the start one alone a block
    like ConvNeXt's, the middle one alone MobileNetV2's inverted bottleneck, none a feed-forward block.

    Source: arXiv 2404.10518; the original code (TensorFlow Model Garden) is Apache-2.0. Differences to it: layer scale
    is off by default, as in timm's convolutional models; the activation is the host's. Built from Ultralytics' `Conv`,
    so that `fuse()` folds every batch norm.

    Args:
        c_in: input channels.
        c_out: output channels.
        stride: of the middle depthwise convolution if there is one, else of the start one.
        start_kernel: of the depthwise convolution before the expansion, without activation; 0 for none.
        mid_kernel: of the depthwise convolution after the expansion, with activation; 0 for none.
        expansion: factor for the channels between the two 1x1 convolutions; the product is rounded by `expanded`.
        layer_scale: initial value of the learned factor per channel on the block's output; 0 for none.
        residual: add the input where the shape allows it; without it this is not MobileNetV4's block.
        activation: inside the block, SiLU by default; the output is linear.

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
        """Initialise every convolution from N(0, 2 / fan_out), as timm does for this block."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, ceil(h / stride), ceil(w / stride))`."""
        branch = self.project(self.mid(self.expand(self.start(x))))
        if self.gamma is not None:
            branch = branch * self.gamma.reshape(1, -1, 1, 1)
        return x + branch if self.residual else branch

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
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


def _init_from(module: UIB, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start a block with a residual as the identity, which a trained residual block nearly is."""
    if module.residual:
        nn.init.zeros_(module.project.bn.weight)
    return ()


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    if not (parameters["start_kernel"] or parameters["mid_kernel"]):
        return "without start_kernel and mid_kernel nothing here would mix pixels"
    if parameters["layer_scale"] and not (site.stride == 1 and site.c_in == site.c_out):
        return "layer_scale needs a residual, and there is none here"
    if site.kind is SiteKind.LAYER and site.stride == 1 and site.c_in != site.c_out:
        return f"as a whole layer at stride 1 it adds its input, and {site.c_in} channels are not {site.c_out}"
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
    incompatibility=_incompatibility,
    init_from=_init_from,
    reference="MobileNetV4, arXiv 2404.10518",
)
