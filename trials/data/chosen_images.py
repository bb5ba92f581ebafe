"""Choose the images that a study reads of a large data set: as many as are asked for, by class and by a seed.

The list of chosen images is not stored. It follows from names, labels, seed and numbers, wherever the data set lies;
that it is the same one is checked by the data set's fingerprint, which is that of the chosen images.
"""

import hashlib
import os
from collections import Counter
from dataclasses import replace

from trials.budget import Subset
from trials.data import labels, nested_choice
from trials.data.splits import LabeledImage, Split


def choose_from(split: Split, subset: Subset, key_points: tuple[int, int] | None) -> Split:
    """Return a split with the chosen images alone, in their order; its labels have no mistakes.

    Each class has its share of boxes, and images without boxes have theirs; of two numbers with one seed, the images of
    the smaller are among those of the larger.
    """
    count = {"train": subset.train, "val": subset.val}[split.key]
    if count >= len(split.images):
        return split
    shuffled = sorted(split.images, key=lambda image: (_hashed(f"{subset.seed} {split.key}/{image.name}"), image.path))
    chosen = nested_choice.choose([_boxes(image, key_points) for image in shuffled], count)
    paths = {shuffled[position].path for position in chosen}
    return replace(split, images=tuple(image for image in split.images if image.path in paths))


def _hashed(text: str) -> bytes:
    return hashlib.sha256(os.fsencode(text)).digest()


def _boxes(image: LabeledImage, key_points: tuple[int, int] | None) -> Counter[int]:
    text = (image.label or b"").decode("utf-8-sig")
    return Counter(labels.read(text, image.label_path, key_points).boxes[:, 0].astype(int).tolist())
