"""Join a study that another machine has begun: make a folder of it from what its storage holds, checked."""

from pathlib import Path
from typing import Any

from nas import addresses
from nas.locks import Lock
from nas.paths import RUNS
from nas.settings import RunSettings
from nas.study.conditions import conditions_here, differences
from nas.study.fetching import joined_file, write_joined
from nas.study.folders import HOLDOUT, STUDY, make_folder, study_folder
from nas.study.named_addresses import remember, require_named
from nas.study.shared_definition import Definition, write_definition
from nas.study.shared_files import SharedFiles
from nas.study.storage import open_storage
from nas.study.storage_retries import RetryingStorage, place_of
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.begin import BEGINNING_LOCK, changed_run
from nas.workflows.request import Request
from search_spaces import cache_folder
from search_spaces.errors import SpecError, StudyError, nearest
from search_spaces.operators import modules as user_modules
from search_spaces.operators.record import Source
from trials.data import datasets
from trials.data.datasets import DIGITS
from trials.devices import CPU


def join(
    name: str,
    *,
    storage: str | None = None,
    runs: str | Path = RUNS,
    data: str | Path | None = None,
    anyway: bool = False,
    trust: bool = False,
    patient: bool = False,
    **changes: Any,
) -> Study:
    """Return a study whose trials this machine trains together with others; without a folder of it, one is made.

    Args:
        storage: address of the PostgreSQL database; None for that in `NAS_STORAGE`, or of the folder here.
        data: path of the data set on this machine; None if it is the same as where the study was begun.
        anyway: join although versions of Python, PyTorch or Ultralytics differ.
        trust: run the users' operator files of the study.
        patient: wait for a database that does not answer, as is done where this machine has joined before; else that
            is an error, for the address may be wrong.
        changes: to the run on this machine: workers, device, timeout or trial_memory.

    Raises:
        SpecError: no address, or one of another database than PostgreSQL; operator files that are not trusted; devices
            other than the study's; more workers than cores.
        EnvironmentProblem: the database cannot be opened, or the folder cannot be written to.
        DataError: the data set cannot be trained on.
        StudyError: the database does not have the study, or code, versions or data set differ from the study's.
    """
    folder = study_folder(name, Path(runs))
    address = _address(folder, storage)
    remember(address, addresses.STORAGE, folder)
    opened = open_storage(address, patient=patient or (folder / STUDY).is_file())
    make_folder(folder.parent)
    with Lock(folder.parent / BEGINNING_LOCK).held():
        files = SharedFiles(opened, _number_of(name, opened))
        definition = Definition.read(files, name, addresses.without_password(address))
        _require_equal_conditions(name, definition, anyway=anyway)
        _require_trust(name, folder, definition, trust=trust)
        run = _run_here(definition, changes)
        if not (folder / STUDY).is_file():
            make_folder(folder)
            write_definition(folder, files)
            _write_file(folder, definition.file, address, data, opened)
        study = Study.open(folder)
        study.file = study.file.model_copy(update={"storage": address})
        _require_equal_data(study, data)
    with study.supervision_lock.held_at_once(_in_use(study)):
        study.read_number_of_trials()
        study.set_run(run.model_copy(update={"trials": study.file.run.trials}))
    return study


def _address(folder: Path, given: str | None) -> str:
    """Return the address of the database.

    Raises:
        SpecError: there is none, or it is not PostgreSQL.
        StudyError: it stands only in the folder here, and the user has not named it.
    """
    here = StudyFile.read(folder).storage if (folder / STUDY).is_file() else None
    address = given or addresses.storage_given() or here
    if not address:
        raise SpecError(
            f"storage: where are the trials of {folder.name}? Give the database's address, such as "
            "--storage postgresql://me@host/name"
        )
    if not addresses.is_postgresql(addresses.require_storage(address)):
        raise SpecError(
            f"storage: several machines share a PostgreSQL database, got {addresses.redact(address)!r} "
            "(such as postgresql://me@host/name)"
        )
    if here is not None and addresses.without_password(here) != addresses.without_password(address):
        raise SpecError(
            f"storage: {folder} is a study whose trials are in {addresses.without_password(here)}, got "
            f"{addresses.without_password(address)!r} (choose another --runs)"
        )
    if not given:
        require_named(address, addresses.STORAGE, folder)
    return address


def _number_of(name: str, storage: RetryingStorage) -> int:
    """Return Optuna's number of a study.

    Raises:
        StudyError: the database does not have it; it names those that it has.
    """
    numbers = {study.study_name: study._study_id for study in storage.get_all_studies()}  # noqa: SLF001 - Optuna's API lacks it
    if name not in numbers:
        advice = nearest(name, numbers) if numbers else "begin it: nas search --study NAME --storage ADDRESS"
        raise StudyError(f"{place_of(storage.url)}: the database has no study {name!r} ({advice})")
    return numbers[name]


