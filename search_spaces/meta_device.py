"""Pass maps through users' layers on the meta device, where only shapes are computed."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.one_by_one import OneByOne
from search_spaces.operators import user_classes
from search_spaces.without_cuda import named_cuda_as


def unwrapped(layer: nn.Module) -> nn.Module:
    """Return the layer that takes maps one by one, or the first of several copies; any other layer as it is."""
    first = layer[0] if isinstance(layer, nn.Sequential) and len(layer) else layer
    return first.layer if isinstance(first, OneByOne) else first


def is_of_user(layer: nn.Module) -> bool:
    """Return whether a layer is of a user's class, or several copies of one."""
    return user_classes.is_of_user(unwrapped(layer))


def passed(
    layer: nn.Module, received: Any, *, may_compute: bool = True, before_numbers: Callable[[], None] = lambda: None
) -> Any:
    """Pass maps on the meta device through a layer; return its output there. A list of maps stays as it is.

    Args:
        may_compute: a user's layer may compute with numbers, `x.max().item()`, which the meta device does not have. It
            gets random ones then, on the CPU.
        before_numbers: called where the layer is run once more for that; a count begins anew.
    """
    if not is_of_user(layer):
        return layer(received)
    with redirect_stdout(sys.stderr):  # what a user's layer prints is no result of a command
        return _passed(layer, received, may_compute=may_compute, before_numbers=before_numbers)


def _passed(layer: nn.Module, received: Any, *, may_compute: bool, before_numbers: Callable[[], None]) -> Any:
    try:
        with named_cuda_as("meta" if _is_meta(received) else "cpu"):
            return layer(list(received) if isinstance(received, list) else received)
    except Exception as error:
        if isinstance(error, ImportError) or not may_compute or not _is_meta(received):
            raise
    before_numbers()
    with named_cuda_as("cpu"), torch.device("cpu"):  # where the layer makes tensors of its own, too
        returned = with_numbers(layer)(_mapped(received, lambda one: torch.rand(one.shape, device="cpu")))
    return _mapped(returned, lambda one: one.to("meta"))


def with_numbers(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer on the meta device with random weights on the CPU."""
    copy = deepcopy(layer).to_empty(device="cpu")
    for tensor in (*copy.parameters(), *copy.buffers()):
        tensor.data = torch.rand_like(tensor) * 0.1 if tensor.is_floating_point() else torch.zeros_like(tensor)
    return copy


def _is_meta(received: Any) -> bool:
    return received.is_meta if isinstance(received, Tensor) else any(map(_is_meta, received))


def _mapped(feature: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(feature) if isinstance(feature, Tensor) else [_mapped(one, change) for one in feature]
