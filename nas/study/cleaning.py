"""Find and delete scratch files of a study; no symbolic link is followed."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.records.record import Record
from nas.records.trial_files import TrialFiles


def scratch(folder: Path, records: Sequence[Record], front: Sequence[Record]) -> Iterator[Path]:
    """Yield Ultralytics' scratch folders, workers' logs, and weights beside those of the front and the stock model.

    Args:
        folder: of the study.
        records: all of the study's.
        front: those on its Pareto front.
    """
    needed = {record.trial for record in front} | {record.trial for record in records if record.role == "stock"}
    for record in records:
        files = TrialFiles.of(folder, record.trial)
        if (files.folder / "ultralytics").is_dir():
            yield files.folder / "ultralytics"
        if record.trial not in needed and files.weights.is_file():
            yield files.weights
    yield from sorted((folder / "workers").glob("*.log"))


def lies_within(path: Path, folder: Path) -> bool:
    """Return whether a path lies in a folder after links are resolved, the last one excepted."""
    parent = path.parent.resolve()
    return parent == folder.resolve() or folder.resolve() in parent.parents


def size(path: Path) -> int:
    """Return how many bytes its deletion frees."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in inside if file.is_file() or file.is_symlink())


def delete(path: Path) -> None:
    """Delete a file or a folder; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
