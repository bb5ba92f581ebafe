"""Say why a user's class cannot be placed: what was tried, what stands in the way, and which line would help."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

from search_spaces import class_row, constructors, fork_rules, one_by_one
from search_spaces.class_row import ClassRow
from search_spaces.errors import SpecError, shortened
from search_spaces.operators import constructor_names
from search_spaces.operators.user_classes import UserClass

_SHOWN = 3
"""Most readings that a message lists."""

_TEXT_FOR_CHANNELS = "nothing, since a text stands where its constructor takes channels"


def message(row: ClassRow, failed: Sequence[str]) -> str:
    """Return the message for a class of which no reading works.

    Args:
        failed: what was wrong with each reading; none if there was none to try.
    """
    tried = failed or [_TEXT_FOR_CHANNELS]
    arguments = shortened(list(row.arguments))
    if row.found.source is None:
        return f"{row.found.name} cannot be built of {arguments}: {tried[0]}"
    more = f"; and {len(tried) - _SHOWN} more" if len(tried) > _SHOWN else ""
    return (
        f"{row.found.name} of {row.found.file} cannot be built of {arguments}: tried "
        f"{'; '.join(tried[:_SHOWN])}{more} ({_obstacle(row) or _line(row)})"
    )


def of_one_size(found: UserClass, *, works: int, fails: int) -> str:
    """Return the message for a class that takes the maps of an image of one size, in pixels, and not of another."""
    return (
        f"{found.name} of {found.file} takes maps of one size alone: it works in images of {works} px, and not "
        f"in one of {fails} px, with which Ultralytics finds the strides; let it resize what it adds to a map, "
        "such as an embedding of positions (F.interpolate)"
    )


def _obstacle(row: ClassRow) -> str:
    """Return what stands in the way where another reading of the arguments cannot help; empty if one may."""
    module = row.found.module
    names, maps = one_by_one.names_of_maps(module), len(row.place.channels)
    if len(names) > max(maps, 1):
        return (
            f"its forward takes {len(names)} maps, {', '.join(names)}, and the row reads {maps}: write a list of as "
            "many layers, such as [-1, 6]"
        )
    if constructor_names.hides_its_arguments(module):
        return (
            "its constructor takes arguments by name alone, **kwargs, and its source does not say which: write a class "
            "derived from it whose constructor names them, `def __init__(self, c1, c2): super().__init__(...)`"
        )
    return fork_rules.of_older_parent(module)


def _line(row: ClassRow) -> str:
    """Return the line of a model file that would say what a class wants, with an example where one works."""
    name = row.found.name
    for words in _forms(row) if row.told is None and not row.is_head else ():
        with suppress(Exception):  # the next may work
            class_row.built(row, constructors.as_told(words, row.arguments, row.place), single=False)
            shown = ", ".join(str(one).lower() if isinstance(one, bool) else one for one in words)
            return f"`arguments: {{{name}: [{shown}]}}` in the model file works, if it is what is meant"
    return (
        f"say what its constructor wants in the model file, `arguments: {{{name}: [...]}}`, of values and "
        f"{', '.join(constructors.WORDS)}: no line was found by trying; docs/operators.md"
    )


def _forms(row: ClassRow) -> Iterator[list[Any]]:
    """Yield words of `arguments:` that may be meant, alone and with the opposite of the next truth value."""
    parameters = constructor_names.arguments(row.found.module)
    befores = ["in", "all", "sum", "each"] if row.place.reads_list else ["in"]
    for behind, before in product((["out", "repeats", "rest"], ["out", "rest"], ["rest"]), befores):
        words = [before, *behind]
        yield words
        with suppress(SpecError):  # no output channels in the row
            count = len(constructors.as_told(words, row.arguments, row.place).arguments)
            if count < len(parameters) and isinstance(default := parameters[count].default, bool):
                yield [*words, not default]
