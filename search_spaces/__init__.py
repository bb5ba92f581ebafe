"""Search spaces: operators, the hosts they stand in, space files, and models built from architectures.

Importing this package has one side effect, the only one of imports in this project: as soon as Ultralytics is imported,
it reads rows with operators, so that `YOLO("best.yaml")` and `YOLO("weights.pt")` work with them. The names below are
imported when they are first used, because they need PyTorch.
"""

from typing import TYPE_CHECKING

from search_spaces import ultralytics_hooks
from search_spaces.lazy_names import importer

if TYPE_CHECKING:
    from search_spaces.architecture import STOCK, Architecture, Choice
    from search_spaces.joined_space import JoinedSpace, Space
    from search_spaces.operators import OPERATORS
    from search_spaces.slot import Slot
    from search_spaces.space import SearchSpace
    from search_spaces.space_file import load

ultralytics_hooks.register()

_HOMES = {
    "OPERATORS": "search_spaces.operators.modules",  # which adds those of installed packages
    "STOCK": "search_spaces.architecture",
    "Architecture": "search_spaces.architecture",
    "Choice": "search_spaces.architecture",
    "JoinedSpace": "search_spaces.joined_space",
    "SearchSpace": "search_spaces.space",
    "Slot": "search_spaces.slot",
    "Space": "search_spaces.joined_space",
    "load": "search_spaces.space_file",
}

__all__ = ["OPERATORS", "STOCK", "Architecture", "Choice", "JoinedSpace", "SearchSpace", "Slot", "Space", "load"]


__getattr__ = importer(__name__, _HOMES)
