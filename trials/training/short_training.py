"""Short training of one candidate with Ultralytics' trainer.

Differences to Ultralytics' trainer:

- no plots, no second validation of the best checkpoint, no half-precision checkpoints and no CSV row per epoch;
- no callbacks of integrations, no access to the network;
- a callback after each epoch decides whether the training goes on;
- all trials on a machine share the images;
- a checkpoint from which a training goes on to the same bits;
- on a GPU a loader that stays for all epochs, and validation in float32;
- a schedule for the temperature of dynamic convolutions;
- statistics of batch norm that are estimated anew where channels were left out;
- one kernel for the whole step of AdamW;
- in a confirmation, one evaluation on the images that judge.
"""

import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel

from search_spaces import auxiliary, build
from search_spaces.operators.dynamic_conv import DynamicConv
from trials.accuracy.judged import Judged
from trials.budget import Budget
from trials.data import image_cache, validation_batches
from trials.data.datasets import DataSet
from trials.data.room import most_bytes
from trials.data.unseen_images import JudgingImages
from trials.file_names import SCRATCH
from trials.scores import Coverage, Epoch, GoOn
from trials.torch_devices import training_format
from trials.training import checkpoint, trainer_patches
from trials.training.checkpoint import Checkpoint
from trials.training.ema import decay
from trials.training.epoch_loader import MOST_PROCESSES, EpochLoader, processes_for
from trials.training.inheritance import inherit
from trials.training.norm_statistics import re_estimate
from trials.training.unseen_evaluation import judge
from trials.weights import keep


class DivergedError(Exception):
    """A loss is NaN or infinite."""


class TimedOutError(Exception):
    """The budget's time limit is over."""


class _NothingLeftError(Exception):
    """The training of the checkpoint has ended, or was stopped: no epoch is left."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Epochs of a training, and how it ended.

    Attributes:
        epochs: in order; the last one is validated unless the training was stopped.
        stopped: whether `go_on` ended it.
        coverage: what was transferred from the budget's checkpoint.
        earlier_seconds: of those epochs that an earlier process trained.
        judged: accuracy on the images that judge; None without such images.
    """

    epochs: tuple[Epoch, ...]
    stopped: bool
    coverage: Coverage
    earlier_seconds: float = 0.0
    judged: Judged | None = None


def train(
    document: Mapping[str, Any],
    budget: Budget,
    data: DataSet,
    folder: Path,
    go_on: GoOn,
    *,
    weights: Path,
    checkpoint_path: Path | None = None,
    judging: JudgingImages | None = None,
) -> TrainingResult:
    """Train a model for a budget.

    Args:
        document: the model YAML as a mapping.
        folder: for the files that Ultralytics writes.
        go_on: called after every epoch, counted from 1; False ends the training there.
        weights: file for the EMA after the last epoch, in fp32, in a form that `YOLO()` loads.
        checkpoint_path: file that is written after every epoch. The training of an existing checkpoint goes on to the
            same bits as if it had never stopped, and `go_on` is called for its earlier epochs first.
        judging: images on which the EMA is evaluated once, after the last epoch.

    Raises:
        DivergedError: a loss is NaN or infinite.
        TimedOutError: the budget's time limit is over.
        DataError: less than 5 % of the model's parameters can be initialised from the budget's checkpoint.
        RuntimeError: any error of PyTorch, such as out of memory.
    """
    trainer_patches.freeze_gc()
    judged = None
    with trainer_patches.one_thread_on_cpu(budget.device):
        training = ShortTraining(document, budget, data, folder, go_on, checkpoint_path=checkpoint_path)
        training.train()
        if not training.stopped:
            with training.averaged() as averaged:
                judged = None if judging is None else judge(training, judging)
                keep(averaged, vars(training.args), weights)
    epochs = tuple(training.epochs_done)
    earlier_seconds = sum(epoch.seconds for epoch in epochs[: training.start_epoch])
    return TrainingResult(
        epochs=epochs,
        stopped=training.stopped,
        coverage=training.coverage,
        earlier_seconds=earlier_seconds,
        judged=judged,
    )


