"""Options on the command line: those of a search, made of their declarations, and those that many commands share."""

import functools
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from nas.cli import completion, show, units
from nas.cli.show import Format
from nas.defaults import MARGIN
from nas.workflows.option import Declared, Unit, declared
from nas.workflows.search_options import SearchOptions

if TYPE_CHECKING:
    from nas.study import stored_study

R = TypeVar("R")

AS_BEFORE = "as before"
_READERS: Mapping[Unit | None, Callable[[str], float | str]] = {
    Unit.TIME: units.seconds,
    Unit.MEMORY: units.memory,
    Unit.COUNT: units.count,
    Unit.BATCH: units.number_or_auto("batch", 16),
    Unit.WORKERS: units.number_or_auto("workers_per_device", 4),
}

Typed = Mapping[str, Any]
"""Values of declared options that a command was called with, by the names that `nas.search` has for them."""


def takes(
    *names: str,
    of: Any = SearchOptions,
    panels: Mapping[str, str] | None = None,
    unset: Mapping[str, str] | None = None,
    meaning: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command declared options, whose values it receives as one mapping, its parameter `typed`.

    Args:
        names: the options; all of them if none is named.
        of: class that declares them.
        panels: headings under which the help of this command shows options, where they differ from the declared ones.
        unset: what happens if nothing is given to this command, where it differs.
        meaning: help of options for this command, where it differs.
        defaults: values of options that are not given to this command, where they differ.
    """
    every = declared(of)
    panels, unset, meaning, defaults = panels or {}, unset or {}, meaning or {}, defaults or {}
    options = [replace(every[name], default=defaults.get(name, every[name].default)) for name in names or every]
    parameters = [
        _parameter(
            one,
            panel=panels.get(one.name, one.option.panel),
            unset=unset.get(one.name, one.option.unset),
            meaning=meaning.get(one.name, one.option.off or one.option.help),
        )
        for one in options
    ]

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        whole = _with_options(inspect.signature(command), parameters)

        @functools.wraps(command)
        def taking(**given: Any) -> R:
            typed = {one.name: _read(one, given.pop(one.argument)) for one in options}
            return command(typed=typed, **given)

        taking.__signature__ = whole  # type: ignore[attr-defined]
        taking.__annotations__ = {one.name: one.annotation for one in whole.parameters.values()} | {"return": None}
        return taking

    return decorate


def _with_options(signature: inspect.Signature, options: Sequence[inspect.Parameter]) -> inspect.Signature:
    """Put the parameters of options in the place of the parameter `typed`."""
    others = [one.replace(kind=one.KEYWORD_ONLY) for one in signature.parameters.values()]
    at = list(signature.parameters).index("typed")
    return signature.replace(parameters=[*others[:at], *options, *others[at + 1 :]])


def _parameter(one: Declared, *, panel: str, unset: str, meaning: str) -> inspect.Parameter:
    """Return the parameter of a command from which Typer makes the option."""
    examples = f" Such as {one.option.unit.examples}." if one.option.unit else ""
    default = f" [default: {unset}]" if unset else ""
    reader = units.share_of(one.name) if one.option.unit is Unit.SHARE else _READERS.get(one.option.unit)
    info = typer.Option(
        *([one.flag] if one.is_switch else []),
        help=_as_markup(f"{meaning}{examples}{default}"),
        rich_help_panel=panel,
        metavar=None if one.is_switch else one.metavar or None,
        parser=reader,
        autocompletion=completion.spaces if one.name == "space" else None,
    )
    annotation: Any = Annotated[_type(one), info]
    return inspect.Parameter(one.argument, inspect.Parameter.KEYWORD_ONLY, default=_default(one), annotation=annotation)


def _default(one: Declared) -> Any:
    """Return the default as Typer shows it; a switch is always off until its flag is given."""
    if one.is_switch:
        return False
    return one.default_text if one.is_text and one.default is not None else one.default


def _type(one: Declared) -> Any:
    """Return the type that Typer reads: lists, which may be separated by commas, and paths are text."""
    if one.option.unit in {
        Unit.BATCH,
        Unit.WORKERS,
    }:  # Typer takes no union of a number and a name; the reader returns either
        return str | None
    if not one.is_text:
        return one.type
    if one.is_list and one.default is None:  # may be given several times, too
        return list[str] | None
    return str if one.default is not None else str | None


def _read(one: Declared, value: Any) -> Any:
    """Return what `nas.search` takes for what was typed."""
    if one.is_switch:
        return not value if one.default else value
    if value is None or not one.is_list:
        return value
    return split(value if isinstance(value, list) else [value])


def split(several: Sequence[str]) -> tuple[str, ...]:
    """Return names that are given one by one, or several at once with commas between."""
    return tuple(name.strip() for one in several for name in one.split(",") if name.strip())


def _as_markup(text: str) -> str:
    """Write a help text for Rich: commands in bold instead of backticks, brackets as they are."""
    return re.sub(r"`(.+?)`", r"[b]\1[/b]", text.replace("[", "\\["))


def help_of(name: str) -> str:
    """Return the help of an option of a search, for an argument or option that other commands declare themselves."""
    return _as_markup(declared(SearchOptions)[name].option.help)


Name = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="Name of the study; [b]nas status[/b] lists all.",
        autocompletion=completion.studies,
    ),
]
Runs = Annotated[Path, typer.Option(metavar="FOLDER", help=help_of("runs"))]
Shown = Annotated[Format, typer.Option("--format", help="Print a table to read, or JSON or CSV for programs.")]
TextFormat = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Print text to read, or JSON for programs.")
]
Margin = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help=f"Differences in mAP50-95 below this margin do not matter. \\[default: as before, or {MARGIN}]",
    ),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Python file, or folder of them, with the layers and operators of your own or of a fork that the model "
        "uses. Files named inside a model file are not run unless they are given here.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the operators that the study brings as Python files, though you have not run them on this machine; "
        "remembered. Read them first.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Begin a search that takes over a day without being asked.")]
SearchFormat = Annotated[
    Format,
    typer.Option("--format", help="Print the front as a table, or JSON or CSV for programs; with --dry-run the plan."),
]


def load_modules(files: list[str] | None) -> None:
    """Add the operators and layers of files and folders that the user names on the command line."""
    from search_spaces.operators import modules, user_classes

    modules.load_all(split(files or ()), None)
    show.lines(f"note: {line}" for line in user_classes.left_out())


def typed_command() -> str:
    """Return the command of this process as one types it."""
    return shlex.join(["nas", *sys.argv[1:]])


def command_for(name: str, study: "stored_study.StoredStudy", *, named: bool = True) -> str:
    """Return a command to type for a study, such as `nas resume v9t-digits --runs there`."""
    from nas.study.folders import command

    return command(name, study.folder, named=named)
