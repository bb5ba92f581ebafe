"""Rows of the YOLOv9 repository, most of them heads with parts for training only, and what is built in their place."""

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.foreign_module import AS_PRINTED, Convert, ForeignModule, classes_of, maps_of, same_arguments
from search_spaces.rows import Row


def _head(module: str, *, parts: int, groups: Sequence[int] = ()) -> Convert:
    """Return the conversion of a head of the YOLOv9 repository to another one that reads the same maps."""

    def convert(row: Row, _document: Mapping[str, Any]) -> Row:
        every = [one for part in maps_of(row, parts) for one in part]
        return [every, row[1], module, [classes_of(row), *groups]]

    return convert


def _first_and_last_part(row: Row, _document: Mapping[str, Any]) -> Row:
    auxiliary, _, main = maps_of(row, 3)
    return [[*auxiliary, *main], row[1], "DualDetect", [classes_of(row)]]


MODULES: dict[str, ForeignModule] = {
    "Silence": ForeignModule(row=same_arguments("nn.Identity")),
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
}
"""By the names in rows."""
