"""What machines that work on one study have in common: its files, the machines themselves, a lock for proposals.

Only a study whose storage is a PostgreSQL server is shared. Its folder on each machine is what a study's folder is
everywhere; what another machine's trial has left is fetched into it when it is needed.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from nas.locks import ExclusiveLock
from nas.records.trial_files import BASE_PATTERN, TrialFiles
from nas.study.database_lock import DatabaseLock
from nas.study.machines import Machines, machine_id, new_machine_id
from nas.study.shared_files import MOST_BYTES, SharedFile, SharedFiles
from nas.study.storage_retries import RetryingStorage
from search_spaces.files import atomic_path

_SMALL = ("model.yaml", "progress.jsonl", "judged.npz", "error.txt", "outcome.json")
"""Files that each machine has of all trials; the outcome last: with it a trial's files are complete."""
_LARGE = ("weights.pt", "checkpoint.bin")
"""Files that are fetched when they are needed."""
_NAME = re.compile(rf"(?:{BASE_PATTERN}|trials/\d{{4,}})/(?:{'|'.join(map(re.escape, _SMALL + _LARGE))})")
_OVERLAP = timedelta(minutes=2)
"""A file that is written later may be listed with an earlier time: when its transaction began to write."""


class SharedStudy:
    """Files, machines and locks of a shared study, as one of its machines uses them.

    Args:
        folder: of the study on this machine.
        storage: of the study.
        number: Optuna's number of the study.
    """

    def __init__(self, folder: Path, storage: RetryingStorage, number: int) -> None:
        self._folder, self._storage, self._number = folder, storage, number
        self._listed_until: datetime | None = None
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
        for name in (*(_LARGE[:1] if large else ()), *_SMALL):
            self.publish_file(files.folder / name)
        self.files.delete([self._path(files.checkpoint)])

    def publish_file(self, file: Path) -> None:
        """Store a file of a training, if it exists and is not too large for the storage."""
        if file.is_file() and file.stat().st_size <= MOST_BYTES:
            self.files.put(self._path(file), file.read_bytes())

    def try_to_publish(self, file: Path) -> bool:
        """Store a file by one attempt; return False if the storage does not answer, for which nothing has to wait."""
        with suppress(SQLAlchemyError):
            if file.is_file() and file.stat().st_size <= MOST_BYTES:
                self.files.put_at_once(self._path(file), file.read_bytes())
            return True
        return False

    def fetch(self, *files: Path) -> None:
        """Fetch those of some files of trainings that are stored and not on this machine."""
        missing = {self._path(file): file for file in files if not file.is_file()}
        for path, content in self.files.get_all(list(missing)):
            _write(missing[path], content)

    def fetch_training(self, files: TrialFiles, *, large: bool = True) -> None:
        """Fetch the files of an ended training; the outcome last, and only after its weights."""
        self.fetch(*(files.folder / name for name in (*(_LARGE[:1] if large else ()), *_SMALL)))

    def has_outcome(self, files: TrialFiles) -> bool:
        """Return whether the storage has the outcome of a training."""
        return self.files.get(self._path(files.outcome)) is not None

    def pull(self) -> None:
        """Fetch what trainings of other machines have left or written since the last call, but for large files."""
        since = self._listed_until
        listed = self.files.listing() if since is None else self.files.listing(since - _OVERLAP)
        if listed:
            self._listed_until = listed[-1].written
        wanted = {one.path: one for one in listed if self._is_wanted(one)}
        in_order = sorted(wanted, key=lambda path: (os.path.dirname(path), _SMALL.index(os.path.basename(path))))  # noqa: PTH119, PTH120 - names in the storage are no paths
        for path, content in self.files.get_all(in_order):
            _write(self._folder / path, content, changed=wanted[path].written)

    def _is_wanted(self, one: SharedFile) -> bool:
        """Return whether a file is of another machine, small, and not here as it is there."""
        if one.machine == self.machines.id or not _NAME.fullmatch(one.path) or one.path.endswith(_LARGE):
            return False
        file = self._folder / one.path
        return not file.is_file() or file.stat().st_size != one.size

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
