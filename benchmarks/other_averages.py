"""Other averages of a training's model than its own, in a benchmark: validated."""

from unittest import mock

from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import ModelEMA

from trials.training import short_training


def accuracies_of(trainer: DetectionTrainer, average: ModelEMA) -> tuple[float, float]:
    """Validate an average in the place of the trainer's own; return mAP50-95 and mAP50."""
    with mock.patch.object(trainer, "ema", average):
        metrics, _ = DetectionTrainer.validate(trainer)
    return short_training.accuracies(metrics)
