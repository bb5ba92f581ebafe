"""Heads of the YOLOv5, YOLOv7 and YOLOv9 repositories for other tasks than boxes, only to count their cost.

Structure and number of parameters are those of the repositories (AGPL-3.0, GPL-3.0). No space offers these heads; they
are never trained or exported. As in `search_spaces/printed.py` they return raw predictions, and `reg_max` and `ch` are
the bins of the distribution over the distance to a box's side and the channels of the maps.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.printed import AnchorDetect, DDetect, ImplicitDetect

_BINS = 21
"""Bins of a width, and of a height, in YOLOv7's head of bins."""

_KEY_POINT_BLOCKS = 5
"""Depthwise and pointwise convolutions before the last two layers of YOLOv7's branch of key points."""


def _prototypes(channels: int, hidden: int, masks: int) -> nn.Sequential:
    """Return the layers that make prototypes of masks; Ultralytics' enlarge them by a convolution."""
    return nn.Sequential(
        Conv(channels, hidden, 3), nn.Upsample(scale_factor=2), Conv(hidden, hidden, 3), Conv(hidden, masks)
    )


class AnchorSegment(nn.Module):
    """Head of the YOLOv5 repository for masks: for each anchor also coefficients of prototypes.

    Args:
        nc: number of classes.
        anchors: number of anchors on each map.
        masks: number of prototypes.
        hidden: channels of the layers that make them.
    """

    boxes: type[AnchorDetect] = AnchorDetect

    def __init__(self, nc: int, anchors: int, masks: int, hidden: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__()
        self.nl = len(ch)
        self.predicted = self.boxes(nc + masks, anchors, reg_max=reg_max, ch=ch)
        self.prototypes = _prototypes(ch[0], hidden, masks)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map, and the prototypes."""
        return [*self.predicted(x), self.prototypes(x[0])]


class ImplicitSegment(AnchorSegment):
    """Head of the YOLOv7 repository for masks: YOLOv5's with learned values; arguments as there."""

    boxes = ImplicitDetect


class BinDetect(ImplicitDetect):
    """Head of the YOLOv7 repository that finds widths and heights as bins; arguments as for `AnchorDetect`."""

    def __init__(self, nc: int, anchors: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__(nc + 2 * _BINS, anchors, reg_max=reg_max, ch=ch)


class KeyPointDetect(ImplicitDetect):
    """Head of the YOLOv7 repository for key points: for each anchor also three numbers of each point.

    Args:
        nc: number of classes.
        anchors: number of anchors on each map.
        points: number of key points.
        deep: 1 where a stack of convolutions finds them, and 0 where one does.
    """

    def __init__(self, nc: int, anchors: int, points: int, deep: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__(nc, anchors, reg_max=reg_max, ch=ch)
        self.points = nn.ModuleList(_point_layers(c, 3 * points * anchors, deep=bool(deep)) for c in ch)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map."""
        points = [layer(one) for layer, one in zip(self.points, x, strict=True)]
        return [torch.cat(both, 1) for both in zip(super().forward(x), points, strict=True)]


def _point_layers(channels: int, predicted: int, *, deep: bool) -> nn.Module:
    last = nn.Conv2d(channels, predicted, 1)
    if not deep:
        return last
    blocks = [
        layer
        for _ in range(_KEY_POINT_BLOCKS)
        for layer in (Conv(channels, channels, 3, g=channels), Conv(channels, channels))
    ]
    return nn.Sequential(*blocks, Conv(channels, channels, 3, g=channels), last)


class _Masked(nn.Module):
    """Boxes and coefficients of masks, as the YOLOv9 repository's heads predict them."""

    def __init__(
        self, nc: int, groups: int, masks: int, prototypes: nn.Module, *, reg_max: int, ch: Sequence[int]
    ) -> None:
        super().__init__()
        hidden = max(ch[0] // 4, masks)
        self.boxes = DDetect(nc, groups, reg_max=reg_max, ch=ch)
        self.coefficients = nn.ModuleList(
            nn.Sequential(Conv(c, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, masks, 1)) for c in ch
        )
        self.prototypes = prototypes

    def forward(self, x: list[Tensor], before: Tensor) -> list[Tensor]:
        """Return the raw predictions of each map, coefficients, and the prototypes that are made of another map."""
        found = [layer(one) for layer, one in zip(self.coefficients, x, strict=True)]
        return [*self.boxes(x), *found, self.prototypes(before)]


class MaskSegment(nn.Module):
    """Head of the YOLOv9 repository for masks, `Segment`.

    Args:
        nc: number of classes.
        masks: number of prototypes.
        hidden: channels of the layers that make them.
    """

    def __init__(self, nc: int, masks: int, hidden: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__()
        self.nl = len(ch)
        self.masked = _Masked(nc, 1, masks, _prototypes(ch[0], hidden, masks), reg_max=reg_max, ch=ch)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map, coefficients and prototypes."""
        return self.masked(x, x[0])


class Panoptic(MaskSegment):
    """Head of the YOLOv9 repository for things and stuff.

    Args:
        nc: number of classes.
        stuff: number of classes that have no instances.
        masks: number of prototypes.
        hidden: channels of the layers that make them.
    """

    def __init__(self, nc: int, stuff: int, masks: int, hidden: int, *, reg_max: int, ch: Sequence[int]) -> None:
        super().__init__(nc, masks, hidden, reg_max=reg_max, ch=ch)
        narrow = ch[0] // 4
        self.semantic = nn.Sequential(
            Conv(ch[0], narrow, 3), nn.Conv2d(narrow, stuff + nc, 1), nn.UpsamplingBilinear2d(scale_factor=2)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return what `MaskSegment` does, and the classes of every pixel."""
        return [*super().forward(x), self.semantic(x[0])]


class DSegment(nn.Module):
    """Heads of the YOLOv9 repository for masks whose prototypes are made of maps of their own, the last ones.

    Args:
        nc: number of classes.
        masks: number of prototypes.
        hidden: unused; rows of the repository give it.
    """

    parts = 1

    def __init__(self, nc: int, masks: int, hidden: int, *, reg_max: int, ch: Sequence[int]) -> None:  # noqa: ARG002 - as every head
        super().__init__()
        self.nl = len(ch) // self.parts - 1
        self.heads = nn.ModuleList(
            _Masked(
                nc,
                4,
                masks,
                Conv(ch[part - self.parts], masks),
                reg_max=reg_max,
                ch=ch[part * self.nl : (part + 1) * self.nl],
            )
            for part in range(self.parts)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the raw predictions of each map, coefficients and prototypes of each part."""
        return [
            one
            for part, head in enumerate(self.heads)
            for one in head(x[part * self.nl : (part + 1) * self.nl], x[part - self.parts])
        ]


class DualDSegment(DSegment):
    """`DSegment` with an auxiliary half for training, which is the first; arguments as there."""

    parts = 2


HEADS: dict[str, Callable[..., nn.Module]] = {
    "yolov5.Segment": AnchorSegment,
    "yolov7.ISegment": ImplicitSegment,
    "yolov7.IBin": BinDetect,
    "yolov7.IKeypoint": KeyPointDetect,
    "yolov9.Segment": MaskSegment,
    "yolov9.DSegment": DSegment,
    "yolov9.DualDSegment": DualDSegment,
    "yolov9.Panoptic": Panoptic,
}
"""By the names of translated rows."""
