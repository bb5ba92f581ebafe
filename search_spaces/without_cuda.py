"""Let modules of forks that name CUDA be built and counted where there is none: what they put there stays here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CUDA = "cuda"


@contextmanager
def named_cuda_as(device: str | torch.device) -> Iterator[None]:
    """Take another device where PyTorch is asked for CUDA, on a machine without it.

    Args:
        device: where the layer is, or is built.
    """
    with nullcontext() if torch.cuda.is_available() else _Instead(device):
        yield


class _Instead(TorchFunctionMode):
    def __init__(self, device: str | torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch with the other device."""
        if func is Tensor.cuda:
            return args[0].to(self._device)
        named = {name: self._other(one) for name, one in (kwargs or {}).items()}
        return func(*map(self._other, args), **named)

    def _other(self, value: Any) -> Any:
        is_cuda = isinstance(value, str | torch.device) and str(value).partition(":")[0] == _CUDA
        return self._device if is_cuda else value
