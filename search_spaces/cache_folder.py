"""Cache folder of this user: what can be computed again, and which modules the user has trusted."""

import os
from pathlib import Path

from search_spaces.errors import EnvironmentProblem


def path() -> Path:
    """Return `$NAS_CACHE`, else `$NAS_HOME/cache`, else `$XDG_CACHE_HOME/nas`, else `~/.cache/nas`."""
    if chosen := os.environ.get("NAS_CACHE"):
        return Path(chosen)
    if home := os.environ.get("NAS_HOME"):
        return Path(home) / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas"


def require_writable() -> None:
    """Refuse a cache folder that cannot be written to, before anything is trained.

    Raises:
        EnvironmentProblem: the folder cannot be written to.
    """
    folder = path().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        why = "it cannot be written to" if there.is_dir() else "it is a file"
        raise EnvironmentProblem(
            f"{folder}: the folder for decoded images and scores cannot be used: {there}: {why} (set NAS_CACHE to a "
            "folder that can be written)"
        )
