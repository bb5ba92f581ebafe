"""Warn of few images that judge: which true difference their sampling hides, whatever the seeds."""

from math import sqrt

from nas.algorithms.paired_comparison import detectable

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
    return (
        f"{images} images are few to judge by: with any number of seeds they tell true differences of about {found} "
        f"points or more, {FEW} images {enough} (as measured on BCCD)"
    )


def _told(images: int) -> float:
    """Return the true difference in points that so many images tell with seeds without noise."""
    error = _MEASURED_ERROR * sqrt(_MEASURED_IMAGES / images)
    return detectable(0.0, 2, freedom=images - 1, image_error=error)
