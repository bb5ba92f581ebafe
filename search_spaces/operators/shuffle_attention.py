"""Shuffle attention (SA-Net): Zhang and Yang 2021, arXiv 2102.00240."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class ShuffleAttention(nn.Module):
    """Gates by channel for one half of each group of channels and by pixel for the other half; then a shuffle.

    `(batch, channels, h, w) -> (batch, channels, h, w)`. A channel's gate is the sigmoid of a linear function of its
    mean, a value's gate that of a linear function of the normalised value. All groups share one set of weights.

    Source: arXiv 2102.00240; original code wofmanaf/SA-Net, where `groups` is 64, for 256 channels and more. The
    shuffle between the halves reorders the channels, so that an inserted one cannot start as the identity: what follows
    it has to learn the new order.

    Args:
        channels: of the input and the output.
        groups: of channels.

    Raises:
        ValueError: twice `groups` does not divide `channels`.
    """

    def __init__(self, channels: int, *, groups: int = 8) -> None:
        super().__init__()
        if channels % (2 * groups):
            raise ValueError(f"ShuffleAttention: {groups} groups of two halves do not divide {channels} channels")
        half = channels // (2 * groups)
        self.groups = groups
        self.channel_weight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.channel_bias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.spatial_weight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.spatial_bias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.norm = nn.GroupNorm(half, half)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        batch, channels, height, width = x.shape
        parts = x.reshape(batch * self.groups, channels // self.groups, height, width)
        first, second = parts.chunk(2, dim=1)
        means = first.mean((2, 3), keepdim=True)
        first = first * (self.channel_weight * means + self.channel_bias).sigmoid()
        # Not called as a module: counters count a norm's products, which costs here leave out.
        normal = F.group_norm(second, self.norm.num_groups, self.norm.weight, self.norm.bias, self.norm.eps)
        second = second * (self.spatial_weight * normal + self.spatial_bias).sigmoid()
        gated = torch.cat((first, second), dim=1).reshape(x.shape)
        return torch.stack(gated.chunk(2, dim=1), dim=2).flatten(1, 2)

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"groups={self.groups}"


def _macs(_module: nn.Module, _x: Tensor, y: Tensor) -> int:
    """Count the gate of each value, and the linear function of the pixels' half; that of the means is per channel."""
    batch, channels = y.shape[:2]
    return y.numel() + y.numel() // 2 + batch * channels // 2


def _build(site: Site, *, groups: int) -> ShuffleAttention:
    return ShuffleAttention(site.c_in, groups=groups)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    groups = int(parameters["groups"])
    return f"{groups} groups of two halves do not divide {site.c_in} channels" if site.c_in % (2 * groups) else None


SHUFFLE_ATTENTION_RECORD = Operator(
    name="ShuffleAttention",
    module=ShuffleAttention,
    parameters=(Parameter(name="groups", default=8, allowed=(1, 2, 4, 8, 16, 32, 64), search_values=(4, 8)),),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    incompatibility=_incompatibility,
    extra_macs=_macs,
    reference="SA-Net, arXiv 2102.00240",
)
