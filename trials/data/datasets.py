"""What is trained on: the built-in digit scenes, or a user's data.yaml, checked before anything is trained.

Ultralytics drops an image whose label it cannot read and trains on with the rest; here that is a mistake. An image
that does not open is left out by both; here it is named.
Otherwise its rules hold (ultralytics/data/utils.py: `check_det_dataset`, `img2label_paths`,
`verify_image_label`; data/base.py: `get_img_files`), but a relative `path` means the file's own folder first
and only then the working directory and Ultralytics' folder of data sets, and nothing is ever downloaded.
`resolved` tells Ultralytics the outcome.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from search_spaces import cache_folder
from search_spaces.errors import DataError, nearest
from search_spaces.yaml_text import BoundedLoader
from trials.data import account, digit_scenes, image_files
from trials.data.account import Account, Counted, LeftOut, SplitAccount
from trials.data.image_files import FORMATS, ImageCheck, Progress

DIGITS = "digits"

_SPLITS = ("train", "val")
_SHOWN = 5  # of mistakes that tend to come by the thousand
_BOX = "class x_center y_center width height"
_KINDS = "a folder of images, a list of folders, or a .txt list of images"
_TOLERANCE = 0.01  # outside of 0 to 1, as in Ultralytics
_LONGEST = 200  # characters of a name that is shown
_VALUES_OF_BOX = len(_BOX.split())
_CHANNELS = 3  # of the images that a search trains on


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set that can be trained on.

    Args:
        name: `digits`, or that of the user's file; its folder's, if the file is called data.yaml.
        path: the data.yaml, absolute.
        classes: their names, in the order of the labels' numbers.
        train: folders and lists of images to train on, absolute.
        val: folders and lists of images to validate on, absolute.
        train_images: how many there are to train on; those that cannot be read are not counted.
        val_images: how many there are to validate on, likewise.
        fingerprint: equal for equal classes, image names, image file sizes and labels, wherever they lie.
        note: what a reader of results must know about the data; often empty.
        root: the folder that `train` and `val` start from, absolute.
        key_points: the data.yaml's `kpt_shape`: each row is a box with so many points of so many values.
        account: what it holds, what is left out, and what looks wrong.
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
    account: Account = field(default_factory=Account)


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
    """The images of `train` or `val`, and the folders and lists that they were found through.

    Attributes:
        mistakes: why a folder or a list could not be read.
        unused: label files beside those of the images of folders, which belong to no image.
    """

    key: str
    sources: tuple[Path, ...]
    images: tuple[_Image, ...]
    mistakes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def load(data: str | Path, *, cache: Path | None = None, progress: Progress | None = None) -> DataSet:
    """The data set of that name or path, checked.

    Args:
        data: `digits`, the path of an Ultralytics data.yaml, or the name of one that Ultralytics brings along.
        cache: where the digit scenes are kept, and what was found in images; by default `$NAS_CACHE`, else
            `$XDG_CACHE_HOME/nas`, else `~/.cache/nas`.
        progress: called with how many of how many images were opened, if that takes longer than two seconds.

    Raises:
        DataError: it cannot be trained on; all mistakes at once, one a line.
        EnvironmentProblem: the digit scenes cannot be written.
    """
    cache = (cache or cache_folder.path()).absolute()
    if str(data) == DIGITS:
        scenes = digit_scenes.draw(cache)
        return _checked(scenes, cache, progress, name=DIGITS, note=digit_scenes.NOTE)
    try:
        file = _found(data)
        name = file.parent.name if file.stem == "data" else file.stem
        return _checked(file, cache, progress, name=name)
    except OSError as error:  # a name that is too long, a folder that must not be read
        place = str(error.filename or data)
        raise DataError(f"{place[:_LONGEST]}: {error.strerror or error}") from error


def _found(data: str | Path) -> Path:
    """The data.yaml that is meant.

    Raises:
        DataError: there is none.
    """
    file = Path(data).expanduser().absolute()
    if file.suffix.lower() in {".yaml", ".yml"} and file.is_file():
        return file
    if file.exists():
        raise DataError(f"{file}: not a data.yaml (the path of a file whose name ends in .yaml or .yml)")
    bare = Path(data).name == str(data)
    known = _of_ultralytics() if bare else {}
    if Path(data).stem in known and file.suffix.lower() in {"", ".yaml", ".yml"}:
        return known[Path(data).stem]
    if f"{data}" in known:  # a name with a dot in it, such as DOTAv1.5
        return known[f"{data}"]
    if bare and not file.suffix:
        hint = nearest(data, [DIGITS, *known])
        hint = hint if hint.startswith("did you mean") else nearest(data, [DIGITS])
        raise DataError(f"unknown data set {str(data)!r} ({hint}); the path of an Ultralytics data.yaml works, too")
    raise DataError(
        f"{file}: no such file (data is {DIGITS!r} or the path of your data.yaml; "
        "the data sets that Ultralytics can fetch are not fetched)"
    )


def _of_ultralytics() -> dict[str, Path]:
    """The descriptions of data sets that Ultralytics brings along, by name; it is not imported for that."""
    spec = importlib.util.find_spec("ultralytics")
    places = (spec.submodule_search_locations if spec else None) or []
    return {file.stem: file for place in places for file in Path(place, "cfg", "datasets").glob("*.yaml")}


def _datasets_folder() -> Path:
    """Where Ultralytics puts data sets that it fetches: its setting `datasets_dir`."""
    from ultralytics.utils import DATASETS_DIR  # noqa: PLC0415 - seconds, which most data sets need not cost

    return Path(DATASETS_DIR)


def resolved(data: DataSet) -> str:
    """The data.yaml's text as Ultralytics must get it: absolute `path`, `train` and `val`, no `download`.

    By itself it looks for a relative `path` in the working directory, then in its own datasets folder.
    """
    splits = {key: _one_or_all(sources) for key, sources in (("train", data.train), ("val", data.val))}
    return _written(data.path, _parsed(data.path), splits)


def resolved_text(data: str | Path, needed: Sequence[str]) -> str:
    """Return the data.yaml's text as `resolved` does, without checks: only the needed folders and lists must exist.

    Args:
        data: as `load` takes it.
        needed: of `train`, `val` and `test`.

    Raises:
        DataError: no data.yaml, or a folder that is not there.
    """
    file = digit_scenes.draw(cache_folder.path().absolute()) if str(data) == DIGITS else _found(data)
    description = _parsed(file)
    root = _root(file, description)
    sources = {key: _sources(root, description.get(key)) for key in ("train", "val", "test", "minival")}
    splits = [_Split(key=key, sources=sources.get(key, ()), images=()) for key in needed]
    lost = [
        mistake
        for mistake in _split_mistakes(file, description, splits)
        if not mistake.partition(": ")[2].startswith("no images in ")  # which is not looked at here
    ]
    if lost:
        raise DataError("\n".join(f"{file}: {mistake}" for mistake in lost))
    return _written(
        file, description, {key: _one_or_all(tuple(map(str, found))) for key, found in sources.items() if found}
    )


def _one_or_all(sources: Sequence[str]) -> str | list[str]:
    return list(sources) if len(sources) > 1 else sources[0]


def _written(file: Path, description: Mapping[str, Any], splits: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in description.items() if key not in {"download", "nc"}}
    root = {"path": str(_root(file, description).absolute())}
    return yaml.safe_dump({**kept, **root, **splits}, sort_keys=False, allow_unicode=True)


def _checked(file: Path, cache: Path, progress: Progress | None, *, name: str, note: str = "") -> DataSet:
    description = _parsed(file)
    key_points = _key_points(description)
    splits = _read_splits(file, description, progress)
    class_mistakes = tuple(_class_mistakes(description))
    classes = () if class_mistakes else _classes(description["names"])
    mistakes = [
        *(f"{file}: {mistake}" for mistake in class_mistakes),
        *(f"{file}: {mistake}" for mistake in _split_mistakes(file, description, splits)),
        *_shortened(mistake for split in splits for mistake in _image_mistakes(split)),
        *_shortened(mistake for split in splits for mistake in _label_mistakes(split, len(classes), key_points)),
    ]
    if mistakes:
        raise DataError("\n".join(mistakes))
    checks = image_files.check([image.path for split in splits for image in split.images], cache, progress)
    trained = frozenset(image.path for image in splits[0].images)
    accounts = [
        _account(split, classes, key_points, checks, trained=trained if split.key == "val" else frozenset())
        for split in splits
    ]
    mistakes = [
        f"{file}: {split.key}: {mistake}"
        for split, counted in zip(splits, accounts, strict=True)
        for mistake in _account_mistakes(counted)
    ]
    if mistakes:
        raise DataError("\n".join(mistakes))
    root = str(_root(file, description).resolve())
    return DataSet(
        name=name,
        path=file,
        classes=classes,
        train=tuple(map(str, splits[0].sources)),
        val=tuple(map(str, splits[1].sources)),
        train_images=accounts[0].images,
        val_images=accounts[1].images,
        fingerprint=_fingerprint(classes, splits),
        note=note,
        root=root,
        key_points=key_points,
        account=Account(train=accounts[0], val=accounts[1], key_points=key_points is not None, root=root),
    )


def _account(
    split: _Split,
    classes: Sequence[str],
    key_points: tuple[int, int] | None,
    checks: Mapping[str, ImageCheck],
    *,
    trained: frozenset[str],
) -> SplitAccount:
    left_out = [
        LeftOut(image=image.path, problem=checks[image.path].problem)
        for image in split.images
        if checks[image.path].problem
    ]
    row_values = _row_values(key_points)
    counted: list[tuple[str, Counted | None]] = [
        (
            image.path,
            None
            if image.label is None
            else account.count(image.label.decode("utf-8-sig"), image.label_path, row_values=row_values),
        )
        for image in split.images
        if not checks[image.path].problem
    ]
    return account.of_split(split.key, counted, left_out, classes, trained=trained, unused=split.unused)


def _fingerprint(classes: Sequence[str], splits: Sequence[_Split]) -> str:
    files = [sorted(_identity(image) for image in split.images) for split in splits]
    return hashlib.sha256(json.dumps([list(classes), files]).encode()).hexdigest()[:16]


def _identity(image: _Image) -> tuple[str, int, str]:
    return image.name, image.size or 0, hashlib.sha256(image.label or b"").hexdigest()


# Reading: what the file and the folders say, right or wrong.


def _parsed(file: Path) -> dict[str, Any]:
    try:
        description = _with_names_as_text(file.read_text(encoding="utf-8", errors="replace"))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(description, dict):
        raise DataError(f"{file}: not a mapping, got {description!r:.40} (its keys: path, train, val, names)")
    if "val" not in description and "validation" in description:
        description["val"] = description.pop("validation")
    read = {key: description[key] for key in ("path", *_SPLITS, "names") if key in description}
    if "\N{REPLACEMENT CHARACTER}" in yaml.safe_dump(read, allow_unicode=True):  # in a comment it does no harm
        raise DataError(f"{file}: not UTF-8 text, so that names would be read wrongly (save it as UTF-8)")
    return description


def _with_names_as_text(text: str) -> object:
    """YAML, but the classes' names are the words of the file: `no` and `null` are names like others."""
    loader = BoundedLoader(text)
    try:
        node = loader.get_single_node()
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        for key, value in entries:
            if isinstance(key, yaml.ScalarNode) and key.value == "names":
                _let_be_text(value)
        return loader.construct_document(node) if node is not None else None
    finally:
        loader.dispose()


