"""Checks of the command line before a command runs: one line per mistake, with the option that was probably meant."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from nas import ranges, spelling
from nas.cli import show
from nas.workflows.option import declared
from nas.workflows.search_options import SearchOptions
from search_spaces.errors import nearest

_USAGE: Any = typer.BadParameter.__mro__[1]
"""Base class of the errors of a wrong command line; Typer does not export it."""
_ASSIGNMENT = re.compile(r"([A-Za-z_][\w-]*)=(.*)", re.DOTALL)
_NOT_ONE_OF = re.compile(r"'(.*)' is not one of ('.*')", re.DOTALL)
"""Typer's message on a value that is no choice: the value, and the choices, each quoted."""
_QUOTED = re.compile(r"'([^']*)'")
_MODEL = re.compile(r"yolo(?:v?)(\d+)-?([a-z]?)(?:[.-]|$)")
_VERBOSITY = frozenset({"-q", "--quiet", "-v", "--verbose"})
_ULTRALYTICS = ("train", "val", "predict", "track", "benchmark", "detect", "segment", "classify", "pose", "obb")
UNITS = frozenset(name for name, one in declared(SearchOptions).items() if one.option.unit)
"""Options with units; their readers in `nas.cli.options` check them."""


class Commands(TyperGroup):
    """Group of all commands that prints each mistake of the command line as one line, and exits with status 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command; `-q` and `-v` may also stand behind it."""
        if not ctx.resilient_parsing:
            args = _with_verbosity_first(args)
        try:
            return super().parse_args(ctx, args)
        except _USAGE as error:
            _refuse(error, "nas")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, and check the options and arguments after it."""
        if ctx.resilient_parsing:  # a shell asks for completions of what is not typed to its end
            return super().resolve_command(ctx, args)
        hint = None if args[0] in self.commands else _no_command(args)
        if hint is not None:
            _end([hint])
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not command.context_settings.get("ignore_unknown_options"):
            problems = _problems(command, rest, f"nas {name}")
            if problems:
                _end(problems)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except _USAGE as error:
            _refuse(error, error.ctx.command_path if error.ctx else "nas")


def _with_verbosity_first(args: list[str]) -> list[str]:
    """Return a command line with `-q`, `--quiet`, `-v` and `--verbose` before the command, whose arguments end at `--`.

    What Ultralytics' command gets is left as it is.
    """
    command = next((word for word in args if not word.startswith("-")), "")
    end = args.index("--") if "--" in args else len(args)
    moved = [word for word in args[:end] if word in _VERBOSITY] if command != "yolo" else []
    return [*moved, *(word for word in args[:end] if not moved or word not in _VERBOSITY), *args[end:]]


def warn_of_passwords(words: Sequence[str]) -> None:
    """Print a line if a password stands in a command line, which every user of the machine can read."""
    values = [word.partition("=")[2] if word.startswith("-") else word for word in words if "://" in word]
    if values:
        from nas.addresses import STORAGE, without_password

        if any(without_password(value) != value for value in values):
            show.lines(
                [
                    "warning: every user of this machine can read the password in this command line (ps)",
                    f"         (give the address as {STORAGE} in the environment, or the password in ~/.pgpass)",
                ]
            )


def _problems(command: Any, tokens: Sequence[str], path: str) -> list[str]:
    """Return every mistake after the name of a command, one line each."""
    while isinstance(command, TyperGroup):
        name = tokens[0] if tokens else ""
        if name in command.commands:
            tokens = tokens[1:]
        elif "show" in command.commands and name and not name.startswith("-"):
            name = "show"  # `nas spaces v9`
        else:
            return []
        command, path = command.commands[name], f"{path} {name}"
    return [problem for problem in _CommandChecker(command, path).problems(tokens) if problem]


class _CommandChecker:
    """Checks a command line against the options and arguments of one command.

    Args:
        path: the command as it is typed, such as `nas latency record`.
    """

    def __init__(self, command: Any, path: str) -> None:
        self._path = path
        self._passes_on = bool(command.context_settings.get("allow_extra_args"))
        self._types = get_type_hints(command.callback)
        named = [one for one in command.params if one.param_type_name == "option"]
        self._options = {spelled: one for one in named for spelled in (*one.opts, *one.secondary_opts)}
        self._arguments = [one.name for one in command.params if one.param_type_name == "argument"]
        self._words = {spelled.lstrip("-").replace("-", "_"): spelled for spelled in self._options}

    def problems(self, typed: Sequence[str]) -> Iterator[str | None]:
        """Yield the mistakes of what was typed; None for what is right."""
        left = [] if "--help" in typed else list(typed)
        while left:
            part = left.pop(0)
            if part == "--":
                return
            name, equals, value = part.partition("=")
            if part.startswith("-") and len(part) > 1:
                option = self._options.get(name)
                takes_value = not getattr(option, "is_flag", False)
                follows = bool(left) and (option is not None or not _cannot_be_value(left[0]))
                if takes_value and not equals and follows:
                    value, equals = left.pop(0), "="
                if option is None:
                    yield self._unknown(name, value)
                elif takes_value and equals:
                    yield self._value(option, value)
            elif (assigned := _ASSIGNMENT.fullmatch(part)) and not _exists(part):
                if self._passes_on and assigned[1].replace("_", "-") not in {one.lstrip("-") for one in self._options}:
                    continue  # to Ultralytics, which checks it
                yield self._assigned(assigned[1], assigned[2])
            else:
                problem = ranges.text_problem(part)
                yield f"{self._path}: {problem}" if problem else None

    def _value(self, option: Any, text: str) -> str | None:
        """Check the value of an option."""
        name = option.name
        hint = self._types.get(name)
        kinds = set(get_args(hint)) or {hint}
        if text.strip() and name in UNITS:
            return None
        if text.strip() and kinds & {int, float}:
            whole = int in kinds
            allowed = ranges.RANGES.get(name, ranges.ANY_WHOLE if whole else ranges.ANY_NUMBER)
            problem = allowed.problem(ranges.whole(text) if whole else ranges.decimal(text))
        else:
            problem = ranges.text_problem(text)
        return f"{_flag(option)}: {problem}" if problem else None

    def _unknown(self, name: str, value: str) -> str:
        """Describe an option that the command does not have."""
        return f"{name}: {self._path} has no such option ({self._hint(name, value)})"

    def _assigned(self, name: str, value: str) -> str:
        """Describe `name=value`, which is the style of Ultralytics' command."""
        return f"{ranges.shown(f'{name}={value}')}: options of nas begin with two dashes ({self._hint(name, value)})"

    def _hint(self, name: str, value: str) -> str:
        """Return what to type instead."""
        word = name.strip("-").replace("-", "_").lower()
        if word == "model" and "model" in self._arguments:
            return f"{self._path} {_quoted(value)}".strip()
        if word == "model" and "space" in self._words and "model" not in self._words:
            return _space_of(value)
        if word in self._arguments or (word == "name" and "study" in self._arguments):
            return f"{self._path} {_quoted(value)}".strip()
        found = spelling.nearest_option(word, self._words)
        if found is None:
            return f"{self._path} --help lists its options"
        spelled = self._words[found]
        flag = getattr(self._options[spelled], "is_flag", False)
        wanted = f"{spelled} {_quoted(value)}" if value and not flag else spelled
        return f"did you mean {wanted}?"


