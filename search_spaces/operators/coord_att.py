"""Coordinate attention: Hou et al. 2021, arXiv 2103.02907."""

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.gates import hidden_width, open_gate, repeated_width, two_gates
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind

LEAST_WIDTH = 8
"""Least width of the hidden layer, as in the original code."""


class CoordAtt(nn.Module):
    """Factor for each channel and row, and one for each channel and column.

    `(batch, channels, h, w) -> (batch, channels, h, w)`. The means over each row and over each column pass one hidden
    layer together, and then one 1x1 convolution and sigmoid each.

    Source: arXiv 2103.02907; original code houqb/CoordAttention, MIT. Its hidden convolution has a bias before the
    batch norm, which cancels it; this one has none, and `fuse()` folds it.

    Args:
        channels: of the input and the output.
        reduction: factor by which the hidden layer has fewer channels, but at least 8.
    """

    def __init__(self, channels: int, *, reduction: int = 32) -> None:
        super().__init__()
        width = hidden_width(channels, reduction, least=LEAST_WIDTH)
        self.hidden = Conv(channels, width, 1, act=nn.Hardswish())
        self.rows = nn.Conv2d(width, channels, 1)
        self.columns = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        height = x.shape[2]
        means = torch.cat((x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)), dim=2)
        hidden = self.hidden(means)  # (batch, width, h + w, 1)
        rows = self.rows(hidden[:, :, :height]).sigmoid()
        columns = self.columns(hidden[:, :, height:].transpose(2, 3)).sigmoid()
        return x * rows * columns


def _build(site: Site, *, reduction: int) -> CoordAtt:
    return CoordAtt(site.c_in, reduction=reduction)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    return repeated_width(site.c_in, int(parameters["reduction"]), default=32, least=LEAST_WIDTH)


def _init_from(module: CoordAtt, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start with gates of 0.982 for every row and every column."""
    open_gate(module.rows)
    open_gate(module.columns)
    return ()


COORD_ATT_RECORD = Operator(
    name="CoordAtt",
    module=CoordAtt,
    parameters=(Parameter(name="reduction", default=32, allowed=(4, 8, 16, 32), search_values=(8, 32)),),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    extra_macs=two_gates,
    reference="Coordinate Attention, arXiv 2103.02907",
)
