"""Further layers of the YOLOv7 repository, which none of its own model files names: blocks of Ghost and folded modules.

Structure and number of parameters are those of WongKinYiu/yolov7 (GPL-3.0). Rows and maps as in
`search_spaces/yolov7.py`; a translated row names them `yolov7.GhostStem`.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv, GhostBottleneck, GhostConv, RepConv

from search_spaces.yolov7 import (
    PREFIX,
    BottleneckCSPB,
    BottleneckCSPC,
    PartialBlock,
    Pyramid,
    Res,
    ResCSPB,
    ResCSPC,
    Stem,
)


class Chuncat(nn.Module):
    """Join the first halves of maps, then their second halves.

    Args:
        dimension: along which they are halved and joined.
    """

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return one map with the channels of all."""
        halves = [one.chunk(2, self.dimension) for one in x]
        return torch.cat([pair[side] for side in (0, 1) for pair in halves], self.dimension)


class Foldcut(nn.Module):
    """Add the two halves of a map; arguments as for `Chuncat`."""

    def __init__(self, dimension: int = 0) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c, h, w)` to `(n, c / 2, h, w)`, where the dimension is that of channels."""
        first, second = x.chunk(2, self.dimension)
        return first + second


class GhostStem(Stem):
    """`Stem` of Ghost convolutions; arguments as there."""

    convolution = GhostConv


class GhostSPPCSPC(Pyramid):
    """YOLOv7's pyramid of Ghost convolutions; arguments as for `Pyramid`."""

    convolution = GhostConv


class ResCSPA(PartialBlock):
    """`C3` with bottlenecks of ResNet; arguments as for `BottleneckCSPC`."""

    inner = staticmethod(partial(Res, e=0.5))
    shortcut = True

    def __init__(
        self, c_in: int, c_out: int, n: int = 1, shortcut: bool | None = None, g: int | None = None, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c_out * e)
        self.enter = Conv(c_in, hidden, 1)
        self.m = self.repeated(hidden, n, shortcut, g)
        self.beside = Conv(c_in, hidden, 1)
        self.leave = Conv(2 * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h, w)`."""
        return self.leave(torch.cat((self.m(self.enter(x)), self.beside(x)), dim=1))


class ResXCSPA(ResCSPA):
    """`ResCSPA` with bottlenecks of ResNeXt; arguments as there."""

    inner = staticmethod(partial(Res, e=1.0))
    groups = 32


def _ghost(channels: int, *, shortcut: bool, g: int) -> GhostBottleneck:  # noqa: ARG001 - as every inner block
    return GhostBottleneck(channels, channels)


class GhostCSPA(ResCSPA):
    """`ResCSPA` with Ghost bottlenecks; arguments as there."""

    inner = staticmethod(_ghost)


class GhostCSPB(BottleneckCSPB):
    """`BottleneckCSPB` with Ghost bottlenecks; arguments as there."""

    inner = staticmethod(_ghost)


class GhostCSPC(BottleneckCSPC):
    """`BottleneckCSPC` with Ghost bottlenecks; arguments as there."""

    inner = staticmethod(_ghost)


class RepRes(Res):
    """`Res` whose 3x3 convolution is a sum of branches, folded into one once deployed; arguments as there."""

    def __init__(self, channels: int, *, shortcut: bool, g: int, e: float) -> None:
        super().__init__(channels, shortcut=shortcut, g=g, e=e)
        hidden = int(channels * e)
        self.layers[1] = RepConv(hidden, hidden, 3, g=g, act=Conv.default_act, bn=True)


class _Folded(PartialBlock):
    """With folded bottlenecks, half as wide inside."""

    inner = staticmethod(partial(RepRes, e=0.5))


class _FoldedInGroups(_Folded):
    """With folded bottlenecks in 32 groups, half as wide inside, where those of ResNeXt are as wide."""

    groups = 32


class RepResCSPA(_Folded, ResCSPA):
    """`ResCSPA` with folded bottlenecks; arguments as there."""


class RepResCSPB(_Folded, ResCSPB):
    """`ResCSPB` with folded bottlenecks, which do not add their input; arguments as there."""

    shortcut = False


class RepResCSPC(_Folded, ResCSPC):
    """`ResCSPC` with folded bottlenecks; arguments as there."""


class RepResXCSPA(_FoldedInGroups, ResCSPA):
    """`ResXCSPA` with folded bottlenecks; arguments as there."""


class RepResXCSPB(_FoldedInGroups, ResCSPB):
    """`ResXCSPB` with folded bottlenecks, which do not add their input; arguments as there."""

    shortcut = False


class RepResXCSPC(_FoldedInGroups, ResCSPC):
    """`ResXCSPC` with folded bottlenecks; arguments as there."""


LAYERS: dict[str, type[nn.Module]] = {
    f"{PREFIX}{layer.__name__}": layer
    for layer in (
        Chuncat,
        Foldcut,
        GhostStem,
        GhostSPPCSPC,
        ResCSPA,
        ResXCSPA,
        GhostCSPA,
        GhostCSPB,
        GhostCSPC,
        RepResCSPA,
        RepResCSPB,
        RepResCSPC,
        RepResXCSPA,
        RepResXCSPB,
        RepResXCSPC,
    )
}
"""By the names of translated rows."""
