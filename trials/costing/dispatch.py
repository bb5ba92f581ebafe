"""Count the multiply-adds of users' layers from the operations that PyTorch runs, whatever module computes them.

Counted are convolutions, matrix products (also those of `einsum` and of attention), deformable convolutions and
bilinear sampling; as elsewhere batch norm, activations, pooling, interpolation and products of equal shapes are not.
An operation that multiplies and that nobody here can count is named.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]  # noqa: F401 - defines `torch.ops.torchvision`
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from search_spaces import OPERATORS
from search_spaces.meta_device import passed
from search_spaces.operators.class_operator import ClassOperator
from search_spaces.operators.user_classes import is_of_user

_SAMPLED = 4
"""Products of one bilinearly interpolated value, as operators of this package count them."""

_PLAIN_NAMESPACES = {"aten", "prim", "prims"}
_UNCOUNTABLE = (
    *(
        "_cdist_forward",
        "_ctc_loss",
        "_embedding_bag",
        "_fft_c2c",
        "_fft_c2r",
        "_fft_r2c",
        "_linalg_",
        "_pdist_forward",
    ),
    *(
        "_native_multi_head",
        "_thnn_fused",
        "_transformer_encoder_layer",
        "_trilinear",
        "geqrf",
        "gru",
        "linalg_",
        "lstm",
        "rnn_",
        "triangular_solve",
    ),
)
"""Beginnings of the names of PyTorch's own operations that multiply and are not counted."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """What one forward pass computes.

    Attributes:
        uncounted: names of operations that multiply, of which the number is not known: `torchvision::deform_conv2d`.
    """

    macs: int
    uncounted: tuple[str, ...] = ()


def is_counted_here(module: nn.Module) -> bool:
    """Return whether a module is, or holds, a user's class that is no operator with a record."""
    ruled = {record.module for record in OPERATORS.values() if not isinstance(record, ClassOperator)}
    return any(is_of_user(one) and type(one) not in ruled for one in _outermost(module, ruled))


def _outermost(module: nn.Module, ruled: set[type[nn.Module]]) -> Iterator[nn.Module]:
    """Yield a module and those in it, but none in an operator, which has its own way to be counted."""
    yield module
    if type(module) not in ruled:
        for child in module.children():
            yield from _outermost(child, ruled)


def count(module: nn.Module, received: Any) -> Count:
    """Count one forward pass of a module in eval mode on the meta device; one that needs numbers is run on the CPU."""
    names = _Names()
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)

    def begin_anew() -> None:
        names.found.clear()
        counter.flop_counts.clear()

    with torch.no_grad(), names, counter:
        passed(module, received, before_numbers=begin_anew)
    return Count(macs=math.ceil(counter.get_total_flops() / 2), uncounted=tuple(sorted(names.found)))


class _Names(TorchDispatchMode):
    """Recorder of the operations that nobody can count."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and record its name if it multiplies and has no formula."""
        namespace, _, name = str(func.name()).partition("::")
        is_counted = func._overloadpacket in _FORMULAS  # noqa: SLF001 - the key of PyTorch's own registry
        if not is_counted and (namespace not in _PLAIN_NAMESPACES or name.startswith(_UNCOUNTABLE)):
            self.found.add(str(func.name()).partition(".")[0])
        return func(*args, **kwargs or {})


def _products(a: Any, b: Any, *_: Any, **__: Any) -> int:
    """Twice the products of a matrix or vector with a vector."""
    return 2 * math.prod(a) if len(a) >= len(b) else 2 * math.prod(b)


def _products_added(_bias: Any, a: Any, b: Any, *rest: Any, **named: Any) -> int:
    return _products(a, b, *rest, **named)


def _grid_sample(_x: Any, _grid: Any, mode: int = 0, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Four products for each value, unless the nearest one is taken."""
    return 0 if mode == 1 else 2 * _SAMPLED * math.prod(out_shape)


def _deform_conv(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Products with the weights, and those of the bilinear sampling of each value that they are multiplied with."""
    batch, _, height, width = out_shape
    places = batch * height * width
    c_out, c_in, k_h, k_w = weight  # c_in of one group
    return 2 * places * k_h * k_w * (c_out * c_in + _SAMPLED * x[1])


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


_FORMULAS: dict[Any, Any] = {
    torch.ops.aten.mv: _products,
    torch.ops.aten.dot: _products,
    torch.ops.aten.addmv: _products_added,
    torch.ops.aten.grid_sampler_2d: _grid_sample,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # noqa: SLF001 - its name
    torch.ops.torchvision.deform_conv2d: _deform_conv,
}
"""Twice the multiply-adds of operations for which PyTorch has no formula; arguments are shapes in place of tensors."""
