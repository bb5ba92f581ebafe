"""Ultralytics' trainer, configured alike by its public overrides and callbacks, ends with the same bits.

So the omissions and caches of the short training do not change its result.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.data import utils as their_data
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import callbacks

from search_spaces import Architecture
from trials import Budget, Recipe
from trials.data import datasets
from trials.training import short_training, trainer_patches
from trials.training.ema import decay

CLASSES = 10


def theirs(budget: Budget, data: datasets.DataSet, model: str, folder: Path) -> DetectionTrainer:
    """Return Ultralytics' trainer; images in memory, otherwise its mosaics use the last few images only."""
    settings = short_training.arguments(budget, data, folder)
    trainer = DetectionTrainer(overrides={**settings, "model": model, "cache": "ram", "nms": False})

    def configure(trainer: DetectionTrainer) -> None:
        for network in (trainer.model, trainer.ema.ema):
            network.to(memory_format=torch.channels_last)
        for module in trainer.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = budget.recipe.bn_momentum
        for group in trainer.optimizer.param_groups:
            group["fused"] = True
        epochs = budget.recipe.average_epochs
        if epochs is not None:
            trainer.ema.decay = partial(decay, len(trainer.train_loader) * epochs)

    def seed(trainer: DetectionTrainer) -> None:
        short_training.seed_epoch(trainer.train_loader, budget.seed, trainer.epoch)

    trainer.add_callback("on_pretrain_routine_end", configure)
    trainer.add_callback("on_train_epoch_start", seed)
    return trainer


@pytest.mark.parametrize(
    ("model", "base", "recipe"),
    [
        ("yolov5n.yaml", "yolov5{scale}.yaml", Recipe(fliplr=0.0)),
        ("yolov5n.yaml", "yolov5{scale}.yaml", Recipe(fliplr=0.0, average_epochs=1.0)),
        pytest.param(
            "yolo26n.yaml",
            "yolo26{scale}.yaml",
            Recipe(fliplr=0.5, mosaic=0.5, bn_momentum=0.1),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_short_training_equals_that_of_ultralytics_to_the_bit(
    *,
    model: str,
    base: str,
    recipe: Recipe,
    tiny: Callable[..., Budget],
    scenes: datasets.DataSet,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(their_data, "check_font", lambda *_: None)  # it would be downloaded
    monkeypatch.setattr(callbacks, "add_integration_callbacks", lambda _: None)  # Ray's, if installed, warns
    budget, reports = tiny(recipe=recipe), []
    with trainer_patches.one_thread_on_cpu("cpu"):
        trainer = theirs(budget, scenes, model, folder / "theirs")
        trainer.add_callback("on_fit_epoch_end", lambda each: reports.append((dict(each.tloss), dict(each.metrics))))
        trainer.train()
    document = Architecture(base=base, scale="n", picks=()).document(CLASSES)
    weights = folder / "weights.pt"
    ours = short_training.train(document, budget, scenes, folder, lambda *_: True, weights=weights)
    assert [epoch.losses for epoch in ours.epochs] == [losses for losses, _ in reports[:2]]
    last, metrics = ours.epochs[-1], reports[1][1]
    assert (last.map50_95, last.map50) == (metrics["metrics/mAP50-95(B)"], metrics["metrics/mAP50(B)"])
    trained, expected = load_checkpoint(weights)[0].state_dict(), trainer.ema.ema.state_dict()
    assert trained.keys() == expected.keys()
    assert [name for name, value in trained.items() if not torch.equal(value, expected[name])] == []
