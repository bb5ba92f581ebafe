"""Read which arguments a class of a fork wants, from its signature, as the fork's parser would give them.

Forks teach `parse_model` their classes one by one: to some it gives the channels before and behind the layer, to others
only those before, or a list of them, or nothing. What a class wants shows in the names of its parameters; where it
does not, several readings are possible, in order of preference, and each is tried (`search_spaces.trying`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import Parameter
from typing import Any

from torch import nn

from search_spaces import named_values
from search_spaces.errors import SpecError
from search_spaces.operators import constructor_names

WORDS = ("in", "all", "each", "sum", "out", "repeats", "rest")
"""Words by which a model file says what a class wants, `arguments: {MyBlock: [in, out, repeats, rest]}`.

`in` are the channels of the (first) map, `all` a list of those of all maps, `each` the same as an argument for each,
`sum` their sum, `out` the row's first argument as output channels, scaled by the width; `rest` the others of the row.
"""

_LARGEST_KERNEL = 15


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read the arguments of a row.

    Attributes:
        arguments: of the constructor; the word `nc` stands for the number of classes of a head.
        written: arguments of a row that is read the same where no factor scales channels.
        has_channels: whether the first of `written` are output channels, which a width scales.
        takes_repeats: whether the repeats are among the arguments; else the layer is repeated.
        is_guess: whether nothing but the row says that the constructor takes output channels: the map must have them.
        block: of Ultralytics, as which the class is taken (`fork_rules.block_of`); empty if none.
    """

    arguments: tuple[Any, ...]
    written: tuple[Any, ...]
    has_channels: bool = False
    takes_repeats: bool = False
    is_guess: bool = False
    block: str = ""

    def given(self, classes: Any) -> tuple[Any, ...]:
        """Return the arguments for a number of classes."""
        return tuple(classes if one == "nc" else one for one in self.arguments)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What surrounds a row.

    Attributes:
        channels: of each map that the row reads.
        reads_list: whether the row's `from` is a list.
        repeats: already scaled by the depth.
        scaled: scales output channels by the width, as `parse_model` does.
        settings: of the file that heads take as arguments, by the names of these.
        further: numbers of the scale behind depth, width and most channels, which a fork's file may have.
    """

    channels: tuple[int, ...]
    reads_list: bool
    repeats: int
    scaled: Callable[[int], int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    further: tuple[Any, ...] = ()


def readings(module: type[nn.Module], arguments: Sequence[Any], place: Place) -> list[Reading]:
    """Return the possible readings of a row's arguments, the most likely first, each once."""
    reader = _Reader(module, arguments, place)
    found = reader.of_list() if place.reads_list else reader.of_one()
    distinct: dict[str, Reading] = {}
    for one in found:
        if not _has_text_for_channels(module, one.arguments):
            distinct.setdefault(repr((one.arguments, one.takes_repeats)), one)
    return list(distinct.values())


def with_named_values(reading: Reading, module: type[nn.Module]) -> Reading:
    """Return a reading with the classes and activations that its words name."""
    return replace(reading, arguments=named_values.resolved(reading.arguments, constructor_names.arguments(module)))


def _has_text_for_channels(module: type[nn.Module], given: Sequence[Any]) -> bool:
    """Return whether a text stands where a constructor takes channels: it would count its letters, `len(channels)`.

    That is a parameter whose name says so, or, beside one whose default is a text, one that must be given.
    """
    parameters = constructor_names.arguments(module)
    texts = [named_values.is_text(one) for one in parameters]
    names = [one.name for one in parameters]
    return any(
        isinstance(value, str)
        and not is_text
        and named_values.value_of(value) is None
        and (
            (position == 0 and constructor_names.is_input(names[0]))
            or (position == 1 and constructor_names.is_output(names[1], after=names[0]))
            or (any(texts) and one.default is Parameter.empty)
        )
        for position, (value, one, is_text) in enumerate(zip(given, parameters, texts, strict=False))
    )


def as_block(block: str, module: type[nn.Module], arguments: Sequence[Any], place: Place) -> list[Reading]:
    """Return the reading of a row as one of a block with repeats; none where the constructor does not take that."""
    if not block or place.reads_list or not _Reader(module, arguments, place).may_be_block():
        return []
    return [replace(as_told(["in", "out", "repeats", "rest"], arguments, place), block=block)]


