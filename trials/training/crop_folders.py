"""Folders of crops (`save_crop`), which Ultralytics names by class: a checkpoint's names do not lead elsewhere."""

import re
from functools import wraps
from typing import Any

from ultralytics.engine.results import Results

from search_spaces.printable import printable

_SEPARATORS = re.compile(r"[/\\\x00-\x1f]")
_LONGEST = 60
"""Most characters of a folder's name; file systems allow 255 bytes."""


def guard() -> None:
    """Keep crops within the folder of the results, in this process from now on."""
    stock_save = Results.save_crop

    @wraps(stock_save)
    def save_crop(results: Any, *arguments: Any, **options: Any) -> None:
        names = results.names
        results.names = {number: folder_name(str(name)) for number, name in names.items()}
        try:
            stock_save(results, *arguments, **options)
        finally:
            results.names = names

    Results.save_crop = save_crop


def folder_name(name: str) -> str:
    """Return the name of a class as that of one folder; usual names stay as they are."""
    one = _SEPARATORS.sub("_", printable(name))[:_LONGEST]
    return one if one.strip(". ") else "_"
