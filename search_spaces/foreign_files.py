"""Translate model files written for the YOLOv5, YOLOv7 and YOLOv9 repositories, or printed in articles about them.

`translate` replaces their rows by rows of Ultralytics or of this package, one by one, so that a layer keeps its index.
Where a printed module has a mistake, the correct operator replaces it and a note describes the mistake; `as_printed`
keeps structure and number of parameters instead, to count them (`search_spaces/printed.py`).
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from search_spaces import (
    file_words,
    fork_rows,
    other_tasks,
    redefined,
    user_rows,
    yolov5_files,
    yolov7_files,
    yolov9_files,
)
from search_spaces.errors import SpecError
from search_spaces.foreign_module import ForeignModule, is_row

FOREIGN_MODULES: dict[str, ForeignModule] = {
    **fork_rows.MODULES,
    **yolov5_files.MODULES,
    **yolov7_files.MODULES,
    **yolov9_files.MODULES,
    **other_tasks.MODULES,
}
"""Modules of other repositories and of articles, by the names in their rows."""

_OF_A_SCALE = 3
"""Numbers of a scale that Ultralytics reads: depth, width and most channels."""


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
    document, of_sections = _with_two_sections(document)
    document, redefinitions = redefined.resolved(file_words.resolved(yolov7_files.with_one_activation(document)))
    translated = {**deepcopy(dict(document)), "backbone": [], "head": []}
    notes = dict.fromkeys([*of_sections, *redefinitions])
    mistakes: list[str] = []
    for section in ("backbone", "head"):
        if not isinstance(document.get(section), list):
            translated[section] = deepcopy(document.get(section))  # no model; `model_file` reports it
            continue
        for position, row in enumerate(document[section]):
            try:
                built, note = _translated(row, document, as_printed=as_printed)
            except SpecError as error:
                mistakes.extend(error.within(f"{section}[{position}]: {row[2]}").mistakes)
                continue
            translated[section].append(built)
            notes |= {note: None} if note else {}
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


def _translated(row: Any, document: Mapping[str, Any], *, as_printed: bool) -> tuple[Any, str]:
    """Return the row to build in the place of one, and a note on it, which may be empty.

    Raises:
        SpecError: the arguments of a foreign row cannot be read.
    """
    try:
        foreign = _foreign_module(row, document)
    except SpecError:  # reported with its address when the model is built
        return deepcopy(row), ""
    if foreign is None:
        plain, note = fork_rows.with_defaults(row)
        return _with_anchors(plain, document), note
    convert = (as_printed and foreign.printed_row) or foreign.row
    note = (as_printed and foreign.printed_note) or foreign.note
    try:
        return convert(deepcopy(row), document), f"{row[2]}: {note}" if note else ""
    except (LookupError, TypeError, ValueError) as error:
        raise SpecError(f"unexpected arguments, got {row[3]!r} ({error})") from error


def _foreign_module(row: Any, document: Mapping[str, Any]) -> ForeignModule | None:
    """Return the foreign module that a row names; None for any other row, and for what is no row."""
    if not is_row(row) or user_rows.user_class(row) is not None:
        return None
    foreign = FOREIGN_MODULES.get(row[2])
    return foreign if foreign is not None and foreign.applies(row, document) else None


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
