"""Time a short training: the real trainer, loader, loss, checkpoint and validation on a sample of the images."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trials.budget import Budget
from trials.data import image_cache
from trials.data.datasets import DataSet
from trials.devices import CPU
from trials.file_names import CHECKPOINT, WEIGHTS
from trials.training import trainer_patches
from trials.training.short_training import ShortTraining
from trials.weights import keep

EPOCHS = 3
"""Epochs of a timed training: the first warms up, the others are timed."""
_CPU_STEPS, _GPU_STEPS = 11, 41
"""Most steps of each of them. On a GPU, worker processes have read images of many steps before the first one."""
_VALIDATED = 4
"""Batches of training whose number of images is validated."""


@dataclass(frozen=True, kw_only=True)
class TrainingTimes:
    """Measured times and sizes of one architecture's training; the fields are keys of the check cache.

    Attributes:
        step: seconds of one step with a whole batch, reading and augmenting its images included.
        epoch: seconds of an epoch besides its steps: seeding, checkpoint.
        image: seconds of one validated image.
        start: seconds from the architecture to the first step.
        end: seconds to store the weights.
        loading: seconds of `start` in which labels were read and images decoded; a process does that once.
        first_validation: seconds by which the first validation of a process took longer than a further one.
        train_images: images in the sample that was trained on.
        val_images: images in the sample that was validated.
        weights_bytes: size of the stored weights.
        checkpoint_bytes: size of the checkpoint of a running training.
        busy: seconds of the steps for each second of their CPU time: 1 on a machine with a free core. 1 on a GPU.
    """

    step: float
    epoch: float
    image: float
    start: float
    end: float
    loading: float
    first_validation: float
    train_images: int
    val_images: int
    weights_bytes: int
    checkpoint_bytes: int
    busy: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What of a data set every training process holds in memory.

    Attributes:
        train: whether the decoded training images are.
        val: whether the decoded validation images are.
        val_batches: whether the validation batches are, put together once.
    """

    train: bool
    val: bool
    val_batches: bool


def sample_sizes(budget: Budget, train_images: int, val_images: int) -> tuple[int, int]:
    """Return how many images of a data set a timed training needs: to train on, and to validate."""
    steps = _CPU_STEPS if budget.device == CPU else _GPU_STEPS
    return min(train_images, steps * budget.batch), min(val_images, _VALIDATED * budget.batch)


class _EnoughError(Exception):
    """The time limit of the measurement is over."""