def with_scaled_output(reading: Reading, channels: Any, arguments: Sequence[Any], place: Place) -> Reading | None:
    """Return the reading of a row whose first argument turns out to be output channels, whatever it is called.

    Args:
        reading: one that gives the row's arguments as they are.
        channels: of the map that the layer then returns.

    Returns:
        The reading with that argument scaled by the width; None if it is something else, or is not scaled.
    """
    if not arguments or not _is_channels(arguments[0]) or channels != arguments[0] or channels in place.channels:
        return None
    scaled, before = place.scaled(channels), reading.arguments[: -len(arguments)]
    if reading.arguments != (*before, *arguments) or not before or scaled == channels:
        return None
    row = (scaled, *arguments[1:])
    return replace(reading, arguments=(*before, *row), written=row, has_channels=True)


def head_readings(module: type[nn.Module], arguments: Sequence[Any], place: Place) -> list[Reading]:
    """Return the possible readings of a head's arguments: classes first, a list of the channels that it reads last."""
    names = [one.name.casefold() for one in constructor_names.arguments(module)]
    row = [
        place.scaled(value) if _is_channels(value) and position < len(names) and "hid" in names[position] else value
        for position, value in enumerate(arguments)
    ]
    every = list(place.channels)
    forms = [[*row, every], [every, *row], row]
    listed = next((position for position, name in enumerate(names) if name in _CHANNELS_OF_A_HEAD), None)
    if listed is not None and listed > len(row):
        between = constructor_names.arguments(module)[len(row) : listed]
        forms.insert(0, [*row, *(place.settings.get(one.name, one.default) for one in between), every])
    return [Reading(arguments=tuple(form), written=tuple(row)) for form in forms]


_CHANNELS_OF_A_HEAD = {"ch", "channels", "in_channels", "inc", "inc_list", "in_channel_list", "in_channels_list"}


def as_told(words: Sequence[Any], arguments: Sequence[Any], place: Place) -> Reading:
    """Return the reading that a model file asks for, `[in, out, rest]`; other values are given as they are.

    Raises:
        SpecError: `out` where the row does not begin with channels.
    """
    given: list[Any] = []
    written, row = list(arguments), list(arguments)
    if "out" in words:
        if not row or not _is_channels(row[0]):
            raise SpecError("arguments: the row's first argument is expected to be output channels, as `out`")
        written = [place.scaled(row[0]), *row[1:]]
        row = row[1:]
    for word in words:
        match word:
            case "in":
                given.append(place.channels[0])
            case "all":
                given.append(list(place.channels))
            case "each":
                given.extend(place.channels)
            case "sum":
                given.append(sum(place.channels))
            case "out":
                given.append(written[0])
            case "repeats":
                given.append(place.repeats)
            case "rest":
                given.extend(row)
            case _:
                given.append(word)
    return Reading(
        arguments=tuple(given),
        written=tuple(written),
        has_channels="out" in words,
        takes_repeats="repeats" in words,
    )


def mistakes(told: Any) -> Iterator[str]:
    """Yield the mistakes in `arguments` of a model file."""
    if told is None:
        return
    if not isinstance(told, Mapping):
        yield f"arguments: a mapping is expected, such as {{MyBlock: [in, out, rest]}}, got {told!r}"
        return
    for name, words in told.items():
        if not isinstance(words, list) or not all(isinstance(one, str | int | float | bool) for one in words):
            yield f"arguments.{name}: a list is expected, such as [in, out, rest], got {words!r} ({', '.join(WORDS)})"


