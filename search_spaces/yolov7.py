"""Layers of the YOLOv7, YOLOR and Scaled-YOLOv4 repositories that Ultralytics does not have, for their model files.

Structure and number of parameters are those of WongKinYiu/yolov7 and WongKinYiu/ScaledYOLOv4 (GPL-3.0). A translated
row names them `yolov7.DownC` (`search_spaces/yolov7_files.py`). They are layers of a base model; no space offers them.
Constructors take what their rows give: channels before and behind, repeats, shortcut, groups, expansion.
Every map has the form `(batch, channels, height, width)`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Bottleneck, Conv, RepConv

PREFIX = "yolov7."
"""Beginning of the name of such a layer in a row."""

_KERNELS = (1, 3)
"""Kernel sizes of the repository's `Bottleneck`; Ultralytics' has 3 and 3."""


class ActivatedConv(Conv):
    """Convolution with an activation of its own, where those beside it have another.

    Args:
        c_in: input channels.
        c_out: output channels.
        k: kernel size.
        s: stride.
        p: padding; None keeps the size.
        g: groups.
        act: class of `torch.nn.modules.activation`.
        given: arguments of it.
    """

    def __init__(
        self, c_in: int, c_out: int, k: int, s: int, p: int | None, g: int, act: str, given: Sequence[float] = ()
    ) -> None:
        if act not in nn.modules.activation.__all__:
            raise ValueError(f"unknown activation {act!r}")
        super().__init__(c_in, c_out, k, s, p, g, act=getattr(nn, act)(*given))


class BareConv(nn.Conv2d):
    """Convolution without norm and activation; its row gives the channels behind it, and not those before it.

    Args:
        c_in: input channels.
        c_out: output channels.
        k: kernel size.
        s: stride.
        p: padding.
        d: dilation.
        g: groups.
        bias: whether it has one.
    """

    def __init__(
        self, c_in: int, c_out: int, k: int, s: int = 1, p: int = 0, d: int = 1, g: int = 1, bias: bool = True
    ) -> None:
        super().__init__(c_in, c_out, k, s, p, d, g, bias)


class FoldedConv(RepConv):
    """Ultralytics' `RepConv`, in a row that gives the channels behind it and not those before; arguments as there."""


class ReOrg(nn.Module):
    """Move each 2x2 square of pixels into channels: `(n, c, h, w) -> (n, 4 * c, h / 2, w / 2)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the four maps of every second pixel, one behind the other: rows change faster than columns."""
        return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=1)


