"""Convolutional block attention module (CBAM): Woo et al. 2018, arXiv 1807.06521."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.gates import OPEN, hidden_width, open_gate, repeated_width, squeezing, two_gates
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class CBAM(nn.Module):
    """Factor for each channel, then one for each pixel.

    `(batch, channels, h, w) -> (batch, channels, h, w)`. The channels' gate is the sigmoid of a hidden layer's output
    for their means plus that for their maxima; the pixels' gate is that of a convolution of maximum and mean over the
    channels.

    Source: arXiv 1807.06521; original code Jongchan/attention-module, MIT: batch norm behind the convolution, biases in
    the hidden layer. Built from Ultralytics' `Conv`, so that `fuse()` folds the batch norm. At least one
    channel is left after the reduction.

    Args:
        channels: of the input and the output.
        reduction: factor by which the hidden layer has fewer channels.
        kernel: size of the convolution over pixels.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        width = hidden_width(channels, reduction)
        self.squeeze = squeezing(channels, width)
        self.excite = nn.Conv2d(width, channels, 1)
        self.spatial = Conv(2, 1, kernel, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        channels = self._hidden(x.mean((2, 3), keepdim=True)) + self._hidden(x.amax((2, 3), keepdim=True))
        x = x * channels.sigmoid()
        pixels = self.spatial(torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1))
        return x * pixels.sigmoid()

    def _hidden(self, pooled: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(pooled)))


def _build(site: Site, *, reduction: int, kernel: int) -> CBAM:
    return CBAM(site.c_in, reduction=reduction, kernel=kernel)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    return repeated_width(site.c_in, int(parameters["reduction"]), default=16)


def _init_from(module: CBAM, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start with gates of 0.982 for every channel and every pixel."""
    open_gate(module.excite, OPEN / 2)  # two outputs of the hidden layer are added
    open_gate(module.spatial.bn)
    return ()


CBAM_RECORD = Operator(
    name="CBAM",
    module=CBAM,
    parameters=(
        Parameter(name="reduction", default=16, allowed=(4, 8, 16, 32), search_values=(4, 16)),
        Parameter(name="kernel", default=7, allowed=(3, 5, 7), search_values=(3, 7)),
    ),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    extra_macs=two_gates,
    reference="CBAM, arXiv 1807.06521",
)
