"""Rows of a user's model file whose module both Ultralytics and a Python file of the user define.

A fork's Python repeats Ultralytics' classes, mostly unchanged. A class that computes the same is taken for Ultralytics'
layer, which can carry operators; one that computes something else is what the user means: its row becomes
`modules.NAME`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics import cfg
from ultralytics.nn import tasks
from ultralytics.nn.modules.head import Detect
from ultralytics.utils.torch_utils import initialize_weights

from search_spaces import layers, model_file, printed
from search_spaces.constructors import Place, head_readings
from search_spaces.foreign_module import anchors_of_a_map, is_row
from search_spaces.operators import constructor_names, user_classes
from search_spaces.operators.user_classes import UserClass
from search_spaces.user_rows import PREFIX, REPLACED_HEADS

_PACKAGED = (Path(cfg.__file__).parent, Path(__file__).parent)
"""Folders whose model files are not the user's."""

_TAKEN = layers.ULTRALYTICS | REPLACED_HEADS
"""Names that have a meaning of their own."""

_CHANNELS, _SIZE, _REPEATS = 32, 16, 2
"""Channels and size of the maps, and repeats of the layers, with which two classes are compared."""

_cache: dict[tuple[UserClass, str], bool] = {}


def resolved(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return a document whose rows say which class they mean, and a note for each class of the user that has a say.

    Only a file that a user has written is changed: rows of a catalog's model and of an export keep their meaning.
    """
    if not user_classes.LOADED or not _is_of_user(document):
        return document, []
    changed: dict[str, Any] = dict(document)
    notes: list[str] = []
    for section in model_file.SECTIONS:
        written = document.get(section)
        if not isinstance(written, list):
            continue
        changed[section] = list(written)
        for position, row in enumerate(written):
            classes = user_classes.every(row[2]) if is_row(row) and row[2] in _TAKEN else []
            files = " and ".join(one.file for one in classes)
            if classes and section == "head" and position == len(written) - 1:
                if all(_is_known_head(one, row, document) for one in classes):
                    continue
                whose = "Ultralytics'" if row[2] in layers.ULTRALYTICS else "this package's"
                notes.append(
                    f"{row[2]}: {whose} head is built. {files} has a class of that name, too; "
                    f"{PREFIX}{row[2]} in the row takes it"
                )
            elif not all(_is_same(one, row[3]) for one in classes):
                changed[section][position] = [*row[:2], f"{PREFIX}{row[2]}", row[3]]
                notes.append(
                    f"{row[2]}: the class of {files} is built, which does not compute what Ultralytics' does; "
                    "leave that file out, or rename the class, where Ultralytics' is meant"
                )
    return changed, list(dict.fromkeys(notes))


def _is_of_user(document: Mapping[str, Any]) -> bool:
    """Return whether a document was read from a file that a user has written, and not by this package."""
    origin, path = document.get("nas"), document.get("yaml_file")
    if (isinstance(origin, Mapping) and "fingerprint" in origin) or not isinstance(path, str):
        return False
    return Path(path).is_file() and not any(Path(path).resolve().is_relative_to(folder) for folder in _PACKAGED)


def _is_same(theirs: UserClass, arguments: Sequence[Any]) -> bool:
    """Return whether a class computes, with a row's arguments, what Ultralytics' class of its name does."""
    if theirs.name not in layers.ULTRALYTICS:
        return False
    key = (theirs, repr(arguments))
    if key not in _cache:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _cache[key] = any(
                _compute_the_same(vars(tasks)[theirs.name], theirs.module, given, x)
                for given, x in _readings(theirs.name, arguments)
            )
    return _cache[key]


def _is_known_head(theirs: UserClass, row: Sequence[Any], document: Mapping[str, Any]) -> bool:
    """Return whether a head has the parameters of Ultralytics' head, or of the one in its name's own repository.

    Then the user's file only repeats what is known of the name, and says nothing new about the row.
    """
    maps = len(row[0]) if isinstance(row[0], list) and row[0] else 1
    classes, channels = document.get("nc", 1), tuple(_CHANNELS * (index + 1) for index in range(maps))
    try:
        each = anchors_of_a_map(document)
    except ValueError:
        each = 1
    anchors = [list(range(2 * each))] * maps
    given = [{"nc": classes, "anchors": anchors}.get(one, one) if isinstance(one, str) else one for one in row[3]]
    place = Place(channels=channels, reads_list=True, repeats=1, scaled=lambda value: value)
    known: list[tuple[Callable[..., nn.Module], list[Any]]] = [
        (type("Detect", (Detect,), {"legacy": legacy}), [classes, 16, False, channels]) for legacy in (True, False)
    ]
    known += [
        (partial(head, reg_max=16, ch=channels), [classes, *more])
        for head in printed.HEADS.values()
        for more in ([], [1], [each])
    ]
    shapes = [found for head, arguments in known if (found := _shapes(head, arguments))]
    theirs_built = (_shapes(theirs.module, one.arguments) for one in head_readings(theirs.module, given, place))
    return any(found and found in shapes for found in theirs_built)


def _shapes(head: Callable[..., nn.Module], arguments: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the sorted shapes of a head's parameters; none if it cannot be built of these arguments."""
    try:
        with torch.device("meta"):
            return sorted(tuple(parameter.shape) for parameter in head(*deepcopy(list(arguments))).parameters())
    except Exception:  # noqa: BLE001 - a user's code may raise anything, and is another head then
        return []


def _readings(name: str, arguments: Sequence[Any]) -> Iterator[tuple[list[Any], Any]]:
    """Yield what a constructor may get of a row's arguments, with what the layer then reads."""
    given = [model_file.evaluated(one) if isinstance(one, str) else one for one in arguments]
    x = torch.randn(1, _CHANNELS, _SIZE, _SIZE)
    if name in layers.SEVERAL_SOURCES:
        yield given, [x, x.flip(2)]
        if given and isinstance(given[0], list):  # CBFuse: of each layer before the last one map of several
            yield given, [*([x] * (max(given[0]) + 1) for _ in given[0]), x]
    elif name in layers.CHANNELS_FIRST:
        names = [one.name for one in constructor_names.arguments(vars(tasks)[name])]
        repeats = [_REPEATS] if len(names) > 2 and constructor_names.is_repeats(names[2]) else []
        yield [_CHANNELS, *given[:1], *repeats, *given[1:]], x
        yield [*given[:1], *given[:1], *repeats, *given[1:]], torch.randn(1, given[0], _SIZE, _SIZE)  # keeps channels
    else:
        if given and type(given[0]) is int and given[0] > 0:
            yield given, torch.randn(1, given[0], _SIZE, _SIZE)
        yield [_CHANNELS, *given], x


def _compute_the_same(ours: type[nn.Module], theirs: type[nn.Module], arguments: list[Any], x: Any) -> bool:
    """Return whether two classes build layers of equal parameters that compute the same."""
    try:
        one, other = (module(*deepcopy(arguments)).eval() for module in (ours, theirs))
        initialize_weights(one)
        initialize_weights(other)
        other.load_state_dict(one.state_dict())
        made = zip(_maps_in(one(deepcopy(x))), _maps_in(other(deepcopy(x))), strict=True)
        return all(first.shape == second.shape and torch.allclose(first, second, atol=1e-5) for first, second in made)
    except Exception:  # noqa: BLE001 - a user's code may raise anything, and is another layer then
        return False


def _maps_in(returned: Any) -> list[Tensor]:
    """Return the maps that a layer returns: one, or several."""
    return [returned] if isinstance(returned, Tensor) else list(returned)
