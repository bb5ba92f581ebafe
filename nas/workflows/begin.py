"""Create a study, or take up one that is there: checked, and under one lock."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas import addresses
from nas.locks import Lock
from nas.paths import RUNS
from nas.settings import Run
from nas.study import identity
from nas.study.folders import existing, make_folder, own_storage, runs_option
from nas.study.storage import opened
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.request import require_cores, validated
from search_spaces import cache_folder
from search_spaces.errors import SpecError, StudyError
from trials.data import datasets
from trials.latency.timings import Timings


def resume(name: str, *, runs: str | Path = RUNS, storage: str | None = None, **changes: Any) -> Study:
    """A study that exists, with changes to its run: trials, timeout, workers, device or trial_memory.

    Args:
        storage: the address of its storage, with the password that the study's file does not hold.

    Raises:
        SpecError: no such study, more workers than cores, or another storage than the study's.
        DataError: its data set cannot be trained on any more.
        StudyError: its space or its data set has changed; another process runs it; its storage is another study's.
    """
    study = Study.open(existing(name, Path(runs)))
    if storage is not None:
        _give_password(study, storage)
    with study.supervision.held_at_once(study.is_running()):
        _take_up(study)
        require_same_data(study)
        study.set_run(changed_run(study.file.run, changes))
    return study


def _give_password(study: Study, storage: str) -> None:
    """Open a study's storage by an address with a password.

    Raises:
        SpecError: it is the address of another storage.
    """
    given, there = addresses.require_storage(storage), addresses.without_password(study.file.storage)
    if addresses.without_password(given) != there:
        told = addresses.without_password(given)
        raise SpecError(f"storage: the trials of {study.name} are in another one, got {told!r} ({there})")
    study.file = study.file.model_copy(update={"storage": given})


def require_same_data(study: Study) -> None:
    """Refuse to train on a data set that scores of a study are not of.

    Raises:
        DataError: it cannot be trained on any more.
        StudyError: it has changed.
    """
    cache_folder.require_writable()
    data = datasets.load(study.settings.data)
    if data.fingerprint != study.settings.data_fingerprint:
        raise StudyError(
            f"{data.path}: the data set has changed since {study.name} was begun; begin another study for it"
        )


def create_or_resume(folder: Path, file: StudyFile, space_text: str, latency: Timings | None) -> Study:
    """Create a study, or resume the one that is there with these settings, with the run that is asked for now.

    Raises:
        StudyError: it is there with other settings, its space has changed, or another process runs it.
    """
    with creation_lock(folder.parent, file.storage):
        return create_or_resume_locked(folder, file, space_text, latency)


@contextmanager
def creation_lock(runs: Path, storage: str) -> Iterator[None]:
    """Hold the lock under which names are chosen and studies are made: of two searches at once one makes the study.

    Raises:
        EnvironmentProblem: nothing can be written there.
    """
    if addresses.file_of(storage) is None:
        opened(storage)  # a server that cannot be reached is told before anything is written
    make_folder(runs)
    with Lock(runs / ".beginning.lock").held():
        yield


def create_or_resume_locked(folder: Path, file: StudyFile, space_text: str, latency: Timings | None) -> Study:
    """Do the same where the caller holds `creation_lock`."""
    if not exists(folder, file):
        return Study.create(folder, file, space_text, latency)
    study = Study.open(folder)
    if file.storage != own_storage(folder):
        _give_password(study, file.storage)
    with study.supervision.held_at_once(study.is_running()):
        _take_up(study)
        study.set_run(file.run)
    return study


def changed_run(run: Run, changes: Mapping[str, Any]) -> Run:
    """A run with what is asked for now; a timeout is asked for each time, all else stays where nothing is said.

    Raises:
        SpecError: a number that is none, or more workers than cores.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    changed = validated(Run, run.model_dump() | {"timeout": None} | given)
    require_cores(changed.device, changed.workers)
    return changed


def _take_up(study: Study) -> None:
    """Check a study that is to go on; a space that has changed is refused here, and not by every worker."""
    _ = study.space
    study.remark = identity.settle(study)
    study.trials()  # a database that is damaged is told now; the supervisor asks for them all in any case


def exists(folder: Path, file: StudyFile) -> bool:
    """Whether the study is there; its settings must then be the same.

    Raises:
        StudyError: they are not.
    """
    if not (folder / "study.json").is_file():
        return False
    differences = StudyFile.read(folder).settings.differences(file.settings)
    if differences:
        told = "\n".join(f"  {difference}" for difference in differences)
        raise StudyError(
            f"{folder.name}: a study of that name is there with other settings:\n{told}\n"
            f"resume it with: nas resume {folder.name}{runs_option(folder.parent)}\nor name another with: --study"
        )
    return True