def _let_be_text(names: yaml.Node) -> None:
    match names:
        case yaml.SequenceNode():
            entries = names.value
        case yaml.MappingNode():
            entries = [entry for _, entry in names.value]
        case _:
            entries = []
    for entry in entries:
        if isinstance(entry, yaml.ScalarNode):
            entry.tag = "tag:yaml.org,2002:str"


def _key_points(description: Mapping[str, Any]) -> tuple[int, int] | None:
    """The number of key points of each box, and of values of each point; None without key points."""
    match description.get("kpt_shape"):
        case [int(points), int(values)] if points > 0 and values in {2, 3}:
            return points, values
        case _:
            return None


def _row_values(key_points: tuple[int, int] | None) -> int:
    return 5 + key_points[0] * key_points[1] if key_points else 0


def _classes(names: Sequence[object] | Mapping[object, object]) -> tuple[str, ...]:
    numbered = names if isinstance(names, Mapping) else dict(enumerate(names))
    return tuple(str(name) for _, name in sorted((int(str(key)), name) for key, name in numbered.items()))


def _roots(file: Path, description: Mapping[str, Any]) -> Iterator[Path]:
    """Where the folder that `train` and `val` start from may be."""
    path = description.get("path") or ""
    if not isinstance(path, str) or _unusable(path):
        yield file.parent
        return
    places = [file.parent / path, Path.cwd() / path if path else file.parent]
    yield from dict.fromkeys(places[1:] if _is_of_ultralytics(file) else places)
    if path and not Path(path).is_absolute():
        yield _datasets_folder() / path


