"""Large separable kernel attention (LSKA): Lau et al. 2024, arXiv 2309.01439."""

from torch import Tensor, nn

from search_spaces.operators.gates import one_gate, open_gate
from search_spaces.operators.record import Operator, Parameter, Site, SiteKind

_PARTS = {7: (3, 3, 2), 11: (3, 5, 2), 23: (5, 7, 3), 35: (5, 11, 3), 41: (5, 13, 3), 53: (5, 17, 3)}
"""Sizes of the local and of the dilated kernel, and the dilation, by the size of the kernel that they make together."""


class LSKA(nn.Module):
    """Factor for each value, from a large depthwise kernel that is separated into strips.

    `(batch, channels, h, w) -> (batch, channels, h, w)`. A row and a column of a local kernel, a row and a column of a
    dilated one, a 1x1 convolution; the result multiplies the input, without a sigmoid.

    Source: arXiv 2309.01439; original code StevenLauHKHK/Large-Separable-Kernel-Attention (the attention itself,
    without the projections of VAN's block around it).

    Args:
        channels: of the input and the output.
        kernel: size of the whole kernel: 7, 11, 23, 35, 41 or 53.
    """

    def __init__(self, channels: int, *, kernel: int = 11) -> None:
        super().__init__()
        local, dilated, dilation = _PARTS[kernel]
        self.local_row = _strip(channels, (1, local), 1)
        self.local_column = _strip(channels, (local, 1), 1)
        self.dilated_row = _strip(channels, (1, dilated), dilation)
        self.dilated_column = _strip(channels, (dilated, 1), dilation)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        local = self.local_column(self.local_row(x))
        return x * self.mix(self.dilated_column(self.dilated_row(local)))


def _strip(channels: int, size: tuple[int, int], dilation: int) -> nn.Conv2d:
    """Return a depthwise convolution with a row or a column, which keeps the size of the map."""
    height, width = (dilation * (side - 1) // 2 for side in size)
    return nn.Conv2d(channels, channels, size, padding=(height, width), dilation=dilation, groups=channels)


def _build(site: Site, *, kernel: int) -> LSKA:
    return LSKA(site.c_in, kernel=kernel)


def _init_from(module: LSKA, _replaced: nn.Module | None) -> tuple[str, ...]:
    """Start as the identity: every factor is 1."""
    open_gate(module.mix, 1)  # no sigmoid follows
    return ()


LSKA_RECORD = Operator(
    name="LSKA",
    module=LSKA,
    parameters=(Parameter(name="kernel", default=11, allowed=tuple(_PARTS), search_values=(7, 11, 23)),),
    kinds=(SiteKind.INSERTED,),
    build=_build,
    init_from=_init_from,
    extra_macs=one_gate,
    reference="Large Separable Kernel Attention, arXiv 2309.01439",
)
