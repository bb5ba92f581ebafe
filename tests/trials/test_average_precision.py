"""mAP from matches, against Ultralytics' own functions."""

import numpy as np
import pytest
from ultralytics.utils.metrics import ap_per_class

from trials.accuracy.average_precision import map50_95
from trials.accuracy.matches import THRESHOLDS, Matches


def simulated(
    rng: np.random.Generator, *, images: int = 12, detections: int = 200, boxes: int = 40, classes: int = 3
) -> Matches:
    """Return matches in which a labelled box is found at most once at each threshold."""
    image, category = rng.integers(0, images, detections), rng.integers(0, classes, detections)
    label_image, label_category = rng.integers(0, images, boxes), rng.integers(0, classes, boxes)
    found = rng.permutation(detections)[: int(0.7 * boxes)]
    image[found], category[found] = label_image[: len(found)], label_category[: len(found)]
    reached = np.zeros(detections, int)
    reached[found] = rng.integers(0, THRESHOLDS + 1, len(found))
    return Matches(
        images=images,
        image=image.astype(np.int32),
        confidence=np.sort(rng.random(detections, dtype=np.float32))[::-1],
        category=category.astype(np.int32),
        correct=np.arange(THRESHOLDS) < reached[:, None],
        label_image=label_image.astype(np.int32),
        label_category=label_category.astype(np.int32),
    )


def ultralytics_map(matches: Matches, weights: np.ndarray) -> float:
    """Return Ultralytics' mAP50-95 of a list in which each image stands as often as its weight."""
    detections = np.repeat(np.arange(len(matches.image)), weights[matches.image])
    labels = np.repeat(matches.label_category, weights[matches.label_image])
    found = ap_per_class(
        matches.correct[detections], matches.confidence[detections], matches.category[detections], labels
    )[5]
    return float(found.mean()) if len(found) else 0.0


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_ultralytics_for_every_weighting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matches = simulated(
        rng, classes=1 + seed % 4, boxes=[3, 40, 100, 400][seed % 4], detections=[1, 60, 200, 500][seed // 5]
    )
    weights = np.concatenate([np.ones((1, 12), int), rng.multinomial(12, [1 / 12] * 12, size=5)])
    expected = [ultralytics_map(matches, row) for row in weights]
    np.testing.assert_allclose(map50_95(matches, weights), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boxes", [1, 2, 25, 50, 100])
def test_recalls_that_are_exactly_reached_count_as_in_ultralytics(boxes: int) -> None:
    """With 100 boxes each of the 101 recalls is reached exactly, or missed by a rounding error."""
    rng = np.random.default_rng(boxes)
    matches = simulated(rng, boxes=boxes, detections=2 * boxes, classes=1)
    ones = np.ones((1, 12), int)
    assert map50_95(matches, ones)[0] == pytest.approx(ultralytics_map(matches, ones[0]), abs=1e-12)


def test_class_whose_images_are_not_drawn_does_not_count() -> None:
    rng = np.random.default_rng(3)
    matches = simulated(rng)
    without = np.ones(12, int)
    without[np.unique(matches.label_image[matches.label_category == 2])] = 0
    assert map50_95(matches, without[None])[0] == pytest.approx(ultralytics_map(matches, without), abs=1e-12)


def test_no_boxes_or_no_detections_are_worth_nothing() -> None:
    rng, ones = np.random.default_rng(0), np.ones((2, 12), int)
    assert map50_95(simulated(rng, boxes=0), ones).tolist() == [0, 0]
    assert map50_95(simulated(rng, detections=0), ones).tolist() == [0, 0]
    assert map50_95(simulated(rng), 0 * ones).tolist() == [0, 0]