def _is_of_ultralytics(file: Path) -> bool:
    return _of_ultralytics().get(file.stem) == file


def _root(file: Path, description: Mapping[str, Any]) -> Path:
    return next((root for root in _roots(file, description) if root.is_dir()), file.parent / _text(description, "path"))


def _text(description: Mapping[str, Any], key: str) -> str:
    value = description.get(key)
    return value if isinstance(value, str) and not _unusable(value) else ""


def _unusable(name: str) -> str:
    """Why no file can have this name; empty if one can."""
    if "\0" in name:
        return "a NUL character in it"
    if any(len(os.fsencode(part)) > 255 for part in name.split("/")) or len(os.fsencode(name)) > 4000:
        return "too long for a file's name"
    return ""


def _sources(root: Path, value: object) -> tuple[Path, ...]:
    """The folders and lists that `train` or `val` names; none if it is neither text nor a list of texts."""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple((root / entry).resolve() for entry in value if not _unusable(entry))
    if not isinstance(value, str) or not value or _unusable(value):
        return ()
    source = (root / value).resolve()
    if not source.exists() and value.startswith("../"):  # as some exports write it, and Ultralytics forgives
        source = (root / value.removeprefix("../")).resolve()
    return (source,)


def _read_splits(file: Path, description: Mapping[str, Any], progress: Progress | None) -> tuple[_Split, ...]:
    root, tell = _root(file, description), image_files.delayed(progress)
    splits = []
    for key in _SPLITS:
        sources = _sources(root, description.get(key))
        images: list[_Image] = []
        mistakes: list[str] = []
        for source in sources:
            try:
                paths = image_files.image_paths([source], root)
            except DataError as error:
                mistakes.append(str(error))
                continue
            for number, path in enumerate(paths):
                images.append(_image(path, source))
                tell(number, len(paths))
        unused = tuple(_unused_labels(images)) if all(source.is_dir() for source in sources) else ()
        splits.append(_Split(key=key, sources=sources, images=tuple(images), mistakes=tuple(mistakes), unused=unused))
    return tuple(splits)


