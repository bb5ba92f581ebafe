"""What a training runs under: one thread, no search for garbage, and what of Ultralytics' trainer has to be another."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from ultralytics.engine import trainer
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import torch_utils

from trials.training.ema import Average


def look_away_from_the_past() -> None:
    """Collect what the last training left, and let the collector look at nothing of today again: 0.2 s each time."""
    gc.collect()
    gc.freeze()


@contextmanager
def nothing_collected() -> Iterator[None]:
    """No search for garbage while thousands of modules are made, copied or written, none of which is any: 0.2 s."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@contextmanager
def averaged_in_place() -> Iterator[None]:
    """Let Ultralytics' trainer make an `Average`, in the midst of its setup (`engine/trainer.py:456` in 8.4.190)."""
    theirs, trainer.ModelEMA = trainer.ModelEMA, Average
    try:
        yield
    finally:
        trainer.ModelEMA = theirs


@contextmanager
def precise_loss() -> Iterator[None]:
    """Let Ultralytics' trainer take bfloat16, on a CPU as well, for the network and not for its loss.

    It refuses bfloat16 on a CPU (`utils/torch_utils.py:149` in 8.4.190), and computes the loss in it, too: a box would
    be the product of two matrices of eight bits, wrong by parts of a pixel.
    """
    theirs = trainer.autocast, BaseModel.loss
    trainer.autocast, BaseModel.loss = _autocast, _loss_in_fp32(BaseModel.loss)
    try:
        yield
    finally:
        trainer.autocast, BaseModel.loss = theirs


def _autocast(enabled: bool | torch.dtype, device: str = "cuda") -> AbstractContextManager[object]:  # noqa: FBT001 - Ultralytics' signature
    dtype = enabled if isinstance(enabled, torch.dtype) else None
    return torch.autocast(device, dtype=dtype, enabled=bool(enabled))


def _loss_in_fp32(stock_loss: Any) -> Any:
    def loss(model: BaseModel, batch: dict[str, Any], preds: Any = None) -> Any:
        seen = model.forward(batch["img"]) if preds is None else preds
        with torch.autocast(batch["img"].device.type, enabled=False):
            return stock_loss(model, batch, _in_fp32(seen))

    return loss


def _in_fp32(seen: Any) -> Any:
    """Every tensor of what a head returns."""
    match seen:
        case torch.Tensor():
            return seen.float()
        case dict():
            return {name: _in_fp32(each) for name, each in seen.items()}
        case list() | tuple():
            return type(seen)(_in_fp32(each) for each in seen)
    return seen


@contextmanager
def one_thread_on_cpu(device: str) -> Iterator[None]:
    """One thread for a training on the CPU: more would fight over the cores with other workers, and change the sums.

    Ultralytics sets a number of its own whenever it selects a device (`utils/torch_utils.py:364` in 8.4.190).
    """
    if device != "cpu":
        yield
        return
    theirs, threads = torch_utils.NUM_THREADS, torch.get_num_threads()
    torch_utils.NUM_THREADS = 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch_utils.NUM_THREADS = theirs
        torch.set_num_threads(threads)
