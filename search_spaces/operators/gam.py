"""Global attention mechanism (GAM): Liu et al. 2021, arXiv 2112.05561."""

import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.gates import hidden_width, open_gate, repeated_width, two_gates
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind

KERNEL = 7
"""Size of both convolutions over pixels."""


class GAM(nn.Module):
    """Factor for each value by the channels of its pixel, then one by its surroundings, without pooling.

    `(batch, channels, h, w) -> (batch, channels, h, w)`. Both have a hidden layer with fewer channels: the first of 1x1
    convolutions (the paper's MLP over the permuted map), the second of 7x7 convolutions with batch norm.

    Source: arXiv 2112.05561, and the code that is published for it (`GAM_Attention`), where the second factor has a
    sigmoid and the first has none. Built from Ultralytics' `Conv`, so that `fuse()` folds the batch norms; the 7x7
    convolutions have no biases, which these would cancel. They are dense: it costs far more than other attention.

    Args:
        channels: of the input and the output.
        reduction: factor by which the hidden layers have fewer channels.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        width = hidden_width(channels, reduction)
        self.squeeze = nn.Conv2d(channels, width, 1)
        self.excite = nn.Conv2d(width, channels, 1)
        self.gather = Conv(channels, width, KERNEL, act=nn.ReLU())
        self.spread = Conv(width, channels, KERNEL, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        x = x * self.excite(F.relu(self.squeeze(x)))
        return x * self.spread(self.gather(x)).sigmoid()


def _build(site: Site, *, reduction: int) -> GAM:
    return GAM(site.c_in, reduction=reduction)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    return repeated_width(site.c_in, int(parameters["reduction"]), default=4)


def _init_from(module: GAM, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start with factors of 1 and gates of 0.982."""
    open_gate(module.excite, 1)  # no sigmoid follows
    open_gate(module.spread.bn)
    return ()


GAM_RECORD = Operator(
    name="GAM",
    module=GAM,
    parameters=(Parameter(name="reduction", default=4, allowed=(2, 4, 8, 16), search_values=(4, 16)),),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    extra_macs=two_gates,
    reference="Global Attention Mechanism, arXiv 2112.05561",
)
