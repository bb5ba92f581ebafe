"""Training images as a model is given them, for the calibration of an int8 model."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from ultralytics.data.augment import LetterBox
from ultralytics.utils.patches import imread

from search_spaces.errors import DataError


def samples(files: Sequence[str], size: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield each image as `(1, 3, size, size)`, RGB from 0 to 1: enlarged or reduced, and padded, as for validation.

    Raises:
        DataError: an image cannot be read.
    """
    for file in files:
        image = imread(file)
        if image is None:
            raise DataError(f"{file}: the image cannot be read")
        height, width = image.shape[:2]
        ratio = size / max(height, width)
        if ratio != 1:  # as Ultralytics' `BaseDataset.load_image`
            fitted = min(int(np.ceil(width * ratio)), size), min(int(np.ceil(height * ratio)), size)
            image = cv2.resize(image, fitted, interpolation=cv2.INTER_LINEAR)
        padded = LetterBox((size, size), scaleup=False)(image=image)
        yield np.ascontiguousarray(padded[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)
