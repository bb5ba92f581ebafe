"""Translate model files written for the YOLOv5 and YOLOv9 repositories, or printed in articles about them.

`translate` replaces their rows by rows of Ultralytics or of this package, one by one, so that a layer keeps its index.
Where a printed module has a mistake, the correct operator replaces it and a note describes the mistake; `as_printed`
keeps structure and number of parameters instead, to count them (`search_spaces/printed.py`).
"""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ultralytics.utils.ops import make_divisible

from search_spaces import file_words, layers, model_file, redefined, rows, user_rows, yolov5, yolov7_files
from search_spaces.errors import SpecError
from search_spaces.foreign_module import (
    ANCHORED,
    AS_PRINTED,
    Convert,
    ForeignModule,
    anchors_of_a_map,
    channels_of,
    classes_of,
    is_for_yolov5,
    is_foreign,
    is_row,
    is_without_input,
    is_without_mapping,
    layers_of,
    maps_of,
    same_arguments,
    with_parameters,
)
from search_spaces.operators import OPERATORS
from search_spaces.printed import YOLOV5_KERNELS
from search_spaces.rows import Row

_GROUP_CHANNELS = 16
"""Channels of a group in every released DCNv4 model."""
_GREATEST_SCALE = 4
"""Largest scale of a DySample: a larger number was meant as channels."""
_WITH_A_RATIO = 3
"""Number of arguments of a `Dynamic_conv2d` row that ends with its third argument, the ratio."""


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Translated model file.

    Attributes:
        document: with rows of Ultralytics and of this package only.
        notes: mistakes in the file and differences to it, one line for each kind of module.
    """

    document: dict[str, Any]
    notes: tuple[str, ...] = ()


def translate(document: Mapping[str, Any], *, as_printed: bool = False) -> Translation:
    """Translate a model YAML; rows of Ultralytics and of this package are kept.

    Args:
        as_printed: use rows with the structure that is printed, to count it.

    Raises:
        SpecError: lists every foreign row whose arguments cannot be read.
    """
    mistakes: list[str] = []
    document, of_sections = _with_two_sections(document)
    document, redefinitions = redefined.resolved(file_words.resolved(yolov7_files.with_one_activation(document)))
    notes = dict.fromkeys([*of_sections, *redefinitions])
    translated = {**deepcopy(dict(document)), "backbone": [], "head": []}
    for section in ("backbone", "head"):
        if not isinstance(document.get(section), list):
            translated[section] = deepcopy(document.get(section))  # no model; `model_file` reports it
            continue
        for position, row in enumerate(document[section]):
            try:
                foreign = _foreign_module(row, document)
            except SpecError:  # reported with its address when the model is built
                translated[section].append(deepcopy(row))
                continue
            if foreign is None:
                plain, note = _with_defaults(row)
                translated[section].append(_with_anchors(plain, document))
                notes |= {note: None} if note else {}
                continue
            convert = foreign.printed_row if as_printed and foreign.printed_row else foreign.row
            try:
                translated[section].append(convert(deepcopy(row), document))
            except SpecError as error:
                mistakes.extend(error.within(f"{section}[{position}]: {row[2]}").mistakes)
            except (LookupError, TypeError, ValueError) as error:
                mistakes.append(f"{section}[{position}]: {row[2]}: unexpected arguments, got {row[3]!r} ({error})")
            note = foreign.printed_note if as_printed and foreign.printed_note else foreign.note
            notes |= {f"{row[2]}: {note}": None} if note else {}
    if mistakes:
        raise SpecError(mistakes)
    translated.pop("anchors", None)
    return Translation(document=translated, notes=tuple(notes))


def _with_two_sections(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return a document with the sections and the scales that Ultralytics reads, and notes on those of forks."""
    changed, notes = dict(document), []
    neck = changed.pop("neck", None)
    if isinstance(neck, list) and isinstance(changed.get("head"), list):
        changed["head"] = [*neck, *changed["head"]]
        notes.append("neck: its rows are read as the first of `head`, as forks with such a section do")
    if "ch" in changed and "channels" not in changed:  # the YOLOv5 repository's name, and Ultralytics' until 8.3
        changed["channels"] = changed.pop("ch")
    scales = document.get("scales")
    if isinstance(scales, Mapping) and any(isinstance(one, list) and len(one) > _OF_A_SCALE for one in scales.values()):
        changed["scales"] = {name: one[:_OF_A_SCALE] if isinstance(one, list) else one for name, one in scales.items()}
        further = {name: one[_OF_A_SCALE:] if isinstance(one, list) else [] for name, one in scales.items()}
        changed[user_rows.FURTHER] = further
        notes.append(
            "scales: numbers behind depth, width and most channels are the fork's own; a class of its file whose "
            "constructor wants one more argument gets them"
        )
    return changed, notes


