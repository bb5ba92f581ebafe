"""Checkpoints that Ultralytics has released: their names, where they lie, how they are fetched, what is in them."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.utils import SETTINGS, downloads

from search_spaces import build, cache_folder, files, model_reader
from search_spaces.errors import DataError, EnvironmentProblem, in_one_line
from search_spaces.files import is_plain
from search_spaces.printable import printable
from trials import weights

ADDRESS = "https://github.com/ultralytics/assets/releases"
"""Where Ultralytics publishes them, for users who fetch one by hand."""

_MODEL = re.compile(r"(yolov?\d+)([a-z]?)(?:-(\w+))?.*")
_LEAST_SHARE = 0.9
"""Not 1: an old checkpoint may lack a tensor that its model has today. Models of other families share at most 0.4."""
_LONGEST = 80


@dataclass(frozen=True, kw_only=True)
class Released:
    """Checkpoint of a released model, as it was found.

    Attributes:
        name: under which it is released.
        digest: SHA-256 of the file.
        classes: number that its model tells apart.
        trained_on: name of the data file in its training's settings; empty where they are missing.
    """

    name: str
    path: Path
    digest: str
    classes: int
    trained_on: str


def checkpoint_name(base: str, scale: str) -> str | None:
    """Return the name of the checkpoint that fits a base model best; None if Ultralytics has released none.

    Args:
        base: name of a model or of its file, such as `yolov8{scale}.yaml`, `yolov8-p2` or `my/yolov8n-wide.yaml`. What
            stands behind the family and the scale does not matter, but for those released by themselves (P6 of YOLOv5,
            tiny and SPP of YOLOv3).
        scale: counts where the name has none.
    """
    found = _MODEL.fullmatch(Path(base.replace("{scale}", scale)).name.lower())
    if found is None:
        return None
    family, letter, variant = found.group(1), found.group(2) or scale, found.group(3)
    if family == "yolov5":
        name = f"{family}{letter}{'6' if variant == 'p6' else ''}u.pt"
    elif family == "yolov3":
        name = f"{family}{f'-{variant}' if variant in {'tiny', 'spp'} else ''}u.pt"
    else:
        name = f"{family}{letter}.pt"
    return name if name in downloads.GITHUB_ASSETS_NAMES else None


def folder() -> Path:
    """Return the folder in the cache for checkpoints that were fetched."""
    return cache_folder.path().absolute() / "weights"


def places() -> tuple[Path, ...]:
    """Return the folders where a checkpoint is looked for: the working folder, Ultralytics' own, the cache."""
    return tuple(dict.fromkeys((Path.cwd(), Path(SETTINGS["weights_dir"]).absolute(), folder())))


def find(name: str) -> Path | None:
    """Return the path of a checkpoint in the first place that has it; None if none has."""
    return next((path for place in places() if is_plain(path := place / name)), None)


def find_all() -> list[Path]:
    """Return the paths of all released detection models' checkpoints in the three places."""
    names = sorted(name for name in downloads.GITHUB_ASSETS_NAMES if _document_name(name) is not None)
    return [path for place in places() for name in names if is_plain(path := place / name)]


def fetch(name: str) -> Path:
    """Fetch a checkpoint into the cache with Ultralytics' downloader; its progress bar goes to stderr.

    Raises:
        EnvironmentProblem: there is no network, or the download failed.
    """
    require_network([name])
    path, by_hand = folder() / name, _by_hand([name])
    files.make_durable_folder(path.parent)
    try:
        with redirect_stdout(sys.stderr):  # the results of a command go to stdout
            downloads.attempt_download_asset(path)
    except (OSError, MemoryError) as error:  # ConnectionError is an OSError; MemoryError stands for a full disk
        raise EnvironmentProblem(f"weights: {name} cannot be fetched: {in_one_line(error)} ({by_hand})") from error
    if not is_plain(path):
        raise EnvironmentProblem(f"weights: {name} cannot be fetched ({by_hand})")
    return path


def require_network(names: Sequence[str]) -> None:
    """Check that checkpoints can be fetched, before the first of them is.

    Raises:
        EnvironmentProblem: there is no network; the message has all names.
    """
    if names and not downloads.is_online():
        verb = "is" if len(names) == 1 else "are"
        raise EnvironmentProblem(
            f"weights: {', '.join(names)} {verb} not here, and there is no network ({_by_hand(names)})"
        )


def _by_hand(names: Sequence[str]) -> str:
    files_in_words = "the file" if len(names) == 1 else "the files"
    where = ", ".join(map(str, (*places()[:-1], folder())))
    return f"put {files_in_words} {', '.join(names)} of {ADDRESS} into one of {where}"


def describe(path: Path, name: str) -> Released:
    """Read a checkpoint, without executing code in it, and check that it is the model that its name says.

    Raises:
        DataError: it is torn, no checkpoint, or that of another model.
    """
    try:
        model, settings = weights.read_with_settings(path)
    except DataError as error:
        raise DataError(f"{error} (put the released {name} there, or remove this one: then it is fetched)") from None
    classes = len(model.names)
    share = _share(model, name, classes)
    if share < _LEAST_SHARE:
        raise DataError(
            f"{path}: not {name}, but {_own_name(model)}: it has {share:.0%} of that model's tensors (put the released "
            f"file there; a search of one space may start from this one: --weights {path})"
        )
    data = re.split(r"[\\/]", str(settings.get("data") or ""))[-1]
    return Released(
        name=name, path=path, digest=files.digest(path), classes=classes, trained_on=printable(data)[:_LONGEST]
    )


def _share(model: Any, name: str, classes: int) -> float:
    """Return which share of the tensors of a released model another model has, with equal names and shapes."""
    document = model_reader.model_document(f"{_document_name(name)}.yaml")
    expected = {f"model.{key}": value.shape for key, value in build.skeleton(document, classes).state_dict().items()}
    found: Mapping[str, Any] = model.state_dict()
    return sum(key in found and found[key].shape == shape for key, shape in expected.items()) / len(expected)


def _own_name(model: Any) -> str:
    """Return what a model says that it is, such as `yolo11n`."""
    stem = Path(str(model.yaml.get("yaml_file") or "another model")).stem
    return printable(stem)[:_LONGEST]


def _document_name(name: str) -> str | None:
    """Return the name of the model of which a checkpoint is released; None if it is no detection model's."""
    stem = Path(name).stem
    if found := re.fullmatch(r"(yolov5[nsmlx])(6?)u", stem):
        return f"{found[1]}{'-p6' if found[2] else ''}"
    if found := re.fullmatch(r"(yolov3(?:-tiny|-spp)?)u", stem):
        return found[1]
    return stem if re.fullmatch(r"yolov?(?:8|9|10|11|12|26)[a-z]", stem) else None
