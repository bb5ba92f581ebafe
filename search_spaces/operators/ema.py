"""Efficient multi-scale attention (EMA): Ouyang et al. 2023, arXiv 2305.13563."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators.gates import OPEN, open_gate
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class EMA(nn.Module):
    """Factor for each pixel and group of channels, from two branches that weigh each other.

    `(batch, channels, h, w) -> (batch, channels, h, w)`. In each group of channels: one branch gates rows and columns
    by their means, as coordinate attention, and normalises; the other is a 3x3 convolution. The gate of a pixel is the
    sigmoid of each branch's values there, weighed by the softmax of the other branch's channel means. (No exponential
    moving average; that has the same letters.)

    Source: arXiv 2305.13563; original code YOLOonMe/EMA-attention-module. All groups share one
    set of weights.

    Args:
        channels: of the input and the output.
        groups: of channels; the original's `factor`.

    Raises:
        ValueError: `groups` does not divide `channels`.
    """

    def __init__(self, channels: int, *, groups: int = 32) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"EMA: {groups} groups do not divide {channels} channels")
        width = channels // groups
        self.groups = groups
        self.strips = nn.Conv2d(width, width, 1)
        self.norm = nn.GroupNorm(width, width)
        self.local = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        batch, channels, height, width = x.shape
        parts = x.reshape(batch * self.groups, channels // self.groups, height, width)
        means = torch.cat((parts.mean(3, keepdim=True), parts.mean(2, keepdim=True).transpose(2, 3)), dim=2)
        strips = self.strips(means).sigmoid()  # (batch * groups, channels / groups, h + w, 1)
        gated = parts * strips[:, :, :height] * strips[:, :, height:].transpose(2, 3)
        # Not called as a module: counters count a norm's products, which costs here leave out.
        first = F.group_norm(gated, self.norm.num_groups, self.norm.weight, self.norm.bias, self.norm.eps)
        second = self.local(parts)
        logits = _share(first) @ second.flatten(2) + _share(second) @ first.flatten(2)
        return (parts * logits.reshape(-1, 1, height, width).sigmoid()).reshape(x.shape)

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"groups={self.groups}"


def _share(maps: Tensor) -> Tensor:
    """Return the softmax of the channels' means, `(batch, 1, channels)`."""
    return maps.mean((2, 3)).softmax(1).unsqueeze(1)


def _macs(_module: nn.Module, _x: Tensor, y: Tensor) -> int:
    """Count five products for each value: three gates, and two matrix products over channels."""
    return 5 * y.numel()


def _build(site: Site, *, groups: int) -> EMA:
    return EMA(site.c_in, groups=groups)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    groups = int(parameters["groups"])
    return f"{groups} groups do not divide {site.c_in} channels" if site.c_in % groups else None


def _init_from(module: EMA, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start with gates of 0.982: both branches are constant, and their shares sum to 1."""
    open_gate(module.norm, OPEN / 2)
    open_gate(module.local, OPEN / 2)
    return ()


EMA_RECORD = Operator(
    name="EMA",
    module=EMA,
    parameters=(Parameter(name="groups", default=32, allowed=(1, 2, 4, 8, 16, 32), search_values=(8, 32)),),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    extra_macs=_macs,
    reference="Efficient Multi-Scale Attention, arXiv 2305.13563",
)
