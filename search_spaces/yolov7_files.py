"""Rows of the YOLOv7, YOLOR and Scaled-YOLOv4 repositories, and what is built in their place.

Maxima, blocks that other repositories have under other names, and heads become rows of Ultralytics or of this package;
the other layers are those of `search_spaces/yolov7.py`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces import layers, yolov7, yolov7_variants
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
    maps_of,
    same_arguments,
)
from search_spaces.rows import Row

_ACTIVATION = 5
"""Position of the activation in a `Conv` row of YOLOv7, behind channels, kernel, stride, padding and groups.

Ultralytics' `Conv` has the dilation there.
"""
_ACTIVATED = f"{yolov7.PREFIX}ActivatedConv"
"""Row of a convolution with an activation of its own; no repository has a layer of that name."""
_FOLDED = f"{yolov7.PREFIX}FoldedConv"
"""Row of Ultralytics' `RepConv` that leaves out its input channels, as its forks have it."""
BARE = f"{yolov7.PREFIX}BareConv"
"""Row of `nn.Conv2d` as the parser of the YOLOv7 repository reads it."""
_POOLED = [5, 9, 13]
"""Kernels of the maxima in `SPPCSPC`."""


def with_one_activation(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document whose `Conv` rows have no activations of their own, `nn.LeakyReLU(0.1)`, but all the same one.

    Where they differ, the rows are left as they are.
    """
    convolutions = [
        row
        for section in ("backbone", "head")
        if isinstance(document.get(section), list)
        for row in document[section]
        if is_row(row) and row[2] == "Conv"
    ]
    written = [row[3][_ACTIVATION] if len(row[3]) > _ACTIVATION else None for row in convolutions]
    activations = {one for one in written if isinstance(one, str) and re.fullmatch(r"(torch\.)?nn\.\w+\(.*\)", one)}
    if len(activations) != 1 or document.get("activation"):
        return document
    (activation,) = activations
    if any(one != activation for one in written):
        return document
    changed = {
        section: [[*row[:3], row[3][:_ACTIVATION]] if is_row(row) and row[2] == "Conv" else row for row in rows]
        for section in ("backbone", "head")
        if isinstance(rows := document.get(section), list)
    }
    return {**document, **changed, "activation": activation}


def _conv(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[channels, kernel, stride, padding, groups, activation]`: a truth value, or not that of all rows.

    Raises:
        SpecError: no activation.
    """
    before, activation = row[3][:_ACTIVATION], row[3][_ACTIVATION]
    if activation not in {True, False}:
        return [*row[:2], _ACTIVATED, [*before, *layers.activation_call(activation)]]
    return [*row[:3], [*before, 1, False] if activation is False else before]


def _has_activation(row: Row, document: Mapping[str, Any]) -> bool:
    return (
        is_for_yolov5(row, document)
        and len(row[3]) == _ACTIVATION + 1
        and isinstance(row[3][_ACTIVATION], bool | str)
        and row[3][_ACTIVATION] not in {"None", "True", "False"}
    )


def _filled(given: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """Return arguments with the defaults of those that a row leaves out.

    Raises:
        ValueError: there are more.
    """
    if len(given) > len(defaults):
        raise ValueError(f"{len(defaults)} at most")
    return [*given, *defaults[len(given) :]]


def _mp(row: Row, _document: Mapping[str, Any]) -> Row:
    (kernel,) = _filled(row[3], [2])
    return [row[0], row[1], "nn.MaxPool2d", [kernel, kernel]]


def _sp(row: Row, _document: Mapping[str, Any]) -> Row:
    kernel, stride = _filled(row[3], [3, 1])
    return [row[0], row[1], "nn.MaxPool2d", [kernel, stride, kernel // 2]]


def _rep_conv(row: Row, document: Mapping[str, Any]) -> Row:
    """Convert `[channels, kernel, stride, padding, groups, activation]`; in forks of Ultralytics it is Ultralytics'.

    Raises:
        ValueError: the repository's own layer would refuse it.
    """
    if not is_foreign(row, document):
        return [*row[:2], _FOLDED, row[3]]
    channels, kernel, stride, padding, groups, activation = _filled(
        [channels_of(row), *row[3][1:]], [None, 3, 1, None, 1, True]
    )
    if kernel != 3 or padding not in {None, "None", 1}:
        raise ValueError(
            f"kernel {kernel} and padding {padding}, where the repository's own RepConv takes a kernel of 3 and a "
            "padding of 1: it is a 3x3 and a 1x1 convolution, folded into one of 3x3; if a fork's is another, "
            f"{layers.BRING}"
        )
    if activation not in {True, False}:
        raise ValueError(
            f"the activation is true or false, got {activation}; `activation:` of the file sets one for all"
        )
    return [row[0], row[1], "RepVGG", [channels, kernel, stride, None, groups, 1, activation, {}]]


def _sppcspc(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[channels, shortcut, groups, expansion, kernels]`; shortcut and groups have no effect there."""
    channels, _, _, expansion, kernels = _filled([channels_of(row), *row[3][1:]], [None, False, 1, 0.5, _POOLED])
    if kernels != _POOLED:
        raise ValueError(f"kernels of {_POOLED} are expected, got {kernels}")
    return [row[0], row[1], "SPPCSPC", [channels, 5, {"kernel": 5, "expansion": expansion}]]


def _sppfcspc(row: Row, document: Mapping[str, Any]) -> Row:
    """Convert `[channels, shortcut, groups, expansion, kernel]`: maxima one behind the other, which are the same."""
    *others, kernel = _filled([channels_of(row), *row[3][1:]], [None, False, 1, 0.5, 5])
    if kernel != 5:
        raise ValueError(f"a kernel of 5 is expected, got {kernel}")
    return _sppcspc([*row[:3], others], document)


def _detect(row: Row, _document: Mapping[str, Any]) -> Row:
    return [maps_of(row, 1)[0], row[1], "Detect", [classes_of(row, form=ANCHORED)]]


def _implicit_detect(row: Row, document: Mapping[str, Any]) -> Row:
    source, repeats, _, classes = _detect(row, document)
    return [source, repeats, "ImplicitDetect", [*classes, anchors_of_a_map(document)]]


def _dual_detect(row: Row, _document: Mapping[str, Any]) -> Row:
    main, auxiliary = maps_of(row, 2)  # ours has the auxiliary maps first
    return [[*auxiliary, *main], row[1], "DualDetect", [classes_of(row, form=ANCHORED)]]


def _implicit_dual_detect(row: Row, document: Mapping[str, Any]) -> Row:
    source, repeats, _, classes = _dual_detect(row, document)
    return [source, repeats, "ImplicitDualDetect", [*classes, anchors_of_a_map(document)]]


_HEAD = "the YOLOv7 repository's head predicts from anchors, with learned values added and multiplied"

MODULES: dict[str, ForeignModule] = {
    "Conv": ForeignModule(applies=_has_activation, row=_conv),
    "MP": ForeignModule(applies=lambda row, document: is_foreign(row, document) or row[3] in ([], [2]), row=_mp),
    "SP": ForeignModule(applies=is_foreign, row=_sp),
    "RepConv": ForeignModule(
        applies=lambda row, document: is_foreign(row, document) or is_without_input(row), row=_rep_conv
    ),
    "SPPCSPC": ForeignModule(applies=is_foreign, row=_sppcspc),
    "SPPFCSPC": ForeignModule(row=_sppfcspc),
    "BottleneckCSPA": ForeignModule(applies=is_foreign, row=same_arguments("C3")),
    **layers_of(yolov7.PREFIX, yolov7_variants.LAYERS),
    **layers_of(yolov7.PREFIX, yolov7.LAYERS.keys() - {_ACTIVATED, _FOLDED, BARE}),
    "IDetect": ForeignModule(
        row=_detect,
        printed_row=_implicit_detect,
        note=_HEAD + ". Built: Ultralytics' head, which needs none, is larger and is what is trained; --as-printed "
        "counts the other",
        printed_note=AS_PRINTED + "the YOLOv7 repository's head with anchors; training uses Ultralytics' head",
    ),
    "IAuxDetect": ForeignModule(
        row=_dual_detect,
        printed_row=_implicit_dual_detect,
        note=_HEAD + ", and has an auxiliary half for training. Built: DualDetect, two of Ultralytics' heads; trained "
        "with both, deployed without the auxiliary half; --as-printed counts the other",
        printed_note=AS_PRINTED + "the YOLOv7 repository's head of two halves, one of which is for training only",
    ),
}
"""By the names in rows."""
