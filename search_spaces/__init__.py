"""What can be built: operators, hosts, space files, and the way from an architecture to a model.

Importing this package lets Ultralytics read our rows: `YOLO("best.yaml")` and `YOLO("weights.pt")` with our operators
work afterwards. Operators of installed packages join the vocabulary. These are the side effects of imports in this
project.
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