def _unused_labels(images: Sequence[_Image]) -> Iterator[str]:
    """Label files that lie among those of images, and are no image's: of an image of another format, or deleted."""
    used = {image.label_path for image in images}
    for folder in sorted({Path(path).parent for path in used}):
        texts = sorted(map(str, folder.glob("*.txt"))) if folder.is_dir() else []
        yield from (text for text in texts if text not in used and _begins_like_label(text))


def _begins_like_label(file: str) -> bool:
    """Whether the first row is numbers, which it is not in a `classes.txt`."""
    if not image_files.is_file(file):
        return False
    first = Path(file).read_bytes()[:_LONGEST].decode("utf-8-sig", errors="replace").strip().partition("\n")[0].split()
    return len(first) >= _VALUES_OF_BOX and first[0].replace(".0", "").isdecimal()


def _image(path: str, source: Path) -> _Image:
    before, images, after = path.rpartition(f"{os.sep}images{os.sep}")
    label_path = f"{before}{os.sep}labels{os.sep}{after}" if images else path
    label = Path(label_path.rpartition(".")[0] + ".txt")
    return _Image(
        name=Path(os.path.relpath(path, source if source.is_dir() else source.parent)).as_posix(),
        path=path,
        size=Path(path).stat().st_size if image_files.is_file(path) else None,
        label_path=str(label),
        label=label.read_bytes() if image_files.is_file(str(label)) else None,
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
    elif "" in (nameless := [str(name) for name in (names.values() if isinstance(names, dict) else names)]):
        yield f"names: class {nameless.index('')} has no name"
    elif nested := [
        name for name in (names.values() if isinstance(names, dict) else names) if not isinstance(name, str)
    ]:
        yield f"names: a name is text, got {nested[0]!r:.40} (a list of names, or a mapping from 0 to n - 1)"


def _split_mistakes(file: Path, description: Mapping[str, Any], splits: Sequence[_Split]) -> Iterator[str]:
    path, roots = description.get("path"), tuple(_roots(file, description))
    sources = [source for split in splits for source in split.sources]
    lost = not any(root.is_dir() for root in roots) and not any(source.exists() for source in sources)
    no_downloads = _no_downloads(file) if "download" in description else ""
    shape, channels = description.get("kpt_shape"), description.get("channels", _CHANNELS)
    if channels != _CHANNELS:
        yield (
            f"channels: got {channels!r:.40} (a search trains on images of 3 channels; leave it out, and grey images "
            "are read as three equal ones)"
        )
    if not isinstance(path, str | None):
        yield f"path: got {path!r:.40} (a folder; absolute, or relative to this file)"
    elif path and _unusable(path):
        yield f"path: {_unusable(path)}, got {path!r:.40}"
    elif lost:
        yield f"path: no such folder: {' nor '.join(map(str, roots))}{no_downloads}"
    if shape is not None and _key_points(description) is None:
        yield f"kpt_shape: got {shape!r:.40} (the number of key points, and 2 or 3 values for each: [17, 3])"
    for split in splits:
        value = description.get(split.key)
        named = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]
        unusable = [entry for entry in named if _unusable(entry)]
        if split.key not in description:
            yield f"{split.key}: missing ({_KINDS})"
        elif unusable:
            yield from (f"{split.key}: {_unusable(entry)}, got {entry!r:.40}" for entry in unusable)
        elif not split.sources:
            yield f"{split.key}: got {value!r:.40} ({_KINDS})"
        elif not lost:
            yield from (f"{split.key}: {mistake}" for mistake in _source_mistakes(split, no_downloads))


