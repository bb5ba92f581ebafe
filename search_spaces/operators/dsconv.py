"""Depthwise separable convolution (DSConv) of YOLOv13: Lei et al. 2025, arXiv 2506.17733."""

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Site, SiteKind


class DSConv(nn.Module):
    """Depthwise convolution, then a 1x1 convolution with batch norm and activation.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`.

    Source: arXiv 2506.17733, and its code iMoonLab/yolov13, AGPL-3.0: nothing between the two convolutions. (MobileNet,
    arXiv 1704.04861, has batch norm and activation there.) Two other methods are called DSConv: the distribution
    shifting convolution, arXiv 1901.01928, which quantises weights, and dynamic snake convolution, arXiv 2307.08388.
    Difference to the original: the activation is the host's.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: of the depthwise convolution, an odd number.
        stride: of the depthwise convolution.
        activation: SiLU by default.
    """

    def __init__(
        self, c_in: int, c_out: int, *, kernel: int = 3, stride: int = 1, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        act = nn.SiLU() if activation is None else activation
        self.depthwise = nn.Conv2d(c_in, c_in, kernel, stride, padding=kernel // 2, groups=c_in, bias=False)
        self.pointwise = Conv(c_in, c_out, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, ceil(h / stride), ceil(w / stride))`."""
        return self.pointwise(self.depthwise(x))


def _build(site: Site, *, kernel: int) -> DSConv:
    return DSConv(site.c_in, site.c_out, kernel=kernel, stride=site.stride, activation=site.activation)


def _init_from(module: DSConv, replaced: nn.Module | None) -> tuple[str, ...]:
    """Start as the depthwise separable convolution that is nearest to the replaced one, with its batch norm.

    A separable kernel of one input channel is a product of a vector of output channels and one of pixels. The nearest
    in the Frobenius norm is the first term of the singular value decomposition (Eckart and Young 1936).
    """
    size, outputs_and_inputs = module.depthwise.kernel_size, module.pointwise.conv.weight.shape[:2]
    if not isinstance(replaced, Conv) or replaced.conv.stride != module.depthwise.stride:
        return ()
    weight = replaced.conv.weight
    if weight.shape != (*outputs_and_inputs, *size):
        return ()
    by_input = weight.float().flatten(2).transpose(0, 1)  # (c_in, c_out, pixels)
    outputs, scales, pixels = torch.linalg.svd(by_input, full_matrices=False)
    root = scales[:, :1].sqrt()
    module.depthwise.weight.copy_((root * pixels[:, 0]).unflatten(1, (1, *size)))
    module.pointwise.conv.weight.copy_((root * outputs[..., 0]).T[..., None, None])
    module.pointwise.bn.load_state_dict(replaced.bn.state_dict())
    return ("pointwise.bn.weight", "pointwise.bn.bias")


DSCONV_RECORD = Operator(
    name="DSConv",
    module=DSConv,
    parameters=(Parameter(name="kernel", default=3, allowed=(3, 5, 7), search_values=(3, 5)),),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    init_from=_init_from,
    reference="YOLOv13, arXiv 2506.17733",
)
