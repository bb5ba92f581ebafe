"""Checks of the files on Ultralytics' command line, before it reads them: they may come from anyone.

Ultralytics executes what a file asks for: `download:` of a data file is a Python program, a shell command or a URL,
and `TorchVision` of a model file downloads. `nas yolo` does neither for files that did not come with Ultralytics.
"""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from ultralytics.cfg import MODES, TASKS
from ultralytics.utils import LOGGER, ROOT, SETTINGS, YAML
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

from search_spaces import build, model_checks, model_file, model_reader, parser_hooks, user_rows
from search_spaces.errors import DataError, EnvironmentProblem, SpecError, in_one_line, shortened
from search_spaces.files import SPECIAL, is_folder, is_plain, is_special
from search_spaces.operators import modules as user_modules
from search_spaces.operators import user_classes
from search_spaces.printable import printable
from search_spaces.yaml_text import read_yaml
from trials import weights
from trials.data import datasets
from trials.training import (
    checkpoint_settings,
    crop_folders,
    fetched_addresses,
    guarded_processes,
    opened_pickles,
    shown_names,
    special_images,
)

_YAML = (".yaml", ".yml")
_CHECKPOINTS = ("model", "pretrained", "resume", "distill_model")
"""Arguments that may name a checkpoint, which is a pickle."""
_WHOLE, _DIGITS = re.compile(r"[-+]?[0-9_]+"), 10
"""Whole numbers, and the digits of the longest one: of a seed. PyTorch raises for numbers of more than 64 bits."""
_NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", re.IGNORECASE)

Pairs = Sequence[tuple[str, str]]
"""Names of arguments with their values."""
TRUST = "--trust"
"""Flag with which a user lets checkpoints execute the code they contain, as Ultralytics does."""


