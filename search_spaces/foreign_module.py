"""Record of a module of another repository or of an article, and the usual conversions of its rows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import SpecError
from search_spaces.rows import Row

Convert = Callable[[Row, Mapping[str, Any]], Row]
"""Returns the row that replaces one, of a row and the document that it stands in."""


@dataclass(frozen=True, kw_only=True)
class ForeignModule:
    """Module of another repository or of an article, and the rows that replace it.

    Attributes:
        applies: whether a row of a document names this module; some names also belong to Ultralytics or this package.
        row: returns the row to build.
        printed_row: returns the row to count, if it is another one.
        note: mistakes in the printed module, or differences to it.
        printed_note: note for `printed_row`; empty if it is the same.
    """

    applies: Callable[[Row, Mapping[str, Any]], bool] = lambda _row, _document: True
    row: Convert
    printed_row: Convert | None = None
    note: str = ""
    printed_note: str = ""


def is_row(row: Any) -> bool:
    """Return whether a value has the form `[from, repeats, module, arguments]`."""
    return isinstance(row, list) and len(row) == 4 and isinstance(row[2], str) and isinstance(row[3], list)


def with_parameters(module: str, **parameters: Any) -> Convert:
    """Return a conversion to another module, whose arguments begin with channels and end with these parameters."""
    return lambda row, _document: [row[0], row[1], module, [channels_of(row), *row[3][1:], parameters]]


def same_arguments(module: str) -> Convert:
    """Return a conversion to another module with the same arguments."""
    return lambda row, _document: [row[0], row[1], module, row[3]]


def channels_of(row: Row) -> int:
    """Return the first argument, the number of channels.

    Raises:
        ValueError: it is something else.
    """
    if not row[3] or type(row[3][0]) is not int or row[3][0] < 1:
        raise ValueError("channels come first")
    return row[3][0]


def begins_with_classes(arguments: Any) -> bool:
    """Return whether arguments of a head begin with the number of classes, or with `nc`."""
    if not isinstance(arguments, list) or not arguments:
        return False
    return arguments[0] == "nc" or (type(arguments[0]) is int and arguments[0] > 0)


def classes_of(row: Row, *, form: str = "[nc]") -> Any:
    """Return the first argument of a head, the number of classes or `nc`, which stands for that of the file.

    Args:
        form: of the arguments in the head's own repository.

    Raises:
        ValueError: it is something else, or there are more arguments than that repository's head has.
    """
    given = row[3]
    if not begins_with_classes(given):
        raise ValueError(f"the number of classes comes first, {form}")
    if len(given) > len(form.split(",")):
        raise ValueError(f"{form} is expected")
    return given[0]


ANCHORED = "[nc, anchors]"
"""Arguments of a head that predicts from anchors."""


def maps_of(row: Row, parts: int) -> list[list[Any]]:
    """Return the layers that each part of a head reads.

    Raises:
        SpecError: it does not read a list with as many layers for each part.
    """
    source = row[0]
    if not isinstance(source, list) or not source or len(source) % parts:
        several = f" with as many for each of its {parts} parts" if parts > 1 else ""
        raise SpecError(f"it reads a list of layers{several}, got {source}")
    length = len(source) // parts
    return [source[first : first + length] for first in range(0, len(source), length)]


def is_foreign(row: Row, document: Mapping[str, Any]) -> bool:
    """Return whether a row is written for one of those repositories.

    Only their files have `anchors`, and only rows of this package end with a mapping.
    """
    return bool(document.get("anchors")) and is_without_mapping(row, document)


def is_without_mapping(row: Row, _document: Mapping[str, Any]) -> bool:
    """Return whether a row does not end in a mapping of parameters, as all rows of this package with an operator do."""
    return not (row[3] and isinstance(row[3][-1], Mapping))


_KERNELS = range(1, 15, 2)
_WITH_INPUT = 3
"""Least arguments of `nn.Conv2d` as PyTorch has it: channels before and behind it, and the kernel."""


def is_without_input(row: Row) -> bool:
    """Return whether a row gives output channels and a kernel, `nn.Conv2d, [256, 1]`, as in YOLOv7 and forks.

    Of some layers Ultralytics' parser gives the row on as it is, and counts on equal channels before and behind.
    """
    match row[3]:
        case [int(channels), int(kernel), *_]:
            return kernel in _KERNELS and (channels != kernel or len(row[3]) < _WITH_INPUT)
        case _:
            return False


_ANCHOR_HEADS = {"Detect", "IDetect", "IAuxDetect"}


def is_for_yolov5(row: Row, document: Mapping[str, Any]) -> bool:
    """Return whether a row is written for the YOLOv5 or YOLOv7 repository, whose heads have the anchors as argument."""
    head: Any = document["head"][-1] if isinstance(document.get("head"), list) and document["head"] else None
    return is_foreign(row, document) and is_row(head) and head[2] in _ANCHOR_HEADS and len(head[3]) > 1


def anchors_of_a_map(document: Mapping[str, Any]) -> int:
    """Return how many anchors a document has on each map.

    Raises:
        ValueError: it does not say.
    """
    anchors = document.get("anchors")
    each = len(anchors[0]) // 2 if isinstance(anchors, list) and anchors and isinstance(anchors[0], list) else anchors
    if type(each) is not int or each < 1:
        raise ValueError(f"anchors: widths and heights for each map, or their number, are expected, got {anchors!r}")
    return each


def width_of(document: Mapping[str, Any]) -> float:
    """Return the factor for channels, as `parse_model` reads it."""
    scales = document.get("scales")
    if not scales:
        return document.get("width_multiple", 1.0)
    return scales[document.get("scale") or next(iter(scales))][1]


def layers_of(prefix: str, names: Iterable[str]) -> dict[str, ForeignModule]:
    """Return the records of layers that this package has for another repository's files, by the names there."""
    return {name.removeprefix(prefix): ForeignModule(applies=is_foreign, row=same_arguments(name)) for name in names}


AS_PRINTED = "as printed, for counting only: "
"""Beginning of a note on a row that is only counted."""
