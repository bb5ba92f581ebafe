"""Find and delete scratch files of a study; no symbolic link is followed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from nas.study.study import Study


def scratch(study: Study) -> Iterator[Path]:
    """Ultralytics' scratch folders, workers' logs, and weights beside those of the front and the stock model."""
    records = study.records()
    kept = {record.trial for record in study.front(records)} | {r.trial for r in records if r.role == "stock"}
    for record in records:
        files = study.files(record.trial)
        if (files.folder / "ultralytics").is_dir():
            yield files.folder / "ultralytics"
        if record.trial not in kept and files.weights.is_file():
            yield files.weights
    yield from sorted((study.folder / "workers").glob("*.log"))


def lies_within(path: Path, folder: Path) -> bool:
    """Whether a path names something in a folder, not something elsewhere that a link on the way leads to."""
    parent = path.parent.resolve()
    return parent == folder.resolve() or folder.resolve() in parent.parents


def size(path: Path) -> int:
    """Bytes that are freed when it is deleted."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in inside if file.is_file() or file.is_symlink())


def delete(path: Path) -> None:
    """Delete a file or a folder; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
