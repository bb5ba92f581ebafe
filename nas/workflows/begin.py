"""Create a study or resume an existing one, checked and under a lock."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from nas import addresses
from nas.locks import Lock
from nas.paths import RUNS
from nas.settings import RunSettings, Settings
from nas.study import identity, operator_files
from nas.study.creation import create
from nas.study.folders import STUDY, default_storage, existing, make_folder, runs_option
from nas.study.links import require_no_links_out
from nas.study.named_addresses import remember
from nas.study.storage import open_storage
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.ray_cluster import RayCluster
from nas.workflows.relocation import relocate, require_files
from nas.workflows.request import require_cores, validated
from search_spaces import cache_folder
from search_spaces.errors import SpecError, StudyError
from trials.data.holdout import Holdout
from trials.latency.timings import Timings

BEGINNING_LOCK = ".beginning.lock"
"""Lock in the folder of all studies."""


def resume(
    name: str,
    *,
    runs: str | Path = RUNS,
    storage: str | None = None,
    data: str | PathLike[str] | None = None,
    weights: str | PathLike[str] | None = None,
    ray: str | None = None,
    gpus_per_worker: float | None = None,
    trust: bool = False,
    **changes: Any,
) -> Study:
    """Resume an existing study, with changes to its run: trials, timeout, workers, device or trial_memory.

    Args:
        storage: address of its storage with the password, which the study's file does not contain.
        data: where its data set lies now; the images and labels must be the same.
        weights: where the checkpoint lies now from which the stock model's training started.
        ray: address of the Ray cluster on which it will be run; None for this machine.
        gpus_per_worker: on the Ray cluster.
        trust: run the operator files that the study brings, also if this user has not run them before.

    Raises:
        SpecError: no such study, more workers than cores, or another storage than the study's; see `RayCluster.of`.
        DataError: its data set cannot be trained on any more.
        StudyError: its space or its data set has changed; another process runs it; its storage is another study's; a
            link leads out of its folder; its operators are not trusted.
    """
    study = Study.open(existing(name, Path(runs)))
    if trust:
        operator_files.trust(study.folder)
    if storage is not None:
        _set_password(study, storage)
    cluster = RayCluster.of(ray, gpus_per_worker, study.file.storage, device=changes.get("device"))
    if cluster is not None:
        changes = {**changes, "device": cluster.device}
    with study.supervision_lock.held_at_once(study.already_running()):
        require_no_links_out(study.folder)
        if data is not None or weights is not None:
            relocate(study, data=data, weights=weights)
        require_files(study)
        _check(study)
        require_same_data(study)
        study.read_number_of_trials()
        study.set_run(changed_run(study.file.run, changes, elsewhere=cluster is not None))
    return study


def _set_password(study: Study, storage: str) -> None:
    """Use the address of a study's storage that the user has given, perhaps with a password.

    Raises:
        SpecError: it is the address of another storage.
        EnvironmentProblem: that it was named cannot be remembered.
    """
    address, expected = addresses.require_storage(storage), addresses.without_password(study.file.storage)
    got = addresses.without_password(address)
    if got != expected:
        raise SpecError(f"storage: the trials of {study.name} are in another one, got {got!r} ({expected})")
    remember(address, addresses.STORAGE, study.folder)
    study.file = study.file.model_copy(update={"storage": address})


def require_same_data(study: Study) -> None:
    """Refuse to continue a study on another data set than that of its scores.

    Raises:
        DataError: it cannot be trained on any more.
        StudyError: it has changed.
    """
    cache_folder.require_writable()
    data = study.data_set()
    if data.fingerprint != study.settings.data_fingerprint:
        raise StudyError(
            f"{data.path}: the data set has changed since {study.name} was begun; begin another study for it"
        )


def create_or_resume(
    folder: Path, file: StudyFile, space_text: str, latency: Timings | None, sealed: Holdout | None = None
) -> Study:
    """Create a study, or resume the existing one of that folder with the run settings of `file`.

    Raises:
        StudyError: it exists with other settings, its space has changed, or another process runs it.
    """
    with creation_lock(folder.parent, file.storage):
        return create_or_resume_locked(folder, file, space_text, latency, sealed)


@contextmanager
def creation_lock(runs: Path, storage: str) -> Iterator[None]:
    """Hold the lock under which names are chosen and studies are created, so that two searches do not create the same.

    Raises:
        EnvironmentProblem: the folder of all studies cannot be written to.
    """
    if addresses.file_of(storage) is None:
        open_storage(storage)  # fails for an unreachable server before anything is written
    make_folder(runs)
    with Lock(runs / BEGINNING_LOCK).held():
        yield


def create_or_resume_locked(
    folder: Path, file: StudyFile, space_text: str, latency: Timings | None, sealed: Holdout | None = None
) -> Study:
    """Create or resume a study as `create_or_resume` does; the caller holds `creation_lock`."""
    if not exists(folder, file):
        return create(folder, file, space_text, latency, sealed)
    study = Study.open(folder)
    if file.storage != default_storage(folder):
        _set_password(study, file.storage)
    with study.supervision_lock.held_at_once(study.already_running()):
        _check(study)
        study.set_run(file.run)
    return study


def changed_run(run: RunSettings, changes: Mapping[str, Any], *, elsewhere: bool = False) -> RunSettings:
    """Return run settings with changes; a timeout is not carried over, nor is a change of None applied.

    Args:
        elsewhere: whether the workers will run on other machines, whose cores are not counted here.

    Raises:
        SpecError: an invalid value, or more workers than cores.
    """
    requested = {name: value for name, value in changes.items() if value is not None}
    changed = validated(RunSettings, run.model_dump() | {"timeout": None} | requested)
    if not elsewhere:
        require_cores(changed.device, changed.workers)
    return changed


def _check(study: Study) -> None:
    """Check a study that is resumed, before its workers do."""
    _ = study.space  # refuses one that has changed
    study.remark = identity.verify(study)
    study.optuna_trials()  # refuses a damaged database; the supervisor reads all trials in any case


def exists(folder: Path, file: StudyFile) -> bool:
    """Return whether the study exists.

    Raises:
        StudyError: it exists with other settings.
    """
    if not (folder / STUDY).is_file():
        return False
    advice = f"resume it with: nas resume {folder.name}{runs_option(folder.parent)}\nor name another with: --study"
    require_equal_settings(folder.name, StudyFile.read(folder).settings, file.settings, advice=advice)
    return True


def require_equal_settings(name: str, there: Settings, here: Settings, *, advice: str) -> None:
    """Refuse to continue an existing study with other settings.

    Args:
        advice: last line of the error.

    Raises:
        StudyError: lists the settings that differ.
    """
    differences = there.differences(here)
    if differences:
        lines = "\n".join(f"  {difference}" for difference in differences)
        raise StudyError(f"{name}: a study of that name is there with other settings:\n{lines}\n{advice}")
