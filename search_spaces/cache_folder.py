"""Where this package keeps what can be made again, and what it remembers of this user."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$NAS_CACHE`, else `$XDG_CACHE_HOME/nas`, else `~/.cache/nas`."""
    if chosen := os.environ.get("NAS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas"
