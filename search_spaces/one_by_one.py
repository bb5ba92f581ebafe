"""Layers whose `forward` takes several maps one by one, `forward(self, x1, x2)`, where a row gives a list of them."""

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

from torch import Tensor, nn


class OneByOne(nn.Module):
    """Layer of a user that takes maps one by one, as one that takes a list of them.

    Ultralytics passes a list to a layer whose row reads several; a fork with such a layer has another loop.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Sequence[Tensor]) -> Any:
        """Return what the layer returns."""
        return self.layer(*x)


def names_of_maps(module: type[nn.Module]) -> list[str]:
    """Return the arguments of a class's `forward` that have no default; none if it does not say."""
    return [one.name for one in _positional(module) if one.default is Parameter.empty and one.kind not in _MANY]


def ways(module: type[nn.Module], maps: int) -> tuple[bool, ...]:
    """Return how a number of maps may be passed to a layer: as a list (False), one by one (True), in order of trial."""
    if maps < _SEVERAL:
        return (False,)
    if len(names_of_maps(module)) >= _SEVERAL:
        return (True,)
    taken = _positional(module)
    return (False, True) if len(taken) >= maps or any(one.kind in _MANY for one in taken) else (False,)


_SEVERAL = 2
_MANY = {Parameter.VAR_POSITIONAL}
_BY_POSITION = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, *_MANY}


def _positional(module: type[nn.Module]) -> list[Parameter]:
    try:
        _, *found = signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [one for one in found if one.kind in _BY_POSITION]
