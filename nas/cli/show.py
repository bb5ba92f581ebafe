"""Printing: tables for people, JSON and CSV for programs. Results go to stdout, everything else to stderr."""

import csv
import functools
import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, ParamSpec, TypeVar

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.progress import Progress
from rich.segment import Segment
from rich.status import Status
from rich.table import Table

from nas import address_space
from nas.cli.activity import LinesStatus
from search_spaces.printable import printable

Format = Literal["table", "json", "csv"]

NEGATIVE, MISTAKE, STOPPED = 1, 2, 130
"""Exit statuses beside 0: the answer is no; nothing was done, for the user has to change something; Ctrl-C, as shells
define it. `docs/command_line.md` lists what each command means by them."""

_STDOUT, _STDERR = 1, 2
_GAP = 2
"""Spaces between two columns."""
_NUMERIC = frozenset("0123456789+-")
_LAST = 24
"""Least width of the last column, in characters; other columns are left out to make room for it."""
_LABEL = 10
"""Width of the names before texts, in characters."""
_COMMAND = re.compile(r"nas [a-z]+(?: [^\s()]+)?(?: --[a-z-]+(?: [^\s()-][^\s()]*)?)*")
_IN_COLUMNS = re.compile(r"\S {2,}\S")
_LABELLED = re.compile(r"\w+ {2,}")
_NO_BREAK = "\N{NO-BREAK SPACE}"


class PrintableConsole(Console):
    """Console that shows control characters of texts as they are written in Python, for texts may come from anyone."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render; Rich's own control codes, such as those of a progress bar, stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)

    is_quiet = False
    """Whether progress is not shown (`-q`)."""
    is_verbose = False
    """Whether errors are printed with their traceback (`-v`)."""

    @property
    def is_live(self) -> bool:
        """Whether progress is drawn over what was there."""
        return self.is_terminal and not self.is_quiet

    def status(self, status: Any, **appearance: Any) -> Status:
        """Return a spinner; where there is no terminal, what prints a line if the work takes over two seconds."""
        if self.is_quiet:
            return Status(status, console=Console(quiet=True))
        return super().status(status, **appearance) if self.is_terminal else LinesStatus(status, console=self)


err = PrintableConsole(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def paused(status: Status) -> Iterator[None]:
    """Stop a spinner while something else draws its own progress."""
    status.stop()
    try:
        yield
    finally:
        status.start()


@contextmanager
def others_on_stderr() -> Iterator[None]:
    """Send to stderr what others print to stdout meanwhile: Ultralytics, C code, the processes that they start."""
    sys.stdout.flush()
    results = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(results, _STDOUT)
        os.close(results)


P = ParamSpec("P")
R = TypeVar("R")


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Make a command print errors that the user can solve as lines on stderr, and exit with status 2."""

    @functools.wraps(command)
    def reporting(*arguments: P.args, **options: P.kwargs) -> R:
        from search_spaces.errors import NasError

        try:
            return command(*arguments, **options)
        except NasError as error:
            if err.is_verbose:
                err.print(traceback.format_exc(), markup=False)
            lines(str(error).splitlines(), style="red")
            raise typer.Exit(MISTAKE) from None
        except BrokenPipeError:
            raise typer.Exit(0) from None
        except (ImportError, MemoryError) as error:
            if (problem_of_memory := address_space.problem(error)) is None:
                raise
            lines([problem_of_memory], style="red")
            raise typer.Exit(MISTAKE) from None
        except OSError as error:
            from search_spaces.files import environment_problem

            problem = environment_problem(error)
            if problem is None:
                raise
            lines([str(problem)], style="red")
            raise typer.Exit(MISTAKE) from None

    return reporting


def rows(
    rows: Sequence[Mapping[str, Any]],
    shown: Format,
    *,
    title: str,
    columns: Mapping[str, str],
    narrow: Sequence[str] | None = None,
    least: int = _LAST,
) -> None:
    """Print rows as a table, as JSON or as CSV.

    Args:
        columns: keys that the table shows, with their headings; JSON and CSV print every key.
        narrow: columns that the table leaves out on a narrow terminal, in this order. If given, each row is one line,
            and the last column is cut where it has no room.
        least: width of the last column for which others are left out.
    """
    match shown:
        case "json":
            lines = ",\n".join(f" {json.dumps(row)}" for row in rows)  # with an indent, 10,000 trials take seconds
            print(f"[\n{lines}\n]" if lines else "[]")  # noqa: T201 - this is the output
        case "csv":
            written = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]) if rows else list(columns))
            written.writeheader()
            written.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        case _ if narrow is not None:
            _print_lines(rows, title, columns, narrow, least)
        case _:
            table = Table(title=escape(title), title_justify="left", header_style="bold")
            for key, heading in columns.items():
                numeric = any(isinstance(row.get(key), int | float) for row in rows)
                table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
            for row in rows:
                table.add_row(*(escape(figure(key, row.get(key))) for key in columns))
            console().print(table)


def _print_lines(
    rows: Sequence[Mapping[str, Any]], title: str, columns: Mapping[str, str], narrow: Sequence[str], least: int
) -> None:
    """Print a table of one line per row, with as many columns as the terminal has room for.

    Rich takes ten seconds for the table of 10,000 trials, so the lines are made here.
    """
    out = console()
    if title:
        out.print(title, style="italic", no_wrap=True, overflow="ellipsis", markup=False)
    head, *body = table_lines(rows, columns, narrow, width=out.width, least=least)
    out.print(head, style="bold", no_wrap=True, overflow="ignore", crop=False, markup=False)
    out.file.writelines(f"{line}\n" for line in body)