def time_training(
    document: Mapping[str, Any], budget: Budget, sample: DataSet, folder: Path, *, seconds: float, holding: Holding
) -> TrainingTimes:
    """Train a model for three short epochs, and return what took how long.

    Args:
        document: the model YAML as a mapping.
        budget: of the training; its number of epochs and its rungs are not used.
        sample: of the data set, see `sample_sizes`.
        folder: for the files of the training.
        seconds: after which no further step is timed; two are in any case.
        holding: what of the whole data set a training would hold in memory.

    Raises:
        RuntimeError: any error of PyTorch, such as out of memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    short = budget.model_copy(update={"epochs": EPOCHS, "rungs": (), "timeout": None})
    began = time.perf_counter()
    trainer_patches.freeze_gc()
    with trainer_patches.one_thread_on_cpu(budget.device):
        training = _TimedTraining(document, short, sample, folder, seconds=seconds, holding=holding)
        try:
            training.train()
        except _EnoughError:
            training.validate()
            training.write_checkpoint()
        training.validate()
        stored = time.perf_counter()
        with training.averaged() as averaged:
            keep(averaged, vars(training.args), folder / WEIGHTS)
        end = time.perf_counter() - stored
    return training.times(began=began, end=end, folder=folder)


class _TimedTraining(ShortTraining):
    """Short training that takes the time of its steps, epochs and validations.

    Attributes:
        steps: seconds of each step, with the number of its epoch and its position in it, both from 0.
        epochs_timed: seconds of each epoch without its validation, and its number of steps.
        validations: seconds of each.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        budget: Budget,
        data: DataSet,
        folder: Path,
        *,
        seconds: float,
        holding: Holding,
    ) -> None:
        self._seconds, self._holding = seconds, holding
        self._first_step = self._epoch_began = self._last = self._loading = self._cpu_began = self._cpu_last = 0.0
        self.steps: list[tuple[int, int, float]] = []
        self.epochs_timed: list[tuple[float, int]] = []
        self.validations: list[float] = []
        super().__init__(document, budget, data, folder, lambda *_: True, checkpoint_path=folder / CHECKPOINT)
        self.is_cached = holding.train

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> image_cache.CachedImages:
        """Return the images of a split, and take the time of reading and decoding them."""
        began = time.perf_counter()
        self.is_cached = self._holding.train if mode == "train" else self._holding.val
        dataset = super().build_dataset(img_path, mode, batch)
        self._loading += time.perf_counter() - began
        return dataset

    def holds(self, dataset: image_cache.CachedImages) -> bool:  # noqa: ARG002 - the sample decides nothing
        """Return whether the validation batches of the whole data set would be held in main memory."""
        return self._holding.val_batches

    def holds_on_gpu(self, dataset: image_cache.CachedImages) -> bool:
        """Return whether those of the sample are held on the GPU; of a large data set, no batches are."""
        return self._holding.val_batches and super().holds_on_gpu(dataset)

    def run_callbacks(self, event: str) -> None:
        """Run the steps of a short training, and take the time."""
        super().run_callbacks(event)
        now = time.perf_counter()  # whether the loss is finite was just read, for which a GPU had to finish the step
        match event:
            case "on_train_epoch_start":
                self._cpu_began = self._cpu_began or time.process_time()
                self._first_step = self._first_step or now
                self._epoch_began = self._last = now
            case "on_train_batch_end":
                position = sum(epoch == self.epoch for epoch, *_ in self.steps)
                self.steps.append((self.epoch, position, now - self._last))
                self._last, self._cpu_last = now, time.process_time()
                if now - self._first_step > self._seconds and len(self.steps) > 1:
                    raise _EnoughError
            case "on_fit_epoch_end":
                validation = self.validations[-1] if self.epoch + 1 == self.epochs else 0.0
                steps = sum(epoch == self.epoch for epoch, *_ in self.steps)
                self.epochs_timed.append((now - self._epoch_began - validation, steps))

    def validate(self) -> Any:
        """Validate, and take the time."""
        began = time.perf_counter()
        found = super().validate()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.validations.append(time.perf_counter() - began)
        return found

    def write_checkpoint(self) -> None:
        """Write the checkpoint, and take the time as that of an epoch without steps."""
        began = time.perf_counter()
        if self.checkpoint is not None:
            self.checkpoint.write(self)
        self.epochs_timed += [(0.0, 0), (time.perf_counter() - began, 0)]

    def times(self, *, began: float, end: float, folder: Path) -> TrainingTimes:
        """Return what was measured; the first step, and the first of an epoch, do not count as steps.

        Args:
            began: when the training was made.
            end: seconds in which its weights were stored.
        """
        warm = [seconds for epoch, position, seconds in self.steps if position and epoch]
        usual = warm or [seconds for _, position, seconds in self.steps if position] or [self.steps[-1][-1]]
        step = statistics.fmean(usual)
        rest = [seconds - steps * step for seconds, steps in self.epochs_timed[1:]]
        first, *further = self.validations
        count = min(self.data_set.val_images, len(self.validator.dataloader.dataset))
        return TrainingTimes(
            step=step,
            epoch=max(0.0, statistics.fmean(rest)),
            image=further[-1] / count,
            start=self._first_step - began,
            end=end,
            loading=self._loading,
            first_validation=max(0.0, first - further[-1]),
            train_images=len(self.train_loader.dataset),
            val_images=count,
            weights_bytes=(folder / WEIGHTS).stat().st_size,
            checkpoint_bytes=(folder / CHECKPOINT).stat().st_size,
            busy=self._busy(),
        )

    def _busy(self) -> float:
        cpu = self._cpu_last - self._cpu_began
        return 1.0 if self.device.type != "cpu" or not cpu else max(1.0, (self._last - self._first_step) / cpu)
