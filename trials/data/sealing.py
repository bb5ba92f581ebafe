"""Seal a random share of a data set's images before a search, for a confirmation to judge by.

Drawn by label files and names alone: no image is opened. `train` and `val` are each divided, stratified by class.
Images that show the same stay together: one file under several names, copies (of equal size in bytes and equal
labels), and the augmented copies that Roboflow makes of an image.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from search_spaces.errors import DataError, SpecError
from trials.data import data_yaml, datasets, holdout, labels, listed_images, stratification
from trials.data.datasets import LabeledData
from trials.data.holdout import Holdout
from trials.data.progress import Progress
from trials.data.splits import LabeledImage

_COMPRESSED = ("avif", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "webp")
"""Formats in which two images of equal size in bytes and equal labels are one image; others have one size for all."""
_ROBOFLOW = re.compile(r"(.+)\.rf\.[0-9A-Za-z]{8,}\.\w+")
_SHARES = tuple(percent / 100 for percent in range(5, 55, 5))

Label = tuple[str, int]
"""Split and class; class -1 stands for every image of the split."""


class _Image(NamedTuple):
    """An image of a split, and the labels by which it is stratified."""

    split: str
    image: LabeledImage
    labels: tuple[Label, ...]


def seal(data: str | Path, share: float, seed: int, *, progress: Progress | None = None) -> Holdout:
    """Draw the images to be sealed.

    Args:
        data: as `datasets.load` takes it.
        share: of the images of `train`, and of those of `val`.
        seed: one seed, one draw, wherever the data set lies.
        progress: called with how many of how many labels were read, if that takes longer than two seconds.

    Raises:
        DataError: the data set has mistakes.
        SpecError: a class would vanish from `train`, `val` or the sealed images; too few images would judge.
    """
    labeled = datasets.read_labels(data, progress=progress)
    listed_images.require_listable([image.path for image in _all(labeled)])
    units = _units(labeled, seed)
    drawn = _drawn(units, share)
    if mistakes := list(_mistakes(units, drawn, labeled.classes)):
        raise SpecError(f"holdout: at {share * 100:g}% {'; '.join(mistakes)} ({_cure(units, share, labeled.classes)})")
    sealed = {one.image.path for position in drawn for one in units[position]}
    return Holdout(
        share=share,
        seed=seed,
        images=holdout.stored_names(sorted(sealed), labeled.root),
        of=len(_all(labeled)),
        fingerprint=fingerprint(labeled, sealed),
    )


def fingerprint(labeled: LabeledData, sealed: frozenset[str] | set[str]) -> str:
    """Return a hash of names, file sizes and labels of the sealed images."""
    return datasets.fingerprint(labeled.classes, [[image for image in _all(labeled) if image.path in sealed]])


def _all(labeled: LabeledData) -> list[LabeledImage]:
    return [image for split in labeled.splits for image in split.images]


Unit = tuple[_Image, ...]


def _units(labeled: LabeledData, seed: int) -> list[Unit]:
    """Return the images in groups that stay together, in an order that depends on names and seed alone."""
    images = [
        _Image(split.key, image, tuple(_labels(split.key, image, labeled.key_points)))
        for split in labeled.splits
        for image in split.images
    ]
    groups = [tuple(sorted(group, key=_name)) for group in _groups(images)]
    return sorted(groups, key=lambda group: (_hashed(_name(group[0]), seed), group[0].image.path))


def _name(one: _Image) -> str:
    return f"{one.split}/{one.image.name}"


def _hashed(name: str, seed: int) -> bytes:
    return hashlib.sha256(os.fsencode(f"{seed} {name}")).digest()


def _labels(split: str, image: LabeledImage, key_points: tuple[int, int] | None) -> Iterator[Label]:
    text = (image.label or b"").decode("utf-8-sig")
    boxes = labels.read(text, image.label_path, key_points).boxes
    yield from ((split, number) for number in sorted(set(boxes[:, 0].astype(int).tolist())))
    yield split, -1


def _groups(images: Sequence[_Image]) -> list[list[_Image]]:
    """Return the connected components of images that share a key (union-find)."""
    parent = list(range(len(images)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = position = parent[parent[position]]
        return position

    first: dict[object, int] = {}
    for position, one in enumerate(images):
        for key in _keys(one.image):
            parent[root(position)] = root(first.setdefault(key, position))
    groups: dict[int, list[_Image]] = defaultdict(list)
    for position, one in enumerate(images):
        groups[root(position)].append(one)
    return list(groups.values())


def _keys(image: LabeledImage) -> Iterator[object]:
    """Yield what two images have in common if they show the same."""
    yield os.path.realpath(image.path)
    name = Path(image.path).name
    if (copies := _ROBOFLOW.fullmatch(name)) is not None:
        yield "roboflow", copies[1]
    if image.label and image.label.strip() and name.lower().endswith(_COMPRESSED):
        yield image.size, image.label


def _drawn(units: Sequence[Unit], share: float) -> frozenset[int]:
    counts = [Counter(label for one in unit for label in one.labels) for unit in units]
    return stratification.draw(counts, share)


def _mistakes(units: Sequence[Unit], drawn: frozenset[int], classes: Sequence[str]) -> Iterator[str]:
    """Yield why a draw cannot be used: too few images would judge, or classes are on one side only."""
    images = sum(len(units[position]) for position in drawn)
    if images < holdout.LEAST_JUDGING:
        only = f"only {images}" if images else "none"
        of = sum(map(len, units))
        yield f"{only} of {of} images would be sealed, and {holdout.LEAST_JUDGING} are the least that judge"
    else:
        yield from _vanished(units, drawn, classes)


def _vanished(units: Sequence[Unit], drawn: frozenset[int], classes: Sequence[str]) -> Iterator[str]:
    """Yield which classes are on one side only, with the number of their images."""
    of_all = Counter(label for unit in units for one in unit for label in one.labels)
    sealed = Counter(label for position in drawn for one in units[position] for label in one.labels)
    unsealed, emptied = [], defaultdict(list)
    for number, name in enumerate(classes):
        images = {split: of_all[split, number] for split in data_yaml.SPLITS}
        if any(images.values()) and not any(sealed[split, number] for split in images):
            unsealed.append(f"{name!r} ({images['train']} in train, {images['val']} in val)")
        for split, count in images.items():
            if count and sealed[split, number] == count:
                emptied[split].append(f"{name!r} ({count} in {split})")
    if unsealed:
        yield f"no image would be sealed of {_listed(unsealed)}"
    for split, names in emptied.items():
        yield f"no image would stay in {split} of {_listed(names)}"


_SHOWN = 5


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _cure(units: Sequence[Unit], share: float, classes: Sequence[str]) -> str:
    """Return what to do instead: the nearest share that can be used, or a split by hand."""
    by_hand = "give the data.yaml a test: split, whose images no search reads"
    for other in sorted(_SHARES, key=lambda one: (abs(one - share), one)):
        drawn = _drawn(units, other)
        if other != share and not list(_mistakes(units, drawn, classes)):
            images = sum(len(units[position]) for position in drawn)
            return f"--holdout {other:.0%} would seal {images} images, and no class would vanish; or {by_hand}"
    return f"no share can be used; {by_hand}"


def require_unchanged(labeled: LabeledData, sealed: Holdout) -> list[LabeledImage]:
    """Return the sealed images of a data set, in the order of its splits.

    Raises:
        DataError: they have changed since they were sealed.
    """
    paths = sealed.paths(labeled.root)
    found = [image for image in _all(labeled) if image.path in paths]
    missing = sorted(paths - {image.path for image in found})
    if missing:
        raise DataError(f"{missing[0]}: a sealed image is missing{_more(len(missing) - 1)} (put it back)")
    if fingerprint(labeled, paths) != sealed.fingerprint:
        raise DataError(
            f"{labeled.path}: the sealed images or their labels have changed since they were sealed "
            "(put them back as they were, or begin another study)"
        )
    return found


def _more(count: int) -> str:
    return f", and {count} more" if count else ""
