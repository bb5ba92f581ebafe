"""Which files of a study an archive holds, and what may be in them: data, tensors, and no pickled objects."""

import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nas.records.trial_files import BASE_PATTERN
from nas.study.folders import (
    DATABASE,
    HOLDOUT,
    LATENCY_TABLE,
    MEASURED_LATENCIES,
    RECORDS,
    SPACE,
    STUDY,
    SYSTEM_METRICS,
    TRACKING_STATE,
)
from search_spaces.errors import StudyError

MODELS = "models"
"""Folder of an archived study for the file of its base model, where that is a user's own."""
_OF_STUDY = (
    STUDY,
    SPACE,
    DATABASE,
    HOLDOUT,
    LATENCY_TABLE,
    MEASURED_LATENCIES,
    RECORDS,
    SYSTEM_METRICS,
    TRACKING_STATE,
)
_OF_TRIAL = ("model.yaml", "progress.jsonl", "outcome.json", "judged.npz", "weights.pt", "checkpoint.bin", "error.txt")
_PATTERN = re.compile(
    "|".join(
        [
            *map(re.escape, _OF_STUDY),
            rf"(?:{BASE_PATTERN}|trials/\d{{4,9}})/(?:{'|'.join(map(re.escape, _OF_TRIAL))})",
            r"modules/[A-Za-z0-9_-][A-Za-z0-9._-]*\.py",
            rf"{MODELS}/[A-Za-z0-9_-][A-Za-z0-9._-]*\.ya?ml",
            r"workers/\d{1,6}\.log",
        ]
    )
)
_LEFT_OUT = re.compile(
    rf"(?:.*/)?(?:lock|.*\.lock|\..*)|(?:{BASE_PATTERN}|trials/\d+)/ultralytics/.*|(?:export|full|mlflow|orphans)/.*"
    r"|study\.db-\w+|machine\.json|report\.html"
)
"""Locks, journals, temporary files, a machine's identity, and what is written again: exports, pages, uploads."""

_TENSOR_CLASSES = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char")),
        "torch ByteStorage",
        "torch BoolStorage",
        # Of the first version of weights files, where `search_spaces.stored_model` puts objects that do nothing:
        *(
            f"torch {dtype}"
            for dtype in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")
        ),
        "trials.weights rebuilt",
        "search_spaces.operators.record Source",
        *(f"{module} PosixPath" for module in ("pathlib", "pathlib._local")),
    }
)
_MARKS = (b"nas_stored_model", b"trials.weights\nrebuilt")
"""In every weights file that `search_spaces.stored_model` writes; by them it is read without unpickling objects."""
_UNREADABLE = (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, pickle.PickleError)
_BY_STACK = frozenset({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
"""Operations that name a class in another way, which `torch.save` does not use."""


def is_member(path: str) -> bool:
    """Return whether a path, relative to a study's folder, is that of a file that an archive holds."""
    return _PATTERN.fullmatch(path) is not None


def is_weights(path: str) -> bool:
    """Return whether a member holds tensors as `torch.save` writes them."""
    return path.endswith(".pt")


def members_of(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files of a study that an archive holds, and those that it leaves out though nothing writes them again.

    Args:
        folder: of the study. No symbolic link is followed.
    """
    inside = [path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink()]
    names = [str(path.relative_to(folder)) for path in inside if not _is_behind_link(path, folder)]
    links = {str(path.relative_to(folder)) for path in inside if path.is_symlink()}
    held = [name for name in names if is_member(name) and name not in links]
    return held, [name for name in names if name not in held and not _LEFT_OUT.fullmatch(name)]


def _is_behind_link(path: Path, folder: Path) -> bool:
    parents = [parent for parent in path.parents if parent != folder and parent.is_relative_to(folder)]
    return any(parent.is_symlink() for parent in parents)


def require_tensors(file: Path, name: str) -> None:
    """Refuse a weights file that holds anything but tensors, numbers and text. Nothing in it is executed.

    Args:
        file: to read.
        name: of it, for the message.

    Raises:
        StudyError: it names other classes, or is no file of `torch.save`.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise StudyError(f"{name}: is compressed, which no weights file of a trial is")
            pickles = [entry for entry in archive.namelist() if entry.endswith(".pkl")]
            content = archive.read(pickles[0]) if len(pickles) == 1 else b""
        classes = sorted(set(_classes_of(content)) - _TENSOR_CLASSES)
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        pickle.PickleError,
    ) as error:
        raise StudyError(f"{name}: no weights file of a trial: {error}") from None
    if classes or not any(mark in content for mark in _MARKS):
        reason = f"names {', '.join(classes[:3])}" if classes else "holds no stored model"
        raise StudyError(f"{name}: {reason}; an archive holds tensors, no pickled objects")


def _classes_of(content: bytes) -> Iterator[str]:
    """Yield what a pickle names, as module and name; the names of operations that name something in another way."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL":
            yield str(argument)
        elif operation.name in _BY_STACK:
            yield operation.name
