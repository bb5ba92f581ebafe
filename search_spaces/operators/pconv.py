"""Partial convolution (PConv) of FasterNet: Chen et al. 2023, arXiv 2303.03667."""

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class PConv(nn.Module):
    """3x3 convolution of a part of the channels, then 1x1 convolutions of all of them.

    `(batch, c_in, h, w) -> (batch, c_out, h, w)`. With `expansion` it is FasterNet's block: batch norm and activation
    between two 1x1 convolutions, and a residual around all. Without, it is a partial and a pointwise convolution, then
    batch norm and activation.

    Source: arXiv 2303.03667; original code JierunChen/FasterNet, MIT. Differences to it: the activation is the host's;
    no layer scale, which is off there by default.

    Args:
        c_in: input channels.
        c_out: output channels.
        part: the 3x3 convolution takes the first `c_in // part` channels.
        expansion: factor for the channels between the two 1x1 convolutions of the block; 0 for the pair.
        activation: SiLU by default.

    Raises:
        ValueError: `expansion` where input and output channels differ; less than one channel for the 3x3 convolution.
    """

    def __init__(
        self, c_in: int, c_out: int, *, part: int = 4, expansion: int = 2, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        if expansion and c_in != c_out:
            raise ValueError(f"PConv: the block adds its input, and {c_in} channels are not {c_out}")
        if c_in < part:
            raise ValueError(f"PConv: {c_in} channels have no part of 1/{part}")
        act = nn.SiLU() if activation is None else activation
        self.touched = c_in // part
        self.residual = bool(expansion)
        width = c_in * expansion if expansion else c_out
        self.partial = nn.Conv2d(self.touched, self.touched, 3, padding=1, bias=False)
        self.expand = Conv(c_in, width, 1, act=act)
        self.project = nn.Conv2d(width, c_out, 1, bias=False) if expansion else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, h, w)`."""
        mixed = torch.cat((self.partial(x[:, : self.touched]), x[:, self.touched :]), dim=1)
        y = self.project(self.expand(mixed))
        return x + y if self.residual else y


def _build(site: Site, *, part: int, expansion: int) -> PConv:
    is_block = site.kind is SiteKind.BLOCK
    return PConv(site.c_in, site.c_out, part=part, expansion=expansion if is_block else 0, activation=site.activation)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    if site.stride != 1:
        return "channels that are passed on keep their size, so it needs stride 1"
    if site.c_in < int(parameters["part"]):
        return f"{site.c_in} channels have no part of 1/{parameters['part']}"
    if site.kind is not SiteKind.BLOCK:
        return None if parameters["expansion"] == 2 else "expansion is the block's, and this is a convolution"
    if site.c_in != site.c_out:
        return f"as a block it adds its input, and {site.c_in} channels are not {site.c_out}"
    return None


def _init_from(module: PConv, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start the block as the identity."""
    if isinstance(module.project, nn.Conv2d):
        nn.init.zeros_(module.project.weight)
    return ()


PCONV_RECORD = Operator(
    name="PConv",
    module=PConv,
    parameters=(
        Parameter(name="part", default=4, allowed=(2, 4, 8), search_values=(2, 4)),
        Parameter(name="expansion", default=2, allowed=(1, 2, 3, 4), search_values=(1, 2)),
    ),
    kinds=(SiteKind.BLOCK, SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    reference="FasterNet, arXiv 2303.03667",
)
