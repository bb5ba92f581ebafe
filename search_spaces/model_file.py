"""Check the form of a model file before it is built: settings and rows, all mistakes at once with their addresses."""

import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from inspect import unwrap
from typing import Any

from ultralytics.nn import tasks
from ultralytics.utils.ops import make_divisible

from search_spaces import layers
from search_spaces.errors import SpecError, shortened, typo_of
from search_spaces.yaml_text import hint_of_keyboard

SECTIONS = ("backbone", "head")

_FORM = "[from, repeats, module, arguments]"
_GREATEST = 1_000_000
"""Largest number in a row: as a number of channels it is a mistake that would only show when memory runs out."""

_MOST_REPEATS = 1000
_MOST_ROWS = 10_000
_LONGEST = 1000
"""Most characters of an argument."""

_VARIABLES = frozenset({"depth", "end2end", "kpt_shape", "max_channels", "nc", "reg_max", "scale", "width"})
"""Variables of Ultralytics' parser that an argument may name: they hold numbers and words of the file."""

_PARSER = unwrap(tasks.parse_model).__code__
PARSER_VARIABLES = frozenset((*_PARSER.co_varnames, *_PARSER.co_cellvars))
"""All of its variables: the parser replaces an argument with such a name by the value of the variable."""


def is_row(row: Any) -> bool:
    """Return whether a value has four parts, of which the third is a module's name."""
    return isinstance(row, list | tuple) and len(row) == len(_FORM.split(",")) and isinstance(row[2], str)


def addressed(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return every row of a document with its address, such as `backbone[1]`, in the order of layer indices."""
    return [(f"{section}[{i}]", row) for section in SECTIONS for i, row in enumerate(document[section])]


def has_rows(document: Mapping[str, Any]) -> bool:
    """Return whether backbone and head are lists that are not empty."""
    return all(isinstance(document.get(key), list) and document[key] for key in SECTIONS)


def head(document: Mapping[str, Any]) -> Any:
    """Return the last row of a document, a model's head; None if there is none, or it is no row."""
    last = document["head"][-1] if has_rows(document) else None
    return last if is_row(last) else None


IMAGE_CHANNELS = 3
"""Channels of an image, if a file does not say."""


def image_channels(document: Mapping[str, Any]) -> int:
    """Return the channels of the images that a document without mistakes is for: `channels`, or 3."""
    return document.get("channels") or IMAGE_CHANNELS


def modules(document: Mapping[str, Any]) -> list[str]:
    """Return the operators' files that a model file names: `nas: {modules: [my.py]}` or `modules: [my.py]`."""
    origin = document.get("nas")
    named = [document.get("modules"), origin.get("modules") if isinstance(origin, Mapping) else None]
    listed = [one for several in named for one in (several if isinstance(several, list) else [several])]
    return [one for one in listed if isinstance(one, str)]


def _module_file_mistakes(document: Mapping[str, Any]) -> Iterator[str]:
    origin = document.get("nas")
    if origin is not None and not isinstance(origin, Mapping):
        yield f"nas: a mapping is expected, got {shortened(origin)}"
        origin = None
    for place, named in (("modules", document.get("modules")), ("nas.modules", (origin or {}).get("modules"))):
        listed = named if isinstance(named, list) else [named]
        if named is not None and not all(isinstance(one, str) and one for one in listed):
            yield f"{place}: Python files are expected, got {shortened(named)} ([my_ops.py])"


def mistakes(document: Mapping[str, Any], *, of_first: int = 1) -> Iterator[str]:
    """Yield the mistakes in the form of a document: settings, then row by row; names of layers are not checked.

    Args:
        of_first: layers as which the first row counts.
    """
    if not has_rows(document):
        yield f"not a model YAML: `backbone` and `head` must be lists of rows {_FORM}"
    if not any(document.get(section) for section in SECTIONS):
        return
    yield from _setting_mistakes(document)
    if not has_rows(document):
        return
    rows = addressed(document)
    if len(rows) > _MOST_ROWS:
        yield f"{len(rows)} rows, where at most {_MOST_ROWS} are expected"
        return
    depth = _depth(document)
    for index, (place, row) in enumerate(rows):
        for mistake in _row_mistakes(index + of_first - 1 if index else 0, row, depth):
            yield f"{place}: {mistake}"


def _setting_mistakes(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("nc") is None:
        yield "nc: the number of classes is missing (nc: 80)"
    elif not (_is_whole(document["nc"]) and 0 < document["nc"] <= _GREATEST):
        yield f"nc: the number of classes is expected, got {shortened(document['nc'])}"
    for key in ("depth_multiple", "width_multiple"):
        if key in document and not _is_factor(document[key]):
            yield f"{key}: a number above 0 is expected, got {shortened(document[key])}"
    for key in ("reg_max", "channels", "ch"):
        if document.get(key) is not None and not (_is_whole(document[key]) and 0 < document[key] <= _MOST_REPEATS):
            yield f"{key}: a whole number of 1 to {_MOST_REPEATS} is expected, got {shortened(document[key])}"
    if document.get("end2end") not in (None, False, True):
        yield f"end2end: true or false is expected, got {shortened(document['end2end'])}"
    if document.get("activation") is not None:
        try:
            layers.activation(document["activation"])
        except SpecError as error:
            yield f"activation: {error}"
    if (last := head(document)) is not None and last[2] in _WITH_KEY_POINTS and not _is_pair(document.get("kpt_shape")):
        yield f"kpt_shape: two numbers are expected, [17, 3], got {shortened(document.get('kpt_shape'))}"
    absent = [name for name in SETTINGS if name not in document]  # beside `nc`, `na` is a word of the file's own
    for key in document:
        if isinstance(key, str) and key not in SETTINGS and (near := typo_of(key, absent)):
            yield f"{key}: no setting of a model file (did you mean {near!r}?)"
    yield from _scale_mistakes(document.get("scales"))
    yield from _module_file_mistakes(document)


SETTINGS = (
    "activation",
    "anchors",
    "backbone",
    "depth_multiple",
    "head",
    "kpt_shape",
    "nc",
    "scale",
    "scales",
    "width_multiple",
)
"""Settings whose typing errors would be ignored without a word."""


_WITH_KEY_POINTS = {"Pose", "Pose26"}


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))


