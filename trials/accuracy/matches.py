"""Detections of a model on a set of images, matched with the labelled boxes: all that mAP is computed from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = 10
"""Number of IoU thresholds, 0.5 to 0.95."""

Int32Array = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Detections and labelled boxes of a set of images.

    Attributes:
        images: number of images; each has a number by the order of their sorted paths.
        image: number of the image of each detection, `(detections,)`.
        confidence: of each detection, in descending order; equal ones are in the validator's order.
        category: class of each detection.
        correct: whether a detection is a true positive at each IoU threshold, `(detections, 10)`.
        label_image: number of the image of each labelled box, `(boxes,)`.
        label_category: class of each labelled box.
    """

    images: int
    image: Int32Array
    confidence: NDArray[np.floating]
    category: Int32Array
    correct: NDArray[np.bool_]
    label_image: Int32Array
    label_category: Int32Array
