"""Devices as PyTorch names them, with the precision and memory format that suit each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from search_spaces.errors import GpuError, unwrapped
from search_spaces.memory_format import stays_contiguous
from trials.budget import Precision
from trials.devices import CPU

_WEAK_IN_FP16 = re.compile(r"1660|1650|1630|t400|t550|t600|t1000|t1200|t2000", re.IGNORECASE)
"""GPUs on which Ultralytics trains in float32, since losses became NaN (`utils/checks.py:1013` in 8.4.190)."""
_TENSOR_CORES = 7, 0
"""Least compute capability of a GPU that multiplies matrices in float16 faster than in float32."""


def torch_device(device: str) -> torch.device:
    """Return PyTorch's device of `cpu` or the number of a GPU."""
    return torch.device(CPU if device == CPU else f"cuda:{device}")


def require_usable(device: str) -> None:
    """Check that a GPU computes, which starts CUDA in this process; do nothing for a CPU.

    Raises:
        GpuError: it does not, such as a card that is lost, or one whose memory other processes hold.
    """
    if device == CPU:
        return
    try:
        torch.ones(1, device=torch_device(device)).sum().item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch's build has no CUDA
        line = unwrapped(str(error).strip().partition("\n")[0])
        raise GpuError(f"the GPU cannot be used: {line} (nvidia-smi says more)", is_lost=True) from error


def computes_bf16(device: str) -> bool:
    """Return whether a device computes in bfloat16 natively; emulated, it is slower than float32.

    False for a CPU with an older PyTorch, which cannot detect it.
    """
    if device != CPU:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def computes_fp16(name: str, capability: tuple[int, int]) -> bool:
    """Return whether a GPU of that name and compute capability trains well in float16."""
    return capability >= _TENSOR_CORES and not _WEAK_IN_FP16.search(name)


def fastest_precision(device: str) -> Precision:
    """Return the number format in which a GPU trains fastest, bfloat16 before float16; float32 for a CPU."""
    if device == CPU:
        return "fp32"
    if computes_bf16(device):
        return "bf16"
    found = torch.cuda.get_device_properties(torch_device(device))
    return "fp16" if computes_fp16(found.name, (found.major, found.minor)) else "fp32"


def training_format(module: nn.Module) -> torch.memory_format:
    """Return the memory format of a training: channels_last, except for modules that have to stay contiguous.

    On a GPU Ultralytics trains in it, too (`engine/trainer.py:347` in 8.4.190).
    """
    return torch.contiguous_format if stays_contiguous(module) else torch.channels_last


def memory_format(device: torch.device, module: nn.Module) -> torch.memory_format:
    """Return the memory format of a module's inference on a device: that of its training on a CPU.

    Ultralytics deploys a checkpoint in channels_last on a CPU (`nn/autobackend.py:262`). A training step of v9t takes
    0.19 s there instead of 0.25, with our operators in it 0.25 instead of 0.37 (128 px, batch 8). On a GPU Ultralytics
    chooses by itself.
    """
    return training_format(module) if device.type == "cpu" else torch.contiguous_format


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread, as a trial on the CPU does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
