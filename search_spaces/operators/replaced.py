"""Copy a replaced convolution into an operator."""

from collections.abc import Sequence

import torch
from torch import nn
from ultralytics.nn.modules import Conv

COPIED = ("conv.weight", "bn.weight", "bn.bias")


def copy_channels(conv: Conv, replaced: nn.Module | None, channels: Sequence[int]) -> tuple[str, ...]:
    """Copy some output channels of a replaced convolution, with their batch norm, into all of another one.

    Args:
        conv: gets weights and statistics.
        replaced: what stood in the operator's place; None for an inserted layer.
        channels: of `replaced`, one for each output channel of `conv`.

    Returns:
        The names of the parameters of `conv` that were copied; none if the shapes do not allow it.
    """
    if not isinstance(replaced, Conv) or replaced.conv.weight.shape[1:] != conv.conv.weight.shape[1:]:
        return ()
    if replaced.conv.stride != conv.conv.stride or replaced.conv.groups != conv.conv.groups:
        return ()
    chosen = torch.tensor(channels, device=conv.conv.weight.device)
    conv.conv.weight.copy_(replaced.conv.weight[chosen])
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(conv.bn, name).copy_(getattr(replaced.bn, name)[chosen])
    return COPIED
