"""Files of a study that are no longer needed: rules for weights and checkpoints, and what `nas clean` deletes.

No symbolic link is followed.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.locks import is_held
from nas.records.record import Record, pareto_front_of
from nas.records.trial_files import TrialFiles
from nas.study.folders import STUDY, TRACKING_STATE
from nas.study.stored_files import temporary_files, trial_folders, uploads
from search_spaces.files import leftovers
from trials.scores import Ending

_BROKEN = Ending.BROKEN.value


def trials_with_weights(records: Sequence[Record], objectives: Sequence[str], *, latest: int = 0) -> set[int]:
    """Return the trials whose weights stay: the Pareto front, the stock model, and trials that have not ended.

    Args:
        records: of all trials, in order.
        objectives: of the Pareto front.
        latest: number of the trials that ended last whose weights stay as well.
    """
    ended = [record.trial for record in records if record.ending is not None]
    front = {record.trial for record in pareto_front_of(records, objectives)}
    others = {record.trial for record in records if record.role == "stock" or record.is_unfinished}
    return front | others | set(ended[max(0, len(ended) - latest) :])


def trials_with_checkpoint(records: Sequence[Record]) -> set[int]:
    """Return the trials whose checkpoint stays, because a training may go on from it.

    These are the trials without an ending (waiting, running, interrupted), and trials with an ending that are retried:
    a retry has the same architecture and seed, and takes over the checkpoint. A broken trial is retried once.
    """
    attempts = Counter(_training(record) for record in records)
    pending = {_training(record) for record in records if record.is_unfinished}
    return {
        record.trial
        for record in records
        if record.ending is None
        or _training(record) in pending
        or (record.ending == _BROKEN and attempts[_training(record)] == 1)  # its retry is not queued yet
    }


def _training(record: Record) -> tuple[str, int]:
    return record.fingerprint, record.repeat


def removable(folder: Path, records: Sequence[Record], objectives: Sequence[str]) -> Iterator[Path]:
    """Yield the files and folders of a study that `nas clean` deletes.

    Ultralytics' scratch folders; weights that `nas export` does not need; checkpoints from which no training goes on;
    temporary files of killed processes; logs of workers.

    Args:
        folder: of the study.
    """
    weights, checkpoints = trials_with_weights(records, objectives), trials_with_checkpoint(records)
    for record in records:
        files = TrialFiles.of(folder, record.trial)
        if files.scratch.is_dir():
            yield files.scratch
        if record.trial not in weights and files.weights.is_file():
            yield files.weights
        if record.trial not in checkpoints and files.checkpoint.is_file():
            yield files.checkpoint
        if not record.is_unfinished:
            written = files.weights, files.checkpoint, files.judged, files.outcome
            yield from (left for path in written for left in leftovers(path))
    yield from sorted((folder / "workers").glob("*.log"))


def delete_leftovers(folder: Path) -> None:
    """Delete what killed writers have left: temporary files, except where a worker is at work, and uploads to MLflow.

    Args:
        folder: of a study whose supervisor's lock the caller holds.
    """
    trainings = [TrialFiles.of(folder, number) for number in trial_folders(folder)]
    for files in (*TrialFiles.stock_models_in(folder), *trainings):
        if not is_held(files.lock):
            for name in temporary_files(files.folder):
                (files.folder / name).unlink(missing_ok=True)
    for name in uploads(folder):
        delete(folder / name)
    for path in (folder / STUDY, folder / TRACKING_STATE):  # the others a command may be writing
        for left in leftovers(path):
            left.unlink(missing_ok=True)


def lies_within(path: Path, folder: Path) -> bool:
    """Return whether a path names something in a folder, not something elsewhere behind a link on the way."""
    parent = path.parent.resolve()
    return parent == folder.resolve() or folder.resolve() in parent.parents


def size(path: Path) -> int:
    """Return the bytes that are freed when a path is deleted."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in inside if file.is_file() or file.is_symlink())


def delete(path: Path) -> None:
    """Delete a file or a folder; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
