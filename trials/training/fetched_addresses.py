"""Addresses in files and checkpoints of others, which Ultralytics would fetch."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from search_spaces.errors import SpecError, shortened

LISTS_OF_ADDRESSES = (".ndjson",)
"""Endings of data files that list images to download."""

_ADDRESS = re.compile(r"\s*(?!rtsp:|rtmp:|tcp:)[a-z][a-z0-9+.-]*:/+", re.IGNORECASE)
_NOT_FETCHED = {"download", "roboflow", "url", "license", "description", "docs", "names", "author"}
"""Keys of data files in which exporters leave addresses; Ultralytics does not read them, or is kept from it."""


def require_none(document: Any, path: Path) -> None:
    """Refuse a file in whose values addresses stand.

    Raises:
        SpecError: lists them.
    """
    found = [(place, text) for place, text in _texts(document, "") if _ADDRESS.match(text)]
    if found:
        raise SpecError(
            [
                f"{path}: {place}: a file may not ask for a download, got {shortened(text)} (download it yourself, and "
                "write the path of the file or folder)"
                for place, text in found
            ]
        )


def require_none_in_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint in whose settings (`train_args`) addresses stand, or a list of them as data.

    Raises:
        SpecError: lists them.
    """
    found = [
        (place, text)
        for place, text in _texts(settings, "")
        if _ADDRESS.match(text) or (place.startswith("data") and text.strip().lower().endswith(LISTS_OF_ADDRESSES))
    ]
    if found:
        raise SpecError(
            [
                f"{path}: {place} of its train_args: a checkpoint may not ask for a download, got {shortened(text)} "
                f"(download it yourself, and name the file: {place.partition('.')[0].partition('[')[0]}=FILE)"
                for place, text in found
            ]
        )


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the texts in a document, each after its address; `download` and comments on a data set are not used."""
    if isinstance(value, str | PurePath):
        yield place, str(value)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if place or key not in _NOT_FETCHED:
                yield from _texts(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple | set):
        for index, each in enumerate(value):
            yield from _texts(each, f"{place}[{index}]")