class ShortTraining(DetectionTrainer):
    """Ultralytics' detection trainer, reduced to what a score needs.

    Its name does not end in "Trainer", by which Ultralytics recognises where to add MLflow, Weights & Biases and the
    other integrations' callbacks (`utils/callbacks/base.py:197`).

    Attributes:
        is_cached: whether decoded images are held in memory if there is room for them.
    """

    is_cached = True

    def __init__(
        self,
        document: Mapping[str, Any],
        budget: Budget,
        data: DataSet,
        folder: Path,
        go_on: GoOn,
        *,
        checkpoint_path: Path | None = None,
    ) -> None:
        self.document, self.budget, self.data_set, self.go_on = document, budget, data, go_on
        self.checkpoint_path = checkpoint_path
        self.checkpoint: Checkpoint | None = None
        self.epochs_done: list[Epoch] = []
        self.stopped = False
        self.coverage = Coverage()
        self.deadline = time.monotonic() + (budget.timeout or math.inf)
        self.epoch_started = 0.0
        super().__init__(overrides=arguments(budget, data, folder))

    def train(self) -> None:
        """Train the epochs that are left."""
        try:
            with trainer_patches.loss_in_fp32():
                super().train()
        except _NothingLeftError:
            return
        finally:
            loader = getattr(self, "train_loader", None)  # none if its setup has failed
            if isinstance(loader, EpochLoader):
                loader.close()

    def run_callbacks(self, event: str) -> None:
        """Run the steps of a short training; registered callbacks are not called."""
        match event:
            case "on_train_start":
                self._replay_epochs()
            case "on_train_epoch_start":
                self.epoch_started = time.monotonic()
                seed_epoch(self.train_loader, self.budget.seed, self.epoch)
                self.args.val = self.epoch + 1 in self.budget.rungs  # the last epoch is validated anyway
                self._oom_retries = 3  # otherwise Ultralytics halves the batch and scores under another budget
            case "on_train_batch_end":
                if not torch.isfinite(self.loss):
                    raise DivergedError(f"the loss is {float(self.loss.detach())} in epoch {self.epoch + 1}")
                if time.monotonic() > self.deadline:
                    raise TimedOutError(f"{self.budget.timeout:g} s were over in epoch {self.epoch + 1}")
            case "on_fit_epoch_end":
                self._finish_epoch()

    def images(self, batches: int) -> Iterator[Tensor]:
        """Yield some batches of training images, with random numbers that no epoch has."""
        seed_epoch(self.train_loader, self.budget.seed, self.epochs)
        for batch in islice(self.train_loader, batches):
            yield self.preprocess_batch(batch)["img"]

    def get_dataset(self) -> dict[str, Any]:
        """Return the checked data set; Ultralytics' method downloads a font."""
        data = self.data_set
        return {
            "train": list(data.train),
            "val": list(data.val),
            "nc": len(data.classes),
            **image_cache.description(data.classes, data.root, data.key_points),
        }

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> DetectionModel:  # noqa: ARG002, FBT001, FBT002 - Ultralytics' signature
        """Build the candidate, initialised from the budget's checkpoint if there is one."""
        branch = self.budget.recipe.pgi
        document = auxiliary.with_branch({**self.document, "pgi": branch}) if branch else self.document
        model = build.model(document, len(self.data_set.classes))
        self.memory_format = training_format(model)
        if self.memory_format != torch.channels_last:
            self.args.channels_last = False  # else Ultralytics converts the model on a GPU
        model = model.to(memory_format=self.memory_format)
        if model.end2end:
            self.args.nms = False  # else the validator would switch to the other head (`engine/validator.py:173`)
        if self.budget.weights is not None:
            self.coverage = inherit(model, self.budget.weights, channels=self.budget.channels)
        return model

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch as Ultralytics does, in the memory format of the weights."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=self.memory_format)
        return batch

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> image_cache.CachedImages:
        """Return a data set that all trials of this process share.

        Args:
            img_path: folders and lists of images; a tuple has the images themselves.
        """
        return image_cache.load(
            tuple(img_path) if isinstance(img_path, list | tuple) else (str(img_path),),
            self.data_set.classes,
            self.budget.image_size,
            batch or self.budget.batch,
            self.budget.recipe,
            stride=self.stride,
            training=mode == "train",
            root=self.data_set.root,
            key_points=self.data_set.key_points,
            listed=isinstance(img_path, tuple),
            cached=self.is_cached,
        )

    def holds(self, dataset: image_cache.CachedImages) -> bool:
        """Return whether the validation batches are held in main memory."""
        return validation_batches.fit_in_memory(dataset.ni, dataset.imgsz)

    def holds_on_gpu(self, dataset: image_cache.CachedImages) -> bool:
        """Return whether the validation batches are held on the GPU."""
        if self.device.type != "cuda":
            return False
        free, whole = torch.cuda.mem_get_info(self.device)
        return validation_batches.fit_on_gpu(dataset.ni, dataset.imgsz, free=free, whole=whole)

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return Ultralytics' loader, validation batches that are held, or on a GPU a loader for all epochs."""
        on_gpu = self.device.type == "cuda"
        if mode == "val":
            dataset = self.build_dataset(dataset_path, mode, batch_size)
            if self.holds_on_gpu(dataset):
                return validation_batches.on_device(dataset, batch_size, self.device)
            if self.holds(dataset):
                return validation_batches.in_memory(dataset, batch_size, pinned=on_gpu)
        elif on_gpu:
            dataset = self.build_dataset(dataset_path, mode, batch_size)
            batch_bytes = most_bytes(batch_size, self.budget.image_size)
            processes = processes_for(math.ceil(len(dataset) / batch_size), batch_bytes)
            return EpochLoader(dataset, batch_size, processes=processes, pinned=True)
        return super().get_dataloader(dataset_path, batch_size, rank, mode)

    def build_optimizer(self, model: nn.Module, *arguments: Any, **options: Any) -> optim.Optimizer:
        """Build Ultralytics' optimizer; AdamW with a fused step, and another learning rate for new tensors."""
        optimizer = super().build_optimizer(model, *arguments, **options)
        if type(optimizer) is not optim.AdamW:
            return optimizer
        new = {id(value) for name, value in model.named_parameters() if name in self.coverage.new}
        factor = self.budget.recipe.new_rate
        groups = []
        for group in optimizer.param_groups:
            for rate, chosen in ((group["lr"], False), (group["lr"] * factor, True)):
                parameters = [value for value in group["params"] if (factor != 1 and id(value) in new) is chosen]
                groups.append({**group, "params": parameters, "lr": rate, "fused": True})
        return optim.AdamW([group for group in groups if group["params"]], fused=True)

    def _setup_train(self) -> None:
        with trainer_patches.gc_disabled(), trainer_patches.ema_in_place(), trainer_patches.without_amp_check():
            super()._setup_train()
        recipe = self.budget.recipe
        steps = len(self.train_loader) * self.epochs
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = recipe.bn_momentum
            if isinstance(module, DynamicConv):
                module.anneal_steps = max(1, round(steps * recipe.anneal))
        if self.budget.deterministic:
            trainer_patches.make_repeatable(self.model)
        if recipe.average_epochs is not None:
            self.ema.decay = partial(decay, len(self.train_loader) * recipe.average_epochs)

    def resume_training(self, ckpt: Any) -> None:  # noqa: ARG002 - Ultralytics' signature
        """Restore the checkpoint at `checkpoint_path`; Ultralytics' checkpoint is ignored."""
        if self.checkpoint_path is not None:
            inputs = self.document, self.budget, self.data_set
            identities = checkpoint.identity(*inputs), checkpoint.identity_by_places(*inputs)
            self.checkpoint = Checkpoint(self.checkpoint_path, self, *identities)
            self.checkpoint.restore(self)
            self.start_epoch = len(self.epochs_done)

    def _model_train(self) -> None:
        """Set train mode only where it is needed: going through 900 modules takes as long as a checkpoint."""
        if self.epoch == self.start_epoch or not self.model.training:
            super()._model_train()

    def validate(self) -> Any:
        """Validate the EMA, of a narrowed model with batch norm's statistics estimated anew."""
        with self.averaged() as model:
            if self.coverage.is_narrowed:
                re_estimate(model, self.images(_STATISTICS_BATCHES))
            return super().validate()

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Give the model the EMA, and let validators compute in float32, inside the `with` block.

        On a GPU Ultralytics validates in float16 what was trained under autocast (`engine/validator.py:177`): numbers
        of a training in bfloat16 may be infinite there, and from 512 px on a coordinate is wrong by up to a quarter.
        """
        amp, self.amp = bool(getattr(self, "amp", False)), False
        try:
            with self.ema.applied() as model:
                yield model
        finally:
            self.amp = amp

    def _replay_epochs(self) -> None:
        """Call `go_on` for the epochs of the checkpoint, as if they were trained now.

        Raises:
            _NothingLeftError: it ends the training there, or no epoch is left.
        """
        for number, epoch in enumerate(self.epochs_done, start=1):
            self._call_go_on(epoch)
            if self.stopped:
                self.epochs_done = self.epochs_done[:number]
                raise _NothingLeftError
        if self.start_epoch == self.epochs:
            raise _NothingLeftError

    def _finish_epoch(self) -> None:
        validated = self.args.val or self.epoch + 1 >= self.epochs
        map50_95, map50 = accuracies(self.metrics) if validated else (None, None)
        epoch = Epoch(
            epoch=self.epoch + 1,
            losses={name: float(loss) for name, loss in self.tloss.items()},
            map50_95=map50_95,
            map50=map50,
            seconds=time.monotonic() - self.epoch_started,
        )
        self.epochs_done.append(epoch)
        if self.checkpoint is not None:
            self.checkpoint.write(self)
        self._call_go_on(epoch)

    def _call_go_on(self, epoch: Epoch) -> None:
        if not self.go_on(epoch.epoch, epoch) and epoch.epoch < self.epochs:
            self.stopped = self.stop = True

    def _clear_memory(self, threshold: float | None = None) -> None:
        """Do nothing on a CPU, which has no cache: garbage collection takes as long as building the model."""
        if self.device.type != "cpu":
            super()._clear_memory(threshold)

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Write no CSV: the epochs are returned."""

    def save_model(self) -> bool:
        """Write no checkpoint in half precision."""
        return False

    def final_eval(self) -> None:
        """Validate no second time: the score is the EMA's after the last epoch."""

    def plot_training_labels(self) -> None:
        """Plot nothing."""


