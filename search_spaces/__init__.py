"""Search spaces: operators, the hosts they stand in, space files, and models built from architectures.

Importing this package has one side effect, the only one of imports in this project: as soon as Ultralytics is imported,
it reads rows with operators, so that `YOLO("best.yaml")` and `YOLO("weights.pt")` work with them. The names below are
imported when they are first used, because they need PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from search_spaces import ultralytics_hooks

if TYPE_CHECKING:
    from search_spaces.architecture import STOCK, Architecture, Choice
    from search_spaces.operators import OPERATORS
    from search_spaces.space import SearchSpace, Slot
    from search_spaces.space_file import load

ultralytics_hooks.register()

_HOMES = {
    "OPERATORS": "operators.modules",  # which adds those of installed packages
    "STOCK": "architecture",
    "Architecture": "architecture",
    "Choice": "architecture",
    "SearchSpace": "space",
    "Slot": "space",
    "load": "space_file",
}

__all__ = ["OPERATORS", "STOCK", "Architecture", "Choice", "SearchSpace", "Slot", "load"]


def __getattr__(name: str) -> Any:
    """Import a name on its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
