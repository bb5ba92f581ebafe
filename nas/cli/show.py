"""How results look: tables for people, JSON and CSV for programs. Results on stdout, everything else on stderr."""

import csv
import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

Format = Literal["table", "json", "csv"]

STOPPED = 130
"""The exit status after Ctrl-C, as a shell says it."""

err = Console(stderr=True, highlight=False, soft_wrap=True)

P = ParamSpec("P")
R = TypeVar("R")


def told(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose known problems become lines on stderr and status 2."""

    @functools.wraps(command)
    def telling(*arguments: P.args, **options: P.kwargs) -> R:
        from search_spaces.errors import NasError

        try:
            return command(*arguments, **options)
        except NasError as error:
            for line in str(error).splitlines():
                err.print(line, markup=False, style="red")
            raise typer.Exit(2) from None
        except BrokenPipeError:
            raise typer.Exit(0) from None

    return telling


def rows(rows: Sequence[Mapping[str, Any]], shown: Format, *, title: str, columns: Mapping[str, str]) -> None:
    """Print rows.

    Args:
        columns: for a table, the keys to show and their headings; JSON and CSV print every key.
    """
    match shown:
        case "json":
            print(json.dumps(list(rows), indent=1))  # noqa: T201 - this is the output
        case "csv":
            written = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]) if rows else list(columns))
            written.writeheader()
            written.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        case _:
            table = Table(title=title, title_justify="left", header_style="bold")
            for key, heading in columns.items():
                numeric = any(isinstance(row.get(key), int | float) for row in rows)
                table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
            for row in rows:
                table.add_row(*(figure(key, row.get(key)) for key in columns))
            console().print(table)


def console() -> Console:
    """Stdout; as wide as a table needs where it is not a terminal."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=160)


def figure(name: str, value: Any) -> str:
    """A value as a person reads it."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() if name in {"params", "deployed_params"}:
            return f"{value / 1e6:.3f} M"
        case float() if "map50" in name or name == "expected":
            return f"{value:.3f}"
        case float() if "gflops" in name:
            return f"{value:.2f}"
        case float():
            return f"{value:.1f}"
        case _:
            return str(value)


def lines(texts: Iterable[str]) -> None:
    """Print remarks beside a result."""
    for text in texts:
        err.print(text, markup=False)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


@contextmanager
def progress(what: str, ending: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, told `(done, total)`; Ctrl-C ends it with a line."""
    bar = Progress(*Progress.get_default_columns(), console=err, transient=True)
    try:
        with bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    except KeyboardInterrupt:
        lines([ending])
        raise typer.Exit(STOPPED) from None
