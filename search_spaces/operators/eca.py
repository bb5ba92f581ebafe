"""Efficient channel attention (ECA): Wang et al. 2020, arXiv 1910.03151."""

import math

from torch import Tensor, nn

from search_spaces.operators.gates import one_gate
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


def kernel_size(channels: int, gamma: int) -> int:
    """Return the number of channels that decide a channel's factor: `(log2 channels + 1) / gamma`, made odd.

    Equation 12 of the paper with b = 1, rounded as in the original code: cut to a whole number, plus 1 if that is even.
    """
    size = int((math.log2(channels) + 1) / gamma)
    return size if size % 2 else size + 1


class ECA(nn.Module):
    """Factor for each channel, computed from the means of it and its neighbours: `x * sigmoid(conv1d(mean(x)))`.

    `(batch, channels, h, w) -> (batch, channels, h, w)`.

    Source: arXiv 1910.03151; original code BangguWu/ECANet, MIT. The convolution runs over channels and has no bias, so
    a gate cannot start open: with random weights it is near 0.5.

    Args:
        channels: of the input and the output.
        gamma: of `kernel_size`; 2 in the paper.
    """

    def __init__(self, channels: int, *, gamma: int = 2) -> None:
        super().__init__()
        size = kernel_size(channels, gamma)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        means = x.mean((2, 3)).unsqueeze(1)
        return x * self.conv(means).sigmoid().squeeze(1)[..., None, None]


def _build(site: Site, *, gamma: int) -> ECA:
    return ECA(site.c_in, gamma=gamma)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    gamma = int(parameters["gamma"])
    if gamma != 2 and kernel_size(site.c_in, gamma) == kernel_size(site.c_in, 2):
        return f"gamma {gamma} gives {site.c_in} channels the kernel of gamma 2"
    return None


ECA_RECORD = Operator(
    name="ECA",
    module=ECA,
    parameters=(Parameter(name="gamma", default=2, allowed=(1, 2)),),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    incompatibility=_incompatibility,
    extra_macs=one_gate,
    reference="ECA-Net, arXiv 1910.03151",
)
