"""Check whether a forward pass is recorded into a graph."""

import torch


def is_exporting() -> bool:
    """Return whether this forward pass is recorded, to run later with other batch and image sizes."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined]  # public, but not in `torch.jit.__all__`
    # torch < 2.7 cannot tell export from compilation.
    exported = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
    return bool(traced or exported or torch.onnx.is_in_onnx_export())
