"""Read a whole backbone in one row, as forks of Ultralytics do: `[-1, 1, fasternet_t0, []]` counts as five layers.

Such a row is the first, and its class or function returns the maps of several strides. The numbers of the rows behind
it begin at 5: layers 0 to 4 are the maps, the last of which is number 4. Here the row is layer 0, and rows of
Ultralytics' `Index` take its maps, so that all numbers in the file stay what they are.
"""

from collections.abc import Mapping
from typing import Any

from search_spaces import model_file, placing, user_rows
from search_spaces.errors import SpecError
from search_spaces.model_checks import WHOLE_BACKBONE as _LAYERS


def expanded(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return a document with a row for each map of its backbone, and a note; any other document as it is.

    Raises:
        SpecError: later rows count on such a backbone, and it cannot be built.
    """
    if not model_file.has_rows(document) or any(model_file.mistakes(document, of_first=_LAYERS)):
        return document, []
    counts_on_it = any(model_file.mistakes(document))
    (_, row), *others = model_file.addressed(document)
    if row[0] != -1 or any(one[2] == _INDEX for _, one in others):
        return document, []
    try:
        found = user_rows.user_class(row)
        if not counts_on_it and user_rows.user_class(others[0][1]) is not None:  # it may read all maps
            return document, []
        channels = placing.place_first(document, found).channels if found is not None else 0
    except SpecError:
        if counts_on_it:
            raise
        return document, []
    if isinstance(channels, int):
        return document, []
    if len(channels) > _LAYERS:
        raise SpecError(f"backbone[0]: {row[2]} returns {len(channels)} maps (at most {_LAYERS}, of strides 2 to 32)")
    absent = _LAYERS - len(channels)
    maps = [max(layer - absent, 0) for layer in range(1, _LAYERS)]
    rows = [[0, 1, _INDEX, [channels[one], one]] for one in maps]
    note = (
        f"{row[2]}: the row is a whole backbone and counts as layers 0 to {_LAYERS - 1}, as in forks that have such "
        f"rows: its maps, of {', '.join(map(str, channels))} channels, are the last of them"
    )
    return {**document, "backbone": [row, *rows, *document["backbone"][1:]]}, [note]


_INDEX = "Index"