def accuracies(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """Return mAP50-95 and mAP50 from the metrics of Ultralytics' validator."""
    return float(metrics["metrics/mAP50-95(B)"]), float(metrics["metrics/mAP50(B)"])


def seed_epoch(loader: InfiniteDataLoader, seed: int, epoch: int) -> None:
    """Seed all random numbers of an epoch's order and augmentation, by the budget's seed and the epoch's number.

    They are equal for all architectures, however many random numbers their building took, whether or not earlier
    epochs were validated, and in a process that resumes at this epoch.
    """
    epoch_seed = seed * _SEED_STRIDE + epoch
    random.seed(epoch_seed)
    np.random.seed(epoch_seed % 2**32)  # noqa: NPY002 - what Ultralytics' augmentation draws from
    torch.manual_seed(epoch_seed)
    loader.generator.manual_seed(epoch_seed)
    loader.reset()  # worker processes draw their seeds from the generator when they start


_SEED_STRIDE = 100_003
_STATISTICS_BATCHES = 24
"""Training batches from which batch norm's statistics are estimated in a narrowed model."""


def arguments(budget: Budget, data: DataSet, folder: Path) -> dict[str, Any]:
    """Return Ultralytics' settings for a budget."""
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
        "save_dir": str(folder / SCRATCH),
        "optimizer": recipe.optimizer,
        "lr0": recipe.learning_rate,
        "lrf": recipe.final_learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_epochs": recipe.warmup_epochs,
        "warmup_bias_lr": 0.0,
        "patience": 0,
        "pretrained": False,
        "deterministic": budget.deterministic,
        "amp": {"bf16": "bf16", "fp16": True}.get(budget.precision, False),
        "workers": processes_for(MOST_PROCESSES),
        "val": False,
        "plots": False,
        "save": False,
        "verbose": False,
        **image_cache.augmentation(recipe),
    }
