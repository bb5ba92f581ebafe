"""Words in rows of users' classes that name a class or a layer: `Blocks, [64, BasicBlock]`, `nn.LeakyReLU(0.1)`.

Parsers of forks look them up or evaluate them, as that of the YOLOv5 repository does with every word. Here a class is
one of users' files or of `torch.nn`, and a call is that of an activation with plain numbers, as in `activation:`.
"""

from collections.abc import Sequence
from inspect import Parameter
from typing import Any

from torch import nn

from search_spaces import layers
from search_spaces.errors import SpecError
from search_spaces.operators import user_classes


def value_of(word: str) -> Any:
    """Return the class or the activation that a word names; None if it is a word."""
    bare = word.removeprefix("torch.")
    if not bare.startswith(layers.TORCH):
        try:
            found = user_classes.find(word)
        except SpecError:  # of several files: the row means another one, or none
            return None
        return None if found is None else found.module
    named = vars(nn).get(bare.removeprefix(layers.TORCH))
    if isinstance(named, type) and issubclass(named, nn.Module):
        return named
    try:
        name, given = layers.activation_call(word)
    except SpecError:
        return None
    return getattr(nn, name)(*given)


def is_text(parameter: Parameter) -> bool:
    """Return whether a constructor says of a parameter that it is a text."""
    return isinstance(parameter.default, str) or parameter.annotation in {str, "str"}


def resolved(given: Sequence[Any], parameters: Sequence[Parameter]) -> tuple[Any, ...]:
    """Return arguments with what their words name, except where the constructor takes a text."""
    behind = [None] * max(len(given) - len(parameters), 0)
    return tuple(
        one
        if not isinstance(one, str)
        or (parameter is not None and is_text(parameter))
        or (value := value_of(one)) is None
        else value
        for one, parameter in zip(given, [*parameters, *behind], strict=False)
    )


def shown(value: Any) -> str:
    """Return an argument for a message: a class by its name."""
    return value.__name__ if isinstance(value, type) else repr(value)
