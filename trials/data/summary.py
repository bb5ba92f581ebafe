"""Summary of a data set: images, background, boxes, what is left out of training, and warnings.

Counted as a training reads it: an image that does not open is left out with its boxes, and so is a box without area or
one that repeats an earlier row of its file.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trials.data.labels import Boxes, Rows

_SHOWN = 3
_FEW_IMAGES = 10
_OUTSIDE = 0.01  # of the image's width or height: what rounding leaves
_SHARE_OUTSIDE = 0.05  # of boxes that reach out of their image, from which on the labels are doubted
_FEWEST_ROWS = 3


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image that is not trained on, and why."""

    image: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Summary of one split, `train` or `val`; the fields are keys of `nas data --format json`.

    Attributes:
        images: number that is trained or validated on, background among them.
        left_out: images that cannot be read.
        without_label: images without a label file, which count as background.
        empty: images whose label file has no rows, which count as background.
        boxes: number that is trained or validated on.
        without_area: boxes that are left out; `first_without_area` is the place of the first.
        twice: boxes that are left out; `first_twice` is the place of the first.
        unused: label files that belong to no image; `first_unused` is the first.
        per_class: boxes of each class.
        looks_wrong: warnings, one sentence each.
    """

    images: int = 0
    left_out: tuple[LeftOut, ...] = ()
    without_label: int = 0
    empty: int = 0
    boxes: int = 0
    without_area: int = 0
    first_without_area: str = ""
    twice: int = 0
    first_twice: str = ""
    unused: int = 0
    first_unused: str = ""
    per_class: tuple[int, ...] = ()
    looks_wrong: tuple[str, ...] = ()

    @property
    def background(self) -> int:
        """Number of images without boxes: the label file is missing or empty."""
        return self.without_label + self.empty


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of a data set.

    Attributes:
        key_points: whether labels are boxes with key points, of which the box alone is taken.
        root: the data set's folder, which lines leave out of the names of files.
    """

    train: SplitSummary = SplitSummary()
    val: SplitSummary = SplitSummary()
    key_points: bool = False
    root: str = ""

    def line(self, classes: int) -> str:
        """Return the summary in one line: `192 + 96 images, 1256 + 622 boxes, 10 classes`."""
        background = self.train.background, self.val.background
        parts = [
            f"{self.train.images} + {self.val.images} images",
            f"{background[0]} + {background[1]} of them background" if any(background) else "",
            f"{self.train.boxes} + {self.val.boxes} boxes",
            f"{classes} class{'es' if classes != 1 else ''}",
        ]
        return ", ".join(part for part in parts if part)

    def left_out(self) -> Iterator[str]:
        """Yield a line for each kind of image, label or box that is left out."""
        for key, split in self._splits():
            if split.left_out:
                total = split.images + len(split.left_out)
                named = self._relative(unreadable(split.left_out))
                yield f"{key}: {len(split.left_out)} of {total} images, which cannot be read: {named}"
            if split.without_area:
                first = self._relative(split.first_without_area)
                yield f"{key}: boxes without area, {split.without_area}, the first at {first}"
            if split.twice:
                first = self._relative(split.first_twice)
                yield f"{key}: boxes that stand in their file twice, {split.twice}, the first at {first}"
            if split.unused:
                first = self._relative(split.first_unused)
                yield f"{key}: label files without an image, {split.unused}, the first {first}"
        if self.key_points:
            yield "key points: of each row the box alone is taken, as kpt_shape says"

    def warnings(self) -> Iterator[str]:
        """Yield a line for each warning: what may spoil the scores."""
        for key, split in self._splits():
            yield from (f"{key}: {self._relative(sentence)}" for sentence in split.looks_wrong)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as `nas data --format json` prints it."""
        splits = {key: asdict(split) | {"background": split.background} for key, split in self._splits()}
        return {**splits, "key_points": self.key_points, "looks_wrong": list(self.warnings())}

    def _relative(self, text: str) -> str:
        return text.replace(f"{self.root.rstrip('/')}/", "") if self.root else text

    def _splits(self) -> tuple[tuple[str, SplitSummary], ...]:
        return ("train", self.train), ("val", self.val)


def unreadable(images: Sequence[LeftOut]) -> str:
    """Name the first few images, and why they cannot be read."""
    problems = {one.problem for one in images}
    if len(problems) == 1 and len(images) > 1:
        return f"{_listed([one.image for one in images])}: {images[0].problem}"
    return _listed([f"{one.image}: {one.problem}" for one in images], "; ")


def summarize(
    key: str,
    labeled: Sequence[tuple[str, Rows | None]],
    left_out: Sequence[LeftOut],
    classes: Sequence[str],
    *,
    trained: AbstractSet[str] = frozenset(),
    unused: Sequence[str] = (),
) -> SplitSummary:
    """Summarise a split.

    Args:
        key: `train` or `val`.
        labeled: each image that can be read, with its label; None if it has none.
        left_out: images that cannot be read.
        classes: names of the classes.
        trained: images of the other split, where this one is `val`.
        unused: label files that belong to no image.
    """
    labels = [label for _, label in labeled if label is not None]
    boxes = np.concatenate([np.zeros((0, 5), np.float32), *(label.boxes for label in labels)])
    places = [place for label in labels for place in label.places]
    flat = [place for label in labels for place in label.without_area]
    twice = [place for label in labels for place in label.twice]
    per_class = np.bincount(boxes[:, 0].astype(int), minlength=len(classes))
    unlabelled = [image for image, label in labeled if label is None]
    return SplitSummary(
        images=len(labeled),
        left_out=tuple(left_out),
        without_label=len(unlabelled),
        empty=sum(not (len(label.boxes) or label.without_area) for label in labels),
        boxes=len(boxes),
        without_area=len(flat),
        first_without_area=flat[0] if flat else "",
        twice=len(twice),
        first_twice=twice[0] if twice else "",
        unused=len(unused),
        first_unused=unused[0] if unused else "",
        per_class=tuple(map(int, per_class)),
        looks_wrong=(
            *_image_warnings(key, len(labeled), unlabelled),
            *_repetition_warnings([image for image, _ in labeled]),
            *_overlap_warnings([image for image, _ in labeled if image in trained], len(labeled)),
            *_class_warnings(per_class, classes),
            *_box_warnings(boxes, places),
        ),
    )


def _image_warnings(key: str, images: int, unlabelled: Sequence[str]) -> Iterator[str]:
    if images == 1:
        yield "one image: " + ("a score of one image means nothing" if key == "val" else "too little to learn from")
    elif images < _FEW_IMAGES and key == "val":
        yield f"{images} images: on so few, scores differ by chance"
    if len(unlabelled) * 2 > images:
        yield (
            f"most images have no label file ({len(unlabelled)} of {images}, such as {unlabelled[0]}) and count as "
            "background: is that meant?"
        )


def _repetition_warnings(images: Sequence[str]) -> Iterator[str]:
    again = [image for image, times in Counter(images).items() if times > 1]
    if again:
        more = len(images) - len(set(images))
        yield f"{more} of {len(images)} images are named more than once, such as {again[0]}"


def _overlap_warnings(shared: Sequence[str], images: int) -> Iterator[str]:
    if shared:
        yield (
            f"{len(shared)} of {images} images are trained on, too, such as {shared[0]}: "
            "scores say little of new images"
        )


def _class_warnings(per_class: npt.NDArray[np.int64], classes: Sequence[str]) -> Iterator[str]:
    without = [name for name, boxes in zip(classes, per_class, strict=True) if not boxes]
    if without and per_class.any():
        yield f"no box of {len(without)} of {len(classes)} classes: {_listed([repr(name) for name in without])}"


def _box_warnings(boxes: Boxes, places: Sequence[str]) -> Iterator[str]:
    """Warn of boxes that reach out of their image: corners, or the upper left corner, in the place of the centre."""
    x, y, width, height = boxes[:, 1:].T
    before = (x - width / 2 < -_OUTSIDE) | (y - height / 2 < -_OUTSIDE)
    after = (x + width / 2 > 1 + _OUTSIDE) | (y + height / 2 > 1 + _OUTSIDE)
    outside = before | after
    if len(boxes) < _FEWEST_ROWS or outside.mean() < _SHARE_OUTSIDE:
        return
    first = int(outside.argmax())
    example = "{} is {:g} {:g} {:g} {:g}".format(places[first], *(round(float(value), 4) for value in boxes[first, 1:]))
    share = f"{int(outside.sum())} of {len(boxes)} boxes reach out of their image"
    if (width > x).mean() > 0.98 and (height > y).mean() > 0.98:
        yield f"labels look like corners, x1 y1 x2 y2, where x_center y_center width height is expected: {example}"
    elif not after.any() and (x + width <= 1 + _OUTSIDE).all() and (y + height <= 1 + _OUTSIDE).all():
        yield f"labels look like left top width height, where x_center y_center width height is expected: {example}"
    else:
        yield f"{share}: {example} (x_center y_center width height)"


def _listed(texts: Sequence[str], between: str = ", ") -> str:
    more = len(texts) - _SHOWN
    return between.join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