_OF_A_SCALE = 3
"""Numbers of a scale that Ultralytics reads: depth, width and most channels."""


def _foreign_module(row: Any, document: Mapping[str, Any]) -> ForeignModule | None:
    """Return the foreign module that a row names; None for any other row, and for what is no row."""
    if not is_row(row) or user_rows.user_class(row) is not None:
        return None
    foreign = FOREIGN_MODULES.get(row[2])
    return foreign if foreign is not None and foreign.applies(row, document) else None


def _with_defaults(row: Any) -> tuple[Any, str]:
    """Write the parameters of an operator of this package into a row that has none; return the row and a note.

    Every row that this package writes ends in a mapping of parameters. One without it was written by hand, or for
    another repository, whose block of that name may differ. Any other row is returned unchanged, with an empty note.
    """
    row = deepcopy(row)
    if not is_row(row) or (row[3] and isinstance(row[3][-1], Mapping)) or user_rows.user_class(row) is not None:
        return row, ""
    try:
        lowered = rows.lower(row)
    except (SpecError, LookupError, TypeError, ValueError):  # reported with its address when the model is built
        return row, ""
    if lowered is None or lowered.operator.name not in OPERATORS or lowered.operator.source is not None:
        return row, ""
    settings = ", ".join(f"{name} {value}" for name, value in lowered.parameters.items())
    host, _ = rows.separated(row)
    built = f"{host} with this package's {lowered.operator.name}" if host else f"this package's {lowered.operator.name}"
    note = (
        f"{row[2]}: the row does not end in a mapping of parameters, as rows of this package do; other repositories "
        f"have other blocks of that name. Built: {built}" + (f" ({settings})" if settings else "")
    )
    return [*row[:3], [*row[3], dict(lowered.parameters)]], note


def _with_anchors(row: Any, document: Mapping[str, Any]) -> Any:
    """Write the file's anchors into the row of a user's class that names them, as the YOLOv5 repository's parser does.

    Their number stands for as many on each map.
    """
    anchors = document.get("anchors")
    if not anchors or not is_row(row) or "anchors" not in row[3] or user_rows.user_class(row) is None:
        return row
    if type(anchors) is int:
        anchors = [list(range(2 * anchors))] * (len(row[0]) if isinstance(row[0], list) else 1)
    return [*row[:3], [deepcopy(anchors) if one == "anchors" else one for one in row[3]]]


