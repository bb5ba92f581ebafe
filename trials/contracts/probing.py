"""Probing of modules, for all contracts: isolation, random weights, comparison of outputs."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from search_spaces.errors import unwrapped

T = TypeVar("T")

REORDERED = 1e-4
"""Greatest relative difference that a different order of float32 sums explains; see `relative_difference`."""


@contextmanager
def isolated() -> Iterator[None]:
    """Restore random states and backends at the end; suppress warnings; turn oneDNN off.

    oneDNN compiles a kernel for every new shape, which takes seconds, while the arithmetic takes milliseconds. Where an
    export to ONNX fails, PyTorch would print the whole graph on stdout.
    """
    backend: Any = torch.backends.mkldnn
    was, backend.enabled = backend.enabled, False
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"), no_onnx_log():
            yield
    finally:
        backend.enabled = was


@contextmanager
def no_onnx_log() -> Iterator[None]:
    """Print nothing of exports: each one sets PyTorch's own switch to on (2.14), so what prints is replaced."""
    internals: Any = torch._C  # noqa: SLF001 - not public
    printer = getattr(internals, _ONNX_LOG)
    setattr(internals, _ONNX_LOG, lambda *_: None)
    try:
        yield
    finally:
        setattr(internals, _ONNX_LOG, printer)


_ONNX_LOG = "_jit_onnx_log"


def as_if_trained(module: nn.Module) -> nn.Module:
    """Return a copy with random numbers where a fresh module has zeros or untrained statistics of batch norm.

    A fresh module hides mistakes: a branch that is initialised with 0 has a correct output for any input size, and
    passes no gradient.
    """
    module = deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.get_buffer("running_mean").normal_(std=0.3)
                norm.get_buffer("running_var").uniform_(0.5, 2)
                if norm.affine:
                    norm.weight.uniform_(0.5, 1.5)
                    norm.bias.normal_(std=0.3)
    return module


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Return max |actual - expected| / max |expected|; infinite for different shapes or non-finite numbers."""
    if actual.shape != expected.shape or not actual.isfinite().all():
        return float("inf")
    greatest = expected.abs().max().item()
    return (actual - expected).abs().max().item() / greatest if greatest else actual.abs().max().item()


def observe(promise: Callable[[T], Iterable[str]], subject: T) -> list[str]:
    """Return the observations that break a promise, one line each; an exception breaks it, too."""
    try:
        return list(promise(subject))
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        return [describe(error)]


def describe(error: BaseException) -> str:
    """Return an exception with its type in one line, as `explained`."""
    return f"raises {type(error).__name__}: {explained(error)}"


def explained(error: BaseException) -> str:
    """Return an exception's message in one line of at most 300 characters, and what helps against a frequent one."""
    text = _OF_EXPORTER.sub("", unwrapped(error))
    return text[:300] + "".join(remedy for part, remedy in _REMEDIES.items() if part in text)


_OF_EXPORTER = re.compile(r"[. ]*(Please feel free to request support|\[Caused by the value).*")
"""Text that PyTorch's exporter adds to each of its errors."""
_REMEDIES = {
    "operator adaptive pooling": "; nn.AdaptiveAvgPool2d((None, 1)) is x.mean(3, keepdim=True), which exports",
    "Unsupported: ONNX export": "; nas export --formats openvino,torchscript needs no ONNX",
}
"""Remedies against errors of PyTorch's exporter, by a part of the message."""
