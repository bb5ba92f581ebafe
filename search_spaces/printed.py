"""Modules as articles and other repositories print them, only to count their cost and compare it with their tables.

Structure and number of parameters are those of the printed code; its mistakes are described in
`search_spaces/fork_rows.py`. No space offers these modules; they are never trained or exported.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import DFL, Bottleneck, BottleneckCSP, Conv
from ultralytics.utils.ops import make_divisible

from search_spaces.hosts import Host
from search_spaces.operators import Operator, Parameter, Site, SiteKind
from search_spaces.operators.mmqa import MMQA, MMQA_RECORD
from search_spaces.operators.uib import UIB, UIB_RECORD


class PrintedDynamicConv(nn.Module):
    """Dynamic convolution as an article prints it: a bias for each kernel, no batch norm, no activation.

    `(batch, c_in, h, w) -> (batch, c_out, h / stride, w / stride)`. Source: kaijieshi7/Dynamic-convolution-Pytorch,
    copied with changes: the second of the two layers that compute the shares has no bias, and the hidden layer has no
    additional unit.

    Args:
        ratio: hidden units per input channel.
    """

    def __init__(self, c_in: int, c_out: int, *, kernel: int, stride: int, kernels: int, ratio: float) -> None:
        super().__init__()
        self.kernels, self.stride = kernels, stride
        hidden = int(c_in * ratio)
        self.squeeze = nn.Conv2d(c_in, hidden, 1, bias=False)
        self.mix = nn.Conv2d(hidden, kernels, 1, bias=False)
        self.weight = nn.Parameter(torch.empty(kernels * c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(kernels, c_out))
        nn.init.kaiming_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each image with its mixed kernel."""
        shares = self.mix(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).flatten(1).softmax(1)
        kernels = (shares @ self.weight.flatten(1).reshape(self.kernels, -1)).reshape(-1, *self.weight.shape[1:])
        y = F.conv2d(
            x.reshape(1, -1, *x.shape[2:]),
            kernels,
            bias=(shares @ self.bias).flatten(),
            stride=self.stride,
            padding=self.weight.shape[-1] // 2,
            groups=len(x),
        )
        return y.reshape(len(x), -1, *y.shape[2:])