class _Reader:
    def __init__(self, module: type[nn.Module], arguments: Sequence[Any], place: Place) -> None:
        self._row, self._place, self._first = list(arguments), place, place.channels[0]
        self._module = module
        self._parameters = constructor_names.arguments(module)
        names = [one.name for one in self._parameters] + [""] * 3
        self._takes_in = constructor_names.is_input(names[0])
        self._takes_count = constructor_names.is_count(names[0])
        self._takes_out = self._takes_in and constructor_names.is_output(names[1], after=names[0])
        self._takes_repeats = self._takes_out and constructor_names.is_repeats(names[2])
        self._takes_kernel = self._takes_out and constructor_names.is_kernel(names[2])

    def may_be_block(self) -> bool:
        """Return whether a constructor takes input and output channels and repeats, or anything, and the row fits."""
        takes = self._takes_repeats or constructor_names.takes_any(self._module)
        return takes and bool(self._row) and _is_channels(self._row[0])

    def of_one(self) -> Iterator[Reading]:
        """Yield the readings of a row that reads one layer."""
        if self._takes_out:
            if self._gives_both():
                yield self._out(self._first, self._row[1:])
            yield from self._with_further()
            yield from self._with_out(self._first)
            if self._row and isinstance(self._row[0], list):  # channels of several maps behind it
                yield self._given(self._first, *self._row)
            yield self._plain()
            yield self._given(self._first, self._first, *self._repeats(), *self._row, repeats=self._takes_repeats)
            return
        if self._begins_with_input() and (self._takes_in or self._wants_no_channels()):
            before = [self._first] if self._takes_in else []
            yield self._given(*before, *self._row[1:], written=self._row[1:])
        if self._takes_in:
            yield self._given(self._first, *self._row)
            yield self._plain()
        else:
            yield self._plain()
            if not self._parameters and constructor_names.takes_any(self._module):
                yield from self._with_out(self._first)
            yield self._given(self._first, *self._row)
        if self._row and self._may_be_channels(self._row[0]):
            yield self._given(*([self._first] if self._takes_in else []), *self._row[1:], written=self._row[1:])
        yield from self._with_out(self._first)

    def of_list(self) -> Iterator[Reading]:
        """Yield the readings of a row that reads several layers."""
        every, total = list(self._place.channels), sum(self._place.channels)
        if not self._row and self._takes_count:
            yield self._given(len(every))
        if not self._takes_in:
            yield from self._with_list_behind(every)
            yield self._plain()
        if self._takes_out:
            yield from self._with_out(every)
            yield self._plain()
            if self._begins_with_input() and len(self._row) > 1 and _is_channels(self._row[1]):
                yield self._out(self._first, self._row[1:])
            yield from self._with_out(self._first)
            yield from self._with_out(total)
        yield self._given(every, *self._row)
        yield self._plain()
        yield self._given(self._first, *self._row)
        yield self._given(total, *self._row)
        yield from self._with_out(every)
        if self._row and not isinstance(self._row[0], str):
            yield self._given(every, *self._row[1:], written=self._row[1:])
            yield self._given(self._first, *self._row[1:], written=self._row[1:])
        yield self._given(*every, *self._row)

    def _plain(self) -> Reading:
        return self._given(*self._row)

    def _given(self, *arguments: Any, written: Sequence[Any] | None = None, repeats: bool = False) -> Reading:
        row = self._row if written is None else written
        return Reading(arguments=arguments, written=tuple(row), takes_repeats=repeats)

    def _with_list_behind(self, every: list[int]) -> Iterator[Reading]:
        """Yield the reading in which the list of channels follows arguments of the row, `(level, ch)`."""
        names = [one.name.casefold() for one in self._parameters]
        at = next((position for position, name in enumerate(names) if name in _CHANNELS_OF_A_HEAD), 0)
        if 0 < at <= len(self._row):
            yield self._given(*self._row[:at], every, *self._row[at:])

    def _with_out(self, before: int | list[int]) -> Iterator[Reading]:
        if self._row and _is_channels(self._row[0]):
            yield self._out(before, self._row)

    def _with_further(self) -> Iterator[Reading]:
        """Yield the reading in which the scale's further numbers follow the row, if the constructor wants as many."""
        wanted = [one for one in self._parameters if one.default is Parameter.empty]
        row = [*self._row, *self._place.further]
        if self._place.further and self._row and _is_channels(self._row[0]) and len(wanted) == 1 + len(row):
            yield self._out(self._first, row)

    def _out(self, before: int | list[int], row: Sequence[Any]) -> Reading:
        channels = self._place.scaled(row[0])
        return Reading(
            arguments=(before, channels, *self._repeats(), *row[1:]),
            written=(channels, *row[1:]),
            has_channels=True,
            takes_repeats=self._takes_repeats,
            is_guess=bool(self._parameters) and not self._takes_out,
        )

    def _repeats(self) -> list[int]:
        return [self._place.repeats] if self._takes_repeats else []

    def _begins_with_input(self) -> bool:
        """Return whether the row begins with the channels that it reads, as written or scaled."""
        given = self._row[0] if self._row else 0
        return _is_channels(given) and self._first in {given, self._place.scaled(given)}

    def _gives_both(self) -> bool:
        """Return whether the row gives channels before and behind the layer: what would be a kernel is too large."""
        second = self._row[1] if len(self._row) > 1 else 0
        return self._takes_kernel and self._begins_with_input() and _is_channels(second) and second > _LARGEST_KERNEL

    def _may_be_channels(self, value: Any) -> bool:
        """Return whether a row's first argument may be channels that the constructor does not take: no kernel's size.

        Else a window of 7, which the map does not allow, would be left out without a word.
        """
        return not isinstance(value, str) and not (self._takes_in and _is_channels(value) and value <= _LARGEST_KERNEL)

    def _wants_no_channels(self) -> bool:
        """Return whether the class takes nothing, or first a fraction such as a regularisation."""
        return not self._parameters or isinstance(self._parameters[0].default, float)


def _is_channels(value: Any) -> bool:
    return type(value) is int and value > 0