def _no_downloads(file: Path) -> str:
    if not _is_of_ultralytics(file):
        return " (nas downloads nothing, `download` is not followed)"
    fetch = f"from ultralytics.data.utils import check_det_dataset as fetch; fetch('{file.name}')"
    return f' (nas downloads nothing; Ultralytics fetches it with: python -c "{fetch}")'


def _source_mistakes(split: _Split, no_downloads: str) -> Iterator[str]:
    missing = [source for source in split.sources if not source.exists()]
    places = ", ".join(map(str, split.sources))
    if split.mistakes or missing:
        yield from split.mistakes
        yield from (f"no such folder or list: {source}{no_downloads}" for source in missing)
    elif not split.images:
        yield f"no images in {places} (names end in {', '.join(FORMATS)})"
    elif all(image.size is None for image in split.images):
        return  # which is said of each image
    elif all(image.label is None for image in split.images):
        yield (
            f"no labels found for images in {places}: no {split.images[0].label_path} and so on "
            "(in an image's path the last folder called images becomes labels, and the ending .txt)"
        )
    elif not any(image.label and image.label.strip() for image in split.images):
        yield f"no boxes: every label is empty, like {split.images[0].label_path}"


def _account_mistakes(counted: SplitAccount) -> Iterator[str]:
    """Yield the mistakes that would make every score meaningless."""
    if not counted.images:
        yield f"no image can be read: {account.unreadable(counted.left_out)}"
    elif not counted.boxes and counted.without_area:
        yield f"no box is left: none has an area, the first at {counted.first_without_area} (rows of {_BOX})"
    elif not counted.boxes:
        unreadable = account.unreadable(counted.left_out)
        yield f"no box is left: the images that have some cannot be read: {unreadable}"


def _image_mistakes(split: _Split) -> Iterator[str]:
    lists = ", ".join(str(source) for source in split.sources if not source.is_dir())
    for image in split.images:
        if image.size is None and not lists:
            yield f"{image.path[:_LONGEST]}: a link to an image that is not there"
        elif image.size is None:
            yield (
                f"{lists}: no such image: {image.path[:_LONGEST]} "
                "(absolute, from the data set's folder on, or ./ and from the list's folder on)"
            )


def _label_mistakes(split: _Split, class_count: int, key_points: tuple[int, int] | None) -> Iterator[str]:
    for image in split.images:
        mistakes = _text_mistakes(image.label, class_count, key_points)
        yield from (f"{image.label_path}{mistake}" for mistake in mistakes)


def _text_mistakes(label: bytes | None, class_count: int, key_points: tuple[int, int] | None = None) -> Iterator[str]:
    """What is wrong with a label, each after its line's number; `class_count` is 0 if it is not known."""
    try:
        text = (label or b"").decode("utf-8-sig")
    except UnicodeDecodeError:
        yield f": not UTF-8 text (rows of {_BOX})"
        return
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if key_points:
        yield from _key_point_mistakes(rows, class_count, key_points)
        return
    polygons = any(len(row) > 6 for _, row in rows)  # Ultralytics reads the whole file so
    for number, row in rows:
        if mistake := _row_mistake(row, class_count, polygons=polygons):
            yield f":{number}: {mistake}"


def _key_point_mistakes(
    rows: Sequence[tuple[int, Sequence[str]]], class_count: int, key_points: tuple[int, int]
) -> Iterator[str]:
    """Of rows that are boxes, with key points or without."""
    values = _row_values(key_points)
    for number, row in rows:
        if len(row) not in {5, values}:
            yield f":{number}: {len(row)} values (a box has 5: {_BOX}; with its kpt_shape {list(key_points)} {values})"
        elif mistake := _row_mistake(row[:5], class_count, polygons=False):
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