def _scale_mistakes(scales: Any) -> Iterator[str]:
    if scales is None:
        return
    if not isinstance(scales, Mapping) or not scales:
        yield (
            "scales: a mapping is expected, such as {n: [0.33, 0.25, 1024]}: depth, width and most channels of each "
            f"scale; got {shortened(scales)}"
        )
        return
    for name, numbers in scales.items():
        if not (
            isinstance(numbers, list)
            and len(numbers) == 3
            and all(map(_is_factor, numbers[:2]))
            and (_is_factor(numbers[2]) or numbers[2] == math.inf)  # no limit
        ):
            hint = " (.inf for no limit)" if isinstance(numbers, list) and "inf" in numbers else ""
            yield (
                f"scales.{name}: three numbers above 0 are expected, [depth, width, most channels], "
                f"got {shortened(numbers)}{hint}"
            )


def _row_mistakes(index: int, row: Any, depth: float) -> Iterator[str]:
    if not isinstance(row, list | tuple) or len(row) != len(_FORM.split(",")):
        more = isinstance(row, list | tuple) and len(row) > len(_FORM.split(",")) and is_row(row[:4])
        whose = "; what else stands there is for the parser of the file's own fork, which is not read" if more else ""
        yield f"not a row, got {shortened(row)} ({_FORM}{whose})"
        return
    source, repeats, module, arguments = row
    if not isinstance(module, str) or not module:
        yield f"a module's name is expected in third place, got {shortened(module)} ({_FORM})"
        module = ""
    yield from _source_mistakes(index, source, module)
    if not _is_number(repeats) or not repeats >= 0:
        yield f"repeats: a number is expected in second place, got {shortened(repeats)} ({_FORM})"
    elif 0 < repeats < 1:
        yield f"repeats: a whole number is expected in second place, got {shortened(repeats)} ({_FORM})"
    elif repeats * depth > _MOST_REPEATS:
        yield f"repeats: at most {_MOST_REPEATS} are expected, got {shortened(repeats)}"
    elif module in layers.SEVERAL_SOURCES and repeats > 1 and round(repeats * depth) > 1:
        yield f"repeats: {module} reads several layers and is built once, got {shortened(repeats)} (1)"
    if not isinstance(arguments, list):
        yield f"arguments: a list is expected in fourth place, got {shortened(arguments)} ({_FORM})"
        return
    wrong = list(_argument_mistakes(arguments))
    yield from wrong
    if not wrong:
        yield from channel_mistakes(module, arguments)


