"""Checks of the files on Ultralytics' command line, before it reads them: they may come from anyone.

Ultralytics executes what a file asks for: `download:` of a data file is a Python program, a shell command or a URL,
and `TorchVision` of a model file downloads. `nas yolo` does neither for files that did not come with Ultralytics.
"""

from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, ROOT, YAML

from search_spaces import build, model_checks, model_file, model_reader, parser_hooks
from search_spaces.errors import DataError, SpecError
from search_spaces.operators import modules as user_modules
from search_spaces.yaml_text import read_yaml
from trials import weights
from trials.data import datasets

_YAML = (".yaml", ".yml")
_CHECKPOINTS = ("model", "pretrained", "resume")
"""Arguments that may name a checkpoint, which is a pickle."""

TRUST = "--trust"
"""Flag with which a user lets checkpoints execute the code they contain, as Ultralytics does."""


def guard() -> None:
    """Keep Ultralytics from downloading, and from executing commands of YAML files, in this process from now on."""
    parser_hooks.refuse_downloads()
    stock_load = YAML.load

    @wraps(stock_load)
    def load(file: Any = "data.yaml", append_filename: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Ultralytics' signature
        path = Path(file)
        if path.is_relative_to(ROOT) or path.suffix.lower() not in _YAML:
            return stock_load(file, append_filename)
        if path.is_file() and path.stat().st_size:
            read_yaml(path, unique_keys=False)  # raises where it is endless
        document: dict[str, Any] = stock_load(file, append_filename)
        if document.pop("download", None):
            LOGGER.warning(f"{path}: its `download` is not run")
        return document

    YAML.load = load


def require_valid(arguments: Sequence[str], *, trusted: bool = False) -> None:
    """Refuse model and data files with mistakes, each in one line with its place, and checkpoints that contain code.

    Args:
        arguments: of Ultralytics' command; those that name no file are left to it.
        trusted: whether checkpoints may contain code.

    Raises:
        SpecError: a model file cannot be built.
        DataError: images of a data file do not exist; a checkpoint has classes of neither Ultralytics nor this package.
    """
    pairs = [(key.lstrip("-"), value) for key, _, value in (argument.partition("=") for argument in arguments)]
    for key, value in [*pairs, *_settings_of_files(pairs)]:
        path = Path(value)
        if key in _CHECKPOINTS and path.suffix.lower() == ".pt" and path.is_file() and not trusted:
            _require_harmless(path)
        if key not in {"model", "data"} or path.suffix.lower() not in _YAML or not path.is_file():
            continue
        if key == "model":
            _require_model(path)
        else:
            _require_data(path)


def _settings_of_files(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the arguments in files of Ultralytics' settings, such as `cfg=args.yaml`."""
    files = [Path(value) for key, value in pairs if key == "cfg" and Path(value).is_file()]
    read = [document for document in map(read_yaml, files) if isinstance(document, dict)]
    return [(str(key), str(value)) for document in read for key, value in document.items()]


def _require_harmless(path: Path) -> None:
    try:
        weights.require_harmless(path)
    except DataError as error:
        raise DataError(f"{error}; if you trust that file, add {TRUST}") from None


def _require_model(path: Path) -> None:
    """Refuse a model file with mistakes; leave models for other tasks to Ultralytics."""
    document = read_yaml(path)
    head: Any = document["head"][-1] if model_file.has_rows(document) else None
    if model_file.is_row(head) and not model_checks.is_detection_head(head[2]):
        return
    document = model_reader.model_document(str(path))
    try:
        build.require_passable(document)
    except SpecError as error:
        raise error.within(path.name) from None


def _require_data(path: Path) -> None:
    if "download" not in read_yaml(path, unique_keys=False):
        return
    datasets.resolved_text(path, ["val"])  # found as a search finds it


def without_trust(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments without `--trust`, and whether they had it."""
    return [argument for argument in arguments if argument != TRUST], TRUST in arguments


def without_modules(arguments: Sequence[str]) -> list[str]:
    """Load the user's operators that a command line names with `--modules FILE.py`; return the other arguments.

    Raises:
        SpecError: a file does not exist, or has no operator.
    """
    others: list[str] = []
    paths: list[str] = []
    iterator = iter(arguments)
    for argument in iterator:
        option, equals, value = argument.partition("=")
        if option in {"--modules", "modules"}:
            paths += [value if equals else next(iterator, "")]
        else:
            others.append(argument)
    user_modules.load_all(paths, None)
    return others
