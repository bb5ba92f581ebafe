"""CARAFE, content-aware reassembly of features, for upsampling: Wang et al. 2019, arXiv 1905.02188."""

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators.record import Operator, Parameter, Site, SiteKind

CENTRE = 8.0
"""Logit of the centre tap of an initialised kernel: its weight is 0.992 among 25."""


class CARAFE(nn.Module):
    """Each output pixel is a weighted mean of the input pixels around it, with weights predicted from the input.

    `(batch, channels, h, w) -> (batch, channels, h * scale, w * scale)`. All channels share the weights, a softmax over
    `up_kernel` squared taps.

    Source: arXiv 1905.02188; original code in OpenMMLab's mmcv and mmdetection, Apache-2.0: two plain convolutions with
    biases. Widely copied code for YOLO adds batch norm and an activation to the first.

    Args:
        channels: of the input and the output.
        scale: factor in height and width.
        up_kernel: side of the neighbourhood in the input, an odd number.
        encoder_kernel: of the convolution that predicts the weights, an odd number.
        compressed: channels that the weights are predicted from.
    """

    def __init__(
        self, channels: int, *, scale: int = 2, up_kernel: int = 5, encoder_kernel: int = 3, compressed: int = 64
    ) -> None:
        super().__init__()
        self.scale, self.up_kernel = scale, up_kernel
        self.compress = nn.Conv2d(channels, compressed, 1)
        self.encode = nn.Conv2d(compressed, (scale * up_kernel) ** 2, encoder_kernel, padding=encoder_kernel // 2)
        nn.init.xavier_uniform_(self.compress.weight)
        nn.init.normal_(self.encode.weight, std=0.001)
        for conv in (self.compress, self.encode):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # both have a bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to `(batch, channels, h * scale, w * scale)`."""
        batch, channels, height, width = x.shape
        taps = self.up_kernel**2
        logits = self.encode(self.compress(x)).reshape(batch, taps, self.scale**2, height * width)
        weights = logits.softmax(1).permute(0, 3, 1, 2)  # (batch, pixels, taps, scale^2)
        around = F.unfold(x, self.up_kernel, padding=self.up_kernel // 2)
        around = around.reshape(batch, channels, taps, height * width).permute(0, 3, 1, 2)
        y = (around @ weights).permute(0, 2, 3, 1)  # (batch, channels, scale^2, pixels)
        return F.pixel_shuffle(y.reshape(batch, -1, height, width), self.scale)

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"scale={self.scale}, up_kernel={self.up_kernel}"


def _macs(module: nn.Module, _x: Tensor, y: Tensor) -> int:
    """Count a product for each output value and tap."""
    assert isinstance(module, CARAFE)  # noqa: S101 - narrows the type; the counter asks by this class
    return y.numel() * module.up_kernel**2


def _build(site: Site, *, up_kernel: int, encoder_kernel: int, compressed: int) -> CARAFE:
    return CARAFE(
        site.c_in, scale=site.stride, up_kernel=up_kernel, encoder_kernel=encoder_kernel, compressed=compressed
    )


def _init_from(module: CARAFE, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start near upsampling to the nearest pixel: every kernel has nearly all weight on its centre."""
    nn.init.zeros_(module.encode.weight)
    centre, shared = module.up_kernel**2 // 2, module.scale**2
    assert module.encode.bias is not None  # noqa: S101 - narrows the type
    module.encode.bias.zero_()
    module.encode.bias[centre * shared : (centre + 1) * shared] = CENTRE
    return ()


CARAFE_RECORD = Operator(
    name="CARAFE",
    module=CARAFE,
    parameters=(
        Parameter(name="up_kernel", default=5, allowed=(3, 5, 7), search_values=(3, 5)),
        Parameter(name="encoder_kernel", default=3, allowed=(1, 3, 5)),
        Parameter(name="compressed", default=64, allowed=(16, 32, 64), search_values=(32, 64)),
    ),
    kinds=(SiteKind.UPSAMPLE,),
    build=_build,
    init_from=_init_from,
    extra_macs=_macs,
    reference="CARAFE, arXiv 1905.02188",
)
