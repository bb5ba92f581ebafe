"""Words in the rows of a model file that are keys at its top: `head_channel: 256`, then `Conv, [head_channel]`.

Forks read them as modules and arguments (`d[m]` and `d[a]` in their `parse_model`).
"""

from collections.abc import Mapping
from typing import Any

from search_spaces import model_file
from search_spaces.foreign_module import is_row

_OF_PARSER = {*model_file.SETTINGS, *model_file.PARSER_VARIABLES}
"""Keys and words that Ultralytics' parser or this package reads itself."""


def resolved(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document in whose rows each such word is replaced by the value of its key."""
    words = {
        key: value
        for key, value in document.items()
        if isinstance(key, str) and key not in _OF_PARSER and isinstance(value, str | int | float)
    }

    def with_values(row: Any) -> Any:
        if not is_row(row):
            return row
        source, repeats, module, arguments = row
        named = words.get(module)
        given = [words.get(one, one) if isinstance(one, str) else one for one in arguments]
        return [source, repeats, named if isinstance(named, str) else module, given]

    return {
        key: [with_values(row) for row in value] if key in model_file.SECTIONS and isinstance(value, list) else value
        for key, value in document.items()
    }
