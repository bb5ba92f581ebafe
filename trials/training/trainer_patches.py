"""Changes to Ultralytics' trainer and to the process while a training runs.

- one thread on a CPU;
- no garbage collection while modules are made;
- the EMA in place;
- bfloat16 or float16 for the network, not for the loss;
- operators whose gradients repeat to the bit.
"""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from ultralytics.engine import trainer
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import torch_utils

from search_spaces.operators.dcnv4 import DCNv4
from search_spaces.operators.dysample import DySample
from search_spaces.operators.mmqa import MMQA
from trials.torch_devices import one_thread
from trials.training.ema import InPlaceEMA


def freeze_gc() -> None:
    """Collect what the last training left, then exempt all objects from later collections, which saves 0.2 s each."""
    gc.collect()
    gc.freeze()


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Disable garbage collection while thousands of modules are made, none of which is garbage; this saves 0.2 s."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def ema_in_place() -> Iterator[None]:
    """Let Ultralytics' trainer make an `InPlaceEMA` during its setup (`engine/trainer.py:456` in 8.4.190)."""
    theirs, trainer.ModelEMA = trainer.ModelEMA, InPlaceEMA
    try:
        yield
    finally:
        trainer.ModelEMA = theirs


@contextmanager
def without_amp_check() -> Iterator[None]:
    """Let Ultralytics' trainer use float16 as it is told; its check predicts with a model that it would download."""
    theirs, trainer.check_amp = trainer.check_amp, lambda _model: True
    try:
        yield
    finally:
        trainer.check_amp = theirs


@contextmanager
def loss_in_fp32() -> Iterator[None]:
    """Let Ultralytics' trainer use bfloat16 for the network alone, on a CPU as well.

    Ultralytics refuses bfloat16 on a CPU (`utils/torch_utils.py:149` in 8.4.190), and computes the loss in it, too: a
    box would be the product of two matrices of eight bits, wrong by parts of a pixel.
    """
    theirs = trainer.autocast, BaseModel.loss
    trainer.autocast, BaseModel.loss = _autocast, _loss_in_fp32(BaseModel.loss)
    try:
        yield
    finally:
        trainer.autocast, BaseModel.loss = theirs


def _autocast(enabled: bool | torch.dtype, device: str = "cuda") -> AbstractContextManager[object]:  # noqa: FBT001 - Ultralytics' signature
    dtype = enabled if isinstance(enabled, torch.dtype) else torch.float16 if enabled else None
    return torch.autocast(device, dtype=dtype, enabled=bool(enabled))


def _loss_in_fp32(stock_loss: Any) -> Any:
    def loss(model: BaseModel, batch: dict[str, Any], preds: Any = None) -> Any:
        predicted = model.forward(batch["img"]) if preds is None else preds
        with torch.autocast(batch["img"].device.type, enabled=False):
            return stock_loss(model, batch, _in_fp32(predicted))

    return loss


def _in_fp32(predicted: Any) -> Any:
    """Convert every tensor of a head's nested output."""
    match predicted:
        case torch.Tensor():
            return predicted.float()
        case dict():
            return {name: _in_fp32(each) for name, each in predicted.items()}
        case list() | tuple():
            return type(predicted)(_in_fp32(each) for each in predicted)
    return predicted


@contextmanager
def one_thread_on_cpu(device: str) -> Iterator[None]:
    """Use one thread for a training on the CPU: more would compete with other workers for cores, and change the sums.

    Ultralytics sets a number of threads whenever it selects a device (`utils/torch_utils.py:364` in 8.4.190).
    """
    if device != "cpu":
        yield
        return
    theirs, torch_utils.NUM_THREADS = torch_utils.NUM_THREADS, 1
    try:
        with one_thread():
            yield
    finally:
        torch_utils.NUM_THREADS = theirs


def make_repeatable(model: nn.Module) -> None:
    """Let operators add gradients in a fixed order where CUDA's usual kernels have none.

    PyTorch's deterministic algorithms, which Ultralytics asks for, are needed as well.
    """
    for module in model.modules():
        if isinstance(module, DCNv4 | DySample | MMQA):
            module.is_repeatable = True
