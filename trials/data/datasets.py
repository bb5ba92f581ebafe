"""Data sets to train on: the built-in digit scenes, or a user's data.yaml, checked before anything is trained.

Ultralytics drops an image whose label it cannot read and trains on with the rest; here that is a mistake. An image
that does not open is left out by both; here it is named. `resolved` is the data.yaml that Ultralytics gets.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from search_spaces import cache_folder
from search_spaces.errors import DataError, nearest
from search_spaces.files import write_atomically
from trials.budget import Subset
from trials.data import data_yaml, digit_scenes, holdout, image_checks, image_files, labels, listed_images, splits
from trials.data.chosen_images import choose_from
from trials.data.holdout import Holdout
from trials.data.image_checks import ImageCheck
from trials.data.progress import Progress
from trials.data.splits import LabeledImage, Split
from trials.data.summary import LeftOut, SplitSummary, Summary, summarize, unreadable

DIGITS = "digits"

_SHOWN = 5  # of mistakes that tend to come by the thousand
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set that can be trained on.

    Args:
        name: `digits`, or that of the user's file; its folder's, if the file is called data.yaml.
        path: the data.yaml, absolute.
        classes: their names, in the order of the labels' numbers.
        train: folders and lists of images to train on, absolute.
        val: folders and lists of images to validate on, absolute.
        train_images: number of images to train on; those that cannot be read are not counted.
        val_images: number of images to validate on, likewise.
        fingerprint: equal for equal classes, image names, image file sizes and labels, wherever they lie.
        note: a caveat for readers of results; often empty.
        root: the folder that `train` and `val` start from, absolute.
        key_points: the data.yaml's `kpt_shape`: each row is a box with so many points of so many values.
        summary: counts, what is left out, and warnings.
        sealed: images of the data.yaml's `train` and `val` that are not read, absolute and sorted.
    """

    name: str
    path: Path
    classes: tuple[str, ...]
    train: tuple[str, ...]
    val: tuple[str, ...]
    train_images: int
    val_images: int
    fingerprint: str
    note: str = ""
    root: str = ""
    key_points: tuple[int, int] | None = None
    summary: Summary = field(default_factory=Summary)
    sealed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabeledData:
    """Data set whose labels were read and checked; none of its images was opened.

    Attributes:
        path: the data.yaml, absolute.
        root: the folder that `train` and `val` start from.
        splits: `train` and `val`.
        is_digits: whether they are the built-in digit scenes.
    """

    path: Path
    root: Path
    classes: tuple[str, ...]
    key_points: tuple[int, int] | None
    splits: tuple[Split, ...]
    is_digits: bool = False


