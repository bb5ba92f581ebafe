"""mAP of matched detections, for many weightings of the images at once.

Equal to Ultralytics' (`ap_per_class` and `compute_ap` in `ultralytics/utils/metrics.py`, 8.4.190) on a list in which an
image of weight w stands w times: 101 recalls, precision made monotone, integrated by the trapezoidal rule.

What makes it fast: between two true positives, precision made monotone is constant. So only true positives count; the
precision of each is valid for the recalls from the one before it (included) to its own (excluded). An image that is
listed w times adds w to the counts at once.
"""

import numpy as np
from numpy.typing import NDArray

from trials.accuracy.matches import Matches

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

_RECALLS = np.linspace(0, 1, 101)
_LARGEST = 2**20
"""Numbers in one array of counts: more do not fit into a processor's cache."""


def map50_95(matches: Matches, weights: IntArray) -> FloatArray:
    """Return mAP50-95, `(weightings,)`: the mean over IoU thresholds and the classes that have labelled boxes.

    Args:
        weights: how often each image is counted, `(weightings, images)`, whole numbers from 0.
    """
    weights = np.asarray(weights, dtype=np.int32)
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for category in np.unique(matches.label_category):
        labelled = matches.label_image[matches.label_category == category]
        labels = weights @ np.bincount(labelled, minlength=matches.images).astype(np.int32)
        chosen = np.flatnonzero(matches.category == category)
        total += np.where(labels > 0, _average_precision(matches, chosen, labels, weights), 0.0)
        classes += labels > 0
    return total / np.maximum(classes, 1)


def _average_precision(matches: Matches, chosen: IntArray, labels: IntArray, weights: IntArray) -> FloatArray:
    """Return the average precision of one class, mean over IoU thresholds, `(weightings,)`.

    Args:
        chosen: detections of the class, most confident first.
        labels: number of its labelled boxes, `(weightings,)`.
    """
    correct = matches.correct[chosen]
    last = np.flatnonzero(correct.any(axis=1))
    result = np.zeros(len(weights))
    if not last.size:
        return result
    images, correct = matches.image[chosen[: last[-1] + 1]], correct[: last[-1] + 1]
    places = [np.flatnonzero(column) for column in correct.T]
    step = max(1, _LARGEST // len(images))
    for begin in range(0, len(weights), step):
        part = slice(begin, begin + step)
        counted = weights[part].take(images, axis=1)
        ranks = counted.cumsum(axis=1, dtype=np.int32)
        for place in places:
            result[part] += _area(counted.take(place, axis=1), ranks.take(place, axis=1), labels[part])
    return result / len(places)


def _area(counted: IntArray, ranks: IntArray, labels: IntArray) -> FloatArray:
    """Return the area under the precision-recall curves of one IoU threshold, `(weightings,)`.

    Args:
        counted: how often each true positive is counted, `(weightings, true positives)`.
        ranks: number of detections up to each.
        labels: number of labelled boxes, `(weightings,)`.
    """
    found = counted.cumsum(axis=1, dtype=np.int32)
    precision = found / np.maximum(ranks, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = found / np.maximum(labels, 1)[:, None]
    nearest = np.rint(100 * recall).astype(np.intp)
    below = nearest + (_RECALLS[nearest] < recall)  # how many of the 101 recalls are below
    reached = np.maximum(below / 100 - 0.005, 0.0)  # the first of them weighs half
    return np.asarray((precision * np.diff(reached, axis=1, prepend=0.0)).sum(axis=1))
