"""Space-to-depth convolution (SPD-Conv): Sunkara and Luo 2022, arXiv 2208.03641."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind


class SPDConv(nn.Module):
    """Downsampling without loss: every fourth pixel becomes a map of its own, and a convolution mixes the four.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / 2), ceil(w / 2))`.

    Source: arXiv 2208.03641; original code LabSAINT/SPD-Conv, where the four maps have this order: rows and columns of
    even index, odd rows, odd columns, both odd. Differences to it: one layer with batch norm and activation, as forks
    of YOLO have it; a map of odd size gets a row or column of zeros.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: of the convolution, an odd number.
        activation: SiLU by default.
    """

    def __init__(self, c_in: int, c_out: int, *, kernel: int = 3, activation: nn.Module | None = None) -> None:
        super().__init__()
        act = nn.SiLU() if activation is None else activation
        self.mix = Conv(4 * c_in, c_out, kernel, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, ceil(h / 2), ceil(w / 2))`."""
        return self.mix(_space_to_depth(x))


def _space_to_depth(x: Tensor) -> Tensor:
    """Map `(batch, channels, h, w)` to `(batch, 4 * channels, ceil(h / 2), ceil(w / 2))`.

    Odd indices are read from a map with one more row and column, so that no size is computed: graphs keep it variable.
    """
    padded = F.pad(x, (0, 1, 0, 1))
    even_rows, odd_rows = padded[:, :, :-1][:, :, ::2], padded[:, :, 1::2]
    parts = (even_rows[..., :-1:2], odd_rows[..., :-1:2], even_rows[..., 1::2], odd_rows[..., 1::2])
    return torch.cat(parts, dim=1)


def _build(site: Site, *, kernel: int) -> SPDConv:
    return SPDConv(site.c_in, site.c_out, kernel=kernel, activation=site.activation)


def _init_from(module: SPDConv, replaced: nn.Module | None) -> tuple[str, ...]:
    """Start as the replaced 3x3 convolution of stride 2, which a 3x3 convolution of the four maps can be.

    Its row -1 is the odd row of the block before, its rows 0 and 1 are the even and the odd row of the same block.
    """
    if not isinstance(replaced, Conv) or (replaced.conv.kernel_size, replaced.conv.stride) != ((3, 3), (2, 2)):
        return ()
    weight, c_in = replaced.conv.weight, replaced.conv.in_channels
    if replaced.conv.groups != 1 or module.mix.conv.weight.shape != (len(weight), 4 * c_in, 3, 3):
        return ()
    block, odd = (0, 1, 1), (1, 0, 1)  # by row, or column, of the replaced kernel
    nn.init.zeros_(module.mix.conv.weight)
    for row in range(3):
        for column in range(3):
            first = (odd[row] + 2 * odd[column]) * c_in
            tap = weight[:, :, row, column]
            module.mix.conv.weight[:, first : first + c_in, block[row], block[column]] = tap
    module.mix.bn.load_state_dict(replaced.bn.state_dict())
    return ("mix.conv.weight", "mix.bn.weight", "mix.bn.bias")


def _incompatibility(site: Site, _parameters: Parameters) -> str | None:
    return None if site.stride == 2 else f"it halves the map, and the stride here is {site.stride}"


SPD_CONV_RECORD = Operator(
    name="SPDConv",
    module=SPDConv,
    parameters=(Parameter(name="kernel", default=3, allowed=(1, 3), search_values=(1, 3)),),
    kinds=(SiteKind.LAYER,),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    reference="SPD-Conv, arXiv 2208.03641",
)
