"""Exponential moving average (EMA) of a training's weights, which is what a trial scores, and its layout in memory."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class InPlaceEMA:
    """Replacement of Ultralytics' `ModelEMA` with the same values, to the bit, but without a second model.

    Differences to `ModelEMA`:

    - weights and buffers lie in a few long tensors, and their averages in as many of the same layout;
    - the model itself takes on the average while it is validated: swapping takes milliseconds, copying 900 modules
      does not.

    Attributes:
        ema: the model, under the name by which Ultralytics' validator finds it.
        live: what the model computes with.
        shadow: the average; the model's weights while the model has the average.
        updates: number of steps in the average.
        decay: share of the average that an update keeps, as a function of the update's number.
    """

    def __init__(self, model: nn.Module) -> None:
        """Move the weights and buffers of a model to flat tensors, and start the average at their values."""
        self.ema = model
        self.live = move_to_flat_buffers(model.state_dict(keep_vars=True).values())
        self.shadow = [row.clone() for row in self.live]
        self.updates = 0
        self.decay = _ultralytics_decay

    def update(self, _model: nn.Module) -> None:
        """Add a step to the average; integers stay as they were."""
        self.updates += 1
        share = 1.0 - self.decay(self.updates)
        for shadow, live in zip(self.shadow, self.live, strict=True):
            if shadow.is_floating_point():
                shadow.lerp_(live, share)

    def update_attr(self, *_: Any, **__: Any) -> None:
        """Do nothing: the model has its attributes already."""

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """Give the model the average inside the `with` block, and its weights afterwards."""
        self._swap()
        try:
            yield self.ema
        finally:
            self._swap()

    def _swap(self) -> None:
        for shadow, live in zip(self.shadow, self.live, strict=True):
            before = live.clone()
            live.copy_(shadow)
            shadow.copy_(before)


def decay(horizon: float, updates: int) -> float:
    """Return the decay of an EMA that reaches back over `horizon` steps, and over fewer during the first ones.

    The rise over the first steps is TensorFlow's (`tf.train.ExponentialMovingAverage` with `num_updates`).
    """
    return min(1 - 1 / max(horizon, 1.0), (1 + updates) / (10 + updates))


def _ultralytics_decay(updates: int) -> float:
    """Return the decay that Ultralytics uses."""
    return 0.9999 * (1 - math.exp(-updates / 2000))


def move_to_flat_buffers(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Move tensors into contiguous memory, one behind another; each becomes a view of its part.

    The order of a tensor's numbers in memory stays, such as channels last.

    Returns:
        One flat tensor for each dtype.
    """
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for each in tensors:
        by_dtype.setdefault(each.dtype, []).append(each)
    return [_move_to_flat_buffer(alike) for alike in by_dtype.values()]


_ALIGNMENT = 64
"""Bytes, as PyTorch's allocations: a matrix product of other alignment may add up in another order."""


def _move_to_flat_buffer(tensors: Sequence[Tensor]) -> Tensor:
    step = _ALIGNMENT // tensors[0].element_size()
    lengths = [math.ceil(each.numel() / step) * step for each in tensors]
    buffer = tensors[0].new_zeros(sum(lengths))
    for each, part in zip(tensors, buffer.split(lengths), strict=True):
        view = part.as_strided(each.size(), each.stride())
        view.copy_(each.detach())
        each.data = view
    return buffer
