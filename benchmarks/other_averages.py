"""Other averages of a training's model than its own, in a benchmark: validated, with statistics estimated anew."""

from collections.abc import Callable
from itertools import islice
from typing import Any
from unittest import mock

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import ModelEMA

from trials.training import short_training


def accuracies_of(trainer: DetectionTrainer, average: ModelEMA) -> tuple[float, float]:
    """Validate an average in the place of the trainer's own; return mAP50-95 and mAP50."""
    with mock.patch.object(trainer, "ema", average):
        metrics, _ = DetectionTrainer.validate(trainer)
    return short_training.accuracies(metrics)


@torch.no_grad()
def re_estimate(
    model: nn.Module, loader: Any, prepare: Callable[[dict[str, Any]], dict[str, Any]], *, batches: int
) -> None:
    """Re-estimate batch norm's statistics as the mean over some training batches."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in islice(loader, batches):
        model(prepare(batch)["img"])
    model.eval()
