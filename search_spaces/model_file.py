"""The form of a model file, checked before anything is built from it: all mistakes at once, each with its address."""

import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ultralytics.nn import tasks
from ultralytics.utils.ops import make_divisible

from search_spaces import layers
from search_spaces.errors import SpecError, shortened

SECTIONS = ("backbone", "head")

_FORM = "[from, repeats, module, arguments]"
_GREATEST = 1_000_000
"""The largest number in a row: a layer of so many channels is a mistake that would only show when memory runs out."""

_MOST_REPEATS = 1000
_MOST_ROWS = 10_000
_LONGEST = 1000
"""Characters of an argument."""

_VARIABLES = frozenset({"depth", "end2end", "kpt_shape", "max_channels", "nc", "reg_max", "scale", "width"})
"""Variables of Ultralytics' parser that an argument may name: numbers and words of the file itself."""

_WORDS_OF_PARSER = frozenset((*tasks.parse_model.__code__.co_varnames, *tasks.parse_model.__code__.co_cellvars))
"""All of its variables: an argument that is one of these words is replaced by what the variable holds."""


def is_row(row: Any) -> bool:
    """Whether a value has a row's form, so that its parts can be read."""
    return isinstance(row, list | tuple) and len(row) == len(_FORM.split(",")) and isinstance(row[2], str)


def addressed(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every row of a document with its address, `backbone[1]`, in the order in which layers are counted."""
    return [(f"{section}[{i}]", row) for section in SECTIONS for i, row in enumerate(document[section])]


def has_rows(document: Mapping[str, Any]) -> bool:
    """Whether backbone and head are lists with something in them."""
    return all(isinstance(document.get(key), list) and document[key] for key in SECTIONS)


def modules(document: Mapping[str, Any]) -> list[str]:
    """The Python files that a model file names as its operators', `nas: {modules: [my.py]}` or `modules: [my.py]`."""
    origin = document.get("nas")
    named = [document.get("modules"), origin.get("modules") if isinstance(origin, Mapping) else None]
    listed = [one for several in named for one in (several if isinstance(several, list) else [several])]
    return [one for one in listed if isinstance(one, str)]


def _of_modules(document: Mapping[str, Any]) -> Iterator[str]:
    origin = document.get("nas")
    if origin is not None and not isinstance(origin, Mapping):
        yield f"nas: a mapping is expected, got {shortened(origin)}"
        origin = None
    for place, named in (("modules", document.get("modules")), ("nas.modules", (origin or {}).get("modules"))):
        listed = named if isinstance(named, list) else [named]
        if named is not None and not all(isinstance(one, str) and one for one in listed):
            yield f"{place}: Python files are expected, got {shortened(named)} ([my_ops.py])"


def mistakes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mistakes in a document's form: settings, then row by row; names of layers are not judged here."""
    if not has_rows(document):
        yield f"not a model YAML: `backbone` and `head` must be lists of rows {_FORM}"
    if not any(document.get(section) for section in SECTIONS):
        return
    yield from _of_settings(document)
    if not has_rows(document):
        return
    rows = addressed(document)
    if len(rows) > _MOST_ROWS:
        yield f"{len(rows)} rows, where at most {_MOST_ROWS} are expected"
        return
    depth = _depth(document)
    for index, (place, row) in enumerate(rows):
        for mistake in _of_row(index, row, depth):
            yield f"{place}: {mistake}"


def _of_settings(document: Mapping[str, Any]) -> Iterator[str]:
    if not (_is_whole(document.get("nc")) and 0 < document["nc"] <= _GREATEST):
        yield f"nc: the number of classes is expected, got {shortened(document.get('nc'))}"
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
    yield from _of_scales(document.get("scales"))
    yield from _of_modules(document)


def _of_scales(scales: Any) -> Iterator[str]:
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
            yield (
                f"scales.{name}: three numbers above 0 are expected, [depth, width, most channels], "
                f"got {shortened(numbers)}"
            )


def _of_row(index: int, row: Any, depth: float) -> Iterator[str]:
    if not isinstance(row, list | tuple) or len(row) != len(_FORM.split(",")):
        yield f"not a row, got {shortened(row)} ({_FORM})"
        return
    source, repeats, module, arguments = row
    if not isinstance(module, str) or not module:
        yield f"a module's name is expected in third place, got {shortened(module)} ({_FORM})"
        module = ""
    yield from _of_source(index, source, module)
    if not _is_number(repeats) or not repeats >= 0:
        yield f"repeats: a number is expected in second place, got {shortened(repeats)} ({_FORM})"
    elif repeats * depth > _MOST_REPEATS:
        yield f"repeats: at most {_MOST_REPEATS} are expected, got {shortened(repeats)}"
    if not isinstance(arguments, list):
        yield f"arguments: a list is expected in fourth place, got {shortened(arguments)} ({_FORM})"
        return
    wrong = list(_of_arguments(arguments))
    yield from wrong
    if not wrong:
        yield from of_channels(module, arguments)


def _of_source(index: int, source: Any, module: str) -> Iterator[str]:
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


def _of_arguments(arguments: Sequence[Any]) -> Iterator[str]:
    """Yield the mistakes in arguments: words that Ultralytics' parser would replace, endless numbers."""
    for position, written in enumerate(arguments):
        place, value = f"arguments[{position}]", written
        if isinstance(written, str) and written not in _VARIABLES:
            if written in _WORDS_OF_PARSER:
                yield f"{place}: {written!r} is a variable of Ultralytics' parser, and no argument of a layer"
                continue
            try:
                value = evaluated(written)
            except SpecError as error:
                yield f"{place}: {error}"
                continue
        yield from _of_numbers(value, place)


def _of_numbers(value: Any, place: str) -> Iterator[str]:
    """Numbers that are too great, however deep."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _of_numbers(one, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for position, one in enumerate(value):
            yield from _of_numbers(one, f"{place}[{position}]")
    elif _is_number(value) and not abs(value) <= _GREATEST:  # which NaN is not either
        yield f"{place}: a number of at most {_GREATEST:,} is expected, got {shortened(value)}"


def evaluated(text: str) -> Any:
    """Return what Ultralytics' parser makes of a word: the Python literal that it spells, else the word itself.

    Raises:
        SpecError: neither; its parser would stop there.
    """
    try:
        if len(text) <= _LONGEST:
            return ast.literal_eval(text)
    except ValueError:
        return text
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise SpecError(f"a number, a word or a list is expected, got {shortened(text)}")


def of_channels(module: str, arguments: Sequence[Any]) -> Iterator[str]:
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
    """What Ultralytics changes in silence: channels that are rounded up to a multiple of 8.

    Args:
        document: without mistakes. A table of several scales says by itself that its channels are scaled.
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


def _depth(document: Mapping[str, Any]) -> float:
    """What repeats are multiplied by, at most."""
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
