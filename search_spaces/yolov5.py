"""Layers of the YOLOv5 repository that Ultralytics does not have, for its model files.

Structure and number of parameters are those of ultralytics/yolov5 7.0 (AGPL-3.0). A translated row names them
`yolov5.Contract` (`search_spaces/yolov5_files.py`). They are layers of a base model; no space offers them.
Constructors take what their rows give. Every map has the form `(batch, channels, height, width)`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C3, SPP, Conv

PREFIX = "yolov5."
"""Beginning of the name of such a layer in a row."""


class Contract(nn.Module):
    """Move squares of pixels into channels: `(n, c, h, w) -> (n, c * gain**2, h / gain, w / gain)`.

    Args:
        gain: side of a square in pixels.
    """

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of every `gain`-th pixel, one behind the other: columns change faster than rows."""
        steps = range(self.gain)
        return torch.cat([x[..., row :: self.gain, column :: self.gain] for row in steps for column in steps], dim=1)


class Expand(nn.Module):
    """Move channels into squares of pixels, the inverse of `Contract`; arguments as there."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c, h, w)` to `(n, c / gain**2, h * gain, w * gain)`."""
        batch, channels, height, width = x.shape
        squares = x.reshape(batch, self.gain, self.gain, channels // self.gain**2, height, width)
        return squares.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * self.gain, width * self.gain)


class CrossConv(nn.Module):
    """A convolution along a row, then one along a column.

    Args:
        c_in: input channels.
        c_out: output channels.
        k: length of both.
        s: stride.
        g: groups of the second.
        e: hidden channels for each output channel.
        shortcut: whether the input is added, where channels are the same.
    """

    def __init__(
        self, c_in: int, c_out: int, k: int = 3, s: int = 1, g: int = 1, e: float = 1.0, shortcut: bool = False
    ) -> None:
        super().__init__()
        hidden = int(c_out * e)
        self.layers = nn.Sequential(Conv(c_in, hidden, (1, k), (1, s)), Conv(hidden, c_out, (k, 1), (s, 1), g=g))
        self.shortcut = shortcut and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h / s, w / s)`."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class C3SPP(C3):
    """C3 with a spatial pyramid in the place of its bottlenecks.

    Args:
        c_in: input channels.
        c_out: output channels.
        k: kernels of the pyramid's maxima.
        n: ignored; rows of the repository give it.
        shortcut: ignored.
        g: ignored.
        e: hidden channels for each output channel.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        k: Sequence[int] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
    ) -> None:
        super().__init__(c_in, c_out, 0, e=e)
        hidden = int(c_out * e)
        self.m = SPP(hidden, hidden, tuple(k))


class MixConv2d(nn.Module):
    """Convolutions of several sizes side by side, each in as many groups as its channels allow.

    Args:
        c_in: input channels.
        c_out: output channels, shared equally.
        k: kernel sizes.
        s: stride.
    """

    def __init__(self, c_in: int, c_out: int, k: Sequence[int] = (1, 3), s: int = 1) -> None:
        super().__init__()
        shares = [c_out // len(k) + (one < c_out % len(k)) for one in range(len(k))]
        self.layers = nn.ModuleList(
            nn.Conv2d(c_in, share, one, s, one // 2, groups=math.gcd(c_in, share), bias=False)
            for one, share in zip(k, shares, strict=True)
        )
        self.norm = nn.Sequential(nn.BatchNorm2d(c_out), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c_in, h, w)` to `(n, c_out, h / s, w / s)`."""
        return self.norm(torch.cat([layer(x) for layer in self.layers], dim=1))


class Sum(nn.Module):
    """Add maps, those behind the first with learned weights if asked for.

    Args:
        n: number of maps.
        weight: whether they have weights, of 0 to 2.
    """

    def __init__(self, n: int, weight: bool = False) -> None:
        super().__init__()
        self.w = nn.Parameter(-torch.arange(1.0, n) / 2) if weight else None

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return the sum of the maps."""
        if self.w is None:
            return torch.stack(list(x)).sum(0)
        weights = 2 * self.w.sigmoid()
        return x[0] + sum(weight * one for weight, one in zip(weights, x[1:], strict=True))


LAYERS: dict[str, type[nn.Module]] = {
    f"{PREFIX}{layer.__name__}": layer for layer in (Contract, Expand, CrossConv, C3SPP, MixConv2d, Sum)
}
"""By the names of translated rows."""
