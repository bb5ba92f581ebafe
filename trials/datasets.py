"""What is trained on: the built-in digit scenes, or a user's data.yaml, checked before anything is trained.

Ultralytics drops an image whose label it cannot read and trains on with the rest; here that is a mistake.
Otherwise its rules hold (ultralytics/data/utils.py: `check_det_dataset`, `img2label_paths`,
`verify_image_label`; data/base.py: `get_img_files`), but a relative `path` means the file's own folder first
and only then the working directory, and nothing is ever downloaded. `resolved` tells Ultralytics the outcome.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import DataError, nearest
from trials import digit_scenes

DIGITS = "digits"

# ultralytics/data/utils.py, `IMG_FORMATS`
_FORMATS = ("avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp")
_SPLITS = ("train", "val")
_SHOWN = 5  # of mistakes that tend to come by the thousand
_BOX = "class x_center y_center width height"
_KINDS = "a folder of images, a list of folders, or a .txt list of images"
_TOLERANCE = 0.01  # outside of 0 to 1, as in Ultralytics


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set that can be trained on.

    Args:
        name: `digits`, or that of the user's file; its folder's, if the file is called data.yaml.
        path: the data.yaml, absolute.
        classes: their names, in the order of the labels' numbers.
        train: folders and lists of images to train on, absolute.
        val: folders and lists of images to validate on, absolute.
        train_images: how many there are to train on.
        val_images: how many there are to validate on.
        fingerprint: equal for equal classes, image names, image file sizes and labels, wherever they lie.
        note: what a reader of results must know about the data; often empty.
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


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image and the bytes of its label; `size` is None if there is no such file, so is `label`."""

    name: str
    path: str
    size: int | None
    label_path: str
    label: bytes | None


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The images of `train` or `val`, and the folders and lists that they were found through."""

    key: str
    sources: tuple[Path, ...]
    images: tuple[_Image, ...]


def load(data: str | Path, *, cache: Path | None = None) -> DataSet:
    """The data set of that name or path, checked.

    Args:
        data: `digits`, or the path of an Ultralytics data.yaml.
        cache: where the digit scenes are kept; by default `$NAS_CACHE`, else `$XDG_CACHE_HOME/nas`, else
            `~/.cache/nas`.

    Raises:
        DataError: it cannot be trained on; all mistakes at once, one a line.
        EnvironmentProblem: the digit scenes cannot be written.
    """
    if str(data) == DIGITS:
        scenes = digit_scenes.draw((cache or cache_folder()).absolute())
        return _checked(scenes, name=DIGITS, note=digit_scenes.NOTE)
    file = Path(data).expanduser().absolute()
    if file.suffix.lower() in {".yaml", ".yml"} and file.is_file():
        return _checked(file, name=file.parent.name if file.stem == "data" else file.stem)
    if file.exists():
        raise DataError(f"{file}: not a data.yaml (the path of a file whose name ends in .yaml or .yml)")
    if Path(data).name == str(data) and not file.suffix:
        raise DataError(
            f"unknown data set {str(data)!r} ({nearest(data, [DIGITS])}); "
            "the path of an Ultralytics data.yaml works, too"
        )
    raise DataError(
        f"{file}: no such file (data is {DIGITS!r} or the path of your data.yaml; "
        "the data sets that Ultralytics can fetch are not fetched)"
    )


def resolved(data: DataSet) -> str:
    """The data.yaml's text as Ultralytics must get it: absolute `path`, `train` and `val`, no `download`.

    By itself it looks for a relative `path` in the working directory, then in its own datasets folder.
    """
    description = _parsed(data.path)
    root = _root(data.path, description)
    splits = {
        key: list(sources) if len(sources) > 1 else sources[0]
        for key, sources in (("train", data.train), ("val", data.val))
    }
    kept = {key: value for key, value in description.items() if key not in {"download", "nc"}}
    return yaml.safe_dump(kept | {"path": str(root)} | splits, sort_keys=False, allow_unicode=True)


def cache_folder() -> Path:
    """Where the digit scenes are kept: `$NAS_CACHE`, else `$XDG_CACHE_HOME/nas`, else `~/.cache/nas`."""
    if chosen := os.environ.get("NAS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas"


def _checked(file: Path, *, name: str, note: str = "") -> DataSet:
    description = _parsed(file)
    splits = _read_splits(file, description)
    class_mistakes = tuple(_class_mistakes(description))
    classes = () if class_mistakes else _classes(description["names"])
    mistakes = [
        *(f"{file}: {mistake}" for mistake in class_mistakes),
        *(f"{file}: {mistake}" for mistake in _split_mistakes(file, description, splits)),
        *_shortened(mistake for split in splits for mistake in _image_mistakes(split)),
        *_shortened(mistake for split in splits for mistake in _label_mistakes(split, len(classes))),
    ]
    if mistakes:
        raise DataError("\n".join(mistakes))
    return DataSet(
        name=name,
        path=file,
        classes=classes,
        train=tuple(map(str, splits[0].sources)),
        val=tuple(map(str, splits[1].sources)),
        train_images=len(splits[0].images),
        val_images=len(splits[1].images),
        fingerprint=_fingerprint(classes, splits),
        note=note,
    )


def _fingerprint(classes: Sequence[str], splits: Sequence[_Split]) -> str:
    files = [sorted(_identity(image) for image in split.images) for split in splits]
    return hashlib.sha256(json.dumps([list(classes), files]).encode()).hexdigest()[:16]


def _identity(image: _Image) -> tuple[str, int, str]:
    return image.name, image.size or 0, hashlib.sha256(image.label or b"").hexdigest()


# Reading: what the file and the folders say, right or wrong.


def _parsed(file: Path) -> dict[str, Any]:
    try:
        description = yaml.safe_load(file.read_text(encoding="utf-8", errors="ignore"))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(description, dict):
        raise DataError(f"{file}: not a mapping, got {description!r:.40} (its keys: path, train, val, names)")
    if "val" not in description and "validation" in description:
        description["val"] = description.pop("validation")
    return description


def _classes(names: Sequence[object] | Mapping[object, object]) -> tuple[str, ...]:
    numbered = names if isinstance(names, Mapping) else dict(enumerate(names))
    return tuple(str(name) for _, name in sorted((int(str(key)), name) for key, name in numbered.items()))


def _roots(file: Path, description: Mapping[str, Any]) -> tuple[Path, ...]:
    """Where the folder that `train` and `val` start from may be."""
    path = str(description.get("path") or "")
    return tuple(dict.fromkeys((file.parent / path, Path.cwd() / path if path else file.parent)))


def _root(file: Path, description: Mapping[str, Any]) -> Path:
    roots = _roots(file, description)
    return next((root for root in roots if root.is_dir()), roots[0])


def _sources(root: Path, value: object) -> tuple[Path, ...]:
    """The folders and lists that `train` or `val` names; none if it is neither text nor a list of texts."""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple((root / entry).resolve() for entry in value)
    if not isinstance(value, str) or not value:
        return ()
    source = (root / value).resolve()
    if not source.exists() and value.startswith("../"):  # as some exports write it, and Ultralytics forgives
        source = (root / value.removeprefix("../")).resolve()
    return (source,)


def _read_splits(file: Path, description: Mapping[str, Any]) -> tuple[_Split, ...]:
    root = _root(file, description)
    splits = []
    for key in _SPLITS:
        sources = _sources(root, description.get(key))
        images = (_image(path, source) for source in sources for path in _image_paths(source))
        splits.append(_Split(key=key, sources=sources, images=tuple(images)))
    return tuple(splits)


def _image_paths(source: Path) -> list[str]:
    paths: list[str] = []
    if source.is_dir():  # not `rglob`: it knows hidden files, and does not follow links to folders
        paths = glob.glob(str(Path(glob.escape(str(source)), "**", "*.*")), recursive=True)  # noqa: PTH207
    elif source.is_file():
        lines = source.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()
        paths = [str(source.parent / line) if line.startswith("./") else line for line in lines]
    return sorted(path for path in paths if path.rpartition(".")[-1].lower() in _FORMATS)


def _image(path: str, source: Path) -> _Image:
    before, images, after = path.rpartition(f"{os.sep}images{os.sep}")
    label_path = f"{before}{os.sep}labels{os.sep}{after}" if images else path
    label = Path(label_path.rpartition(".")[0] + ".txt")
    return _Image(
        name=Path(os.path.relpath(path, source if source.is_dir() else source.parent)).as_posix(),
        path=path,
        size=Path(path).stat().st_size if Path(path).is_file() else None,
        label_path=str(label),
        label=label.read_bytes() if label.is_file() else None,
    )


# Mistakes: one line each, without its end; nothing is read here.


def _shortened(mistakes: Iterator[str]) -> Iterator[str]:
    yield from islice(mistakes, _SHOWN)
    if rest := sum(1 for _ in mistakes):
        yield f"... and {rest} more like these"


def _class_mistakes(description: Mapping[str, Any]) -> Iterator[str]:
    names, nc = description.get("names"), description.get("nc")
    if names is None:
        yield "names: missing (the names of the classes: a list, or a mapping from 0 to n - 1)"
    elif not isinstance(names, list | dict) or not names:
        yield f"names: got {names!r:.40} (a list of names, or a mapping from 0 to n - 1)"
    elif isinstance(names, dict) and {str(key) for key in names} != {str(key) for key in range(len(names))}:
        numbers = ", ".join(str(key) for key in names)
        yield f"names: numbered {numbers:.40} ({len(names)} names have the numbers 0 to {len(names) - 1})"
    elif nc is not None and str(nc) not in {str(len(names)), str(float(len(names)))}:
        yield f"nc: got {nc!r:.40}, but there are {len(names)} names (leave nc out, or let them agree)"


def _split_mistakes(file: Path, description: Mapping[str, Any], splits: Sequence[_Split]) -> Iterator[str]:
    path, roots = description.get("path"), _roots(file, description)
    sources = [source for split in splits for source in split.sources]
    lost = not any(root.is_dir() for root in roots) and not any(source.exists() for source in sources)
    no_downloads = " (nas downloads nothing, `download` is not followed)" if "download" in description else ""
    if not isinstance(path, str | None):
        yield f"path: got {path!r:.40} (a folder; absolute, or relative to this file)"
    elif lost:
        yield f"path: no such folder: {' nor '.join(map(str, roots))}{no_downloads}"
    for split in splits:
        if split.key not in description:
            yield f"{split.key}: missing ({_KINDS})"
        elif not split.sources:
            yield f"{split.key}: got {description[split.key]!r:.40} ({_KINDS})"
        elif not lost:
            yield from (f"{split.key}: {mistake}" for mistake in _source_mistakes(split, no_downloads))


def _source_mistakes(split: _Split, no_downloads: str) -> Iterator[str]:
    missing = [source for source in split.sources if not source.exists()]
    places = ", ".join(map(str, split.sources))
    if missing:
        yield from (f"no such folder or list: {source}{no_downloads}" for source in missing)
    elif not split.images:
        yield f"no images in {places} (names end in {', '.join(_FORMATS)})"
    elif all(image.label is None for image in split.images):
        yield (
            f"no labels found for images in {places}: no {split.images[0].label_path} and so on "
            "(in an image's path the last folder called images becomes labels, and the ending .txt)"
        )
    elif not any(image.label and image.label.strip() for image in split.images):
        yield f"no boxes: every label is empty, like {split.images[0].label_path}"


def _image_mistakes(split: _Split) -> Iterator[str]:
    lists = ", ".join(str(source) for source in split.sources if not source.is_dir())
    for image in split.images:
        if image.size is None:
            yield f"{lists}: no such image: {image.path} (absolute, or ./ and from the list's folder on)"


def _label_mistakes(split: _Split, class_count: int) -> Iterator[str]:
    for image in split.images:
        yield from (f"{image.label_path}{mistake}" for mistake in _text_mistakes(image.label, class_count))


def _text_mistakes(label: bytes | None, class_count: int) -> Iterator[str]:
    """What is wrong with a label, each after its line's number; `class_count` is 0 if it is not known."""
    try:
        text = (label or b"").decode("utf-8-sig")
    except UnicodeDecodeError:
        yield f": not UTF-8 text (rows of {_BOX})"
        return
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    polygons = any(len(row) > 6 for _, row in rows)  # Ultralytics reads the whole file so
    for number, row in rows:
        if mistake := _row_mistake(row, class_count, polygons=polygons):
            yield f":{number}: {mistake}"


def _row_mistake(row: Sequence[str], class_count: int, *, polygons: bool) -> str:
    if len(row) < 5 or len(row) % 2 == 0:
        return f"{len(row)} values (a box has 5: {_BOX}; a polygon has a class and 3 or more points)"
    if polygons and len(row) == 5:
        return "a box in a file of polygons (Ultralytics drops an image with both)"
    try:
        kind, *coordinates = map(float, row)
    except ValueError as error:
        return f"{error} (a row of numbers: {_BOX})"
    if kind % 1 or kind < 0 or 0 < class_count <= kind:
        allowed = f"0 to {class_count - 1}" if class_count else "whole numbers from 0"
        return f"class {row[0]} (the classes are {allowed})"
    for index, coordinate in enumerate(coordinates):
        least = 0 if not polygons and index >= 2 else -_TOLERANCE
        if not least <= coordinate <= 1 + _TOLERANCE:
            return f"{row[index + 1]} is not within 0 to 1 (fractions of the image's width and height)"
    return ""
