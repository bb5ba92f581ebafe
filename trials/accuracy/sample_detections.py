"""Detections of two models side by side, on the validation images where they differ most."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils.metrics import box_iou
from ultralytics.utils.ops import xywh2xyxy

from trials import weights
from trials.data import datasets, holdout, labels
from trials.data.splits import LabeledImage

CONFIDENCE = 0.25
"""Least confidence of a detection that counts and is drawn: Ultralytics' default of predictions."""
_IOU = 0.5
"""Least intersection over union of a detection with a label that it finds."""
_QUALITY, _LONGEST = 80, 420
"""Quality of the pictures as JPEG, in per cent, and their longest side in pixels."""


@dataclass(frozen=True, kw_only=True)
class SampleImage:
    """One image with the detections of two models drawn into it.

    Attributes:
        name: of the file.
        labels: number of labelled objects.
        found: number of them that each model detects.
        extra: number of detections of each model that are no labelled object.
        pictures: of each model, as JPEG.
    """

    name: str
    labels: int
    found: tuple[int, int]
    extra: tuple[int, int]
    pictures: tuple[bytes, bytes]


def compare(
    models: tuple[Path, Path], data: str, sealed: Path | None, *, image_size: int, shown: int = 4, among: int = 64
) -> list[SampleImage]:
    """Detect objects with two models, and return the images on which the numbers of found objects differ most.

    Args:
        models: checkpoints.
        data: data set, whose first `among` validation images are tried.
        sealed: list of images that are not read; None for none.
        image_size: in pixels.
        shown: number of images.

    Raises:
        DataError: a checkpoint, the data set or one of its images cannot be read.
    """
    labeled = datasets.read_labels(data, sealed=None if sealed is None else holdout.read(sealed))
    images = labeled.splits[1].images[:among]
    first, second = (_detect(weights.read(path), images, image_size) for path in models)
    samples = [_sample(*one, labeled.key_points) for one in zip(images, zip(first, second, strict=True), strict=True)]
    samples.sort(key=lambda one: (-abs(one.found[0] - one.found[1]), -abs(one.extra[0] - one.extra[1]), one.name))
    return samples[:shown]


def _detect(model: nn.Module, images: Sequence[LabeledImage], image_size: int) -> list[Results]:
    with tempfile.TemporaryDirectory() as scratch:
        predictor = DetectionPredictor(
            overrides={
                "imgsz": image_size,
                "conf": CONFIDENCE,
                "device": "cpu",
                "project": scratch,
                "save": False,
                "verbose": False,
            }
        )
        predictor.setup_model(model, verbose=False)  # called by the predictor, it prints a banner
        return list(predictor(source=[image.path for image in images], model=model))


def _sample(image: LabeledImage, results: tuple[Results, Results], key_points: tuple[int, int] | None) -> SampleImage:
    text = (image.label or b"").decode("utf-8", errors="replace")
    boxes = torch.from_numpy(labels.read(text, image.label_path, key_points).boxes)
    found = tuple(_found(result, boxes) for result in results)
    return SampleImage(
        name=image.name,
        labels=len(boxes),
        found=(found[0], found[1]),
        extra=(len(results[0].boxes) - found[0], len(results[1].boxes) - found[1]),
        pictures=(_picture(results[0]), _picture(results[1])),
    )


def _found(result: Results, boxes: Tensor) -> int:
    """Return how many labelled objects have a detection of their class, each detection for one object."""
    free = (result.boxes.cls[:, None] == boxes[:, 0]) & (box_iou(result.boxes.xyxyn, xywh2xyxy(boxes[:, 1:])) >= _IOU)
    found = 0
    for index in result.boxes.conf.argsort(descending=True):
        hits = free[index].nonzero()
        if len(hits):
            found += 1
            free[:, hits[0]] = False
    return found


def _picture(result: Results) -> bytes:
    drawn = result.plot(line_width=1, font_size=8)
    scale = min(1.0, _LONGEST / max(drawn.shape[:2]))
    small = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