def _source_mistakes(index: int, source: Any, module: str) -> Iterator[str]:
    listed = source if isinstance(source, list) else [source]
    if not listed or not all(map(_is_whole, listed)):
        yield f"from: a layer's number, -1 or a list of them is expected in first place, got {shortened(source)}"
        return
    for one in listed:
        if one != -1 and not (0 <= one < index or -index <= one < 0):
            there = f"0 to {index - 1}, or -1" if index else "-1"
            yield f"reads layer {one}, which is not there ({there})"
    if module in layers.SEVERAL_SOURCES and not isinstance(source, list):
        yield f"{module} reads a list of layers, got {source} ([{source}])"
    elif isinstance(source, list) and (
        module in layers.ULTRALYTICS - layers.SEVERAL_SOURCES or module.startswith((layers.TORCH, layers.TORCHVISION))
    ):
        yield f"{module} reads one layer, got {source}"


def _argument_mistakes(arguments: Sequence[Any]) -> Iterator[str]:
    """Yield the mistakes in arguments: words that Ultralytics' parser would replace, numbers that are too large."""
    for position, written in enumerate(arguments):
        place, value = f"arguments[{position}]", written
        if isinstance(written, str) and written not in _VARIABLES:
            if written in PARSER_VARIABLES:
                yield f"{place}: {written!r} is a variable of Ultralytics' parser, and no argument of a layer"
                continue
            try:
                value = evaluated(written)
            except SpecError as error:
                yield f"{place}: {error}"
                continue
        yield from _number_mistakes(value, place)


def _number_mistakes(value: Any, place: str) -> Iterator[str]:
    """Yield the mistakes in numbers, however deeply nested."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _number_mistakes(one, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for position, one in enumerate(value):
            yield from _number_mistakes(one, f"{place}[{position}]")
    elif _is_number(value) and not abs(value) <= _GREATEST:  # NaN fails this, too
        yield f"{place}: a number of at most {_GREATEST:,} is expected, got {shortened(value)}"


def evaluated(text: str) -> Any:
    """Evaluate a word as Ultralytics' parser does: to the Python literal that it spells, or else to the word.

    Raises:
        SpecError: Ultralytics' parser would fail.
    """
    try:
        if len(text) <= _LONGEST:
            return ast.literal_eval(text)
    except ValueError:  # an expression that is no literal: a word
        return text
    except (SyntaxError, TypeError, MemoryError, RecursionError):  # reported below, as a text that is too long is
        pass
    raise SpecError(f"a number, a word or a list is expected, got {shortened(text)}{hint_of_keyboard(text)}")


def channel_mistakes(module: str, arguments: Sequence[Any]) -> Iterator[str]:
    """Yield the mistakes in the first argument of a layer that Ultralytics scales."""
    if module not in layers.CHANNELS_FIRST:
        return
    if not arguments:
        yield f"{module}: output channels are expected as the first argument, got none"
        return
    channels = evaluated(arguments[0]) if isinstance(arguments[0], str) else arguments[0]
    if channels != "nc" and not (_is_number(channels) and channels > 0):
        yield f"{module}: output channels are expected as the first argument, got {shortened(arguments[0])}"


def notes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note for each layer whose channels Ultralytics rounds up to a multiple of 8, without a message.

    Args:
        document: without mistakes. One with several scales has no notes: its channels are scaled anyway.
    """
    scales = document.get("scales") or {"": [1.0, document.get("width_multiple", 1.0), math.inf]}
    if len(scales) > 1:
        return
    ((_, width, most),) = scales.values()
    for place, (_, _, module, arguments) in addressed(document):
        if module in layers.CHANNELS_FIRST - {"Classify"} and _is_number(arguments[0]):
            wanted = min(arguments[0], most) * width
            built = make_divisible(wanted, 8)
            if built != wanted:
                yield f"{place}: {module} has {built} channels, a multiple of 8, where the file says {wanted:g}"


def ignored(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note for each setting of a file, as it was written, that has no effect."""
    rows = [row for section in (*SECTIONS, "neck") for row in document.get(section) or () if is_row(row)]
    named = {row[2].rpartition(".")[2] for row in rows}
    for name in document.get("arguments") or ():
        if name not in named:
            yield f"arguments: no row names {name}"


def _depth(document: Mapping[str, Any]) -> float:
    """Return the largest factor by which repeats are multiplied."""
    scales = document.get("scales")
    factors = [document.get("depth_multiple", 1.0)]
    if isinstance(scales, Mapping) and scales:
        factors = [numbers[0] for numbers in scales.values() if isinstance(numbers, list) and numbers]
    return max((float(factor) for factor in factors if _is_factor(factor)), default=1.0)


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in {int, float}


def _is_factor(value: Any) -> bool:
    return _is_number(value) and 0 < value <= _GREATEST