class DownC(nn.Module):
    """Halve the map on two ways, a strided convolution and a maximum, which make half of the channels each.

    Args:
        c_in: input channels.
        c_out: output channels.
        n: ignored; rows of the repository give it.
        k: stride.
    """

    def __init__(self, c_in: int, c_out: int, n: int = 1, k: int = 2) -> None:
        super().__init__()
        self.convolved = nn.Sequential(Conv(c_in, c_in, 1), Conv(c_in, c_out // 2, 3, k))
        self.pooled = nn.Sequential(nn.MaxPool2d(k, k), Conv(c_in, c_out // 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h / k, w / k)`."""
        return torch.cat((self.convolved(x), self.pooled(x)), dim=1)


class DownD(nn.Module):
    """Halve the map on two ways, a strided bottleneck and an average, and add them; arguments as for `DownC`."""

    def __init__(self, c_in: int, c_out: int, n: int = 1, k: int = 2) -> None:
        super().__init__()
        self.convolved = nn.Sequential(Conv(c_in, c_in, 1), Conv(c_in, c_in, 3, k), Conv(c_in, c_out, 1))
        self.pooled = nn.Sequential(nn.AvgPool2d(k, k), Conv(c_in, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h / k, w / k)`."""
        return self.convolved(x) + self.pooled(x)


class Stem(nn.Module):
    """Quarter the image: a strided convolution, then a strided one beside a maximum.

    Args:
        c_in: input channels.
        c_out: output channels.
    """

    convolution: Callable[..., nn.Module] = Conv

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        conv, hidden = self.convolution, c_out // 2
        self.enter = conv(c_in, hidden, 3, 2)
        self.convolved = nn.Sequential(conv(hidden, hidden, 1), conv(hidden, hidden, 3, 2))
        self.pool = nn.MaxPool2d(2, 2)
        self.leave = conv(2 * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h / 4, w / 4)`."""
        x = self.enter(x)
        return self.leave(torch.cat((self.convolved(x), self.pool(x)), dim=1))


class Shortcut(nn.Module):
    """Add two maps.

    Args:
        dimension: ignored; rows of the repository give it.
    """

    def __init__(self, dimension: int = 0) -> None:
        super().__init__()

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return the sum of the first two maps."""
        return x[0] + x[1]


class Res(nn.Module):
    """Bottleneck of ResNet: 1x1, 3x3 and 1x1 convolutions, to which the input is added.

    Args:
        channels: in and out.
        shortcut: whether the input is added.
        g: groups of the 3x3 convolution.
        e: hidden channels for each channel.
    """

    def __init__(self, channels: int, *, shortcut: bool, g: int, e: float) -> None:
        super().__init__()
        hidden = int(channels * e)
        self.layers = nn.Sequential(Conv(channels, hidden, 1), Conv(hidden, hidden, 3, g=g), Conv(hidden, channels, 1))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, channels, h, w)` to the same shape."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


def _bottleneck(channels: int, *, shortcut: bool, g: int) -> Bottleneck:
    return Bottleneck(channels, channels, shortcut, g, k=_KERNELS, e=1.0)


class PartialBlock(nn.Module):
    """Cross-stage partial block: what it repeats, and the defaults of its rows, differ between its subclasses."""

    inner: Callable[..., nn.Module] = staticmethod(_bottleneck)
    shortcut, groups = False, 1

    def repeated(self, channels: int, n: int, shortcut: bool | None, g: int | None) -> nn.Sequential:
        """Return `n` inner blocks."""
        given = {
            "shortcut": self.shortcut if shortcut is None else shortcut,
            "g": self.groups if g is None else g,
        }
        return nn.Sequential(*(self.inner(channels, **given) for _ in range(n)))


class BottleneckCSPB(PartialBlock):
    """Cross-stage partial block whose ways divide behind its first convolution; without hidden channels.

    Args:
        c_in: input channels.
        c_out: output channels.
        n: bottlenecks.
        shortcut: whether bottlenecks add their input; None for what the block's kind does.
        g: groups of their 3x3 convolutions; None for those of the block's kind.
        e: ignored; the block has `c_out` channels inside.
    """

    def __init__(
        self, c_in: int, c_out: int, n: int = 1, shortcut: bool | None = None, g: int | None = None, e: float = 0.5
    ) -> None:
        super().__init__()
        self.enter = Conv(c_in, c_out, 1)
        self.m = self.repeated(c_out, n, shortcut, g)
        self.beside = Conv(c_out, c_out, 1)
        self.leave = Conv(2 * c_out, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h, w)`."""
        x = self.enter(x)
        return self.leave(torch.cat((self.m(x), self.beside(x)), dim=1))


class BottleneckCSPC(PartialBlock):
    """Cross-stage partial block with a convolution behind its bottlenecks; arguments as for `BottleneckCSPB`.

    The hidden channels are `c_out * e`.
    """

    shortcut = True

    def __init__(
        self, c_in: int, c_out: int, n: int = 1, shortcut: bool | None = None, g: int | None = None, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c_out * e)
        self.enter = Conv(c_in, hidden, 1)
        self.m = self.repeated(hidden, n, shortcut, g)
        self.behind = Conv(hidden, hidden, 1)
        self.beside = Conv(c_in, hidden, 1)
        self.leave = Conv(2 * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h, w)`."""
        return self.leave(torch.cat((self.behind(self.m(self.enter(x))), self.beside(x)), dim=1))


class _OfResNet(PartialBlock):
    """With bottlenecks of ResNet, half as wide inside."""

    inner = staticmethod(partial(Res, e=0.5))
    shortcut = True


class _OfResNeXt(PartialBlock):
    """With bottlenecks of ResNeXt, in 32 groups."""

    inner = staticmethod(partial(Res, e=1.0))
    shortcut, groups = True, 32


class ResCSPB(_OfResNet, BottleneckCSPB):
    """`BottleneckCSPB` with bottlenecks of ResNet; arguments as there."""


class ResCSPC(_OfResNet, BottleneckCSPC):
    """`BottleneckCSPC` with bottlenecks of ResNet; arguments as there."""


class ResXCSPB(_OfResNeXt, BottleneckCSPB):
    """`BottleneckCSPB` with bottlenecks of ResNeXt; arguments as there."""


class ResXCSPC(_OfResNeXt, BottleneckCSPC):
    """`BottleneckCSPC` with bottlenecks of ResNeXt; arguments as there."""


class BottleneckCSP2(PartialBlock):
    """Scaled-YOLOv4's block: `BottleneckCSPB` whose way beside is bare, with one batch norm for both ways.

    Arguments as for `BottleneckCSPB`. The activation behind the batch norm is SiLU; the repository's is Mish.
    """

    def __init__(
        self, c_in: int, c_out: int, n: int = 1, shortcut: bool | None = None, g: int | None = None, e: float = 0.5
    ) -> None:
        super().__init__()
        self.enter = Conv(c_in, c_out, 1)
        self.m = self.repeated(c_out, n, shortcut, g)
        self.beside = nn.Conv2d(c_out, c_out, 1, bias=False)
        self.norm = nn.Sequential(nn.BatchNorm2d(2 * c_out), nn.SiLU())
        self.leave = Conv(2 * c_out, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h, w)`."""
        x = self.enter(x)
        return self.leave(self.norm(torch.cat((self.m(x), self.beside(x)), dim=1)))


class Pyramid(nn.Module):
    """Maxima of several sizes, and a way beside them, as in SPPCSPC; the convolutions differ between its subclasses.

    Args:
        c_in: input channels.
        c_out: output channels.
        n: ignored, as `shortcut` and `g` are; rows of the repository give them.
        shortcut: ignored.
        g: ignored.
        e: the hidden channels are `2 * c_out * e`.
        k: kernels of the maxima.
    """

    convolution: Callable[..., nn.Module] = Conv

    def __init__(
        self,
        c_in: int,
        c_out: int,
        n: int = 1,
        shortcut: bool = False,
        g: int = 1,
        e: float = 0.5,
        k: Sequence[int] = (5, 9, 13),
    ) -> None:
        super().__init__()
        conv, hidden = self.convolution, int(2 * c_out * e)
        self.enter = nn.Sequential(conv(c_in, hidden, 1), conv(hidden, hidden, 3), conv(hidden, hidden, 1))
        self.pools = nn.ModuleList(nn.MaxPool2d(one, 1, one // 2) for one in k)
        self.pooled = nn.Sequential(conv((len(k) + 1) * hidden, hidden, 1), conv(hidden, hidden, 3))
        self.beside = self.way_beside(c_in, hidden)
        self.norm = self.norm_of(2 * hidden)
        self.leave = conv(2 * hidden, c_out, 1)

    def way_beside(self, c_in: int, c_out: int) -> nn.Module:
        """Return the layer beside the maxima."""
        return self.convolution(c_in, c_out, 1)

    def norm_of(self, channels: int) -> nn.Module:
        """Return the layer behind both ways together; none here, since each has a norm of its own."""
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h, w)`."""
        entered = self.enter(x)
        pooled = self.pooled(torch.cat([entered, *(pool(entered) for pool in self.pools)], dim=1))
        return self.leave(self.norm(torch.cat((pooled, self.beside(x)), dim=1)))


class SPPCSP(Pyramid):
    """Scaled-YOLOv4's pyramid: the way beside is bare, and both ways have one batch norm; arguments as there.

    The activation behind the batch norm is SiLU; the repository's is Mish.
    """

    def way_beside(self, c_in: int, c_out: int) -> nn.Module:
        """Return a bare convolution."""
        return nn.Conv2d(c_in, c_out, 1, bias=False)

    def norm_of(self, channels: int) -> nn.Module:
        """Return a batch norm with an activation."""
        return nn.Sequential(nn.BatchNorm2d(channels), nn.SiLU())


LAYERS: dict[str, type[nn.Module]] = {
    f"{PREFIX}{layer.__name__}": layer
    for layer in (
        ActivatedConv,
        BareConv,
        FoldedConv,
        ReOrg,
        DownC,
        DownD,
        Stem,
        Shortcut,
        BottleneckCSPB,
        BottleneckCSPC,
        BottleneckCSP2,
        ResCSPB,
        ResCSPC,
        ResXCSPB,
        ResXCSPC,
        SPPCSP,
    )
}
"""By the names of translated rows."""
