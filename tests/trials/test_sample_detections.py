"""Two models are compared on the validation images where the numbers of objects that they find differ most."""

import io
import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from ultralytics.engine.results import Results
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

from trials.accuracy import sample_detections
from trials.data.splits import LabeledImage


def detections(*rows: tuple[float, float, float, float, float, int]) -> Results:
    """Results on an image of 100 x 100 pixels; rows of x1, y1, x2, y2, confidence, class."""
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Results(np.zeros((100, 100, 3), np.uint8), "a.png", {0: "a", 1: "b"}, boxes=boxes)


LABELS = torch.tensor([[0, 0.2, 0.2, 0.2, 0.2], [1, 0.7, 0.7, 0.4, 0.4]])
"""Class and box of two objects: 10 to 30 pixels, and 50 to 90."""


def found(*rows: tuple[float, float, float, float, float, int]) -> int:
    return sample_detections._found(detections(*rows), LABELS)


def test_an_object_is_found_by_a_detection_of_its_class_that_overlaps() -> None:
    assert found((10, 10, 30, 30, 0.9, 0), (50, 50, 90, 90, 0.8, 1)) == 2
    assert found((10, 10, 30, 30, 0.9, 1)) == 0
    assert found((20, 20, 40, 40, 0.9, 0)) == 0
    assert found() == 0


def test_two_detections_of_one_object_find_it_once() -> None:
    assert found((10, 10, 30, 30, 0.9, 0), (11, 10, 30, 30, 0.8, 0)) == 1


def test_two_labels_of_one_place_need_two_detections() -> None:
    twice = LABELS[[0, 0]]
    one = detections((10, 10, 30, 30, 0.9, 0))
    both = detections((10, 10, 30, 30, 0.9, 0), (11, 10, 30, 30, 0.8, 0))
    assert sample_detections._found(one, twice) == 1
    assert sample_detections._found(both, twice) == 2


def test_detecting_prints_nothing(tmp_path: Path) -> None:
    """From Python, Ultralytics' banner would stand between a user's own lines."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    image = LabeledImage(name="a.png", path=str(path), size=path.stat().st_size, label_path="", label=None)
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    LOGGER.addHandler(handler)
    try:
        results = sample_detections._detect(DetectionModel("yolov9t.yaml", verbose=False), [image], 64)
    finally:
        LOGGER.removeHandler(handler)
    assert len(results) == 1
    assert printed.getvalue() == ""