def guard(
    arguments: Sequence[str] = (),
    *,
    settings: Pairs | None = None,
    trusted: bool = False,
    own: str | None = None,
) -> None:
    """Keep Ultralytics from what files ask for, in this process from now on.

    That is downloads, commands, code in pickles, and places to write to.

    A pickle is checked wherever Ultralytics opens one: a data file or a tracker's settings may name it, too, and caches
    lie beside data sets. Those that this process has written itself are opened as they are.

    Args:
        arguments: of Ultralytics' command: what the user has typed is not taken from a checkpoint.
        settings: `settings_of_files` of these; None reads them.
        trusted: whether pickles may contain code.
        own: folder of the training for which this process is one of several.
    """
    parser_hooks.refuse_downloads()
    harmless = opened_pickles.Harmless((lambda _: None) if trusted else _require_harmless, Path(own) if own else None)
    if not trusted:
        opened_pickles.guard(harmless)
    pairs = _pairs(arguments)
    settings = settings_of_files(arguments) if settings is None else settings
    data = [(key, value) for key, value in settings if key == "data"]
    typed = {key: value for key, value in (*data, *pairs) if value.lower() not in _NOTHING}
    uses_data = not _PREDICTING & _words(arguments)
    checkpoint_settings.guard(typed, uses_data=uses_data, trusted=trusted, require_harmless=harmless.require)
    crop_folders.guard()
    shown_names.guard()
    special_images.guard()
    guarded_processes.guard(arguments, trusted=trusted)
    stock_load = YAML.load

    @wraps(stock_load)
    def load(file: Any = "data.yaml", append_filename: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Ultralytics' signature
        path = Path(file)
        if path.is_relative_to(ROOT) or path.suffix.lower() not in _YAML:
            return stock_load(file, append_filename)
        if path.is_file() and path.stat().st_size:
            read_yaml(path, unique_keys=False)  # raises where it is endless
        document: dict[str, Any] = stock_load(file, append_filename)
        fetched_addresses.require_none(document, path)
        if document.pop("download", None):
            LOGGER.warning(f"{path}: its `download` is not run")
        return document

    YAML.load = load


_WITHOUT_TRAINING = {*MODES} - {"train"}
_PREDICTING = {"predict", "track"}
"""Modes that read no data set."""
_NOTHING, _SWITCHES = {"", "none", "null"}, {"true", "false"}


def _pairs(arguments: Sequence[str]) -> Pairs:
    return [(key.lstrip("-"), value) for key, _, value in (argument.partition("=") for argument in arguments)]


def _words(arguments: Sequence[str]) -> set[str]:
    """Return the arguments, and the mode where it is given as `mode=...`."""
    return {*arguments, dict(_pairs(arguments)).get("mode", "")}


def require_valid(arguments: Sequence[str], *, settings: Pairs | None = None, trusted: bool = False) -> None:
    """Refuse model and data files with mistakes, each in one line with its place, and checkpoints that contain code.

    Args:
        arguments: of Ultralytics' command; those that name no file are left to it.
        settings: `settings_of_files` of these; None reads them.
        trusted: whether checkpoints may contain code.

    Raises:
        SpecError: a model file cannot be built; a file of settings chooses where results are written.
        DataError: images of a data file do not exist; a checkpoint has classes of neither Ultralytics nor this package.
    """
    pairs = _pairs(arguments)
    settings = settings_of_files(arguments) if settings is None else settings
    _require_no_place_elsewhere(settings, typed=dict(pairs))
    _require_no_augmentations(settings, typed=dict(pairs), trusted=trusted)
    for key, value in [*pairs, *settings]:
        if key not in _NAMES and _WHOLE.fullmatch(value) and len(value) > _DIGITS:
            raise SpecError(f"{key}: a number of {len(value)} digits (at most {_DIGITS} are read)")
        path = Path(value)
        if key in {*_CHECKPOINTS, "data", "cfg", "tracker"} and is_special(path):
            raise DataError(f"{value}: {SPECIAL}")
        if key in {"model", "data", "cfg", "tracker"} and path.suffix.lower() in _YAML and is_folder(path):
            raise DataError(f"{value}: a folder (a YAML file is expected)")
        if key in _CHECKPOINTS:
            _require_checkpoint(key, value, trusted=trusted)
        if key == "batch":
            _require_batch(arguments, value)
        if key == "data" and path.suffix.lower() in fetched_addresses.LISTS_OF_ADDRESSES:
            raise DataError(f"{value}: a list of images that are downloaded is not read (a data.yaml is expected)")
        if key == "data" and value.lstrip().startswith(("[", "(")):
            raise DataError(
                f"{value}: Ultralytics trains on several data sets by commands of its own (one is expected)"
            )
        if key not in {"model", "data"} or path.suffix.lower() not in _YAML or not is_plain(path):
            continue
        if key == "model":
            _require_model(path)
        else:
            _require_data(path)


def require_named_model(arguments: Sequence[str], *, settings: Pairs | None = None) -> None:
    """Refuse a command for a model that names none: Ultralytics would fetch one of its own.

    Args:
        arguments: of Ultralytics' command.
        settings: `settings_of_files` of these; None reads them.

    Raises:
        SpecError: says what to give.
    """
    words = {argument for argument in arguments if "=" not in argument}
    settings = settings_of_files(arguments) if settings is None else settings
    given = dict([*settings, *_pairs(arguments)])
    is_for_model = len(words) < len(arguments) and words <= {"yolo", *TASKS, *MODES}
    if is_for_model and given.get("model", "").lower() in _NOTHING:
        raise SpecError(
            "model: none is given, and Ultralytics would fetch one of its own choice (model=FILE, or a name such as "
            "model=yolo26n.pt)"
        )


def _require_batch(arguments: Sequence[str], batch: str) -> None:
    """Refuse a batch of less than one image; in trainings alone Ultralytics reads it as a share of the GPU's memory."""
    try:
        is_less = float(batch) < 1
    except ValueError:  # no number: Ultralytics says so
        return
    if is_less and _words(arguments) & _WITHOUT_TRAINING:
        raise SpecError(f"batch: one image or more, got {batch} (less has a meaning in trainings alone)")


def _require_checkpoint(key: str, value: str, *, trusted: bool) -> None:
    path = Path(value)
    if key in {"model", "distill_model"} and _NUMBER.fullmatch(value) and not is_plain(path):
        raise DataError(f"{key}={value}: a number (a checkpoint or a model file is expected)")
    if _is_nowhere(key, value):
        raise DataError(f"{value}: no such file, and no checkpoint that Ultralytics publishes")
    if key == "resume" and value.lower() not in {*_NOTHING, *_SWITCHES} and not is_plain(path):
        raise DataError(f"{value}: no such file (resume=FILE, or resume=True model=FILE)")
    if path.suffix.lower() == ".pt" and is_plain(path) and not trusted:
        _require_harmless(path)
    if trusted and is_plain(path):
        LOGGER.warning(f"{printable(str(path))}: opened as a pickle, which can run code in it, because of {TRUST}")


def _is_nowhere(key: str, checkpoint: str) -> bool:
    """Return whether a checkpoint is no file, no address and none that Ultralytics publishes under its name."""
    path = Path(checkpoint)
    is_named = path.suffix == ".pt" or (key == "pretrained" and checkpoint.lower() not in {*_NOTHING, *_SWITCHES})
    if not is_named or "://" in checkpoint or is_plain(path):
        return False
    return path.name not in GITHUB_ASSETS_NAMES and not is_plain(Path(SETTINGS["weights_dir"]) / path.name)


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Raise the errors that Ultralytics means for its users as one line; others keep their traceback.

    Those are the errors of its own `raise` and `assert`, of its reading of the command line, and of missing files.

    Raises:
        SpecError: an argument is wrong, or a file.
        EnvironmentProblem: a file could not be downloaded, or a package is missing.
    """
    try:
        yield
    except ConnectionError as error:
        raise EnvironmentProblem(f"yolo: {in_one_line(error)}") from error
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            f"yolo: an argument asks for the package {error.name}, which is not installed (pip install it, or leave "
            "the argument out)"
        ) from error
    except Exception as error:
        if not isinstance(error, SyntaxError | FileNotFoundError) and not _is_for_users(error):
            raise
        raise SpecError(f"yolo: {in_one_line(error)} (nas yolo --help)") from error


def _is_for_users(error: Exception) -> bool:
    last = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(last.filename)
    is_raised = (last.line or "").startswith(("raise ", "assert "))
    return path in _ARGUMENT_CHECKS or (is_raised and path.is_relative_to(ROOT))


_ARGUMENT_CHECKS = {ROOT / "cfg" / "__init__.py", ROOT / "utils" / "checks.py", ROOT / "engine" / "model.py"}
"""Files of Ultralytics whose errors are of the command line."""


def settings_of_files(arguments: Sequence[str]) -> Pairs:
    """Return the arguments in files of Ultralytics' settings, such as `cfg=args.yaml`.

    Raises:
        SpecError: a file is no mapping, or has keys that are no names.
    """
    files = [Path(value) for key, value in _pairs(arguments) if key == "cfg" and is_plain(Path(value))]
    read = [(file, key, value) for file in files for key, value in read_yaml(file).items()]
    if nameless := [f"{file}: {key!r}: not the name of a setting" for file, key, _ in read if not isinstance(key, str)]:
        raise SpecError(nameless)
    return [(key, str(value)) for _, key, value in read]


def _require_no_place_elsewhere(settings: Pairs, typed: Mapping[str, str]) -> None:
    """Refuse settings of files by which results would be written elsewhere than Ultralytics writes them by itself."""
    elsewhere = [
        f"{key}: a file of settings may not choose where results are written, got {shortened(value)} ({key}=... on the "
        "command line may)"
        for key, value in settings
        if key in _PLACES and key not in typed and value.lower() not in _NOTHING and _leads_out(key, value)
    ]
    if elsewhere:
        raise SpecError(elsewhere)


def _require_no_augmentations(settings: Pairs, typed: Mapping[str, str], *, trusted: bool) -> None:
    """Refuse augmentations of files of settings: albumentations builds what they say, such as what reads a file."""
    if not trusted and "augmentations" not in typed and dict(settings).get("augmentations", "").lower() not in _NOTHING:
        raise SpecError(
            "augmentations: a file of settings may not name any, which albumentations would build (they may read files "
            f"and reach the network; if you trust that file, add {TRUST})"
        )


_PLACES = {"project", "name", "save_dir"}
_NAMES = {*_PLACES, *_CHECKPOINTS, "data", "cfg", "tracker", "source"}
"""Arguments that are texts, also where they have digits alone."""


def _leads_out(key: str, value: str) -> bool:
    return key == "save_dir" or Path(value).is_absolute() or ".." in Path(value).parts


def _require_harmless(path: Path) -> None:
    try:
        weights.require_harmless(path)
    except DataError as error:
        raise DataError(f"{error}; if you trust that file, add {TRUST}") from None


def _require_model(path: Path) -> None:
    """Refuse a model file with mistakes; leave models for other tasks to Ultralytics."""
    document = read_yaml(path)
    head = model_file.head(document)
    if head is not None and not _is_users(head) and not model_checks.is_detection_head(head[2]):
        return
    document = model_reader.model_document(str(path))
    try:
        model_checks.require_trainable(document)
        build.require_passable(document)
        build.require_raw_predictions(document)
    except SpecError as error:
        raise error.within(path.name) from None


def _is_users(head: Any) -> bool:
    """Return whether a row is there and names a class of a file that the user has named."""
    return head is not None and user_rows.user_class(head) is not None


def with_task(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `task=detect` where a model file has a head of the user, whose name may not say it."""
    given = dict(_pairs(arguments))
    path = Path(given.get("model", ""))
    is_file = path.suffix.lower() in _YAML and is_plain(path)
    if "task" not in given and is_file and _is_users(model_file.head(read_yaml(path))):
        return [*arguments, "task=detect"]
    return [*arguments]


def _require_data(path: Path) -> None:
    if "download" not in read_yaml(path, unique_keys=False):
        return
    datasets.resolved_text(path, ["val"])  # found as a search finds it


def with_resumed_model(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the checkpoint of `resume=` as the model, where they name no other.

    Ultralytics would download a model first, which the training then replaces by that checkpoint.
    """
    given = dict(_pairs(arguments))
    resumed = given.get("resume", "")
    return [*arguments, f"model={resumed}"] if "model" not in given and is_plain(Path(resumed)) else [*arguments]


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
            paths += (value if equals else next(iterator, "")).split(",")
        else:
            others.append(argument)
    user_modules.load_all(paths, None)
    for line in user_classes.left_out():
        LOGGER.warning(line)
    return others
