"""Structural keys: equal for two modules that compute the same and cost the same, whatever their weights are.

The keys of recorded latency tables are digests of them, so a change here makes all recorded tables useless.
"""

import re
from collections.abc import Hashable, Sequence

from torch import Tensor, nn

from search_spaces.operators import OPERATORS
from search_spaces.operators.class_operator import ClassOperator
from search_spaces.operators.user_classes import sources_in
from search_spaces.trace import Feature

_NEUTRAL: dict[str, bool | float] = {"inplace": False, "eps": 1e-5, "momentum": 0.1}
"""Attributes that change neither time nor cost, each with the value that replaces it: PyTorch's default.

Ultralytics shares one activation among all its blocks and makes it an in-place one when it loads a checkpoint
(`nn/tasks.py:2060`), and it sets batch norm's numbers in whole models only.
"""

_INPLACE_IN_REPR = re.compile(r"(?:, )?inplace=(?:True|False)")
_NUMBERS_IN_REPR = re.compile(r"\b(eps|momentum)=[^,)]+")


def structural_key(module: nn.Module) -> Hashable:
    """Return the structural key of a module: its `repr`, its scalar attributes and the shapes of its parameters.

    Of users' layers without a record also the hash of their text. Left out are weights, the position in a model, and
    what changes neither time nor cost.
    """
    attributes = [
        (name, _NEUTRAL.get(name, value))
        for inner in module.modules()
        for name, value in vars(inner).items()
        if isinstance(value, bool | int | float | str) and name not in {"i", "np", "type", "training"}
    ]
    text = _NUMBERS_IN_REPR.sub(
        lambda found: f"{found[1]}={_NEUTRAL[found[1]]}", _INPLACE_IN_REPR.sub("", repr(module))
    )
    recorded = {record.source for record in OPERATORS.values() if not isinstance(record, ClassOperator)}
    digests = tuple(source.digest for source in sources_in(module) if source not in recorded)
    shape = tuple(parameter.shape for parameter in module.parameters())
    return (text, tuple(attributes), shape, digests) if digests else (text, tuple(attributes), shape)


def shapes(feature: Feature | Sequence[Feature]) -> Hashable:
    """Return the shape of a tensor, or the shapes of several in their nesting."""
    return feature.shape if isinstance(feature, Tensor) else tuple(shapes(inner) for inner in feature)
