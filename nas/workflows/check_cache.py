"""Cache of passed checks and of measured step times."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from search_spaces import cache_folder
from search_spaces.errors import EnvironmentProblem
from search_spaces.files import read_mapping, write_atomically

_MOST_ENTRIES = 20_000


class CheckCache:
    """Passed checks and measured times, by key, in a file of the cache folder.

    Args:
        path: None to store nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries = _read(path) if path else {}
        self._new: dict[str, Any] = {}

    @classmethod
    def of_user(cls) -> "CheckCache":
        """Return the cache of this user."""
        return cls(cache_folder.path() / "checks.json")

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def add(self, new: Mapping[str, Any]) -> None:
        """Add entries and write the file, with what other processes have added; the oldest entries are dropped."""
        self._entries |= new
        self._new |= new
        if self._path is None or not new:
            return
        entries = list((_read(self._path) | self._new).items())[-_MOST_ENTRIES:]
        with suppress(OSError, EnvironmentProblem):  # a cache that cannot be written is no reason not to check
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(dict(entries), indent=0))


def _read(path: Path) -> dict[str, Any]:
    return {key: each for key, each in read_mapping(path).items() if isinstance(each, str | dict)}