def _space_of(model: str) -> str:
    """Return how to search from a model instead of a space."""
    named = _MODEL.match(Path(model).name)
    if not model or not named:
        return f"a search takes --space; nas spaces derive {_quoted(model) or 'MODEL.yaml'} > my_space.yaml writes one"
    scale = f" --scale {named[2]}" if named[2] else ""
    weights = f" --weights {_quoted(model)}" if model.endswith(".pt") else ""
    return f"a search takes a space: --space v{named[1]}{scale}{weights}"


def _no_command(args: Sequence[str]) -> str | None:
    """Return the mistake of an unknown command, if it is a word of Ultralytics or unreadable."""
    name = args[0]
    if _ASSIGNMENT.fullmatch(name):
        return f"nas: a command is expected, got {ranges.shown(name)} (such as nas search --data my/data.yaml)"
    if name in _ULTRALYTICS:
        return f"nas: no command {name!r} (did you mean nas yolo {name}?)"
    problem = ranges.text_problem(name)
    return f"nas: {problem}" if problem else None


def _flag(option: Any) -> str:
    return str(option.opts[0]).lstrip("-")


def _quoted(value: str) -> str:
    return shlex.quote(value) if value else ""


def _cannot_be_value(part: str) -> bool:
    """Whether it is another option, and not the value of the option before it."""
    return part.startswith("-") or _ASSIGNMENT.fullmatch(part) is not None


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _refuse(error: Any, command: str) -> NoReturn:
    """Print a mistake that Typer found; a group without a command shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        raise error
    option = getattr(error, "param", None)
    wrong = _NOT_ONE_OF.search(_one_line(error.message or ""))
    if option is not None and wrong:
        _end([f"{_flag(option)}: got '{wrong[1]}' ({nearest(wrong[1], re.findall(_QUOTED, wrong[2]))})"])
    if option is not None and error.message:
        _end([f"{_flag(option)}: {_one_line(error.message)}"])
    _end([f"{command}: {_one_line(error.format_message())} (see {command} --help)"])


def _end(lines: Sequence[str]) -> NoReturn:
    show.lines(lines, style="red")
    raise typer.Exit(show.MISTAKE)


def _one_line(message: str) -> str:
    text = " ".join(message.split()).removesuffix(".").removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