def _mixing_macs(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Count, for each image, the convolution with the mixed kernel and the mixing; child modules compute the shares."""
    assert isinstance(module, PrintedDynamicConv)  # noqa: S101 - narrows the type; the counter asks by this class
    kernel_size = module.weight.numel() // module.kernels
    return x.shape[0] * kernel_size * (y.shape[-2] * y.shape[-1] + module.kernels)


class AnchorDetect(nn.Module):
    """Head of the YOLOv5 repository: for each anchor the four numbers of a box, an objectness and the classes.

    Args:
        nc: number of classes.
        anchors: number of anchors on each map.
        reg_max: unused; Ultralytics' head, which it replaces, has it.
        ch: channels of the maps.
    """

    def __init__(self, nc: int, anchors: int, *, reg_max: int, ch: Sequence[int]) -> None:  # noqa: ARG002 - as every head
        super().__init__()
        self.nl = len(ch)
        self.m = nn.ModuleList(nn.Conv2d(c, anchors * (nc + 5), 1) for c in ch)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map."""
        return [layer(one) for layer, one in zip(self.m, x, strict=True)]


class DDetect(nn.Module):
    """Head of the YOLOv9 repository: Ultralytics' head with grouped convolutions (4 groups) in the box branch.

    Args:
        nc: number of classes.
        groups: of the box branch; 1 for the repository's `Detect`.
        reg_max: bins of the distribution over the distance to a box's side.
        ch: channels of the maps.
    """

    def __init__(self, nc: int, groups: int = 4, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__()
        self.nl = len(ch)
        c2, c3 = make_divisible(max(ch[0] // 4, 4 * reg_max, 16), 4), max(ch[0], min(2 * nc, 128))
        self.cv2 = nn.ModuleList(
            nn.Sequential(Conv(c, c2, 3), Conv(c2, c2, 3, g=groups), nn.Conv2d(c2, 4 * reg_max, 1, groups=groups))
            for c in ch
        )
        self.cv3 = nn.ModuleList(nn.Sequential(Conv(c, c3, 3), Conv(c3, c3, 3), nn.Conv2d(c3, nc, 1)) for c in ch)
        self.dfl = DFL(reg_max)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map."""
        return [torch.cat((self.cv2[i](one), self.cv3[i](one)), 1) for i, one in enumerate(x)]


class DualDDetect(nn.Module):
    """Head of the YOLOv9 repository with two halves, the auxiliary one first; arguments as for `DDetect`."""

    def __init__(self, nc: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__()
        self.nl = len(ch) // 2
        self.auxiliary, self.main = (DDetect(nc, reg_max=reg_max, ch=half) for half in (ch[: self.nl], ch[self.nl :]))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map."""
        return self.auxiliary(x[: self.nl]) + self.main(x[self.nl :])


class TripleDDetect(nn.Module):
    """Head of the YOLOv9 repository with three parts, the main one last; arguments as for `DDetect`.

    With one group it is the repository's `TripleDetect`.
    """

    def __init__(self, nc: int, groups: int = 4, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__()
        self.nl = len(ch) // 3
        thirds = (ch[first : first + self.nl] for first in range(0, len(ch), self.nl))
        self.parts = nn.ModuleList(DDetect(nc, reg_max=reg_max, ch=third, groups=groups) for third in thirds)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map."""
        return [one for i, part in enumerate(self.parts) for one in part(x[i * self.nl : (i + 1) * self.nl])]


class ImplicitDetect(AnchorDetect):
    """Head of the YOLOv7 repository: that of YOLOv5 with values that are added before and multiplied behind it.

    Arguments as for `AnchorDetect`.
    """

    def __init__(self, nc: int, anchors: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__(nc, anchors, reg_max=reg_max, ch=ch)
        self.added = nn.ParameterList(nn.Parameter(0.02 * torch.randn(1, c, 1, 1)) for c in ch)
        self.factors = nn.ParameterList(1 + 0.02 * torch.randn(1, anchors * (nc + 5), 1, 1) for _ in ch)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map."""
        plain = super().forward([one + added for one, added in zip(x, self.added, strict=True)])
        return [one * factor for one, factor in zip(plain, self.factors, strict=True)]


class ImplicitDualDetect(nn.Module):
    """Head of the YOLOv7 repository with two halves; the auxiliary one has no learned values.

    The auxiliary half is the first, as in every dual head of this package; in the repository it is the second.
    Arguments as for `AnchorDetect`.
    """

    def __init__(self, nc: int, anchors: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__()
        self.nl = len(ch) // 2
        self.auxiliary = AnchorDetect(nc, anchors, reg_max=reg_max, ch=ch[: self.nl])
        self.main = ImplicitDetect(nc, anchors, reg_max=reg_max, ch=ch[self.nl :])

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map."""
        return self.auxiliary(x[: self.nl]) + self.main(x[self.nl :])


HEADS: dict[str, type[nn.Module]] = {
    head.__name__: head
    for head in (AnchorDetect, DDetect, DualDDetect, TripleDDetect, ImplicitDetect, ImplicitDualDetect)
}


def _mmqa(site: Site, **parameters: Any) -> MMQA:
    return MMQA(site.c_in, site.c_out, heads=parameters["heads"], key_dim=parameters["key_dim"])


def _uib(site: Site, **parameters: Any) -> UIB:
    shape = {name: parameters[name] for name in ("start_kernel", "mid_kernel", "expansion")}
    return UIB(site.c_in, site.c_out, stride=site.stride, residual=False, activation=nn.ReLU6(), **shape)


def _dynamic_conv(site: Site, **parameters: Any) -> PrintedDynamicConv:
    return PrintedDynamicConv(site.c_in, site.c_out, kernel=site.kernel, stride=site.stride, **parameters)


YOLOV5_KERNELS = (1, 3)
"""Kernel sizes of the YOLOv5 repository's `Bottleneck`; Ultralytics' has 3 and 3."""


def _yolov5_bottleneck(site: Site, *, shortcut: bool, groups: int) -> Bottleneck:
    block = Bottleneck(site.c_in, site.c_out, shortcut, groups, k=YOLOV5_KERNELS, e=1.0)
    for layer in (block.cv1, block.cv2):
        layer.act = site.activation
    return block


_printed = partial(Operator, reference="as an article prints it")

_RECORDS = (
    _printed(name="PrintedMMQA", module=MMQA, parameters=MMQA_RECORD.parameters, kinds=(SiteKind.CONV,), build=_mmqa),
    _printed(name="PrintedUIB", module=UIB, parameters=UIB_RECORD.parameters, kinds=(SiteKind.BLOCK,), build=_uib),
    _printed(
        name="PrintedDynamicConv",
        module=PrintedDynamicConv,
        parameters=(
            Parameter(name="kernels", default=4, allowed=(1, 2, 4, 8)),
            Parameter(name="ratio", default=0.25, allowed=(0.0625, 0.125, 0.25, 0.5, 1.0)),
        ),
        kinds=(SiteKind.LAYER,),
        build=_dynamic_conv,
        extra_macs=_mixing_macs,
    ),
    Operator(
        name="PrintedBottleneck",
        module=Bottleneck,
        parameters=(
            Parameter(name="shortcut", default=True, allowed=(True, False)),
            Parameter(name="groups", default=1, allowed=(1, 2, 4, 8, 16, 32)),
        ),
        kinds=(SiteKind.BLOCK,),
        build=_yolov5_bottleneck,
        reference="the YOLOv5 repository",
    ),
)

PRINTED: dict[str, Operator] = {record.name: record for record in _RECORDS}
"""By name; rows name them like operators (`C3_PrintedUIB`), spaces cannot."""

PRINTED_HOSTS: dict[str, Host] = {
    "BottleneckCSP": Host(name="BottleneckCSP", module=BottleneckCSP, inner=(SiteKind.BLOCK,)),
}
"""Hosts for `PRINTED` that are no hosts in a space."""
