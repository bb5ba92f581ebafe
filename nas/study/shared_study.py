"""What machines that work on one study have in common: its files, the machines themselves, a lock for proposals.

Only a study whose storage is a PostgreSQL server is shared. Its folder on each machine is what a study's folder is
everywhere; what another machine's trial has left is fetched into it when it is needed.
"""

import logging
import os
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from sqlalchemy import text

from nas.locks import ExclusiveLock
from nas.records.trial_files import BASE_PATTERN, TrialFiles
from nas.study.database_lock import DatabaseLock
from nas.study.machines import Machines, machine_id, new_machine_id
from nas.study.shared_files import BEGINNING, MOST_BYTES, SharedFile, SharedFiles
from nas.study.storage_retries import RetryingStorage
from search_spaces.files import atomic_path, digest

_log = logging.getLogger(__name__)

SMALL = ("model.yaml", "progress.jsonl", "judged.npz", "error.txt", "outcome.json")
"""Files that each machine has of all trials; the outcome last: with it a trial's files are complete."""
_LARGE = ("weights.pt", "checkpoint.bin")
"""Files that are fetched when they are needed."""
_NAME = re.compile(rf"(?:{BASE_PATTERN}|trials/\d{{4,}})/(?:{'|'.join(map(re.escape, SMALL + _LARGE))})")
_TOO_LARGE = {
    "weights.pt": "no other machine has these weights",
    "checkpoint.bin": "if this machine is lost, such a training begins again",
}
"""Consequence of a file that is not stored, in words."""
_TRAINS = text("""\
SELECT machine FROM nas_claims WHERE study_id = :study AND task = :task
AND NOT EXISTS (SELECT 1 FROM nas_files WHERE study_id = :study AND path = :weights)""")


