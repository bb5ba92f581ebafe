"""Weighted fusion of several maps (BiFPN), in the place of a concatenation: EfficientDet, arXiv 1911.09070."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.operators.gates import one_gate
from search_spaces.operators.record import Operator, Parameter, Site, SiteKind

EPSILON = 1e-4
"""Keeps the sum of the weights from 0, as in the paper."""
SUM, CONCAT = "sum", "concat"


class WeightedFusion(nn.Module):
    """Fast normalised fusion: each map has a weight, `relu(w_i) / (sum of relu(w_j) + 1e-4)`.

    A list of `(batch, c_i, h, w)` `-> (batch, sum of c_i, h, w)`: as many channels as the maps have together, which is
    what the layer behind a concatenation reads.

    `sum` adds the maps, each projected to that width by a 1x1 convolution of its own: `n * sum of w_i P_i x_i`. All
    projections are one convolution of the weighted maps side by side. `concat` leaves them side by side, as
    BiFPN_Concat of forks.

    Source: arXiv 1911.09070, section 3.3; original code google/automl, Apache-2.0. Differences: the factor `n`, the
    number of maps, so that equal weights change nothing; the width is that of all maps instead of one of the whole
    neck; the projections have no batch norm; no convolution follows, since the layer behind is one.

    Args:
        channels: of each map.
        form: `sum` or `concat`.
    """

    def __init__(self, channels: Sequence[int], *, form: str = SUM) -> None:
        super().__init__()
        total = sum(channels)
        self.weights = nn.Parameter(torch.ones(len(channels)))
        self.project = nn.Conv2d(total, total, 1, bias=False) if form == SUM else nn.Identity()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map `n` maps of one size to one."""
        weights = self.weights.relu()
        shares = weights * (len(maps) / (weights.sum() + EPSILON))
        return self.project(torch.cat([share * x for share, x in zip(shares, maps, strict=True)], 1))


def _build(site: Site, *, form: str) -> WeightedFusion:
    return WeightedFusion(site.inputs, form=form)


def _init_from(module: WeightedFusion, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start as the concatenation: equal weights, and projections that put each map into its own channels."""
    nn.init.ones_(module.weights)
    if isinstance(module.project, nn.Conv2d):
        nn.init.dirac_(module.project.weight)
    return ()


WEIGHTED_FUSION_RECORD = Operator(
    name="WeightedFusion",
    module=WeightedFusion,
    parameters=(Parameter(name="form", default=SUM, allowed=(SUM, CONCAT), search_values=(SUM, CONCAT)),),
    kinds=(SiteKind.FUSION,),
    build=_build,
    init_from=_init_from,
    extra_macs=one_gate,
    reference="EfficientDet, arXiv 1911.09070",
)
