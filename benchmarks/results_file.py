"""Results of a benchmark that may be stopped at any time: a CSV file with a row for each, appended as they come."""

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def read(file: Path, kind: type[Row]) -> list[Row]:
    """Read a file of results; empty if it does not exist.

    Args:
        kind: dataclass of a row, whose fields are the columns; the type of each reads its text.
    """
    if not file.is_file():
        return []
    types: dict[str, Any] = get_type_hints(kind)
    with file.open(newline="", encoding="utf-8") as lines:
        return [kind(**{name: types[name](value) for name, value in row.items()}) for row in csv.DictReader(lines)]


def append(file: Path, rows: "Sequence[DataclassInstance]") -> None:
    """Append rows of one dataclass in one write; a new file gets the names of its fields first."""
    if not rows:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, fieldnames=[field.name for field in fields(rows[0])])
        if is_new:
            writer.writeheader()
        writer.writerows(vars(row) for row in rows)
