"""The moving average of a training's weights, which is what a trial scores, and how both lie in memory."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Stands where Ultralytics' trainer has its `ModelEMA`, to the same bits, without that one's copy of the model.

    All that a step changes lies in a few long tensors, and its average in as many of the same form. The model itself
    takes the average over while it is validated: swapping is a matter of milliseconds, and copying 900 modules is not.

    Attributes:
        ema: the model, as whoever validates finds it.
        live: what the model computes with.
        kept: the average, or the model's own weights while it has that.
        updates: how many steps are in the average.
        decay: what the average keeps of itself in an update, by the number of that.
    """

    def __init__(self, model: nn.Module) -> None:
        """Lay out the weights and buffers of a model, and begin with these."""
        self.ema = model
        self.live = joined(model.state_dict(keep_vars=True).values())
        self.kept = [row.clone() for row in self.live]
        self.updates = 0
        self.decay = _usual_decay

    def update(self, _model: nn.Module) -> None:
        """Take a step into the average; what is counted, not measured, stays as it was."""
        self.updates += 1
        share = 1.0 - self.decay(self.updates)
        for kept, live in zip(self.kept, self.live, strict=True):
            if kept.is_floating_point():
                kept.lerp_(live, share)

    def update_attr(self, *_: Any, **__: Any) -> None:
        """Nothing: the model has its own attributes."""

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The model with the average in it, for a while."""
        self._swap()
        try:
            yield self.ema
        finally:
            self._swap()

    def _swap(self) -> None:
        for kept, live in zip(self.kept, self.live, strict=True):
            before = live.clone()
            live.copy_(kept)
            kept.copy_(before)


def decay(horizon: float, updates: int) -> float:
    """What a moving average keeps of itself in an update: it reaches back over `horizon` steps, and over fewer before.

    The rise over the first steps is TensorFlow's (`tf.train.ExponentialMovingAverage` with `num_updates`).
    """
    return min(1 - 1 / max(horizon, 1.0), (1 + updates) / (10 + updates))


def _usual_decay(updates: int) -> float:
    """As in Ultralytics."""
    return 0.9999 * (1 - math.exp(-updates / 2000))


def joined(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Lay tensors one behind another in memory, where each is a view of its place from now on.

    The order of a tensor's own numbers in memory stays, such as channels last.

    Returns:
        One flat tensor for each type of number.
    """
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for each in tensors:
        by_type.setdefault(each.dtype, []).append(each)
    return [_row(alike) for alike in by_type.values()]


_ALIGNED = 64
"""Bytes, as PyTorch's own allocations: a matrix product of other alignment may add up in another order."""


def _row(tensors: Sequence[Tensor]) -> Tensor:
    step = _ALIGNED // tensors[0].element_size()
    places = [math.ceil(each.numel() / step) * step for each in tensors]
    row = tensors[0].new_zeros(sum(places))
    for each, place in zip(tensors, row.split(places), strict=True):
        view = place.as_strided(each.size(), each.stride())
        view.copy_(each.detach())
        each.data = view
    return row
