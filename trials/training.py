"""The short training of one candidate, on Ultralytics' own trainer without what a search does not need.

What is left out: plots, the second validation of the best checkpoint, a checkpoint and a CSV row per epoch, every
integration's callbacks, the network. What is added: a question after each epoch whether to go on, decoded images that
all trials of a process share, a schedule for dynamic convolutions' temperature.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import __version__ as ultralytics_version
from ultralytics.cfg import get_cfg
from ultralytics.data import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import torch_utils

from search_spaces import auxiliary, build, pgi
from search_spaces.operators.dynamic_conv import DynamicConv
from trials.budget import Budget, Recipe
from trials.cost import IMAGE_CHANNELS
from trials.datasets import DataSet
from trials.inheritance import inherit
from trials.latency import layout
from trials.scores import Epoch

GoOn = Callable[[int, Epoch], bool]


class DivergedError(Exception):
    """The loss left the finite numbers."""


class TimedOutError(Exception):
    """The budget's seconds are over."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left.

    Attributes:
        epochs: what was trained, in order; the last one validated unless the training was stopped.
        stopped: whether it was told not to go on.
        inherited: share of the parameters that came from the budget's checkpoint.
    """

    epochs: tuple[Epoch, ...]
    stopped: bool
    inherited: float


def train(
    document: Mapping[str, Any], budget: Budget, data: DataSet, folder: Path, go_on: GoOn, *, weights: Path
) -> Trained:
    """Train a model for a budget.

    Args:
        document: the model YAML as a mapping.
        folder: for what Ultralytics writes.
        go_on: asked after every epoch, counted from 1; False ends the training there.
        weights: where the moving average goes after the last epoch, in fp32, in a form that `YOLO()` loads.

    Raises:
        DivergedError: a loss is NaN or infinite.
        TimedOutError: the budget's seconds are over.
        DataError: nothing of the budget's checkpoint fits the model.
        RuntimeError: whatever PyTorch raises, out of memory among it.
    """
    with _one_thread_on_cpu(budget.device):
        training = ShortTraining(document, budget, data, folder, go_on)
        training.train()
    if not training.told_to_stop:
        save(training.ema.ema, vars(training.args), weights)
    return Trained(epochs=tuple(training.epochs_done), stopped=training.told_to_stop, inherited=training.inherited)


def save(model: DetectionModel, arguments: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint that `YOLO()` loads, in fp32 where Ultralytics' own is fp16; aside, then renamed.

    An auxiliary half is left out.
    """
    model = pgi.drop_auxiliary(deepcopy(model)).float().eval().to(memory_format=torch.contiguous_format)
    model.criterion = None  # training state, not part of a model
    aside = path.with_suffix(".tmp")
    torch.save({"model": model, "train_args": dict(arguments), "version": ultralytics_version, "epoch": -1}, aside)
    aside.replace(path)