class SharedStudy:
    """Files, machines and locks of a shared study, as one of its machines uses them.

    Args:
        folder: of the study on this machine.
        storage: of the study.
        number: Optuna's number of the study.
    """

    def __init__(self, folder: Path, storage: RetryingStorage, number: int) -> None:
        self._folder, self._storage, self._number = folder, storage, number
        self._mark = BEGINNING
        self._too_large: set[str] = set()
        self._place(machine_id(folder))

    def _place(self, machine: str) -> None:
        self.machines = Machines(self._storage, self._number, machine)
        self.files = SharedFiles(self._storage, self._number, machine)

    def become_another_machine(self) -> None:
        """Give this machine a new identity: its folder is a copy of a folder in which another one is at work."""
        self._place(new_machine_id(self._folder))

    @property
    def proposal_lock(self) -> ExclusiveLock:
        """Lock held by one process of all machines while it counts remaining trials and proposes one."""
        return DatabaseLock(self._storage.engine, f"nas/{self._number}/proposal")

    def publish(self, files: TrialFiles, *, large: bool = True) -> None:
        """Store the files of an ended training; the outcome last.

        Args:
            large: whether its weights are stored, too.
        """
        for name in (*(_LARGE[:1] if large else ()), *SMALL):
            self.publish_file(files.folder / name)
        self.delete(files.checkpoint)

    def publish_first(self, files: TrialFiles) -> None:
        """Store the files of an ended training that one machine does for all; if another was first, take its files."""
        with self.proposal_lock.held():
            if not self.has_outcome(files):
                self.publish(files)
                return
        self.delete(files.checkpoint)
        stored = self.files.digests([self._path(files.weights)])
        if stored and stored != {self._path(files.weights): digest(files.weights)}:
            files.outcome.unlink(missing_ok=True)
            self.fetch_training(files, anew=True)

    def publish_file(self, file: Path) -> None:
        """Store a file of a training, if it exists and is not too large for the storage."""
        if self._is_storable(file):
            self.files.put_file(self._path(file), file)

    def publish_at_once(self, file: Path) -> None:
        """Store a file of a training as `publish_file` does, by one attempt.

        Raises:
            SQLAlchemyError: the storage does not answer.
        """
        if self._is_storable(file):
            self.files.put_at_once(self._path(file), file)

    def _is_storable(self, file: Path) -> bool:
        """Return whether a file is there and not too large; log once of each name what its size costs."""
        size = file.stat().st_size if file.is_file() else None
        if size is not None and size > MOST_BYTES and file.name not in self._too_large:
            self._too_large.add(file.name)
            _log.warning(
                "%s: %.1f GB, and the database stores files of up to %g GB: %s",
                *(file, size / 1e9, MOST_BYTES / 1e9, _TOO_LARGE.get(file.name, "other machines lack it")),
            )
        return size is not None and size <= MOST_BYTES

    def fetch(self, *files: Path, anew: bool = False) -> None:
        """Fetch those of some files of trainings that are stored and not on this machine.

        Args:
            anew: whether those on this machine are replaced.
        """
        wanted = {self._path(file): file for file in files if anew or not file.is_file()}
        for path, content in self.files.get_all(list(wanted)):
            _write(wanted[path], content)

    def fetch_training(self, files: TrialFiles, *, large: bool = True, anew: bool = False) -> None:
        """Fetch the files of an ended training; the outcome last, and only after its weights. See `fetch`."""
        self.fetch(*(files.folder / name for name in (*(_LARGE[:1] if large else ()), *SMALL)), anew=anew)

    def has_outcome(self, files: TrialFiles) -> bool:
        """Return whether the storage has the outcome of a training."""
        return bool(self.files.digests([self._path(files.outcome)]))

    def has_weights(self, files: TrialFiles) -> bool:
        """Return whether the storage has the weights of a training."""
        return bool(self.files.digests([self._path(files.weights)]))

    def trains(self, task: str, files: TrialFiles) -> bool:
        """Return whether this machine has the claim to a training of which no weights are stored; by one attempt.

        Raises:
            SQLAlchemyError: the storage does not answer.
        """
        values = {"study": self._number, "task": task, "weights": self._path(files.weights)}
        with self._storage.engine.connect() as connection:
            return bool(connection.execute(_TRAINS, values).scalar() == self.machines.id)

    def pull(self) -> None:
        """Fetch what trainings of other machines have left or written since the last call, but for large files."""
        listed, self._mark = self.files.changes(self._mark)
        wanted = {one.path: one for one in listed if self._is_wanted(one)}
        in_order = sorted(wanted, key=lambda path: (os.path.dirname(path), SMALL.index(os.path.basename(path))))  # noqa: PTH119, PTH120 - names in the storage are no paths
        for path, content in self.files.get_all(in_order):
            _write(self._folder / path, content, changed=wanted[path].written)

    def _is_wanted(self, one: SharedFile) -> bool:
        """Return whether a file is of another machine, small, and not here as it is there."""
        if one.machine == self.machines.id or not _NAME.fullmatch(one.path) or one.path.endswith(_LARGE):
            return False
        file = self._folder / one.path
        return not file.is_file() or file.stat().st_size != one.size

    def delete(self, file: Path) -> None:
        """Delete a file from the storage, if it is stored."""
        self.files.delete([self._path(file)])

    def delete_same(self, file: Path) -> None:
        """Delete a file from the storage, if it is stored as it is on this machine."""
        with self.proposal_lock.held():
            path = self._path(file)
            if file.is_file() and self.files.digests([path]) == {path: digest(file)}:
                self.files.delete([path])

    def delete_large(self, trials: Iterable[int]) -> None:
        """Delete weights and checkpoints of trials from the storage."""
        folders = [TrialFiles.of(self._folder, trial).folder for trial in trials]
        self.files.delete([self._path(folder / name) for folder in folders for name in _LARGE])

    def _path(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()


def _write(file: Path, content: bytes, *, changed: datetime | None = None) -> None:
    """Write a fetched file, which can be fetched again; with the time at which it was changed on the other machine."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file, durable=False) as temporary:
        temporary.write_bytes(content)
        if changed is not None:
            os.utime(temporary, (changed.timestamp(), changed.timestamp()))
