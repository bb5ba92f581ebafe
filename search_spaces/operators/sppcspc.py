"""Spatial pyramid pooling in a cross-stage partial block (SPPCSPC) of YOLOv7: Wang et al. 2022, arXiv 2207.02696."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Site, SiteKind


class SPPCSPC(nn.Module):
    """Maxima over neighbourhoods of three sizes, between convolutions, beside a 1x1 convolution.

    `(batch, c_in, h, w) -> (batch, c_out, h, w)`.

    Source: arXiv 2207.02696; original code WongKinYiu/yolov7, GPL-3.0, with pools of 5, 9 and 13 side by side. Here a
    pool of `kernel` follows another, which gives the same maxima for less work: the block that forks call SPPFCSPC is
    the same function. Difference to the original: the activation is the host's.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: of the first pool; the others are of 2 * kernel - 1 and 3 * kernel - 2.
        expansion: the hidden channels are `2 * c_out * expansion`.
        activation: SiLU by default.
    """

    def __init__(
        self, c_in: int, c_out: int, *, kernel: int = 5, expansion: float = 0.5, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        act = nn.SiLU() if activation is None else activation
        width = max(1, int(2 * c_out * expansion))
        self.kernel = kernel
        self.enter = nn.Sequential(
            Conv(c_in, width, 1, act=act), Conv(width, width, 3, act=act), Conv(width, width, 1, act=act)
        )
        self.pooled = nn.Sequential(Conv(4 * width, width, 1, act=act), Conv(width, width, 3, act=act))
        self.beside = Conv(c_in, width, 1, act=act)
        self.leave = Conv(2 * width, c_out, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, h, w)`."""
        maps = [self.enter(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], self.kernel, 1, self.kernel // 2))
        return self.leave(torch.cat((self.pooled(torch.cat(maps, dim=1)), self.beside(x)), dim=1))

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"kernel={self.kernel}"


def _build(site: Site, *, kernel: int, expansion: float) -> SPPCSPC:
    return SPPCSPC(site.c_in, site.c_out, kernel=kernel, expansion=expansion, activation=site.activation)


SPPCSPC_RECORD = Operator(
    name="SPPCSPC",
    module=SPPCSPC,
    parameters=(
        Parameter(name="kernel", default=5, allowed=(3, 5)),
        Parameter(name="expansion", default=0.5, allowed=(0.25, 0.5), search_values=(0.25, 0.5)),
    ),
    kinds=(SiteKind.PYRAMID,),
    build=_build,
    reference="YOLOv7, arXiv 2207.02696",
)