class ShortTraining(DetectionTrainer):
    """Ultralytics' detection trainer, reduced to what a score needs.

    Its name does not end in "Trainer", by which Ultralytics recognises where to add MLflow, Weights & Biases and the
    other integrations' callbacks (`utils/callbacks/base.py:197`).
    """

    def __init__(self, document: Mapping[str, Any], budget: Budget, data: DataSet, folder: Path, go_on: GoOn) -> None:
        self.document, self.budget, self.data_set, self.go_on = document, budget, data, go_on
        self.epochs_done: list[Epoch] = []
        self.told_to_stop = False
        self.inherited = 0.0
        self.deadline = time.monotonic() + (budget.timeout or float("inf"))
        self.epoch_started = 0.0
        super().__init__(overrides=_arguments(budget, data, folder))

    def run_callbacks(self, event: str) -> None:
        """Our own steps, and nobody else's."""
        match event:
            case "on_train_start":
                # Architectures consume different amounts of randomness while they are built; order and augmentation
                # shall be the same for all of them.
                torch_utils.init_seeds(self.budget.seed)
            case "on_train_epoch_start":
                self.epoch_started = time.monotonic()
                self.args.val = self.epoch + 1 in self.budget.rungs  # the last epoch is validated anyway
                self._oom_retries = 3  # otherwise Ultralytics halves the batch and scores under another budget
            case "on_train_batch_end":
                if time.monotonic() > self.deadline:
                    raise TimedOutError(f"{self.budget.timeout:g} s were over in epoch {self.epoch + 1}")
            case "on_train_epoch_end":
                self._refuse_divergence()
            case "on_fit_epoch_end":
                self._finish_epoch()

    def get_dataset(self) -> dict[str, Any]:
        """The checked data set; Ultralytics' own way asks the network for a font."""
        data = self.data_set
        return {
            "train": list(data.train),
            "val": list(data.val),
            "nc": len(data.classes),
            "names": dict(enumerate(data.classes)),
            "channels": IMAGE_CHANNELS,
        }

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> DetectionModel:  # noqa: ARG002, FBT001, FBT002 - Ultralytics' signature
        """The candidate, with what the budget's checkpoint gives it."""
        branch = self.budget.recipe.pgi
        document = auxiliary.trained({**self.document, "pgi": branch}) if branch else self.document
        model = build.model(document, len(self.data_set.classes)).to(memory_format=layout(self.device))
        if model.end2end:
            self.args.nms = False  # else the validator would switch to the other head (`engine/validator.py:173`)
        if self.budget.weights is not None:
            self.inherited = inherit(model, self.budget.weights)
        return model

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As Ultralytics does, in the layout of the weights."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=layout(self.device))
        return batch

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> YOLODataset:
        """One that all trials of this process share, images decoded."""
        paths = tuple(img_path) if isinstance(img_path, list) else (str(img_path),)
        return _shared_dataset(
            paths,
            self.data_set.classes,
            self.budget.image_size,
            batch or self.budget.batch,
            self.budget.recipe,
            stride=self.stride,
            training=mode == "train",
        )

    def _setup_train(self) -> None:
        super()._setup_train()
        steps = len(self.train_loader) * self.epochs
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.budget.recipe.bn_momentum
            if isinstance(module, DynamicConv):
                module.anneal_steps = max(1, round(steps * self.budget.recipe.anneal))

    def _refuse_divergence(self) -> None:
        for name, loss in self.tloss.items():
            if not torch.isfinite(loss).all():
                raise DivergedError(f"{name} is {float(loss)} in epoch {self.epoch + 1}")

    def _finish_epoch(self) -> None:
        validated = self.args.val or self.epoch + 1 >= self.epochs
        epoch = Epoch(
            epoch=self.epoch + 1,
            losses={name: float(loss) for name, loss in self.tloss.items()},
            map50_95=float(self.metrics["metrics/mAP50-95(B)"]) if validated else None,
            map50=float(self.metrics["metrics/mAP50(B)"]) if validated else None,
            seconds=time.monotonic() - self.epoch_started,
        )
        self.epochs_done.append(epoch)
        if not self.go_on(epoch.epoch, epoch) and epoch.epoch < self.epochs:
            self.told_to_stop = self.stop = True

    def validate(self) -> Any:
        """As Ultralytics does, which draws a random number for each image (`data/augment.py:2521`).

        Put back, so that whether an epoch is validated does not change the epochs after it.
        """
        state = random.getstate()
        validated = super().validate()
        random.setstate(state)
        return validated

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """No CSV: the epochs are returned."""

    def save_model(self) -> bool:
        """No checkpoint per epoch."""
        return False

    def final_eval(self) -> None:
        """No second validation: the score is the moving average's at the last epoch."""

    def plot_training_labels(self) -> None:
        """No plots."""


@lru_cache(maxsize=8)
def _shared_dataset(
    paths: tuple[str, ...],
    classes: tuple[str, ...],
    image_size: int,
    batch: int,
    recipe: Recipe,
    *,
    stride: int,
    training: bool,
) -> YOLODataset:
    """Images are scanned, decoded and resized once per process."""
    return YOLODataset(
        img_path=list(paths),
        imgsz=image_size,
        batch_size=batch,
        augment=training,
        hyp=get_cfg(overrides={**_augmentation(recipe), "deterministic": False}),  # it would warn of `cache`
        rect=not training,
        cache="ram",
        stride=stride,
        pad=0.0 if training else 0.5,
        prefix="train: " if training else "val: ",
        task="detect",
        data={"names": dict(enumerate(classes)), "channels": IMAGE_CHANNELS},
    )


def _augmentation(recipe: Recipe) -> dict[str, Any]:
    return {"mosaic": recipe.mosaic, "close_mosaic": 0, "fliplr": recipe.fliplr, "scale": recipe.scale}


def _arguments(budget: Budget, data: DataSet, folder: Path) -> dict[str, Any]:
    """Ultralytics' settings for a budget."""
    recipe = budget.recipe
    return {
        "task": "detect",
        "model": "candidate.yaml",
        "data": str(data.path),
        "epochs": budget.epochs,
        "imgsz": budget.image_size,
        "batch": budget.batch,
        "nbs": budget.batch,
        "seed": budget.seed,
        "device": budget.device,
        "save_dir": str(folder / "ultralytics"),
        "optimizer": recipe.optimizer,
        "lr0": recipe.learning_rate,
        "lrf": recipe.final_learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_epochs": recipe.warmup_epochs,
        "warmup_bias_lr": 0.0,
        "patience": 0,
        "pretrained": False,
        "deterministic": False,
        "amp": "bf16" if budget.device != "cpu" and torch.cuda.is_bf16_supported() else False,
        "val": False,
        "plots": False,
        "save": False,
        "verbose": False,
        **_augmentation(recipe),
    }


@contextmanager
def _one_thread_on_cpu(device: str) -> Iterator[None]:
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
