"""Two models are compared on the validation images where the numbers of objects that they find differ most."""

import numpy as np
import torch
from ultralytics.engine.results import Results

from trials.accuracy import sample_detections


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
