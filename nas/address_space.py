"""Address space that the shell allows (`ulimit -v`), in which PyTorch may find no room. Imports nothing large."""

import resource

_ENOUGH = 6 * 2**30
"""Bytes in which PyTorch was loaded: 2.14 with CUDA takes 3.5e9, and in less loading has failed and crashed."""


def warning() -> str:
    """Return a line on PyTorch's loading if the address space may be too little for it; else an empty one."""
    limit = _limit()
    if limit is None or limit > _ENOUGH:
        return ""
    return (
        f"loading PyTorch; if nothing follows, the {limit / 2**30:.1f} GiB of address space that this shell allows are "
        "too little (ulimit -v unlimited)"
    )


def problem(error: ImportError | MemoryError) -> str | None:
    """Return in one line what is missing where memory ran out, or a library found no room; None for other errors."""
    reason = str(error).removesuffix(".") or "out of memory"
    is_import = isinstance(error, ImportError)
    if is_import and not any(text in reason for text in ("failed to map segment", "annot allocate memory")):
        return None
    limit = _limit()
    if limit is None:
        what = " to load PyTorch" if is_import else ""
        return f"{reason}: this machine, or its container, has too little free memory{what}"
    needs = "PyTorch needs more to be loaded" if is_import else "this command needs more"
    return (
        f"{reason}: this shell limits the address space to {limit / 2**30:.1f} GiB (ulimit -v), and {needs} "
        "(ulimit -v unlimited)"
    )


def _limit() -> int | None:
    """Return the limit in bytes; None without one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
