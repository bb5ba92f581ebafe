"""Faults of a GPU in texts that people have reported; no GPU is needed."""

import pytest
import torch

from trials.gpu_faults import GpuFault, fault_in, fault_of

ADVICE = """
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        # murong-xu/CADS issue 4
        ("CUDA out of memory. Tried to allocate 22.78 GiB. GPU 0 has a total capacity of", GpuFault.OUT_OF_MEMORY),
        # pytorch/pytorch issue 59778, of an older version
        ("CUDA out of memory. Tried to allocate 2.26 GiB (GPU 0; 6.00 GiB total capacity", GpuFault.OUT_OF_MEMORY),
        (f"CUDA error: out of memory{ADVICE}", GpuFault.OUT_OF_MEMORY),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", GpuFault.OUT_OF_MEMORY),
        # evo-design/evo issue 136
        (f"CUDA error: an illegal memory access was encountered{ADVICE}", GpuFault.CORRUPTED),
        # mrdbourke/pytorch-deep-learning issue 1290
        (f"CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in{ADVICE}", GpuFault.CORRUPTED),
        (f"CUDA error: unspecified launch failure{ADVICE}", GpuFault.CORRUPTED),
        (f"CUDA error: misaligned address{ADVICE}", GpuFault.CORRUPTED),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", GpuFault.CORRUPTED),
        # jade-hpc-gpu/jade-hpc-gpu.github.io issue 194: a broken node
        (f"CUDA error: uncorrectable ECC error encountered{ADVICE}", GpuFault.LOST),
        # jwyang/faster-rcnn.pytorch issue 377
        ("cuda runtime error (38) : no CUDA-capable device is detected at /pytorch/THCGeneral.cpp:74", GpuFault.LOST),
        # pytorch/pytorch issue 100691, facebookresearch/detectron2 issue 2616
        (f"CUDA error: CUDA-capable device(s) is/are busy or unavailable{ADVICE}", GpuFault.LOST),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", GpuFault.LOST),
        # pytorch/pytorch pull request 92315
        (f"CUDA error: invalid device ordinal{ADVICE}", GpuFault.LOST),
        ("No CUDA GPUs are available", GpuFault.LOST),
        ("Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.  Reboot the system", GpuFault.LOST),
        # no fault of the GPU: a call with wrong arguments, or one of the host
        (f"CUDA error: invalid configuration argument{ADVICE}", None),
        (f"CUDA error: no kernel image is available for execution on the device{ADVICE}", None),
        ("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory", None),
        ("Sizes of tensors must match except in dimension 1", None),
        ("", None),
    ],
)
def test_fault_by_the_text_of_the_error(text: str, fault: GpuFault | None) -> None:
    assert fault_in(text) is fault
    assert fault_of(RuntimeError(text)) is fault


def test_first_cause_of_an_error_counts() -> None:
    error = RuntimeError("inference of one 64 px image failed")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert fault_of(error) is GpuFault.OUT_OF_MEMORY
    assert fault_of(None) is None


def test_pytorch_has_an_error_class_for_accelerators_that_is_a_runtime_error() -> None:
    kind = getattr(torch, "AcceleratorError", RuntimeError)  # from PyTorch 2.8 on
    assert issubclass(kind, RuntimeError)
    assert fault_of(kind("CUDA error: an illegal memory access was encountered")) is GpuFault.CORRUPTED
