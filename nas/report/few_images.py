"""Warn of few images that judge: which true difference their sampling hides, whatever the seeds."""

from math import sqrt

from nas.algorithms.paired_comparison import detectable
from trials.budget import Subset

FEW = 50
"""Number of images below which a verdict on them is warned of."""
_MEASURED_IMAGES, _MEASURED_ERROR = 72, 0.35
"""Images of BCCD's test split, and the standard error in points that they add to a difference (docs/verdict.md)."""


def few_images_in_words(images: int) -> str:
    """Return which true differences so few images can tell; empty for no image, and where there are enough.

    The standard error falls with the root of the number of images; that of BCCD stands for all data sets.
    """
    if not 0 < images < FEW:
        return ""
    if images == 1:
        return f"one image cannot judge, since it shows no variance: nas confirm refuses it; give {FEW} or more"
    found, enough = (f"{_told(number):.1f}" for number in (images, FEW))
    beside = f", {FEW} images {enough}" if enough != found else ""
    return (
        f"{images} images are few to judge by: with any number of seeds they tell true differences of about {found} "
        f"points or more{beside} (as measured on BCCD)"
    )


def subset_in_words(subset: Subset | None) -> str:
    """Return what it means for a ranking that its trainings read a part of the images; empty if they read all."""
    if subset is None:
        return ""
    parts, caveats = [], []
    if subset.train < subset.of_train:
        parts.append(f"trained on {subset.train} of {subset.of_train} images")
        caveats.append("noise and order are those on so many; whether all rank alike is not measured")
    if subset.val < subset.of_val:
        parts.append(f"validated on {subset.val} of {subset.of_val}")
        caveats.append(
            f"the sample of {subset.val} adds an error of about {_sampling_error(subset.val):.1f} points to a "
            "difference, which seeds do not show (as measured on BCCD)"
        )
    return f"{', '.join(parts)}: {'; '.join(caveats)}"


def _told(images: int) -> float:
    """Return the true difference in points that so many images tell with seeds without noise."""
    return detectable(0.0, 2, freedom=images - 1, image_error=_sampling_error(images))


def _sampling_error(images: int) -> float:
    """Return the standard error in points that a sample of so many images adds to a difference."""
    return _MEASURED_ERROR * sqrt(_MEASURED_IMAGES / images)
