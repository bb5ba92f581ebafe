"""Images and labels of the splits of a data set, `train` and `val`: found, read and checked.

Ultralytics' rules hold (ultralytics/data/utils.py: `img2label_paths`; data/base.py: `get_img_files`).
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.errors import DataError
from search_spaces.files import read_plain
from trials.data import data_yaml, image_files, labels
from trials.data.image_files import FORMATS
from trials.data.progress import Progress, delayed

_SHOWN_CHARACTERS = 200
_LABEL_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class LabeledImage:
    """An image file and the content of its label file.

    Attributes:
        name: relative to its folder or list.
        size: in bytes; None if there is no such file.
        label: None if there is no such file.
    """

    name: str
    path: str
    size: int | None
    label_path: str
    label: bytes | None

    @property
    def identity(self) -> tuple[str, int, str]:
        """Name, size in bytes and SHA-256 of the label: equal wherever the files lie."""
        return self.name, self.size or 0, hashlib.sha256(self.label or b"").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images of `train`, `val` or `test`, and the folders and lists that name them.

    Attributes:
        unreadable: why a folder or a list could not be read.
        unused: label files beside those of the images of folders, which belong to no image.
    """

    key: str
    sources: tuple[Path, ...]
    images: tuple[LabeledImage, ...] = ()
    unreadable: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def read(
    file: Path,
    description: Mapping[str, Any],
    progress: Progress | None,
    *,
    keys: Sequence[str] = data_yaml.SPLITS,
    without: frozenset[str] = frozenset(),
) -> tuple[Split, ...]:
    """Read splits of a data.yaml, right or wrong.

    Args:
        without: absolute paths of sealed images, which are left out; neither they nor their labels are opened.
    """
    root, report = data_yaml.root(file, description), delayed(progress)
    splits = []
    for key in keys:
        sources = data_yaml.sources(root, description.get(key))
        images: list[LabeledImage] = []
        unreadable: list[str] = []
        for source in sources:
            try:
                paths = image_files.find([source], root)
            except DataError as error:
                unreadable.append(str(error))
                continue
            for number, path in enumerate(paths):
                if path in without:
                    continue
                try:
                    images.append(labeled_image(path, source))
                except DataError as error:
                    unreadable.append(str(error))
                report(number, len(paths))
        is_of_folders = all(source.is_dir() for source in sources)
        unused = tuple(_unused_labels(images, without)) if is_of_folders else ()
        split = Split(key=key, sources=sources, images=tuple(images), unreadable=tuple(unreadable), unused=unused)
        splits.append(split)
    return tuple(splits)


def label_path(path: str) -> str:
    """Return the label file of an image: in its path the last folder `images` becomes `labels`, the ending `.txt`."""
    before, images, after = path.rpartition(f"{os.sep}images{os.sep}")
    beside = f"{before}{os.sep}labels{os.sep}{after}" if images else path
    return str(Path(beside.rpartition(".")[0] + ".txt"))


def labeled_image(path: str, source: Path) -> LabeledImage:
    """Read the label of an image.

    Args:
        source: the folder or list that names the image.

    Raises:
        DataError: the label file cannot be read.
    """
    label = Path(label_path(path))
    try:
        content = read_plain(label, most=_LABEL_BYTES) if image_files.is_file(str(label)) else None
    except OSError as error:
        raise DataError(f"{label}: cannot be read ({error.strerror})") from None
    return LabeledImage(
        name=Path(os.path.relpath(path, source if source.is_dir() else source.parent)).as_posix(),
        path=path,
        size=Path(path).stat().st_size if image_files.is_file(path) else None,
        label_path=str(label),
        label=content,
    )


def _unused_labels(images: Sequence[LabeledImage], without: frozenset[str]) -> Iterator[str]:
    """Yield label files that lie among those of images and are no image's: of another format, or deleted."""
    beside = {image.label_path for image in images}
    used = beside | {label_path(path) for path in without}
    for folder in sorted({Path(path).parent for path in beside}):
        texts = sorted(map(str, folder.glob("*.txt"))) if folder.is_dir() else []
        yield from (text for text in texts if text not in used and labels.looks_like_label(text))


# Mistakes: one line each; nothing is read here.


def mistakes(
    file: Path, description: Mapping[str, Any], splits: Sequence[Split], *, with_images: bool = True
) -> Iterator[str]:
    """Yield the mistakes in a data.yaml's keys, and in the folders and lists that its splits name.

    Args:
        with_images: whether the images of the splits were read; otherwise folders and lists need only exist.
    """
    sources = [source for split in splits for source in split.sources]
    folders = data_yaml.roots(file, description)
    has_root = any(folder.is_dir() for folder in folders) or any(source.exists() for source in sources)
    no_download = data_yaml.no_download(file, description)
    yield from data_yaml.key_mistakes(file, description, has_root=has_root)
    for split in splits:
        wrong = list(data_yaml.split_mistakes(description, split.key))
        yield from wrong
        if wrong or not has_root:
            continue
        missing = [source for source in split.sources if not source.exists()]
        yield from (f"{split.key}: {problem}" for problem in split.unreadable)
        yield from (f"{split.key}: no such folder or list: {source}{no_download}" for source in missing)
        if with_images and not split.unreadable and not missing:
            yield from (f"{split.key}: {mistake}" for mistake in _content_mistakes(split))


def _content_mistakes(split: Split) -> Iterator[str]:
    places = ", ".join(map(str, split.sources))
    if not split.images:
        yield f"no images in {places} (names end in {', '.join(FORMATS)})"
    elif all(image.size is None for image in split.images):
        return  # image_mistakes names each
    elif all(image.label is None for image in split.images):
        yield (
            f"no labels found for images in {places}: no {split.images[0].label_path} and so on "
            "(in an image's path the last folder called images becomes labels, and the ending .txt)"
        )
    elif not any(image.label and image.label.strip() for image in split.images):
        yield f"no boxes: every label is empty, like {split.images[0].label_path}"


def image_mistakes(split: Split) -> Iterator[str]:
    """Yield a line for each image that does not exist."""
    lists = ", ".join(str(source) for source in split.sources if not source.is_dir())
    for image in split.images:
        if image.size is None and not lists:
            yield f"{image.path[:_SHOWN_CHARACTERS]}: a link to an image that is not there"
        elif image.size is None:
            yield (
                f"{lists}: no such image: {image.path[:_SHOWN_CHARACTERS]} "
                "(absolute, from the data set's folder on, or ./ and from the list's folder on)"
            )


def label_mistakes(split: Split, class_count: int, key_points: tuple[int, int] | None) -> Iterator[str]:
    """Yield a line for each wrong row of the label files, with its file and number."""
    for image in split.images:
        wrong = labels.mistakes(image.label, class_count, key_points)
        yield from (f"{image.label_path}{mistake}" for mistake in wrong)