def load(
    data: str | Path,
    *,
    sealed: Holdout | None = None,
    subset: Subset | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> DataSet:
    """Return the data set of that name or path, checked.

    Args:
        data: `digits`, the path of an Ultralytics data.yaml, or the name of one that Ultralytics brings along.
        sealed: images that are neither opened nor counted, nor are their labels; the data set is that of the others.
        subset: of those, how many are chosen; only they are opened and counted. None opens all.
        cache: folder of the digit scenes and of the results of image checks; by default that of `cache_folder`.
        progress: called with how many of how many images were opened, if that takes longer than two seconds.

    Raises:
        DataError: it cannot be trained on; all mistakes at once, one a line.
        EnvironmentProblem: the digit scenes cannot be written.
    """
    labeled = read_labels(data, sealed=sealed, cache=cache, progress=progress)
    return check_images(labeled, sealed=sealed, subset=subset, cache=cache, progress=progress)


def name_of(file: Path) -> str:
    """Return the name of a user's data set: that of its file, or of the folder if the file is called data.yaml."""
    return file.parent.name if file.stem == "data" else file.stem


def load_for(data: str | Path, sealed: Path | None, subset: Subset | None) -> DataSet:
    """Return a data set as a study reads it: without the images of its `holdout.json`, of the others a subset."""
    return load(data, sealed=None if sealed is None else holdout.read(sealed), subset=subset)


def read_labels(
    data: str | Path, *, sealed: Holdout | None = None, cache: Path | None = None, progress: Progress | None = None
) -> LabeledData:
    """Return a data set as `load` does, without opening its images.

    Raises:
        DataError: a mistake in the data.yaml, in a folder, list or label; all of them at once.
        EnvironmentProblem: the digit scenes cannot be written.
    """
    cache = (cache or cache_folder.path()).absolute()
    with _as_data_errors(data):
        file = digit_scenes.draw(cache) if str(data) == DIGITS else find(data)
        description = data_yaml.parse(file)
        key_points, root = data_yaml.key_points(description), data_yaml.root(file, description)
        without = frozenset() if sealed is None else sealed.paths(root)
        found = splits.read(file, description, progress, without=without)
        classes = checked_classes(file, description, found, key_points)
    return LabeledData(
        path=file, root=root, classes=classes, key_points=key_points, splits=found, is_digits=str(data) == DIGITS
    )


@contextmanager
def _as_data_errors(data: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a name that is too long, a folder that must not be read
        place = str(error.filename or data)
        raise DataError(f"{place[:_SHOWN_CHARACTERS]}: {error.strerror or error}") from error


def resolved(data: DataSet) -> str:
    """Return the data.yaml's text as Ultralytics must get it: absolute `path`, `train` and `val`, no `download`.

    By itself it looks for a relative `path` in the working directory, then in its datasets folder.
    """
    return data_yaml.absolute_text(data.path, data_yaml.parse(data.path), {"train": data.train, "val": data.val})


def write(data: DataSet, folder: Path) -> None:
    """Write a data set's data.yaml as `resolved` returns it; with sealed images as `test`, and a list for each split.

    Raises:
        EnvironmentProblem: the folder cannot be written to.
    """
    if data.sealed:
        lists = {"train": _images(data.train), "val": _images(data.val), "test": data.sealed}
        for key, images in lists.items():
            write_atomically(folder / f"{key}.txt", "".join(f"{image}\n" for image in images))
        sources = {key: (str(folder.absolute() / f"{key}.txt"),) for key in lists}
        text = data_yaml.absolute_text(data.path, data_yaml.parse(data.path), sources)
    else:
        text = resolved(data)
    write_atomically(folder / "data.yaml", text)


def _images(lists: Sequence[str]) -> list[str]:
    return image_files.find(lists, Path())


def resolved_text(data: str | Path, needed: Sequence[str]) -> str:
    """Return the data.yaml's text as `resolved` does, without checks: only the needed folders and lists must exist.

    Args:
        data: as `load` takes it.
        needed: of `train`, `val` and `test`.

    Raises:
        DataError: no data.yaml, or a folder that is not there.
    """
    file = digit_scenes.draw(cache_folder.path().absolute()) if str(data) == DIGITS else find(data)
    description = data_yaml.parse(file)
    root = data_yaml.root(file, description)
    sources = {key: data_yaml.sources(root, description.get(key)) for key in ("train", "val", "test", "minival")}
    unread = [Split(key=key, sources=sources.get(key, ())) for key in needed]
    if lost := list(splits.mistakes(file, description, unread, with_images=False)):
        raise DataError("\n".join(f"{file}: {mistake}" for mistake in lost))
    texts = {key: tuple(map(str, found)) for key, found in sources.items() if found}
    return data_yaml.absolute_text(file, description, texts)


def find(data: str | Path) -> Path:
    """Return the data.yaml of a path or a name.

    Raises:
        DataError: there is none.
    """
    file = Path(data).expanduser().absolute()
    if file.suffix.lower() in {".yaml", ".yml"} and file.is_file():
        return file
    if file.exists():
        raise DataError(f"{file}: not a data.yaml (the path of a file whose name ends in .yaml or .yml)")
    is_name = Path(data).name == str(data)
    named = data_yaml.of_ultralytics() if is_name else {}
    if Path(data).stem in named and file.suffix.lower() in {"", ".yaml", ".yml"}:
        return named[Path(data).stem]
    if f"{data}" in named:  # a name with a dot in it, such as DOTAv1.5
        return named[f"{data}"]
    if is_name and not file.suffix:
        hint = nearest(data, [DIGITS, *named])
        hint = hint if hint.startswith("did you mean") else nearest(data, [DIGITS])
        raise DataError(f"unknown data set {str(data)!r} ({hint}); the path of an Ultralytics data.yaml works, too")
    raise DataError(
        f"{file}: no such file (data is {DIGITS!r} or the path of your data.yaml; "
        "the data sets that Ultralytics can fetch are not fetched)"
    )


def check_images(
    labeled: LabeledData,
    *,
    sealed: Holdout | None = None,
    subset: Subset | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> DataSet:
    """Open the images of a data set whose labels were read; return it as `load` does, with its summary.

    Args:
        labeled: without the sealed images.

    Raises:
        DataError: no image or no box is left.
    """
    with _as_data_errors(labeled.path):
        return _checked(labeled, sealed, subset, (cache or cache_folder.path()).absolute(), progress)


def _checked(
    labeled: LabeledData, sealed: Holdout | None, subset: Subset | None, cache: Path, progress: Progress | None
) -> DataSet:
    file, classes, key_points = labeled.path, labeled.classes, labeled.key_points
    train, val = found = tuple(choose_from(one, subset, key_points) if subset else one for one in labeled.splits)
    checks = image_checks.check([image.path for split in found for image in split.images], cache, progress)
    trained = frozenset(image.path for image in train.images)
    counted = (
        _summary(train, classes, key_points, checks),
        _summary(val, classes, key_points, checks, trained=trained),
    )
    mistakes = [
        f"{file}: {split.key}: {mistake}"
        for split, summary in zip(found, counted, strict=True)
        for mistake in _summary_mistakes(summary)
    ]
    if mistakes:
        raise DataError("\n".join(mistakes))
    root = str(labeled.root.resolve())
    sources = [
        tuple(map(str, split.sources))
        if sealed is None and not subset
        else (str(listed_images.write([image.path for image in split.images], cache)),)
        for split in found
    ]
    return DataSet(
        name=DIGITS if labeled.is_digits else name_of(file),
        path=file,
        classes=classes,
        train=sources[0],
        val=sources[1],
        train_images=counted[0].images,
        val_images=counted[1].images,
        fingerprint=fingerprint(classes, [split.images for split in found]),
        note=digit_scenes.NOTE if labeled.is_digits else "",
        root=root,
        key_points=key_points,
        summary=Summary(train=counted[0], val=counted[1], key_points=key_points is not None, root=root),
        sealed=() if sealed is None else tuple(sorted(sealed.paths(labeled.root))),
    )


def checked_classes(
    file: Path, description: Mapping[str, Any], found: Sequence[Split], key_points: tuple[int, int] | None
) -> tuple[str, ...]:
    """Return the names of the classes.

    Raises:
        DataError: a mistake in the data.yaml, in a folder, list or label; all of them at once.
    """
    class_mistakes = tuple(data_yaml.class_mistakes(description))
    classes = () if class_mistakes else data_yaml.class_names(description["names"])
    mistakes = [
        *(f"{file}: {mistake}" for mistake in class_mistakes),
        *(f"{file}: {mistake}" for mistake in splits.mistakes(file, description, found)),
        *shortened(mistake for split in found for mistake in splits.image_mistakes(split)),
        *shortened(mistake for split in found for mistake in splits.label_mistakes(split, len(classes), key_points)),
    ]
    if mistakes:
        raise DataError("\n".join(mistakes))
    return classes


def shortened(mistakes: Iterable[str]) -> Iterator[str]:
    """Yield the first mistakes of many, and how many more there are."""
    remaining = iter(mistakes)
    yield from islice(remaining, _SHOWN)
    if rest := sum(1 for _ in remaining):
        yield f"... and {rest} more like these"


def _summary(
    split: Split,
    classes: Sequence[str],
    key_points: tuple[int, int] | None,
    checks: Mapping[str, ImageCheck],
    *,
    trained: frozenset[str] = frozenset(),
) -> SplitSummary:
    problems = [(image.path, checks[image.path].problem) for image in split.images]
    labeled = [
        (
            image.path,
            None if image.label is None else labels.read(image.label.decode("utf-8-sig"), image.label_path, key_points),
        )
        for image in split.images
        if not checks[image.path].problem
    ]
    left_out = [LeftOut(image=path, problem=problem) for path, problem in problems if problem]
    return summarize(split.key, labeled, left_out, classes, trained=trained, unused=split.unused)


def _summary_mistakes(summary: SplitSummary) -> Iterator[str]:
    """Yield the mistakes that would make every score meaningless."""
    if not summary.images:
        yield f"no image can be read: {unreadable(summary.left_out)}"
    elif not summary.boxes and summary.without_area:
        yield f"no box is left: none has an area, the first at {summary.first_without_area} (rows of {labels.ROW})"
    elif not summary.boxes:
        yield f"no box is left: the images that have some cannot be read: {unreadable(summary.left_out)}"


def fingerprint(classes: Sequence[str], splits_of_images: Sequence[Sequence[LabeledImage]]) -> str:
    """Return a hash of the classes and, for each split, of the names, sizes and labels of its images."""
    files = [sorted(image.identity for image in images) for images in splits_of_images]
    return hashlib.sha256(json.dumps([list(classes), files]).encode()).hexdigest()[:16]
