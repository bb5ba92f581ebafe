"""Setting of YOLOv9's auxiliary branch (PGI), as recipes and space files hold it."""

from typing import Literal

Pgi = Literal[False, True, "lead-guided"]
"""Setting of the auxiliary branch in training; `lead-guided` assigns the targets of the main half to both halves."""
LEAD_GUIDED: Literal["lead-guided"] = "lead-guided"


def is_pgi(value: object) -> bool:
    """Return whether a value is a `Pgi` setting; a number that equals a boolean is none."""
    return isinstance(value, bool) or value == LEAD_GUIDED
