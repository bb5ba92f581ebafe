"""Files with passwords, which no other user of the machine may open."""

import shlex
import stat
from pathlib import Path

from search_spaces.errors import EnvironmentProblem

_OTHERS = 0o077
"""Mode bits by which others read, write or run a file."""


def require_private(path: Path, consequence: str, before: str = "") -> None:
    """Refuse a file of passwords that other users may open; one that does not exist is none.

    Args:
        consequence: what follows from it, for the message.
        before: what the message begins with.

    Raises:
        EnvironmentProblem: its mode is another than 600.
    """
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0
    if mode & _OTHERS:
        raise EnvironmentProblem(
            f"{before}{path} holds passwords, and other users may open it (mode {mode:o}); {consequence} "
            f"(chmod 600 {shlex.quote(str(path))})"
        )
