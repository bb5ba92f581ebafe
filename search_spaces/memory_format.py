"""Keep a model with tensors of five dimensions out of channels_last, which has four."""

from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch import nn

_OF_VOLUMES = 5


def has_five_dimensions(module: nn.Module) -> bool:
    """Return whether a parameter or buffer has five dimensions, as those of a `Conv3d`.

    `Module.to(memory_format=torch.channels_last)` converts tensors of four and five, and raises for the latter.
    """
    return any(one.dim() == _OF_VOLUMES for one in chain(module.parameters(), module.buffers()))


def keeping_contiguous(stock_to: Any) -> Any:
    """Return `Module.to` with which such a module keeps the contiguous format: Ultralytics asks for channels_last."""

    @wraps(stock_to)
    def to(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        if options.get("memory_format") is torch.channels_last and has_five_dimensions(self):
            options["memory_format"] = torch.contiguous_format
        return stock_to(self, *arguments, **options)

    return to