def _yolov5_bottleneck(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[channels, shortcut, groups, expansion]`; Ultralytics' has the kernels before the expansion."""
    shortcut, groups, expansion = _block_arguments(row)
    return [row[0], row[1], "Bottleneck", [channels_of(row), shortcut, groups, list(YOLOV5_KERNELS), expansion]]


def _yolov5_bottleneck_csp_printed(row: Row, _document: Mapping[str, Any]) -> Row:
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


def _bottleneck_dcnv4(row: Row, document: Mapping[str, Any]) -> Row:
    """Convert to a bottleneck with DCNv4 as second convolution and a shortcut; the second argument is ignored.

    It is meant as a number of channels, but the printed module reads it as `shortcut`.
    """
    channels = make_divisible(channels_of(row) * _width(document), 8)
    fitting = [groups for groups in _values("DCNv4", "groups") if channels % groups == 0]
    groups = max(one for one in fitting if one <= max(1, channels // _GROUP_CHANNELS))
    return [row[0], row[1], "Bottleneck_DCNv4", [row[3][0], True, {"groups": groups}]]


def _width(document: Mapping[str, Any]) -> float:
    """Return the factor for channels, as `parse_model` reads it."""
    scales = document.get("scales")
    if not scales:
        return document.get("width_multiple", 1.0)
    return scales[document.get("scale") or next(iter(scales))][1]


def _bottleneck_dcnv4_printed(row: Row, _document: Mapping[str, Any]) -> Row:
    return [row[0], row[1], "Bottleneck_DCNv4", [channels_of(row), True, {"groups": 1}]]


def _dynamic_conv2d(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[channels, kernel, ratio, stride, padding, dilation, groups, bias, kernels]`.

    A ratio that is a whole number and the last argument was meant as the stride.
    """
    channels, kernel, ratio, stride, kernels = _dynamic_arguments(row[3])
    if len(row[3]) == _WITH_A_RATIO and isinstance(row[3][-1], int):
        stride = int(ratio)
    return [row[0], row[1], "DynamicConv", [channels, kernel, stride, {"kernels": kernels}]]


def _dynamic_conv2d_printed(row: Row, _document: Mapping[str, Any]) -> Row:
    channels, kernel, ratio, stride, kernels = _dynamic_arguments(row[3])
    return [row[0], row[1], "PrintedDynamicConv", [channels, kernel, stride, {"kernels": kernels, "ratio": ratio}]]


def _dynamic_arguments(given: Sequence[Any]) -> tuple[int, int, float, int, int]:
    defaults: list[Any] = [None, 1, 0.25, 1, 0, 1, 1, True, 4]
    channels, kernel, ratio, stride, _, dilation, groups, _, kernels = [*given, *defaults[len(given) :]]
    if type(channels) is not int or channels < 1:
        raise ValueError("channels come first")
    if (dilation, groups) != (1, 1):
        raise ValueError(f"dilation {dilation} and groups {groups}, where 1 and 1 are expected")
    return channels, kernel, float(ratio), stride, kernels


def _is_bare_dysample(row: Row, _document: Mapping[str, Any]) -> bool:
    """Return whether a DySample row has the arguments of the paper's code.

    In a row of this package they are those of `nn.Upsample`, with None first, or only a mapping.
    """
    return not row[3] or not (row[3][0] in (None, "None") or isinstance(row[3][0], Mapping))


def _dysample(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[scale, style, groups, dyscope]`, all optional; a large scale was meant as channels."""
    given, defaults = list(row[3]), [2, "lp", 4, False]
    scale, style, groups, dynamic_scope = given + defaults[len(given) :]
    if type(scale) is not int or scale < 1:
        raise ValueError("a scale comes first")
    scale = scale if scale <= _GREATEST_SCALE else 2
    parameters = {"style": style, "groups": groups, "dynamic_scope": dynamic_scope}
    return [row[0], row[1], "DySample", [None, scale, "nearest", parameters]]


def _spd_conv(row: Row, _document: Mapping[str, Any]) -> Row:
    return [row[0], row[1], "SPDConv", [channels_of(row), 3, 2, {"kernel": 3}]]


def _carafe(row: Row, _document: Mapping[str, Any]) -> Row:
    return [row[0], row[1], "CARAFE", [None, 2, "nearest", {}]]


_OLD_OUTPUT = re.compile(r"na\s*\*\s*\(\s*nc\s*\+\s*5\s*\)")
"""Channels of a convolution that belongs to the head, in files of the YOLOv5 repository's first two releases."""


def _is_old_output(row: Row, document: Mapping[str, Any]) -> bool:
    return is_foreign(row, document) and bool(row[3]) and bool(_OLD_OUTPUT.fullmatch(str(row[3][0])))


def _conv2d(row: Row, document: Mapping[str, Any]) -> Row:
    if _is_old_output(row, document):
        return [row[0], row[1], "nn.Identity", []]
    return [row[0], row[1], yolov7_files.BARE, row[3]]


_MASKS = "[nc, anchors, masks, prototypes]"


def _segment(row: Row, _document: Mapping[str, Any]) -> Row:
    """Convert `[classes, anchors, masks, prototypes]`, or the same without anchors."""
    classes, *others = row[3]
    if others and (others[0] == "anchors" or isinstance(others[0], list)):
        del others[0]
    if not all(type(one) is int for one in others):
        raise ValueError(f"{_MASKS} is expected")
    return [row[0], row[1], "Segment", [classes, *others]]


def _segment_printed(implicit: str) -> Convert:
    """Return the conversion of a head for masks to one that is only counted; `implicit` is the repository's."""

    def convert(row: Row, document: Mapping[str, Any]) -> Row:
        source, repeats, _, (classes, *given) = _segment(row, document)
        masks, hidden = list(given) + _OF_MASKS[len(given) :]
        if len(row[3]) == 1 + len(given):  # no anchors
            return [source, repeats, "yolov9.Segment", [classes, masks, hidden]]
        hidden = make_divisible(hidden * _width(document), 8)
        return [source, repeats, implicit, [classes, anchors_of_a_map(document), masks, hidden]]

    return convert


_OF_MASKS = [32, 256]
"""Prototypes of masks, and channels of the layers that make them, if a row does not say."""


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


def _head(module: str, *, parts: int, groups: Sequence[int] = ()) -> Convert:
    """Return the conversion of a head of the YOLOv9 repository to another one that reads the same maps."""

    def convert(row: Row, _document: Mapping[str, Any]) -> Row:
        every = [one for part in maps_of(row, parts) for one in part]
        return [every, row[1], module, [classes_of(row), *groups]]

    return convert


def _first_and_last_part(row: Row, _document: Mapping[str, Any]) -> Row:
    auxiliary, _, main = maps_of(row, 3)
    return [[*auxiliary, *main], row[1], "DualDetect", [classes_of(row)]]


def _values(operator: str, parameter: str) -> tuple[Any, ...]:
    return OPERATORS[operator].parameter(parameter).allowed


_OTHER_TASKS: dict[str, Convert] = {
    "IBin": _anchored("yolov7.IBin"),
    "IKeypoint": _key_points,
    "DSegment": _numbered("yolov9.DSegment", _OF_MASKS, form="[nc, masks, prototypes]"),
    "DualDSegment": _numbered("yolov9.DualDSegment", _OF_MASKS, form="[nc, masks, prototypes]"),
    "Panoptic": _numbered("yolov9.Panoptic", [93, *_OF_MASKS], form="[nc, stuff, masks, prototypes]"),
}
"""Conversions of heads of the YOLOv7 and YOLOv9 repositories that nothing of Ultralytics is like."""


FOREIGN_MODULES: dict[str, ForeignModule] = {
    "Bottleneck": ForeignModule(
        applies=is_for_yolov5,
        row=_yolov5_bottleneck,
        note="the YOLOv5 repository's is a 1x1 and a 3x3 convolution, Ultralytics' two of 3x3. Built: the former",
    ),
    "BottleneckCSP": ForeignModule(
        applies=is_for_yolov5,
        row=same_arguments("BottleneckCSP"),
        printed_row=_yolov5_bottleneck_csp_printed,
        note="the blocks inside the YOLOv5 repository's are a 1x1 and a 3x3 convolution, in Ultralytics' two of 3x3. "
        "Built: Ultralytics', which is larger and is what is trained; --as-printed counts the other",
        printed_note=AS_PRINTED + "the YOLOv5 repository's inner blocks, a 1x1 and a 3x3 convolution; training uses "
        "Ultralytics' block",
    ),
    "Silence": ForeignModule(row=same_arguments("nn.Identity")),
    "MMQARepNCSPELAN4": ForeignModule(
        row=with_parameters("RepNCSPELAN4_MMQA", heads=8, key_dim=48),
        printed_row=with_parameters("RepNCSPELAN4_PrintedMMQA", heads=8, key_dim=48),
        note="the printed attention reshapes maps where it should transpose them, which scrambles pixels with "
        "channels, divides by the root of key_dim / heads instead of key_dim, and replaces a convolution, its batch "
        "norm and its activation by a bare linear map. Built: RepNCSPELAN4_MMQA, MobileNetV4's attention, then batch "
        "norm and activation",
        printed_note=AS_PRINTED + "a bare attention of 8 heads of 48 in the place of each 3x3 convolution, without "
        "batch norm",
    ),
    "Bottleneck_DCNV4": ForeignModule(
        row=_bottleneck_dcnv4,
        printed_row=_bottleneck_dcnv4_printed,
        note="the printed module runs on CUDA alone, lets all channels share one group's nine offsets, and takes its "
        "second argument, meant as channels, for `shortcut`. Built: Bottleneck_DCNv4 with a group for 16 channels",
        printed_note=AS_PRINTED + "a bottleneck with DCNv4 of one group behind a 1x1 convolution (the article leaves "
        "its code out; this is the wrapper that others publish)",
    ),
    "C3_UIB": ForeignModule(
        applies=is_foreign,
        row=with_parameters("C3_UIB", start_kernel=3, mid_kernel=3, expansion=4),
        printed_row=with_parameters("C3_PrintedUIB", start_kernel=3, mid_kernel=3, expansion=1),
        note="the printed block has no residual, expands by 1 (so the bottleneck is not inverted), and has batch norms "
        "that `fuse()` does not find. Built: C3_UIB with a residual and expansion 4, as in MobileNetV4",
        printed_note=AS_PRINTED + "expansion 1, no residual, ReLU6",
    ),
    "Dynamic_conv2d": ForeignModule(
        row=_dynamic_conv2d,
        printed_row=_dynamic_conv2d_printed,
        note="the printed layer has neither padding, batch norm nor activation, its temperature never falls, so that "
        "all images get nearly the same kernel, and it takes the third argument, meant as a stride, for the ratio of "
        "its hidden layer. Built: DynamicConv with a quarter of the channels there",
        printed_note=AS_PRINTED + "the ratio as given, a bias for each kernel, no batch norm, no activation",
    ),
    "DySample": ForeignModule(
        applies=_is_bare_dysample,
        row=_dysample,
        note="the row has the arguments of the paper's code: scale, style, groups, dynamic scope; a scale above 4 is "
        "taken for channels given by mistake, and is 2. Built: this package's DySample with them",
        printed_note="counted as the paper's code has it, with its arguments: scale, style, groups, dynamic scope; a "
        "scale above 4 is taken for channels given by mistake, and is 2",
    ),
    "CARAFE": ForeignModule(
        applies=_is_bare_dysample,
        row=_carafe,
        note="the arguments differ between forks. Built: this package's CARAFE of scale 2, with the paper's kernels of "
        "5 and 3 and 64 compressed channels",
    ),
    "SPDConv": ForeignModule(
        applies=is_without_mapping,
        row=_spd_conv,
        note="the row has no stride, since SPDConv of forks always halves the map, with a 3x3 convolution behind. "
        "Built: this package's SPDConv of stride 2 and kernel 3",
    ),
    "Detect": ForeignModule(
        applies=lambda row, document: is_foreign(row, document) and len(row[3]) > 1,
        row=_detect,
        printed_row=_anchor_detect,
        note="the YOLOv5 repository's head predicts from anchors. Built: Ultralytics' head, which needs none, is "
        "larger and is what is trained; --as-printed counts the other",
        printed_note=AS_PRINTED + "the YOLOv5 repository's head with anchors; training uses Ultralytics' head",
    ),
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
        for name, convert in _OTHER_TASKS.items()
    },
    "nn.Conv2d": ForeignModule(
        applies=lambda row, document: _is_old_output(row, document) or is_without_input(row),
        row=_conv2d,
        note="the last convolution of a head in the first YOLOv5 releases is part of the head that is built; any other "
        "row gives the channels behind it, as in YOLOv7 and forks: those before it are found",
    ),
    layers.DOWNLOADING: ForeignModule(
        applies=_is_of_classifier,
        row=_without_weights,
        note="its weights, which a model file may not ask to download, are left out",
    ),
    "DDetect": ForeignModule(
        row=_head("Detect", parts=1),
        printed_row=_head("DDetect", parts=1),
        note="the YOLOv9 repository's head convolves boxes in four groups. Built: Ultralytics' head, which does not",
        printed_note=AS_PRINTED + "the YOLOv9 repository's head; training uses Ultralytics' head",
    ),
    "DualDDetect": ForeignModule(
        row=_head("DualDetect", parts=2),
        printed_row=_head("DualDDetect", parts=2),
        note="the YOLOv9 repository's head has two halves, one of which is for training only. Built: DualDetect, two "
        "of Ultralytics' heads; trained with both, deployed without the auxiliary half",
        printed_note=AS_PRINTED + "the YOLOv9 repository's head of two halves, one of which is for training only",
    ),
    **{
        name: ForeignModule(
            row=_first_and_last_part,
            printed_row=_head("TripleDDetect", parts=3, groups=groups),
            note="the YOLOv9 repository's head has three parts, two of which are for training only. Built: DualDetect "
            "on the maps of the first part, which is auxiliary, and of the last, which predicts; trained with both, "
            "deployed without the auxiliary half",
            printed_note=AS_PRINTED + "the YOLOv9 repository's head of three parts, two of which are for training only",
        )
        for name, groups in (("TripleDDetect", ()), ("TripleDetect", (1,)))
    },
    **layers_of(yolov5.PREFIX, yolov5.LAYERS),
    **yolov7_files.MODULES,
}
"""Modules of other repositories and of articles, by the names in their rows."""
