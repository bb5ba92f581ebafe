"""SimAM, attention without parameters: Yang et al. 2021, Proceedings of Machine Learning Research 139."""

import torch
from torch import Tensor, nn

from search_spaces.operators.record import Operator, Site, SiteKind

REGULARISATION = 1e-4
"""Lambda of the paper, added to the variance."""


class SimAM(nn.Module):
    """Factor for each value by how far it is from the mean of its channel: `x * sigmoid(1 / e)`.

    `(batch, channels, h, w) -> (batch, channels, h, w)`. 1 / e = d^2 / (4 (var + lambda)) + 1/2, with the distance d to
    the mean and the unbiased variance of the channel in the image, and lambda = 1e-4.

    Source: Yang et al. 2021, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks",
    ICML, PMLR 139:11863-11874 (not on arXiv); original code ZjjConan/SimAM, MIT. Differences to it: statistics are
    computed in float32, since their sums exceed float16; a map of one pixel has the variance 0. Without parameters it
    cannot start as the identity: gates are between 0.622 and 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        square = (precise - precise.mean((2, 3), keepdim=True)).square()
        others = torch.ones_like(precise[:1, :1]).sum((2, 3), keepdim=True) - 1  # a tensor: graphs keep it variable
        variance = square.sum((2, 3), keepdim=True) / others.clamp(min=1)
        gate = (square / (4 * (variance + REGULARISATION)) + 0.5).sigmoid()
        return x * gate.to(x.dtype)


def _macs(_module: nn.Module, _x: Tensor, y: Tensor) -> int:
    """Count three products for each value: the square, the quotient and the gate."""
    return 3 * y.numel()


def _build(_site: Site) -> SimAM:
    return SimAM()


SIMAM_RECORD = Operator(
    name="SimAM",
    module=SimAM,
    parameters=(),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    extra_macs=_macs,
    reference="SimAM, PMLR 139 (ICML 2021, not on arXiv)",
)
