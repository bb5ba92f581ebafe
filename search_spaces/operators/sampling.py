"""Bilinear sampling as `F.grid_sample` computes it, with other gradients where PyTorch's have a fault."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_BILINEAR = 0
_PADDING = {"zeros": 0, "border": 1}
"""Numbers that PyTorch's kernels have for `grid_sample`'s modes."""


def grid_sample(maps: Tensor, places: Tensor, *, padding: str, in_order: bool, is_training: bool) -> Tensor:
    """Sample maps bilinearly, without aligned corners.

    Args:
        maps: `(batch, channels, h, w)`.
        places: `(batch, rows, columns, 2)`, x first, from -1 to 1.
        padding: value outside of the map: `zeros`, or `border` for the nearest pixel's.
        in_order: whether the gradient with respect to the maps is added in a fixed order, which is slower. On a GPU
            PyTorch's is added in any order; `index_add_`, by which it is added here, has one under
            `torch.use_deterministic_algorithms`.
        is_training: whether gradients may be asked for. On a CPU PyTorch's kernel (2.14) then reads outside of the maps
            where a place is NaN and the padding `border`, which ends the process; here the gradients are NaN.
    """
    if in_order or (is_training and padding == "border" and not maps.is_cuda):
        sampled: Tensor = _Sampling.apply(maps, places, padding, in_order)
        return sampled
    return F.grid_sample(maps, places, padding_mode=padding, align_corners=False)


class _Sampling(torch.autograd.Function):
    """`grid_sample` with the gradients that its docstring describes."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, places: Tensor, padding: str, in_order: bool) -> Tensor:  # noqa: FBT001 - no keywords
        ctx.save_for_backward(maps, places)
        ctx.padding, ctx.in_order = padding, in_order
        return F.grid_sample(maps, places, padding_mode=padding, align_corners=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, places = ctx.saved_tensors
        of_maps, of_places = ctx.needs_input_grad[:2]
        if not places.is_cuda and places.isnan().any():
            nan = [torch.full_like(one, torch.nan) for one in (maps, places)]
            return nan[0] if of_maps else None, nan[1] if of_places else None, None, None
        mask = [of_maps and not ctx.in_order, of_places]
        at_maps, at_places = torch.ops.aten.grid_sampler_2d_backward(
            gradient, maps, places, _BILINEAR, _PADDING[ctx.padding], False, mask
        )
        if of_maps and ctx.in_order:
            at_maps = _gradient_of_maps(gradient, maps, places, ctx.padding)
        return at_maps if of_maps else None, at_places if of_places else None, None, None


def _gradient_of_maps(gradient: Tensor, maps: Tensor, places: Tensor, padding: str) -> Tensor:
    """Return the gradient with respect to the maps: each sample's, at its four pixels, times their weights."""
    batch, channels, height, width = maps.shape
    x, y = (((places[..., axis] + 1) * size - 1) / 2 for axis, size in ((0, width), (1, height)))
    if padding == "border":
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    first = torch.arange(batch, device=maps.device).reshape(-1, 1, 1) * (height * width)
    rows = gradient.permute(0, 2, 3, 1).reshape(-1, channels)
    total = gradient.new_zeros(batch * height * width, channels)
    for right in (0, 1):
        for below in (0, 1):
            column, row = x.floor() + right, y.floor() + below
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
            pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            index = first + pixel.nan_to_num(0.0).long()  # NaN of a diverged training: its weight is NaN, too
            total.index_add_(0, index.flatten(), rows * weight.reshape(-1, 1))
    return total.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
