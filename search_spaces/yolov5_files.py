"""Rows of the YOLOv5 repository, and what is built in their place.

The layers that Ultralytics does not have are those of `search_spaces/yolov5.py`.
"""

import re
from collections.abc import Mapping
from typing import Any

from search_spaces import yolov5, yolov7_files
from search_spaces.foreign_module import (
    ANCHORED,
    AS_PRINTED,
    ForeignModule,
    anchors_of_a_map,
    channels_of,
    classes_of,
    is_for_yolov5,
    is_foreign,
    is_row,
    is_without_input,
    layers_of,
    same_arguments,
)
from search_spaces.printed import YOLOV5_KERNELS
from search_spaces.rows import Row

_OLD_OUTPUT = re.compile(r"na\s*\*\s*\(\s*nc\s*\+\s*5\s*\)")
"""Channels of a convolution that belongs to the head, in files of the YOLOv5 repository's first two releases."""


def _bottleneck(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[channels, shortcut, groups, expansion]`; Ultralytics' has the kernels before the expansion."""
    shortcut, groups, expansion = _block_arguments(row)
    return [row[0], row[1], "Bottleneck", [channels_of(row), shortcut, groups, list(YOLOV5_KERNELS), expansion]]


def _bottleneck_csp_printed(row: Row, _document: Mapping[str, Any]) -> Row:
    shortcut, groups, _ = _block_arguments(row)
    parameters = {"shortcut": shortcut, "groups": groups}
    return [row[0], row[1], "BottleneckCSP_PrintedBottleneck", [channels_of(row), *row[3][1:], parameters]]


def _block_arguments(row: Row) -> tuple[bool, int, float]:
    """Return shortcut, groups and expansion of a YOLOv5 block.

    Raises:
        ValueError: one has another type, or there are more arguments.
    """
    given, defaults = row[3][1:], [True, 1, 0.5]
    shortcut, groups, expansion = given + defaults[len(given) :]
    shortcut = {"True": True, "False": False}.get(shortcut, shortcut) if isinstance(shortcut, str) else shortcut
    if not isinstance(shortcut, bool | int) or type(groups) is not int or type(expansion) not in {int, float}:
        raise ValueError("[channels, shortcut, groups, expansion] is expected")
    return bool(shortcut), groups, expansion


def _is_old_output(row: Row, document: Mapping[str, Any]) -> bool:
    return is_foreign(row, document) and bool(row[3]) and bool(_OLD_OUTPUT.fullmatch(str(row[3][0])))


def _conv2d(row: Row, document: Mapping[str, Any]) -> Row:
    if _is_old_output(row, document):
        return [row[0], row[1], "nn.Identity", []]
    return [row[0], row[1], yolov7_files.BARE, row[3]]


def _detect(row: Row, document: Mapping[str, Any]) -> Row:
    """Convert `[classes, anchors]`; without sources, the head of the first release, which finds its convolutions."""
    every = [one for section in ("backbone", "head") for one in document[section]]
    outputs = [
        i for i, one in enumerate(every) if is_row(one) and one[2] == "nn.Conv2d" and _is_old_output(one, document)
    ]
    return [row[0] or outputs, row[1], "Detect", [classes_of(row, form=ANCHORED)]]


def _anchor_detect(row: Row, document: Mapping[str, Any]) -> Row:
    source, repeats, _, classes = _detect(row, document)
    return [source, repeats, "AnchorDetect", [*classes, anchors_of_a_map(document)]]


MODULES: dict[str, ForeignModule] = {
    "Bottleneck": ForeignModule(
        applies=is_for_yolov5,
        row=_bottleneck,
        note="the YOLOv5 repository's is a 1x1 and a 3x3 convolution, Ultralytics' two of 3x3. Built: the former",
    ),
    "BottleneckCSP": ForeignModule(
        applies=is_for_yolov5,
        row=same_arguments("BottleneckCSP"),
        printed_row=_bottleneck_csp_printed,
        note="the blocks inside the YOLOv5 repository's are a 1x1 and a 3x3 convolution, in Ultralytics' two of 3x3. "
        "Built: Ultralytics', which is larger and is what is trained; --as-printed counts the other",
        printed_note=AS_PRINTED + "the YOLOv5 repository's inner blocks, a 1x1 and a 3x3 convolution; training uses "
        "Ultralytics' block",
    ),
    "Detect": ForeignModule(
        applies=lambda row, document: is_foreign(row, document) and len(row[3]) > 1,
        row=_detect,
        printed_row=_anchor_detect,
        note="the YOLOv5 repository's head predicts from anchors. Built: Ultralytics' head, which needs none, is "
        "larger and is what is trained; --as-printed counts the other",
        printed_note=AS_PRINTED + "the YOLOv5 repository's head with anchors; training uses Ultralytics' head",
    ),
    "nn.Conv2d": ForeignModule(
        applies=lambda row, document: _is_old_output(row, document) or is_without_input(row),
        row=_conv2d,
        note="the last convolution of a head in the first YOLOv5 releases is part of the head that is built; any other "
        "row gives the channels behind it, as in YOLOv7 and forks: those before it are found",
    ),
    **layers_of(yolov5.PREFIX, yolov5.LAYERS),
}
"""By the names in rows."""
