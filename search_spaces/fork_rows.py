"""Rows of articles and forks for which this package has an operator, and what is built in their place.

Where a printed module has a mistake, the correct operator replaces it and a note describes the mistake. The printed
structures, to count them, are those of `search_spaces/printed.py`.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from ultralytics.utils.ops import make_divisible

from search_spaces import rows, user_rows
from search_spaces.errors import SpecError
from search_spaces.foreign_module import (
    AS_PRINTED,
    ForeignModule,
    channels_of,
    is_foreign,
    is_row,
    is_without_mapping,
    width_of,
    with_parameters,
)
from search_spaces.operators import OPERATORS
from search_spaces.rows import Row

_GROUP_CHANNELS = 16
"""Channels of a group in every released DCNv4 model."""
_GREATEST_SCALE = 4
"""Largest scale of a DySample: a larger number was meant as channels."""
_WITH_A_RATIO = 3
"""Number of arguments of a `Dynamic_conv2d` row that ends with its third argument, the ratio."""


def with_defaults(row: Any) -> tuple[Any, str]:
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


def _bottleneck_dcnv4(row: Row, document: Mapping[str, Any]) -> Row:
    """Convert to a bottleneck with DCNv4 as second convolution and a shortcut; the second argument is ignored.

    It is meant as a number of channels, but the printed module reads it as `shortcut`.
    """
    channels = make_divisible(channels_of(row) * width_of(document), 8)
    fitting = [groups for groups in _values("DCNv4", "groups") if channels % groups == 0]
    groups = max(one for one in fitting if one <= max(1, channels // _GROUP_CHANNELS))
    return [row[0], row[1], "Bottleneck_DCNv4", [row[3][0], True, {"groups": groups}]]


def _values(operator: str, parameter: str) -> tuple[Any, ...]:
    return OPERATORS[operator].parameter(parameter).allowed


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


MODULES: dict[str, ForeignModule] = {
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
}
"""By the names in rows."""
