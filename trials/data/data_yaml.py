"""An Ultralytics data.yaml: parsed, its keys checked, its folders resolved, and written with absolute paths.

The rules are those of Ultralytics' `check_det_dataset` (ultralytics/data/utils.py), but a relative `path` means the
file's folder first and only then the working directory and Ultralytics' folder of data sets, and nothing is ever
downloaded.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import DataError, unwrapped
from search_spaces.files import YAML_BYTES, path_problem, read_plain_text
from search_spaces.yaml_text import BoundedLoader

SPLITS = ("train", "val")
"""Keys of the splits that a search needs."""

_SPLIT_VALUE = "a folder of images, a list of folders, or a .txt list of images"
_CHANNELS = 3  # of the images that a search trains on


def of_ultralytics() -> dict[str, Path]:
    """Return the data.yaml files that Ultralytics brings along, by name; it is not imported for that."""
    spec = importlib.util.find_spec("ultralytics")
    places = (spec.submodule_search_locations if spec else None) or []
    return {file.stem: file for place in places for file in Path(place, "cfg", "datasets").glob("*.yaml")}


def _is_of_ultralytics(file: Path) -> bool:
    return of_ultralytics().get(file.stem) == file


def _datasets_folder() -> Path:
    """Return the folder into which Ultralytics downloads data sets: its setting `datasets_dir`."""
    from ultralytics.utils import DATASETS_DIR  # noqa: PLC0415 - seconds, which most data sets need not cost

    return Path(DATASETS_DIR)


def parse(file: Path) -> dict[str, Any]:
    """Return the keys and values of a data.yaml; class names are texts, `validation` is called `val`.

    Raises:
        DataError: not YAML, not a mapping, or not UTF-8.
    """
    try:
        description = _with_names_as_text(read_plain_text(file, most=YAML_BYTES, errors="replace"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{file}: not YAML: {unwrapped(error)}") from error
    if not isinstance(description, dict):
        raise DataError(f"{file}: not a mapping, got {description!r:.40} (its keys: path, train, val, names)")
    if "val" not in description and "validation" in description:
        description["val"] = description.pop("validation")
    read = {key: description[key] for key in ("path", *SPLITS, "names") if key in description}
    if "\N{REPLACEMENT CHARACTER}" in yaml.safe_dump(read, allow_unicode=True):  # in a comment it does no harm
        raise DataError(f"{file}: not UTF-8 text, so that names would be read wrongly (save it as UTF-8)")
    return description


def _with_names_as_text(text: str) -> object:
    """Parse YAML, but leave class names the words of the file: `no` and `null` are names like others."""
    loader = BoundedLoader(text)
    try:
        node = loader.get_single_node()
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        for key, value in entries:
            if isinstance(key, yaml.ScalarNode) and key.value == "names":
                _tag_as_text(value)
        return loader.construct_document(node) if node is not None else None
    finally:
        loader.dispose()


def _tag_as_text(names: yaml.Node) -> None:
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


def key_points(description: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the number of key points of each box and of values of each point; None without key points."""
    match description.get("kpt_shape"):
        case [int(points), int(values)] if points > 0 and values in {2, 3}:
            return points, values
        case _:
            return None


def class_names(names: Sequence[object] | Mapping[object, object]) -> tuple[str, ...]:
    """Return the value of `names`, which `class_mistakes` has accepted, in the order of the labels' numbers."""
    numbered = names if isinstance(names, Mapping) else dict(enumerate(names))
    return tuple(str(name) for _, name in sorted((int(str(key)), name) for key, name in numbered.items()))


def root(file: Path, description: Mapping[str, Any]) -> Path:
    """Return the folder that `train` and `val` start from; it need not exist."""
    path = description.get("path")
    text = path if isinstance(path, str) and not path_problem(path) else ""
    return next((folder for folder in roots(file, description) if folder.is_dir()), file.parent / text)


def roots(file: Path, description: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folders that `train` and `val` may start from, the first to exist counts."""
    path = description.get("path") or ""
    if not isinstance(path, str) or path_problem(path):
        yield file.parent
        return
    places = [file.parent / path, Path.cwd() / path if path else file.parent]
    yield from dict.fromkeys(places[1:] if _is_of_ultralytics(file) else places)
    if path and not Path(path).is_absolute():
        yield _datasets_folder() / path


def sources(folder: Path, value: object) -> tuple[Path, ...]:
    """Return the folders and lists that the value of `train` or `val` names; none if it is no text or list of texts.

    Args:
        folder: the `root` of the file.
    """
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple((folder / entry).resolve() for entry in value if not path_problem(entry))
    if not isinstance(value, str) or not value or path_problem(value):
        return ()
    source = (folder / value).resolve()
    if not source.exists() and value.startswith("../"):  # as some exports write it, and Ultralytics forgives
        source = (folder / value.removeprefix("../")).resolve()
    return (source,)


def absolute_text(file: Path, description: Mapping[str, Any], splits: Mapping[str, Sequence[str]]) -> str:
    """Return a data.yaml's text with an absolute `path` and the given splits, without `download` and `nc`."""
    rest = {key: value for key, value in description.items() if key not in {"download", "nc"}}
    values = {key: list(found) if len(found) > 1 else found[0] for key, found in splits.items()}
    document = {**rest, "path": str(root(file, description).absolute()), **values}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


# Mistakes: one line each, without the name of the file.


def class_mistakes(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mistakes in `names` and `nc`."""
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


def key_mistakes(file: Path, description: Mapping[str, Any], *, has_root: bool) -> Iterator[str]:
    """Yield the mistakes in `channels`, `path` and `kpt_shape`.

    Args:
        has_root: whether one of `roots` or a folder or list of a split exists.
    """
    path, shape = description.get("path"), description.get("kpt_shape")
    channels = description.get("channels", _CHANNELS)
    if channels != _CHANNELS:
        yield (
            f"channels: got {channels!r:.40} (a search trains on images of 3 channels; leave it out, and grey images "
            "are read as three equal ones)"
        )
    if not isinstance(path, str | None):
        yield f"path: got {path!r:.40} (a folder; absolute, or relative to this file)"
    elif path and (problem := path_problem(path)):
        yield f"path: {problem}, got {path!r:.40}"
    elif not has_root:
        places = " nor ".join(map(str, roots(file, description)))
        yield f"path: no such folder: {places}{no_download(file, description)}"
    if shape is not None and key_points(description) is None:
        yield f"kpt_shape: got {shape!r:.40} (the number of key points, and 2 or 3 values for each: [17, 3])"


def split_mistakes(description: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield the mistakes in the value of `train`, `val` or `test` as such; whether it exists is not looked at."""
    value = description.get(key)
    entries = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]
    impossible = [entry for entry in entries if path_problem(entry)]
    if key not in description:
        yield f"{key}: missing ({_SPLIT_VALUE})"
    elif impossible:
        yield from (f"{key}: {path_problem(entry)}, got {entry!r:.40}" for entry in impossible)
    elif not sources(Path(), value):
        yield f"{key}: got {value!r:.40} ({_SPLIT_VALUE})"


def no_download(file: Path, description: Mapping[str, Any]) -> str:
    """Return the end of a message about a missing folder of a file that has `download`; empty for other files."""
    if "download" not in description:
        return ""
    if not _is_of_ultralytics(file):
        return " (nas downloads nothing, `download` is not followed)"
    fetch = f"from ultralytics.data.utils import check_det_dataset as fetch; fetch('{file.name}')"
    return f' (nas downloads nothing; Ultralytics fetches it with: python -c "{fetch}")'
