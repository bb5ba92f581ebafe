"""Models that are not trained in channels_last: with tensors of five dimensions, or a layer for which it fails."""

from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch import nn

_OF_VOLUMES = 5
_LEAST_CHANNELS = 16
"""Input channels from which on the backward pass of such a layer is right."""


def stays_contiguous(module: nn.Module) -> bool:
    """Return whether a module, or a model with it, is trained and used in the contiguous memory format."""
    return _has_five_dimensions(module) or _has_narrow_strided_pointwise(module)


def _has_five_dimensions(module: nn.Module) -> bool:
    """Return whether a parameter or buffer has five dimensions, as those of a `Conv3d`.

    `Module.to(memory_format=torch.channels_last)` converts tensors of four and five, and raises for the latter.
    """
    return any(one.dim() == _OF_VOLUMES for one in chain(module.parameters(), module.buffers()))


def _has_narrow_strided_pointwise(module: nn.Module) -> bool:
    """Return whether a 1x1 convolution with a stride reads fewer than 16 channels, as RepVGG's in a very narrow model.

    In channels_last its backward pass writes beyond its memory on a CPU with AVX-512: the process crashes, or goes on
    with other numbers (oneDNN 3.12.0 of PyTorch 2.14.1: 8 to 16 channels with stride 2, 64 px).
    """
    return any(
        isinstance(one, nn.Conv2d)
        and one.kernel_size == (1, 1)
        and max(one.stride) > 1
        and one.groups == 1
        and one.in_channels < _LEAST_CHANNELS
        for one in module.modules()
    )


def keeping_contiguous(stock_to: Any) -> Any:
    """Return `Module.to` with which such a module keeps the contiguous format: Ultralytics asks for channels_last."""

    @wraps(stock_to)
    def to(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        if options.get("memory_format") is torch.channels_last and stays_contiguous(self):
            options["memory_format"] = torch.contiguous_format
        return stock_to(self, *arguments, **options)

    return to