def _require_equal_conditions(name: str, definition: Definition, *, anyway: bool) -> None:
    """Refuse to train with other code or versions than the study's other machines.

    Raises:
        StudyError: lists both values of what differs.
    """
    different = differences(definition.conditions, conditions_here(), versions_may_differ=anyway)
    if different:
        lines = "\n".join(f"  {line}" for line in different)
        is_of_code = bool(differences(definition.conditions, conditions_here(), versions_may_differ=True))
        install = "install the same nas, with the same source files, on all machines"
        advice = install if is_of_code else "--anyway joins although versions of other packages than nas differ"
        raise StudyError(f"{name}: scores of this machine would not compare with the others':\n{lines}\n{advice}")


def _require_trust(name: str, folder: Path, definition: Definition, *, trust: bool) -> None:
    """Refuse to run Python files from the database that this user has not seen.

    Raises:
        SpecError: names them.
    """
    sources = [Source(path=folder / path, text=text) for path, text in definition.modules.items()]
    unknown = [source for source in sources if not user_modules.is_trusted(source)]
    if unknown and not trust:
        files = ", ".join(source.file_name for source in unknown)
        raise SpecError(f"{name}: its space uses operators of {files}, Python code from the database (run it: --trust)")
    for source in unknown:
        user_modules.trust(source)


def _run_here(definition: Definition, changes: dict[str, Any]) -> RunSettings:
    """Return the run settings of this machine.

    Raises:
        SpecError: a device of another kind than the study's trainings, or more workers than cores.
    """
    trained_on = definition.file.settings.budget.device
    device = changes.get("device") or (CPU if trained_on == CPU else None)
    if device is not None and (device == CPU) != (trained_on == CPU):
        kind = "the CPU" if trained_on == CPU else "GPUs"
        raise SpecError(f"device: the study's trainings run on {kind}, got {device!r}")
    device, workers = Request(device=device, workers=changes.get("workers")).devices()
    here = {"device": device, "workers": workers, "cache": definition.file.run.cache}
    others = {name: changes.get(name) for name in ("timeout", "trial_memory")}
    return changed_run(RunSettings(trials=definition.file.run.trials), {**here, **others})


def _write_file(
    folder: Path, there: StudyFile, address: str, data: str | Path | None, storage: RetryingStorage
) -> None:
    """Write the `study.json` of this machine.

    Raises:
        DataError: the data set cannot be trained on.
        StudyError: it is another one than the study's.
    """
    is_built_in = there.settings.data == DIGITS
    path = None if is_built_in or data is None else datasets.find(data).absolute()
    file = joined_file(folder, there, address, path)
    _compare_data(folder, file, is_given=data is not None)
    if addresses.given(addresses.TRACKING) == file.tracking:
        remember(file.tracking, addresses.TRACKING, folder)
    write_joined(folder, file, storage)


def _require_equal_data(study: Study, data: str | Path | None) -> None:
    """Refuse a data set that has changed on this machine, or another place than that of an earlier call.

    Raises:
        SpecError: the folder was made with another place of the data.
        DataError, StudyError: as for `_compare_data`.
    """
    if data is not None and study.settings.data != DIGITS:
        path = datasets.find(data).absolute()
        if Path(study.settings.data) != path:
            raise SpecError(
                f"data: {study.folder} was made with {study.settings.data}, got {str(data)!r} (choose another --runs, "
                "or leave --data out)"
            )
    _ = study.space  # refuses one that has changed
    _compare_data(study.folder, study.file, is_given=data is not None)


def _compare_data(folder: Path, file: StudyFile, *, is_given: bool) -> None:
    """Refuse another data set than the study's.

    Raises:
        DataError: it cannot be trained on.
        StudyError: it differs.
    """
    cache_folder.require_writable()
    settings = file.settings
    found = datasets.load_for(settings.data, folder / HOLDOUT if settings.holdout else None, settings.subset)
    if found.fingerprint != settings.data_fingerprint:
        place = "" if is_given else "; where it lies on this machine is given with --data"
        raise StudyError(
            f"{found.path}: another data set than that of {file.name}: fingerprint {settings.data_fingerprint} in the "
            f"study, {found.fingerprint} here ({found.train_images} images to train on, {found.val_images} to validate "
            f"on{place})"
        )


def _in_use(study: Study) -> StudyError:
    return StudyError(
        f"{study.folder}: another process works on {study.name} in this folder; a second one on this machine needs a "
        "folder of its own: --runs FOLDER"
    )
