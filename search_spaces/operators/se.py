"""Squeeze-and-excitation (SE), attention over channels: Hu et al. 2018, arXiv 1709.01507."""

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators.gates import hidden_width, one_gate, open_gate, repeated_width, squeezing
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class SE(nn.Module):
    """Factor for each channel, computed from the means of all channels: `x * sigmoid(W2 relu(W1 mean(x)))`.

    `(batch, channels, h, w) -> (batch, channels, h, w)`.

    Source: arXiv 1709.01507; original code hujie-frank/SENet (Caffe), Apache-2.0, whose linear layers have biases, as
    these 1x1 convolutions. At least one channel is left after the reduction.

    Args:
        channels: of the input and the output.
        reduction: factor by which the hidden layer has fewer channels.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        width = hidden_width(channels, reduction)
        self.squeeze = squeezing(channels, width)
        self.excite = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.excite(F.relu(self.squeeze(means))).sigmoid()


def _build(site: Site, *, reduction: int) -> SE:
    return SE(site.c_in, reduction=reduction)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    return repeated_width(site.c_in, int(parameters["reduction"]), default=16)


def _init_from(module: SE, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start with gates of 0.982 for every channel."""
    open_gate(module.excite)
    return ()


SE_RECORD = Operator(
    name="SE",
    module=SE,
    parameters=(Parameter(name="reduction", default=16, allowed=(4, 8, 16, 32), search_values=(4, 16)),),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    extra_macs=one_gate,
    reference="Squeeze-and-Excitation, arXiv 1709.01507",
)
