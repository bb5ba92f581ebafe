"""Faults of a GPU, told apart by the texts of PyTorch's errors: memory, a corrupted context, a lost device.

The texts are those of `cudaGetErrorString`, to which PyTorch adds `CUDA error: ` and advice
(`c10/cuda/CUDAException.cpp`). An error of the third kind ends each later call of the process, too: after an illegal
access CUDA "leaves the process in an inconsistent state" (CUDA Runtime API, `cudaError`), and PyTorch cannot recover
(pytorch/pytorch issue 17425).
"""

from enum import StrEnum


class GpuFault(StrEnum):
    """Kind of a GPU's fault, which decides what goes on: this process, another one, or none on this GPU."""

    OUT_OF_MEMORY = "out of memory"
    CORRUPTED = "corrupted context"
    LOST = "lost device"


_LOST = (
    "no cuda-capable device",  # 100
    "no cuda gpus are available",  # torch/cuda/__init__.py, `_lazy_init`
    "found no nvidia driver",  # the same
    "busy or unavailable",  # 46: exclusive mode, or a MIG instance that is gone
    "uncorrectable ecc error",  # 214, and uncorrectable NVLink errors: the card needs a reset
    "uncorrectable nvlink error",
    "invalid device ordinal",  # 101
    "gpu is lost",  # NVML: fallen off the bus, Xid 79
    "fallen off the bus",
    "system has unsupported display driver",  # 803: the driver was updated under a running process
    "driver/library version mismatch",
)
_CORRUPTED = (
    "an illegal memory access",  # 700, Xid 31
    "device-side assert triggered",  # 710; PyTorch's advice to every error has "device-side assertions"
    "unspecified launch failure",  # 719
    "misaligned address",  # 716
    "an illegal instruction",  # 715
    "invalid program counter",  # 718
    "hardware stack error",  # 714
    "operation not supported on global/shared address space",  # 717
    "the launch timed out and was terminated",  # 702: a display's GPU stops a kernel of some seconds
    "cudnn_status_execution_failed",
    "cublas_status_execution_failed",
    "cuda error: unknown error",  # 999
)
_OUT_OF_MEMORY = (
    "cuda out of memory",  # torch.OutOfMemoryError
    "cuda error: out of memory",  # 2: of the context itself, where other processes hold the card
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "hip out of memory",
)


def fault_in(message: str) -> GpuFault | None:
    """Return the fault that an error's text tells of; None for any other error."""
    text = message.lower()
    for fault, texts in (
        (GpuFault.LOST, _LOST),
        (GpuFault.CORRUPTED, _CORRUPTED),
        (GpuFault.OUT_OF_MEMORY, _OUT_OF_MEMORY),
    ):
        if any(each in text for each in texts):
            return fault
    return None


def fault_of(error: BaseException | None) -> GpuFault | None:
    """Return the fault of a GPU that an error, or what caused it, tells of; None for any other error.

    Errors are looked at from the first cause on: what follows a corrupted context has other texts.
    """
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    found = (fault_in(str(each)) for each in reversed(chain) if not isinstance(each, MemoryError))
    return next((fault for fault in found if fault is not None), None)
