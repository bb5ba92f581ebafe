"""What operators ask about the graph that they may be recorded into."""

import torch


def is_exporting() -> bool:
    """Whether this pass is recorded to run later, with other batches and sizes."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined]  # public, but not in `torch.jit.__all__`
    # torch < 2.7 cannot tell export from compilation.
    exported = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
    return bool(traced or exported or torch.onnx.is_in_onnx_export())
