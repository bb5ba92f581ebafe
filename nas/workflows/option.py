"""Declaration of an option, and what is made of declarations: checks, signatures, docstrings, a table.

A class of options is a frozen dataclass whose fields are `Annotated[type, Option(...)]`. Neither Typer nor PyTorch is
imported here: `nas --help` and `import nas` stay fast.
"""

import inspect
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from nas import ranges

P = ParamSpec("P")
R = TypeVar("R")

_DOCSTRING_WIDTH = 100


class Unit(Enum):
    """Unit that a value may carry on the command line: its placeholder, examples, and the plain unit in Python."""

    TIME = "TIME", "90s, 30m or 8h", "seconds"
    MEMORY = "SIZE", "8G or 800M", "bytes"
    COUNT = "N", "2.5M or 800k", ""
    SHARE = "SHARE", "15% or 0.15", ""
    BATCH = "N", "16 or auto", ""
    WORKERS = "N", "4 or auto", ""

    @property
    def metavar(self) -> str:
        """Placeholder of the value in the help."""
        return self.value[0]

    @property
    def examples(self) -> str:
        """Values as one types them."""
        return self.value[1]

    @property
    def in_python(self) -> str:
        """Unit of the plain number; empty if it only counts."""
        return self.value[2]


@dataclass(frozen=True, kw_only=True)
class Option:
    """Everything about an option that its name, type and default do not say.

    Attributes:
        help: one or two sentences. Commands stand in backticks.
        panel: heading under which the help shows it.
        metavar: placeholder of the value; empty shows the type.
        unset: what happens if nothing is given; empty if the default says it.
        unit: for numbers that are typed with a unit.
        off: help of the flag that switches off what is on by default.
    """

    help: str
    panel: str
    metavar: str = ""
    unset: str = ""
    unit: Unit | None = None
    off: str = ""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """An option with what the field says: its name, its type and its default."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def kinds(self) -> set[Any]:
        """Types of its values, without None."""
        union = get_origin(self.type) not in {None, Literal, tuple, list}
        return {one for one in (get_args(self.type) if union else (self.type,)) if one is not type(None)}

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed texts; empty if any text is allowed."""
        return tuple(name for one in self.kinds if get_origin(one) is Literal for name in get_args(one))

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return self.kinds == {bool}

    @property
    def is_list(self) -> bool:
        """Whether it has several values, separated by commas on the command line."""
        return any(get_origin(one) is tuple for one in self.kinds)

    @property
    def is_text(self) -> bool:
        """Whether it is typed as free text: a name, a path, or a list."""
        return self.is_list or str in self.kinds

    @property
    def metavar(self) -> str:
        """Placeholder of its value; empty if its type is shown instead."""
        return self.option.unit.metavar if self.option.unit else self.option.metavar

    @property
    def argument(self) -> str:
        """Name on the command line, with underscores: `no_cache` for a switch that is on by default."""
        return f"no_{self.name}" if self.is_switch and self.default else self.name

    @property
    def flag(self) -> str:
        """Name on the command line as one types it."""
        return f"--{ranges.flag(self.argument)}"

    @property
    def default_text(self) -> str:
        """Default as a person reads it; empty for a switch that is off and for what nothing replaces."""
        if self.default is None or self.is_switch:
            return self.option.unset
        return ",".join(self.default) if self.is_list else str(self.default)

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value; None if it is allowed. Whether a name exists is not checked."""
        if (value is None and self.default is None) or (isinstance(value, str) and value in self.choices):
            return None
        if self.name in ranges.RANGES:
            return ranges.RANGES[self.name].problem(value)
        if self.is_switch:
            return None if isinstance(value, bool) else f"input should be True or False, got {ranges.shown(value)}"
        if self.is_list:
            several = isinstance(value, tuple | list) and value
            return None if several else f"input should be names, got {ranges.shown(value)} (such as {self.default!r})"
        if os.PathLike[str] in self.kinds:
            if not isinstance(value, str | os.PathLike):
                return f"a path is expected, got {ranges.shown(value)}"
            value = os.fspath(value)
        return ranges.text_problem(value)


def declared(options: Any) -> dict[str, Declared]:
    """Return the options that a class declares, by name."""
    types, annotated = get_type_hints(options), get_type_hints(options, include_extras=True)
    return {
        one.name: Declared(
            name=one.name, type=types[one.name], default=one.default, option=annotated[one.name].__metadata__[0]
        )
        for one in fields(options)
    }


def problems(options: Any) -> list[str]:
    """Check the values of an instance, each by itself; one line for each that is wrong."""
    found = {one.name: one.problem(getattr(options, one.name)) for one in declared(type(options)).values()}
    return [f"{ranges.flag(name)}: {problem}" for name, problem in found.items() if problem is not None]


def require(options: Any, values: Mapping[str, object], numbers: Mapping[str, object] = MappingProxyType({})) -> None:
    """Refuse values that a user's program gives, each checked by itself.

    Args:
        options: class that declares options.
        values: of some of these, by name.
        numbers: of other options, which have a range in `nas.ranges`; None for what is not given.

    Raises:
        SpecError: with every value that cannot be right.
    """
    from search_spaces.errors import SpecError  # noqa: PLC0415 - the help of a command needs none

    every = declared(options)
    found = {name: every[name].problem(value) for name, value in values.items()}
    wrong = [f"{ranges.flag(name)}: {problem}" for name, problem in found.items() if problem is not None]
    if wrong := wrong + ranges.problems(numbers):
        raise SpecError(wrong)


def accepts(options: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Give a function the declared options as its keyword parameters.

    Type checkers read them from the return type; `help` and `inspect.signature` from the function.
    """

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        parameters = [
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
            for one in declared(options).values()
        ]
        returns = inspect.signature(function).return_annotation
        function.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": returns}
        function.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
        summary, raises, errors = (inspect.getdoc(function) or "").partition("Raises:\n")
        function.__doc__ = "\n".join(
            [summary + "Args:", *map(_argument, declared(options).values()), "", raises + errors]
        )
        return function

    return decorate


def _argument(one: Declared) -> str:
    """Describe an option in the section `Args` of a docstring."""
    unit = f" In {one.option.unit.in_python}." if one.option.unit and one.option.unit.in_python else ""
    default = str(one.default) if isinstance(one.default, os.PathLike) else repr(one.default)
    default = one.option.unset or ("" if one.default is None else default)
    text = f"{one.name}: {one.option.help}{unit}{f' Default: {default}.' if default else ''}"
    return textwrap.fill(text, _DOCSTRING_WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8)


def markdown(options: Any) -> str:
    """Write the declared options as Markdown: a heading and a table for each panel."""
    panels = dict.fromkeys(one.option.panel for one in declared(options).values())
    return "\n".join(line for panel in panels for line in _panel(options, panel)) + "\n"


def _panel(options: Any, panel: str) -> Iterator[str]:
    yield from (f"## {panel}", "", "| option | in Python | default | meaning |", "|---|---|---|---|")
    for one in declared(options).values():
        if one.option.panel == panel:
            typed = f"`{one.flag} {one.metavar}`".replace(" `", "`")
            examples = f" Such as {one.option.unit.examples}." if one.option.unit else ""
            meaning = f"{one.option.off or one.option.help}{examples}"
            yield f"| {typed} | `{one.name}` | {one.default_text or '-'} | {meaning} |"
    yield ""
