"""Rows of a model file whose module is a class of a user's file, as a fork's own parser would read them.

Layers of this package that stand for another repository's are read in the same way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces import layers, printed, yolov5, yolov7, yolov7_variants
from search_spaces.operators import OPERATORS, user_classes
from search_spaces.operators.class_operator import ClassOperator
from search_spaces.operators.user_classes import UserClass

REPLACED_HEADS = frozenset({"DualDetect", "IAuxDetect", "IDetect", "TripleDetect", *printed.HEADS})
"""Heads that this package builds or counts itself, in the place of those of the YOLOv7 and YOLOv9 repositories."""

PREFIX = "modules."
"""Beginning of a row's module that is a class of a user's file, whatever else has its name."""

FURTHER = "further_scale_values"
"""Key of a translated document with the numbers of each scale that Ultralytics does not read."""

_OF_OTHERS = yolov5.LAYERS | yolov7.LAYERS | yolov7_variants.LAYERS
"""Layers of this package that stand for those of other repositories."""


def user_class(row: Sequence[Any]) -> UserClass | None:
    """Return the user's class, or the layer for another repository's file, that a row names.

    None where the name is Ultralytics' or the row is an operator's. A row of an operator ends in a mapping of
    parameters. Without one, a name that both this package and the user's file have means the file's class: the user has
    named that file. The class of a user's record is meant where a row reads several layers, which an operator cannot.

    Raises:
        SpecError: several files define the class, or the one that names it cannot.
    """
    source, _, name, arguments = row
    if isinstance(name, str) and name.startswith(PREFIX):
        return user_classes.find(name.removeprefix(PREFIX))
    if not isinstance(name, str) or name in layers.ULTRALYTICS | REPLACED_HEADS:
        return None
    if name in _OF_OTHERS:
        return UserClass(name=name, module=_OF_OTHERS[name], source=None)
    if isinstance(arguments, list) and arguments and isinstance(arguments[-1], Mapping):
        return None
    record = OPERATORS.get(name)
    if record is not None and record.source is not None and not isinstance(record, ClassOperator):
        if not isinstance(source, list):
            return None
        return UserClass(name=name, module=record.module, source=record.source)
    found = user_classes.find(name)
    if found is None:
        user_classes.require_whole(name)
    return found
