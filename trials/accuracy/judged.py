"""Accuracy of a training on the images that judge, and its file.

The file is a compressed NumPy archive (`.npz`) without pickles: reading it executes nothing. It holds the matched
detections, so that other resamples or other figures need no training.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import ScoreError
from search_spaces.files import write_atomically
from trials.accuracy.average_precision import FloatArray
from trials.accuracy.matches import THRESHOLDS, Matches
from trials.accuracy.resampling import RESAMPLES, resampled_map

JUDGED = "judged.npz"
"""Name of the file in the folder of a trial."""

_KINDS = {
    "fingerprint": "U",
    "map50_95": "f",
    "map50": "f",
    "resampled": "f",
    "images": "i",
    "image": "i",
    "confidence": "f",
    "category": "i",
    "correct": "u",
    "label_image": "i",
    "label_category": "i",
}
"""Arrays of the file, with the kind of their values."""
_PACKED = 2
"""Bytes in which the flags of a detection are stored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Accuracy of a training on the images that judge.

    Attributes:
        fingerprint: of the images and their labels.
        map50_95: of the EMA after the last epoch; likewise `map50`.
        resampled: mAP50-95 on each resample of the images, `(resamples,)`.
        matches: detections on the images.
    """

    fingerprint: str
    map50_95: float
    map50: float
    resampled: FloatArray
    matches: Matches

    @classmethod
    def of(cls, matches: Matches, *, map50_95: float, map50: float, fingerprint: str) -> "Judged":
        """Return the accuracy with its resamples."""
        resampled = resampled_map(matches)
        return cls(fingerprint=fingerprint, map50_95=map50_95, map50=map50, resampled=resampled, matches=matches)

    def write(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            EnvironmentProblem: the disk is full, or the place cannot be written to.
        """
        matches, content = self.matches, io.BytesIO()
        np.savez_compressed(
            content,
            fingerprint=np.array(self.fingerprint),
            map50_95=np.float64(self.map50_95),
            map50=np.float64(self.map50),
            resampled=self.resampled,
            images=np.int32(matches.images),
            image=matches.image,
            confidence=matches.confidence,
            category=matches.category,
            correct=np.packbits(matches.correct, axis=1),
            label_image=matches.label_image,
            label_category=matches.label_category,
        )
        write_atomically(path, content.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Judged":
        """Read a file.

        Raises:
            ScoreError: it is missing or damaged.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in _KINDS}
        except FileNotFoundError:
            raise ScoreError(f"{path}: missing") from None
        except (OSError, TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ScoreError(f"{path}: damaged: {error}") from None
        if mistake := _mistake(arrays):
            raise ScoreError(f"{path}: damaged: {mistake}")
        return cls(
            fingerprint=str(arrays["fingerprint"]),
            map50_95=float(arrays["map50_95"]),
            map50=float(arrays["map50"]),
            resampled=arrays["resampled"],
            matches=Matches(
                images=int(arrays["images"]),
                image=arrays["image"],
                confidence=arrays["confidence"],
                category=arrays["category"],
                correct=np.unpackbits(arrays["correct"], axis=1, count=THRESHOLDS).astype(bool),
                label_image=arrays["label_image"],
                label_category=arrays["label_category"],
            ),
        )


def _mistake(arrays: dict[str, NDArray[Any]]) -> str:
    """Return what is wrong with the arrays of a file; empty if nothing is."""
    kinds = {name: array.dtype.kind for name, array in arrays.items()}
    if kinds != _KINDS:
        return f"arrays of the kinds {kinds}"
    detections, boxes = (arrays["confidence"].size,), (arrays["label_category"].size,)
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(_KINDS, ())
    expected |= {"resampled": (RESAMPLES,), "correct": (*detections, _PACKED)}
    expected |= dict.fromkeys(("image", "confidence", "category"), detections)
    expected |= dict.fromkeys(("label_image", "label_category"), boxes)
    if (shapes := {name: array.shape for name, array in arrays.items()}) != expected:
        return f"arrays of the shapes {shapes}"
    numbers = np.concatenate([arrays["image"], arrays["label_image"]])
    if numbers.size and (numbers.min() < 0 or numbers.max() >= arrays["images"]):
        return f"an image's number is not from 0 to {arrays['images']}"
    accuracies = np.concatenate([arrays["resampled"], [arrays["map50_95"], arrays["map50"]]])
    return "" if ((accuracies >= 0) & (accuracies <= 1)).all() else "an accuracy is not from 0 to 1"
