"""Cache of passed checks."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from search_spaces import cache_folder
from search_spaces.errors import EnvironmentProblem
from search_spaces.files import read_mapping, write_atomically

_REMEMBERED = 20_000


class CheckCache:
    """What has passed and what was measured before, in a file of the user's cache.

    Args:
        path: None to remember nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = _read(path) if path else {}
        self._new: dict[str, Any] = {}

    @classmethod
    def of_user(cls) -> "CheckCache":
        """The user's."""
        return cls(cache_folder.path() / "checks.json")

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def add(self, new: Mapping[str, Any]) -> None:
        """Remember from now on, beside what other processes have written; the oldest is forgotten."""
        self._known |= new
        self._new |= new
        if self._path is None or not new:
            return
        kept = list((_read(self._path) | self._new).items())[-_REMEMBERED:]
        with suppress(OSError, EnvironmentProblem):  # a cache that cannot be written is no reason not to check
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(dict(kept), indent=0))


def _read(path: Path) -> dict[str, Any]:
    return {key: each for key, each in read_mapping(path).items() if isinstance(each, str | dict)}
