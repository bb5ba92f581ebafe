"""Rows of models for other tasks than boxes, and what is built or counted in their place.

Heads that nothing of Ultralytics is like are those of `search_spaces/other_heads.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ultralytics.utils.ops import make_divisible

from search_spaces import layers, model_file
from search_spaces.foreign_module import (
    ANCHORED,
    AS_PRINTED,
    Convert,
    ForeignModule,
    anchors_of_a_map,
    classes_of,
    is_foreign,
    is_without_mapping,
    width_of,
)
from search_spaces.rows import Row

_OF_MASKS = [32, 256]
"""Prototypes of masks, and channels of the layers that make them, if a row does not say."""


def _segment(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[classes, anchors, masks, prototypes]`, or the same without anchors."""
    classes, *others = row[3]
    if others and (others[0] == "anchors" or isinstance(others[0], list)):
        del others[0]
    if not all(type(one) is int for one in others):
        raise ValueError("[nc, anchors, masks, prototypes] is expected")
    return [row[0], row[1], "Segment", [classes, *others]]


def _segment_printed(implicit: str) -> Convert:
    """Return the conversion of a head for masks to one that is only counted; `implicit` is the repository's."""

    def convert(row: Row, document: Mapping[str, Any]) -> Row:
        source, repeats, _, (classes, *given) = _segment(row, document)
        masks, hidden = list(given) + _OF_MASKS[len(given) :]
        if len(row[3]) == 1 + len(given):  # no anchors
            return [source, repeats, "yolov9.Segment", [classes, masks, hidden]]
        hidden = make_divisible(hidden * width_of(document), 8)
        return [source, repeats, implicit, [classes, anchors_of_a_map(document), masks, hidden]]

    return convert


def _numbered(module: str, defaults: Sequence[int], *, form: str) -> Convert:
    """Return the conversion of a head of the YOLOv9 repository whose arguments are numbers."""

    def convert(row: Row, _document: Mapping[str, Any]) -> Row:
        classes, *given = row[3]
        if len(given) > len(defaults) or not all(type(one) is int for one in given):
            raise ValueError(f"{form} is expected")
        return [row[0], row[1], module, [classes, *given, *defaults[len(given) :]]]

    return convert


def _anchored(module: str) -> Convert:
    """Return the conversion of a head of the YOLOv7 repository that predicts from anchors."""

    def convert(row: Row, document: Mapping[str, Any]) -> Row:
        return [row[0], row[1], module, [classes_of(row, form=ANCHORED), anchors_of_a_map(document)]]

    return convert


def _key_points(row: Row, document: Mapping[str, Any]) -> Row:
    """Convert `[classes, anchors, key points]`; the file's `dw_conv_kpt` asks for a stack of convolutions."""
    classes, _, points = row[3]
    if type(points) is not int or points < 1:
        raise ValueError("[nc, anchors, nkpt] is expected")
    given = [classes, anchors_of_a_map(document), points, int(bool(document.get("dw_conv_kpt")))]
    return [row[0], row[1], "yolov7.IKeypoint", given]


def _is_of_classifier(_row: Row, document: Mapping[str, Any]) -> bool:
    head = model_file.head(document)
    return head is not None and head[2] == "Classify"


def _without_weights(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[channels, model, weights, ...]` of torchvision to the same without weights."""
    return [*row[:3], [*row[3][:2], None, *row[3][3:]]]


_COUNTED: dict[str, Convert] = {
    "IBin": _anchored("yolov7.IBin"),
    "IKeypoint": _key_points,
    "DSegment": _numbered("yolov9.DSegment", _OF_MASKS, form="[nc, masks, prototypes]"),
    "DualDSegment": _numbered("yolov9.DualDSegment", _OF_MASKS, form="[nc, masks, prototypes]"),
    "Panoptic": _numbered("yolov9.Panoptic", [93, *_OF_MASKS], form="[nc, stuff, masks, prototypes]"),
}
"""Conversions of heads of the YOLOv7 and YOLOv9 repositories that nothing of Ultralytics is like."""

MODULES: dict[str, ForeignModule] = {
    **{
        name: ForeignModule(
            applies=is_foreign,
            row=_segment,
            printed_row=_segment_printed(printed),
            note="the head of the YOLOv5 or YOLOv7 repository predicts from anchors, and YOLOv9's enlarges prototypes "
            "without weights. Built: Ultralytics' head, which does neither; --as-printed counts the other",
            printed_note=AS_PRINTED + "the head of its own repository, whose prototypes are enlarged without weights",
        )
        for name, printed in (("Segment", "yolov5.Segment"), ("ISegment", "yolov7.ISegment"))
    },
    **{
        name: ForeignModule(
            applies=is_without_mapping,
            row=convert,
            note="a head of the YOLOv7 or YOLOv9 repository for another task than boxes: it is counted as it is there",
        )
        for name, convert in _COUNTED.items()
    },
    layers.DOWNLOADING: ForeignModule(
        applies=_is_of_classifier,
        row=_without_weights,
        note="its weights, which a model file may not ask to download, are left out",
    ),
}
"""By the names in rows."""
