"""Conditions under which a study's trainings run, compared before another machine takes part."""

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from nas._version import __version__

_CODE = ("nas", "code")
"""Conditions that must be equal on all machines."""
_PACKAGES = ("torch", "ultralytics")


@lru_cache(maxsize=1)
def conditions_here() -> dict[str, str]:
    """Return version and code of this package, and the versions of the packages that compute."""
    versions = {name: version(name) for name in _PACKAGES}
    return {"nas": __version__, "code": _digest_of_code(), "python": platform.python_version(), **versions}


def _digest_of_code() -> str:
    """Return a hash of the source files of our packages."""
    folders = [Path(__file__).parents[2] / package for package in ("nas", "trials", "search_spaces")]
    hashed = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:12]


def parse_conditions(content: bytes | None) -> dict[str, str]:
    """Return the conditions of a stored file; empty if there is none, or it is damaged."""
    try:
        stored = json.loads(content or b"{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in stored.items()} if isinstance(stored, dict) else {}


def differences(there: Mapping[str, str], here: Mapping[str, str], *, versions_may_differ: bool = False) -> list[str]:
    """Return one line for each condition that differs: `torch: 2.6.0 in the study, 2.7.1 here`.

    Args:
        there: conditions of the study.
        here: of this machine.
        versions_may_differ: ignore versions of other packages than ours.
    """
    return [
        f"{name}: {there[name]} in the study, {here.get(name, 'not installed')} here"
        for name in there
        if there[name] != here.get(name) and (name in _CODE or not versions_may_differ)
    ]
