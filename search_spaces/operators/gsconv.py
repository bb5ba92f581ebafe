"""GSConv of Slim-neck: Li et al. 2022, arXiv 2206.02424."""

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind
from search_spaces.operators.replaced import copy_channels


class GSConv(nn.Module):
    """Half of the output channels by a convolution, the other half from them by a depthwise one; then a shuffle.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`. The shuffle puts channels of even index
    before those of odd index.

    Source: arXiv 2206.02424; original code AlanLi1997/slim-neck-by-gsconv, for Ultralytics' `Conv`. Difference to it:
    the activation is the host's.

    Args:
        c_in: input channels.
        c_out: output channels, an even number.
        kernel: of the first convolution.
        stride: of the first convolution.
        dw_kernel: of the depthwise convolution.
        activation: of both, SiLU by default.

    Raises:
        ValueError: an odd number of output channels.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        dw_kernel: int = 5,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if c_out % 2:
            raise ValueError(f"GSConv: {c_out} channels have no half")
        act = nn.SiLU() if activation is None else activation
        half = c_out // 2
        self.dense = Conv(c_in, half, kernel, stride, act=act)
        self.cheap = Conv(half, half, dw_kernel, 1, g=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, ceil(h / stride), ceil(w / stride))`."""
        dense = self.dense(x)
        both = torch.cat((dense, self.cheap(dense)), dim=1)
        return torch.cat((both[:, ::2], both[:, 1::2]), dim=1)


def shuffled(channels: int) -> list[int]:
    """Return which channel before the shuffle each channel behind it is."""
    return [*range(0, channels, 2), *range(1, channels, 2)]


def _build(site: Site, *, dw_kernel: int) -> GSConv:
    return GSConv(
        site.c_in,
        site.c_out,
        kernel=site.kernel,
        stride=site.stride,
        dw_kernel=dw_kernel,
        activation=site.activation,
    )


def _init_from(module: GSConv, replaced: nn.Module | None) -> tuple[str, ...]:
    """Copy the replaced convolution into the dense half; the cheap half is new."""
    order = shuffled(2 * module.dense.conv.out_channels)
    places = [order.index(channel) for channel in range(module.dense.conv.out_channels)]
    return tuple(f"dense.{name}" for name in copy_channels(module.dense, replaced, places))


def _incompatibility(site: Site, _parameters: Parameters) -> str | None:
    if site.c_out % 2:
        return f"half of its channels are computed from the others, and {site.c_out} have no half"
    if site.kernel % 2 == 0:
        return f"a kernel of {site.kernel} has no centre, and would change the size of the map"
    return None


GSCONV_RECORD = Operator(
    name="GSConv",
    module=GSConv,
    parameters=(Parameter(name="dw_kernel", default=5, allowed=(3, 5)),),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    reference="Slim-neck by GSConv, arXiv 2206.02424",
)
