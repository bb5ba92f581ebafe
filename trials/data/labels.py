"""Label files: checked as Ultralytics checks them, and read as a training reads them.

Ultralytics drops an image whose label it cannot read and trains on with the rest
(ultralytics/data/utils.py, `verify_image_label`); here that is a mistake.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trials.data.image_files import is_file

ROW = "class x_center y_center width height"

Boxes = npt.NDArray[np.float32]
"""Rows of class, x_center, y_center, width, height, as fractions."""

_TOLERANCE = 0.01  # outside of 0 to 1, as in Ultralytics
_BOX_VALUES = len(ROW.split())
_FIRST_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Label rows of one image.

    Attributes:
        boxes: those that are trained on.
        places: of those, such as `labels/a.txt:3`.
        without_area: places of boxes without area.
        twice: places of boxes that repeat an earlier row of the file.
    """

    boxes: Boxes
    places: tuple[str, ...] = ()
    without_area: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()


def read(text: str, path: str, key_points: tuple[int, int] | None = None) -> Rows:
    """Read the rows of a label file that has no `mistakes`.

    Args:
        path: of the label file, for the places of rows.
        key_points: number of key points of each box, and of values of each point; they are left out.
    """
    numbered = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not numbered:
        return Rows(boxes=np.zeros((0, _BOX_VALUES), np.float32))
    with_key_points = _row_values(key_points) if key_points else None
    rows = [np.array(row[:_BOX_VALUES] if len(row) == with_key_points else row, np.float32) for _, row in numbered]
    boxes = np.stack([_box(row) for row in rows])
    flat = np.any(boxes[:, 3:] <= 0, axis=1, keepdims=True)[:, 0]
    earlier: set[bytes] = set()
    repeated = np.zeros(len(rows), bool)
    for index, row in enumerate(rows):
        repeated[index] = row.tobytes() in earlier
        earlier.add(row.tobytes())
    places = [f"{path}:{number}" for number, _ in numbered]
    trained = ~flat & ~repeated
    return Rows(
        boxes=boxes[trained],
        places=_chosen(places, trained),
        without_area=_chosen(places, flat),
        twice=_chosen(places, repeated & ~flat),
    )


def _box(row: npt.NDArray[np.float32]) -> Boxes:
    """Return the box around a polygon (ultralytics/utils/ops.py, `segments2boxes`), or the box itself."""
    if len(row) <= 6:
        return row
    x, y = row[1::2], row[2::2]
    left, right, top, bottom = x.min(), x.max(), y.min(), y.max()
    return np.array([row[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top], np.float32)


def _chosen(places: Sequence[str], chosen: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(place for place, one in zip(places, chosen, strict=True) if one)


def looks_like_label(path: str) -> bool:
    """Return whether a text file begins with a row of numbers, as a `classes.txt` does not."""
    if not is_file(path):
        return False
    with Path(path).open("rb") as file:
        text = file.read(_FIRST_BYTES).decode("utf-8-sig", errors="replace")
    first = text.strip().partition("\n")[0].split()
    return len(first) >= _BOX_VALUES and first[0].replace(".0", "").isdecimal()


def mistakes(label: bytes | None, class_count: int, key_points: tuple[int, int] | None = None) -> Iterator[str]:
    """Yield the mistakes of a label file, each after the number of its line: `:3: class 7 (...)`.

    Args:
        label: its content; None if there is no such file.
        class_count: 0 if the names of the classes are wrong.
        key_points: number of key points of each box, and of values of each point; None without.
    """
    try:
        text = (label or b"").decode("utf-8-sig")
    except UnicodeDecodeError:
        yield f": not UTF-8 text (rows of {ROW})"
        return
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if key_points:
        yield from _key_point_mistakes(rows, class_count, key_points)
        return
    polygons = any(len(row) > 6 for _, row in rows)  # Ultralytics reads the whole file so
    for number, row in rows:
        if mistake := _row_mistake(row, class_count, polygons=polygons):
            yield f":{number}: {mistake}"


def _key_point_mistakes(
    rows: Sequence[tuple[int, Sequence[str]]], class_count: int, key_points: tuple[int, int]
) -> Iterator[str]:
    """Yield the mistakes of rows that are boxes, with key points or without."""
    values = _row_values(key_points)
    for number, row in rows:
        if len(row) not in {_BOX_VALUES, values}:
            yield f":{number}: {len(row)} values (a box has 5: {ROW}; with its kpt_shape {list(key_points)} {values})"
        elif mistake := _row_mistake(row[:_BOX_VALUES], class_count, polygons=False):
            yield f":{number}: {mistake}"


def _row_values(key_points: tuple[int, int]) -> int:
    return _BOX_VALUES + key_points[0] * key_points[1]


def _row_mistake(row: Sequence[str], class_count: int, *, polygons: bool) -> str:
    if len(row) < _BOX_VALUES or len(row) % 2 == 0:
        return f"{len(row)} values (a box has 5: {ROW}; a polygon has a class and 3 or more points)"
    if polygons and len(row) == _BOX_VALUES:
        return "a box in a file of polygons (Ultralytics drops an image with both)"
    try:
        kind, *coordinates = map(float, row)
    except ValueError as error:
        return f"{error} (a row of numbers: {ROW})"
    if kind % 1 or kind < 0 or 0 < class_count <= kind:
        allowed = f"0 to {class_count - 1}" if class_count else "whole numbers from 0"
        return f"class {row[0]} (the classes are {allowed})"
    for index, coordinate in enumerate(coordinates):
        least = 0 if not polygons and index >= 2 else -_TOLERANCE
        if not least <= coordinate <= 1 + _TOLERANCE:
            return f"{row[index + 1]} is not within 0 to 1 (fractions of the image's width and height)"
    return ""
