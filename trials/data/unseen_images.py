"""Images that judge: the verdict of a confirmation stands on them.

They are the `test` split of the data.yaml, without images that are in `train` or `val` as well, or images that the
study has sealed: no search reads these. Without any, they are those of `val`, by which the search has chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import cache_folder
from search_spaces.errors import DataError
from trials.data import data_yaml, datasets, holdout, image_checks, image_files, sealing, splits
from trials.data.datasets import LabeledData
from trials.data.holdout import Holdout
from trials.data.splits import LabeledImage

HOLDOUT = "holdout"
TEST, VAL = "test", "val"
"""Splits of a data.yaml, and sources of the images that are from them."""
_REMEDY = f"correct it, or remove `{TEST}` from the data.yaml: the verdict is then on the images that the search reads"


@dataclass(frozen=True, kw_only=True)
class JudgingImages:
    """Images by which a confirmation judges.

    Attributes:
        source: `test` or `val`, the splits of the data.yaml, or `holdout`, sealed by the study before its search.
        images: absolute paths, sorted.
        fingerprint: of their names, sizes and labels and of the classes, made as that of a data set.
    """

    source: str
    images: tuple[str, ...]
    fingerprint: str


def judging_images(data: str | Path, sealed: Path | None = None) -> JudgingImages | None:
    """Return the images that no search reads; None if there are none.

    Args:
        data: as `datasets.load` takes it.
        sealed: file with the images that the study has sealed; None if it has not.

    Raises:
        DataError: the `test` split cannot be used; all mistakes at once, one a line.
    """
    if sealed is not None:
        return _of_holdout(datasets.read_labels(data), holdout.read(sealed))
    return None if str(data) == datasets.DIGITS else _of_test_split(datasets.find(data))


def validation_images(data: str | Path) -> JudgingImages:
    """Return the images of `val`, on which a search scores its candidates.

    Args:
        data: as `datasets.load` takes it.

    Raises:
        DataError: the data set cannot be read.
    """
    labeled = datasets.read_labels(data)
    (split,) = [split for split in labeled.splits if split.key == VAL]
    return judging_set(VAL, labeled.classes, _readable(split.images))


def _of_holdout(labeled: LabeledData, sealed: Holdout) -> JudgingImages:
    return judging_set(HOLDOUT, labeled.classes, _readable(sealing.require_unchanged(labeled, sealed)))


def _readable(images: Sequence[LabeledImage]) -> list[LabeledImage]:
    """Return the images that open: a search, too, leaves out the others."""
    checks = image_checks.check([image.path for image in images], cache_folder.path())
    return [image for image in images if not checks[image.path].problem]


def images_of_test(data: str | Path) -> tuple[str, ...]:
    """Return the images of `test` that are in neither `train` nor `val`; neither they nor labels are opened.

    None are returned if no image has a label file, as in the test images of a competition.

    Raises:
        DataError: there is no data.yaml, or it cannot be read.
    """
    if str(data) == datasets.DIGITS:
        return ()
    file = datasets.find(data)
    description = data_yaml.parse(file)
    root = data_yaml.root(file, description)
    found = image_files.find(data_yaml.sources(root, description.get(TEST)), root)
    searched = _searched(root, description)
    unseen = tuple(path for path in found if _identity(path) not in searched)
    return unseen if any(image_files.is_file(splits.label_path(path)) for path in unseen) else ()


def _of_test_split(file: Path) -> JudgingImages | None:
    description = data_yaml.parse(file)
    if not description.get(TEST):
        return None
    (split,) = splits.read(file, description, None, keys=(TEST,))
    root = data_yaml.root(file, description)
    searched = _searched(root, description)
    unseen = [image for image in split.images if _identity(image.path) not in searched]
    if split.images and not unseen:
        return None
    try:
        classes = datasets.checked_classes(file, description, [split], data_yaml.key_points(description))
    except DataError as error:
        raise DataError(f"{error}\n{file}: {TEST}: {_REMEDY}") from None
    _require_readable(file, unseen)
    return judging_set(TEST, classes, unseen)


def _searched(root: Path, description: Mapping[str, Any]) -> set[str]:
    sources = [source for key in data_yaml.SPLITS for source in data_yaml.sources(root, description.get(key))]
    return {_identity(path) for path in image_files.find(sources, root)}


def judging_set(source: str, classes: Sequence[str], images: Sequence[LabeledImage]) -> JudgingImages:
    """Return images that judge, with their fingerprint."""
    return JudgingImages(
        source=source,
        images=tuple(sorted(image.path for image in images)),
        fingerprint=datasets.fingerprint(classes, [images]),
    )


def _identity(path: str) -> str:
    return str(Path(path).resolve())


def _require_readable(file: Path, images: Sequence[LabeledImage]) -> None:
    """Refuse images that do not open: a training leaves them out, so that fewer would judge than is written.

    Raises:
        DataError: with every such image.
    """
    checks = image_checks.check([image.path for image in images], cache_folder.path())
    wrong = [f"{image.path}: {problem}" for image in images if (problem := checks[image.path].problem)]
    if wrong:
        raise DataError("\n".join([*datasets.shortened(wrong), f"{file}: {TEST}: {_REMEDY}"]))
