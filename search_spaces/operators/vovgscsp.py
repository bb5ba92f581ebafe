"""VoV-GSCSP of Slim-neck, in the place of a whole CSP block: Li et al. 2022, arXiv 2206.02424."""

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.gsconv import GSConv
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class GSBottleneck(nn.Module):
    """Two GSConvs and a 1x1 convolution beside them, whose outputs are added.

    `(batch, channels, h, w) -> (batch, channels, h, w)`.
    """

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.first = GSConv(channels, channels, kernel=1, activation=activation)
        self.second = GSConv(channels, channels, kernel=3, activation=nn.Identity())
        self.shortcut = Conv(channels, channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        return self.second(self.first(x)) + self.shortcut(x)


class VoVGSCSP(nn.Module):
    """Cross-stage partial block of GS bottlenecks.

    `(batch, c_in, h, w) -> (batch, c_out, h, w)`.

    Source: arXiv 2206.02424; original code AlanLi1997/slim-neck-by-gsconv. Differences to it: without the 3x3
    convolution `res`, which is built there and never used; the activation is the host's.

    Args:
        c_in: input channels.
        c_out: output channels, a multiple of 4.
        repeats: number of GS bottlenecks.
        activation: SiLU by default.

    Raises:
        ValueError: `c_out` is no multiple of 4.
    """

    def __init__(self, c_in: int, c_out: int, *, repeats: int = 1, activation: nn.Module | None = None) -> None:
        super().__init__()
        if c_out % 4:
            raise ValueError(f"VoVGSCSP: {c_out} channels are no multiple of 4")
        act = nn.SiLU() if activation is None else activation
        half = c_out // 2
        self.enter = Conv(c_in, half, 1, act=act)
        self.beside = Conv(c_in, half, 1, act=act)
        self.blocks = nn.Sequential(*(GSBottleneck(half, act) for _ in range(repeats)))
        self.leave = Conv(c_out, c_out, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, h, w)`."""
        return self.leave(torch.cat((self.beside(x), self.blocks(self.enter(x))), dim=1))


def _build(site: Site, *, repeats: int) -> VoVGSCSP:
    return VoVGSCSP(site.c_in, site.c_out, repeats=repeats, activation=site.activation)


def _incompatibility(site: Site, _parameters: Parameters) -> str | None:
    return f"it halves its channels twice, and {site.c_out} are no multiple of 4" if site.c_out % 4 else None


VOVGSCSP_RECORD = Operator(
    name="VoVGSCSP",
    module=VoVGSCSP,
    parameters=(Parameter(name="repeats", default=1, allowed=(1, 2, 3), search_values=(1, 2)),),
    kinds=(SiteKind.STAGE,),
    build=_build,
    incompatibility=_incompatibility,
    reference="Slim-neck by GSConv, arXiv 2206.02424",
)
