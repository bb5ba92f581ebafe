"""Results of a benchmark that may be stopped at any time: a CSV file with a row for each, appended as they come."""

import argparse
import csv
from collections.abc import Callable, Sequence
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


Command = Callable[[argparse.Namespace], None]


def commands(
    description: str | None, results: Path | None, **run: Command
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the command line of a benchmark with several commands, and the parser of each by name.

    Args:
        description: of the benchmark: the docstring of its module.
        results: file of the results, unless `--results` names another one; None where it has to be named.
        run: function of each command.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    added = parser.add_subparsers(required=True)
    found = {name: added.add_parser(name) for name in run}
    for name, command in found.items():
        command.set_defaults(run=run[name])
        command.add_argument("--results", type=Path, default=results, required=results is None)
    return parser, found
