"""Evaluation of a finished training on the images that judge, with the validator and settings of its score."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import BaseModel

from trials.accuracy.judged import Judged
from trials.accuracy.matches import Matches
from trials.data.unseen_images import JudgingImages


class EndedTraining(Protocol):
    """What an evaluation needs of a training that has ended, whose model has the average of its weights.

    Attributes:
        test_loader: of the validation images.
        args: Ultralytics' settings.
        epochs: of the whole training.
        loss_items: losses of the last step, by name.
        epoch: number of the last epoch, from 0.
    """

    test_loader: Any
    args: Any
    save_dir: Path
    epochs: int
    loss_items: Any
    epoch: int

    def get_dataloader(self, dataset_path: Any, batch_size: int, rank: int, mode: str) -> Any:
        """Return batches of images, which are given one by one as a tuple."""


class MatchingValidator(DetectionValidator):
    """Ultralytics' detection validator, which keeps the matches of each image.

    Attributes:
        paths: of the images, in the order of `stats`.
        collected: the validator's statistics: a list with an entry for each image by name.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.paths: list[str] = []
        self.collected: Mapping[str, list[Any]] = {}

    def update_metrics(self, preds: Any, batch: Any) -> None:
        """Match a batch, and note the paths of its images."""
        super().update_metrics(preds, batch)
        self.paths += batch["im_file"]

    def get_stats(self) -> dict[str, Any]:
        """Return the metrics; Ultralytics deletes the statistics that they are computed from."""
        self.collected = {name: list(values) for name, values in self.metrics.stats.items()}
        return super().get_stats()


def judge(training: EndedTraining, judging: JudgingImages) -> Judged:
    """Evaluate the model of a training on these images.

    Raises:
        DataError: an image cannot be decoded.
    """
    loader = training.get_dataloader(judging.images, training.test_loader.batch_size, -1, "val")
    validator = MatchingValidator(loader, save_dir=training.save_dir, args=vars(training.args))
    # What the validator reads of a trainer, and a training lacks that has nothing left to train.
    training.loss_items, training.epoch = {}, training.epochs - 1
    with _without_loss():
        validator(training)
    box = validator.metrics.box
    return Judged.of(
        matches_of(validator, judging.images),
        map50_95=float(box.map),
        map50=float(box.map50),
        fingerprint=judging.fingerprint,
    )


def matches_of(validator: MatchingValidator, images: tuple[str, ...]) -> Matches:
    """Return the matches of a validator that has validated all of these images."""
    stats = {name: np.concatenate(values) for name, values in validator.collected.items()}
    numbers = {path: number for number, path in enumerate(images)}
    image = np.array([numbers[path] for path in validator.paths], dtype=np.int32)
    if len(image) != len(images):
        raise RuntimeError(f"{len(image)} of {len(images)} images were evaluated")
    detections, boxes = ([len(each) for each in validator.collected[name]] for name in ("conf", "target_cls"))
    order = np.argsort(-stats["conf"])  # as Ultralytics sorts, so that equal confidences have its order
    return Matches(
        images=len(images),
        image=np.repeat(image, detections)[order],
        confidence=stats["conf"][order],
        category=stats["pred_cls"][order].astype(np.int32),
        correct=stats["tp"][order],
        label_image=np.repeat(image, boxes),
        label_category=stats["target_cls"].astype(np.int32),
    )


@contextmanager
def _without_loss() -> Iterator[None]:
    """Let models compute no loss while a trainer's model is validated: nothing is done with it."""
    theirs = BaseModel.loss
    BaseModel.loss = lambda *_, **__: (None, {})
    try:
        yield
    finally:
        BaseModel.loss = theirs
