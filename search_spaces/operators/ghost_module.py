"""Ghost module of GhostNet: Han et al. 2020, arXiv 1911.11907."""

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind
from search_spaces.operators.replaced import copy_channels


class GhostModule(nn.Module):
    """One in `ratio` output channels by a convolution, the others from these by a depthwise one.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`.

    Source: arXiv 1911.11907; original code huawei-noah/Efficient-AI-Backbones, Apache-2.0. With `ratio` 2 and
    `dw_kernel` 5 it is Ultralytics' `GhostConv`. Differences to the original: the activation is the host's; `ratio`
    must divide the channels, where the original computes more and drops some.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: of the first convolution.
        stride: of the first convolution.
        ratio: of all output channels to those of the first convolution.
        dw_kernel: of the depthwise convolution.
        activation: of both, SiLU by default.

    Raises:
        ValueError: `ratio` does not divide the output channels.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        ratio: int = 2,
        dw_kernel: int = 3,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if c_out % ratio:
            raise ValueError(f"GhostModule: ratio {ratio} does not divide {c_out} channels")
        act = nn.SiLU() if activation is None else activation
        primary = c_out // ratio
        self.primary = Conv(c_in, primary, kernel, stride, act=act)
        self.cheap = Conv(primary, c_out - primary, dw_kernel, 1, g=primary, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, ceil(h / stride), ceil(w / stride))`."""
        primary = self.primary(x)
        return torch.cat((primary, self.cheap(primary)), dim=1)


def _build(site: Site, *, ratio: int, dw_kernel: int) -> GhostModule:
    return GhostModule(
        site.c_in,
        site.c_out,
        kernel=site.kernel,
        stride=site.stride,
        ratio=ratio,
        dw_kernel=dw_kernel,
        activation=site.activation,
    )


def _init_from(module: GhostModule, replaced: nn.Module | None) -> tuple[str, ...]:
    """Copy the first channels of the replaced convolution; the others are new."""
    channels = range(module.primary.conv.out_channels)
    return tuple(f"primary.{name}" for name in copy_channels(module.primary, replaced, channels))


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    if site.c_out % int(parameters["ratio"]):
        return f"ratio {parameters['ratio']} does not divide {site.c_out} channels"
    if site.kernel % 2 == 0:
        return f"a kernel of {site.kernel} has no centre, and would change the size of the map"
    return None


GHOST_MODULE_RECORD = Operator(
    name="GhostModule",
    module=GhostModule,
    parameters=(
        Parameter(name="ratio", default=2, allowed=(2, 3, 4), search_values=(2, 4)),
        Parameter(name="dw_kernel", default=3, allowed=(3, 5)),
    ),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    reference="GhostNet, arXiv 1911.11907",
)
