"""Read the files of a study as they are found, whole or damaged, without PyTorch."""

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nas.locks import is_held
from nas.records.trial_files import TrialFiles
from nas.study.consistency import FileState, FoundFiles
from nas.study.folders import UPLOAD_LOCK, UPLOADS
from search_spaces.errors import SpecError
from search_spaces.files import is_temporary
from search_spaces.yaml_text import read_yaml
from trials.training.buffer_halves import read_halves

_NUMBER = re.compile(r"\d{4,}")


def trial_folders(study: Path) -> list[int]:
    """Return the numbers of the folders `trials/NNNN` of a study."""
    folder = study / "trials"
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name) and f"{int(name):04d}" == name)


def read_all(study: Path, show: Callable[[int, int], None] = lambda _done, _all: None) -> dict[int, FoundFiles]:
    """Return what lies in the folder of each trial.

    Args:
        study: folder of the study.
        show: called with how many of how many folders were read.
    """
    numbers, found = trial_folders(study), {}
    for done, number in enumerate(numbers):
        show(done, len(numbers))
        found[number] = read(TrialFiles.of(study, number))
    return found


def read(files: TrialFiles) -> FoundFiles:
    """Return what lies in the folder of a trial, or of the stock model's training."""
    outcome = files.read_outcome()
    fingerprint, model_state = _model(files.model)
    return FoundFiles(
        is_held=is_held(files.lock),
        outcome=outcome,
        outcome_state=_state(files.outcome, outcome is not None),
        epochs=len(files.read_epochs()),
        fingerprint=fingerprint,
        model_state=model_state,
        weights=_state(files.weights, files.weights.is_file() and _is_whole_archive(files.weights)),
        checkpoint=_state(files.checkpoint, files.checkpoint.is_file() and bool(read_halves(files.checkpoint))),
        temporary=temporary_files(files.folder),
    )


def temporary_files(folder: Path) -> tuple[str, ...]:
    """Return the names of the temporary files that writers have left in a folder."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return tuple(name for name in names if is_temporary(name))


def uploads(study: Path) -> Iterator[str]:
    """Yield the files and folders, relative to the study's folder, that a killed process was sending to MLflow."""
    folder = study / UPLOADS
    if folder.is_dir() and not is_held(study / UPLOAD_LOCK):
        yield from (f"{UPLOADS}/{path.name}" for path in sorted(folder.iterdir()))


def _state(path: Path, is_whole: bool) -> FileState:  # noqa: FBT001 - the one condition of the one state
    if not path.exists():
        return FileState.MISSING
    return FileState.WHOLE if is_whole else FileState.DAMAGED


def _model(path: Path) -> tuple[str, FileState]:
    """Return the fingerprint in a model file, empty unless it is whole, and the file's state."""
    if not path.is_file():
        return "", FileState.MISSING
    try:
        origin = read_yaml(path).get("nas")
    except (SpecError, RecursionError):
        return "", FileState.DAMAGED
    fingerprint = origin.get("fingerprint") if isinstance(origin, dict) else None
    return (fingerprint, FileState.WHOLE) if isinstance(fingerprint, str) else ("", FileState.DAMAGED)


def _is_whole_archive(path: Path) -> bool:
    """Return whether a file of `torch.save`, which is a zip archive, has the checksums that it names."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError, RuntimeError):
        return False
