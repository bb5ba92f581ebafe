"""Check pickles where Ultralytics opens them: checkpoints, embeddings of texts, caches of labels.

Any of them can run code. Opened as they are: files that this process has written, known by their SHA-256, since whoever
owns a file can set its time. A file that is exchanged between the check and the opening is not noticed.
"""

import hashlib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from ultralytics.data import dataset
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn import tasks
from ultralytics.utils import LOCAL_RANK
from ultralytics.utils.downloads import attempt_download_asset

from search_spaces import cache_folder


class Harmless:
    """Files that may be opened: written by this process, or checked by it.

    Args:
        check: raises where opening a file would execute code in it.
        own: folder of a training on several GPUs, whose processes open what the first of them has written; all else in
            it was checked before they began.
    """

    def __init__(self, check: Callable[[Path], None], own: Path | None = None) -> None:
        """Begin with none."""
        self._check, self._own = check, own
        self._digests: set[str] = set()

    def add(self, path: Path) -> None:
        """Note a file that this process has just written."""
        if path.is_file():
            self._digests.add(_digest(path))

    def has(self, path: Path) -> bool:
        """Return whether a file has the content of one that was written or checked."""
        return _digest(path) in self._digests

    def require(self, path: Path) -> None:
        """Check a file, unless it is known."""
        if self._own is not None and path.resolve().is_relative_to(self._own.resolve()):
            return
        if path.is_file() and not self.has(path):
            self._check(path)
            self.add(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def guard(harmless: Harmless) -> None:
    """Check every pickle that Ultralytics opens, in this process from now on."""
    _guard_checkpoints(harmless)
    _guard_label_caches(harmless)


def _guard_checkpoints(harmless: Harmless) -> None:
    safe_load, load, write, save_model = (
        tasks.torch_safe_load,
        torch.load,
        torch.save,
        BaseTrainer.save_model,
    )

    @wraps(safe_load)
    def checked_safe_load(weight: Any, *arguments: Any, **options: Any) -> Any:
        if not options.get("safe_only"):
            harmless.require(Path(attempt_download_asset(weight)))
        return safe_load(weight, *arguments, **options)

    @wraps(load)
    def checked_load(f: Any, *arguments: Any, **options: Any) -> Any:
        path = _path_of(f)
        if options.get("weights_only") is False and path is not None:
            harmless.require(path)
        return load(f, *arguments, **options)

    @wraps(write)
    def noted_save(obj: Any, f: Any, *arguments: Any, **options: Any) -> None:
        write(obj, f, *arguments, **options)
        if isinstance(f, str | Path):
            harmless.add(Path(f))

    @wraps(save_model)
    def noted_save_model(trainer: Any) -> Any:
        files = [Path(trainer.last), Path(trainer.best)]
        before = [_written_at(file) for file in files]
        saved = save_model(trainer)
        for file, earlier in zip(files, before, strict=True):
            if _written_at(file) != earlier:  # this epoch may not be the best
                harmless.add(file)
        return saved

    tasks.torch_safe_load, torch.load, torch.save = checked_safe_load, checked_load, noted_save
    BaseTrainer.save_model = noted_save_model


def _path_of(f: Any) -> Path | None:
    """Return the path of what `torch.load` is given; None for bytes in memory."""
    name = f if isinstance(f, str | Path) else getattr(f, "name", None)
    return Path(name) if isinstance(name, str | Path) else None


def _written_at(file: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written; its owner cannot set the last number."""
    if not file.is_file():
        return None
    found = file.stat()
    return found.st_ino, found.st_size, found.st_ctime_ns


def _guard_label_caches(harmless: Harmless) -> None:
    """Let labels be scanned anew where their cache is neither this process's nor in our cache folder."""
    load, save = dataset.load_dataset_cache_file, dataset.save_dataset_cache_file

    @wraps(load)
    def checked_load(path: Any) -> Any:
        file = Path(path)
        if (
            file.is_file()
            and not file.resolve().is_relative_to(cache_folder.path().resolve())
            and not harmless.has(file)
        ):
            raise FileNotFoundError(f"{file}: a cache that this process has not written is not opened")
        return load(path)

    @wraps(save)
    def noted_save(prefix: str, path: Any, *arguments: Any, **options: Any) -> None:
        if LOCAL_RANK > 0:  # every process of a training scans; the first one writes
            return
        save(prefix, path, *arguments, **options)
        harmless.add(Path(path))

    dataset.load_dataset_cache_file, dataset.save_dataset_cache_file = checked_load, noted_save