def table_lines(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    narrow: Sequence[str],
    *,
    width: int,
    least: int = _LAST,
) -> list[str]:
    """Return the headings and one line per row, with as many columns as there is room for.

    Args:
        columns: keys with their headings; the last one gets the room that the others leave.
        narrow: columns that are left out where there is no room, in this order.
        width: in columns of a terminal.
        least: width of the last column for which others are left out.
    """
    cells = {key: [printable(figure(key, row.get(key))) for row in rows] for key in columns}
    widths = {key: max(map(_width, [columns[key], *column])) for key, column in cells.items()}
    *_, last = columns
    wanted, widths[last] = widths[last], min(widths[last], least)
    left_out = list(narrow)
    while (room := width - sum(widths.values()) - _GAP * (len(widths) - 1)) < 0 and left_out:
        widths.pop(left_out.pop(0), None)
    widths[last] = max(1, min(wanted, widths[last] + room))
    fitted = []
    for key, chosen in widths.items():
        is_numeric = all(cell == "-" or (cell[:1] in _NUMERIC and "=" not in cell) for cell in cells[key])
        fitted.append([_fitted(cell, chosen, is_right=is_numeric) for cell in (columns[key], *cells[key])])
    return [(" " * _GAP).join(line).rstrip() for line in zip(*fitted, strict=True)]


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes; it has no control characters."""
    return len(text) if text.isascii() else cell_len(text)


def _fitted(cell: str, width: int, *, is_right: bool) -> str:
    """Return a text of exactly so many columns of a terminal, cut with an ellipsis or padded."""
    length = _width(cell)
    if length > width:
        return f"{set_cell_size(cell, width - 1)}…"
    padding = " " * (width - length)
    return padding + cell if is_right else cell + padding


def console() -> Console:
    """Return the console of stdout; without a terminal it is as wide as `COLUMNS` sets, else wide enough for tables."""
    plain = PrintableConsole(highlight=False)
    return plain if plain.is_terminal or os.environ.get("COLUMNS") else PrintableConsole(highlight=False, width=160)


def figure(name: str, value: Any) -> str:
    """Format the value of a column for a person."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() if name in {"params", "deployed_params"}:
            return f"{value / 1e6:.3f} M"
        case float() if "gain" in name:
            return f"{value:+.3f}"
        case float() if "map50" in name or name == "expected":
            return f"{value:.3f}"
        case float() if "gflops" in name:
            return f"{value:.2f}"
        case float():
            return f"{value:.1f}"
        case _:
            return str(value)


def text(line: str, *, end: str = "\n") -> None:
    """Print a text for people to stdout, as it is but for control characters."""
    print(printable(line), end=end)  # noqa: T201 - this is the output


def prose(texts: Iterable[str]) -> None:
    """Print lines to stdout; on a terminal, long ones are broken between words, and stay beside a name before them."""
    to = console()
    for line in texts:
        label = _LABELLED.match(line)
        name = label.group() if label else ""
        said = line[len(name) :]
        broken = _broken(said, max(_LAST, to.width - len(name))) if to.is_terminal else [said]
        text(name + f"\n{' ' * len(name)}".join(broken))


def result(line: str, document: Mapping[str, Any], shown: Literal["text", "json"]) -> None:
    """Print the result of a command to stdout: a line such as a path, or a document as JSON."""
    text(line if shown == "text" else json.dumps(document, indent=1))


def lines(texts: Iterable[str], *, style: str | None = None) -> None:
    """Print lines of text to stderr; on a terminal, long ones are broken between words."""
    for line in (line for text in texts for line in text.split("\n")):
        err.print("\n".join(_broken(line, err.width)) if err.is_terminal else line, markup=False, style=style)


def labelled(texts: Iterable[tuple[str, str]]) -> None:
    """Print names with their texts to stderr, whose lines stay indented; on a terminal, long ones are broken."""
    for name, text in texts:
        label, written = f"{name:<{_LABEL - 1}} ", text.split("\n")
        room = max(_LAST, err.width - len(label))
        broken = [part for line in written for part in _broken(line, room)] if err.is_terminal else written
        err.print(label + f"\n{' ' * _LABEL}".join(broken), markup=False)


def _broken(text: str, room: int) -> list[str]:
    """Break a text between words; commands stay whole, to be copied, and rows of tables as they are."""
    if len(text) <= room or _IN_COLUMNS.search(text):
        return [text]
    kept = _COMMAND.sub(lambda found: found.group().replace(" ", _NO_BREAK), text)
    indent = " " * (len(text) - len(text.lstrip()))
    broken = textwrap.wrap(kept, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in broken] or [text]


def details(texts: Iterable[str]) -> None:
    """Print lines to stderr that explain or announce something, unless only results are wanted (`-q`)."""
    if not err.is_quiet:
        lines(texts)


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    return printable(value) if isinstance(value, str) else value


@contextmanager
def progress(what: str, ending: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr.

    Yields:
        A function to call with the number of finished steps and of all steps.

    Args:
        what: label of the bar.
        ending: line to print if Ctrl-C stops the command, which then exits with status 130.
    """
    try:
        if err.is_live:
            with Progress(*Progress.get_default_columns(), console=err, transient=True) as bar:
                task = bar.add_task(what, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            with err.status(what) as status:
                yield lambda done, total: status.update(f"{what}: {done} of {total}")
    except KeyboardInterrupt:
        lines([ending])
        raise typer.Exit(STOPPED) from None
