"""Amount of training that a preset stands for, where a data set is large: fewer of its images, in fewer epochs.

A preset's epochs were measured on 205 images (docs/recipes.md). Many times as many images in as many epochs would only
take so many times as long. So a set of more than `FEW_IMAGES` is trained on for fewer epochs, and of one of more
than `Preset.most_images` a subset of that size is read. Both numbers are bounds, not measured.
"""

from nas.workflows.presets import MOST_VALIDATION_IMAGES, Preset, epochs_for
from nas.workflows.request import Request
from search_spaces.errors import SpecError
from trials.budget import Subset
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.data.holdout import Holdout
from trials.data.progress import Progress


def load_data(
    request: Request, sealed: Holdout | None = None, progress: Progress | None = None
) -> tuple[DataSet, Subset | None]:
    """Return the data set of a request, checked, and what is read of it; None if that is all but the sealed images.

    Raises:
        DataError: it cannot be trained on; all mistakes at once.
        SpecError: more images are asked for than there are.
    """
    labeled = datasets.read_labels(request.data_name, sealed=sealed, progress=progress)
    train, val = (len(split.images) for split in labeled.splits)
    subset = chosen_subset(request, request.chosen_preset()[1], train, val)
    return datasets.check_images(labeled, sealed=sealed, subset=subset, progress=progress), subset


def chosen_subset(request: Request, preset: Preset, train: int, val: int) -> Subset | None:
    """Return which part of so many images is read; None for all.

    Raises:
        SpecError: a fraction without an image.
    """
    of_train = min(train, preset.most_images) if request.fraction is None else number_of(request.fraction, train)
    of_val = min(val, request.val_images or MOST_VALIDATION_IMAGES)
    if (of_train, of_val) == (train, val):
        return None
    return Subset(seed=request.seed, train=of_train, val=of_val, of_train=train, of_val=val)


def number_of(fraction: float, images: int) -> int:
    """Return how many images a fraction of them is.

    Raises:
        SpecError: none.
    """
    number = round(fraction * images)
    if not number:
        raise SpecError(f"fraction: {fraction:g} of {images} images is no image (at least {1 / images:.2g})")
    return number


def in_words(subset: Subset | None, images: int, epochs: int, usual: int) -> str:
    """Return what a study trains on and why, in one line; empty if it is all images for a preset's epochs.

    Args:
        images: that are trained on.
        epochs: of a trial.
        usual: epochs of a trial by the preset, for few images.
    """
    parts = []
    if subset is not None and subset.train < subset.of_train:
        share = f"{100 * subset.train / subset.of_train:.2g} %"
        parts.append(f"{subset.of_train} images: {share} of them, {subset.train}, chosen by class")
    if epochs == epochs_for(usual, images) < usual:
        found = "" if parts else f"{images} images: "
        parts.append(f"{found}{epochs} epochs instead of {usual}, in which a trial reads {epochs * images} images")
    if subset is not None and subset.val < subset.of_val:
        parts.append(f"{subset.val} of {subset.of_val} images to validate on, chosen by class")
    return ", ".join(parts)
