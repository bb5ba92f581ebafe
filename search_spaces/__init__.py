"""Search spaces: operators, the hosts they stand in, space files, and models built from architectures.

Importing this package has two side effects, the only ones of imports in this project: Ultralytics reads rows with
operators, so that `YOLO("best.yaml")` and `YOLO("weights.pt")` work with them, and the operators of installed packages
are added to `OPERATORS`.
"""

from search_spaces import stored_model
from search_spaces.architecture import STOCK, Architecture, Choice
from search_spaces.operators import OPERATORS
from search_spaces.operators.modules import load_installed
from search_spaces.parser_hooks import install
from search_spaces.space import SearchSpace, Slot
from search_spaces.space_file import load

install()
stored_model.install()
load_installed()

__all__ = ["OPERATORS", "STOCK", "Architecture", "Choice", "SearchSpace", "Slot", "install", "load"]
