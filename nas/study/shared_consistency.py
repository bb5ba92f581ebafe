"""Compare the files of a study in a database that machines share with its trials, and with the files of this machine.

What the database has of a training must be what the training's machine has: other machines read it there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nas.records.trial_attributes import FINGERPRINT, HOST, RETRY_OF
from nas.records.trial_files import TrialFiles
from nas.study import stored_files
from nas.study.consistency import FileState, Finding, FoundFiles, Repair, StoredTrial, differing_fields
from nas.study.shared_study import SMALL
from nas.study.stored_study import StoredStudy
from search_spaces.files import digest
from trials.file_names import CHECKPOINT, MODEL, WEIGHTS
from trials.scores import Ending

_OUTCOME, _PROGRESS = "outcome.json", "progress.jsonl"


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Content of the database: the SHA-256 of each file by path, and the paths of files whose content is another."""

    digests: Mapping[str, str]
    damaged: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Training that has ended, of a trial or a stock model.

    Attributes:
        place: its folder in the study's, such as `trials/0007`.
        digests: SHA-256 of its files on this machine, by name.
        damaged: names of those that are not what the storage says of the training.
        is_ours: whether this machine has trained it, so that its files count; else those in the database do, and are
            fetched when they are needed.
        number: of the trial; None for a stock model.
        has_weights: whether its weights must be there.
    """

    place: str
    digests: Mapping[str, str]
    damaged: frozenset[str]
    is_ours: bool
    number: int | None
    has_weights: bool


def compare_database(
    study: StoredStudy,
    trials: Sequence[StoredTrial],
    found: Mapping[int, FoundFiles],
    *,
    with_weights: frozenset[int],
) -> Iterator[Finding]:
    """Yield what is wrong with the files in the database of a study on which no machine works; nothing without one.

    Args:
        study: of this machine.
        trials: all of the study's.
        found: files of trials on this machine.
        with_weights: trials whose weights must be there.
    """
    if study.shared is None:
        return
    files = study.shared.files
    stored = _Stored(
        digests={one.path: one.sha256 for one in files.listing()},
        damaged=frozenset(files.damaged()),
    )
    yield from _left_running(study.name, trials)
    yield from _checkpoints(study, trials, stored)
    for training in _trainings(study, trials, found, with_weights):
        for name in (*SMALL, WEIGHTS):
            yield from _file(study.name, training, name, stored)
    yield from _lost(study.name, trials, stored)


def _left_running(study: str, trials: Sequence[StoredTrial]) -> Iterator[Finding]:
    """Find the trials that a machine has left running."""
    for trial in trials:
        if trial.is_abandoned:
            host = trial.attributes.get(HOST, "")
            problem = f"RUNNING in Optuna, but its machine {host} works no more"
            address = f"{study}/trials/{trial.number:04d}"
            yield Finding(address=address, problem=problem, repair=Repair.RECOVER_LOST, trial=trial.number)


def _checkpoints(study: StoredStudy, trials: Sequence[StoredTrial], stored: _Stored) -> Iterator[Finding]:
    """Find checkpoints of which no training goes on: it has ended, or the trial that retries it has."""
    retries = {trial.attributes[RETRY_OF]: trial for trial in trials if RETRY_OF in trial.attributes}
    ended = [files.folder for files in study.files_of_stock_models().values() if files.read_outcome() is not None]
    for trial in trials:
        last = trial
        while last.number in retries:
            last = retries[last.number]
        if last.ending is not None:
            ended.append(study.files(trial.number).folder)
    for folder in ended:
        path = (folder / CHECKPOINT).relative_to(study.folder).as_posix()
        if path in stored.digests:
            problem = "in the database, and its training has ended"
            yield Finding(address=f"{study.name}/{path}", problem=problem, repair=Repair.DELETE_STORED)


def _trainings(
    study: StoredStudy, trials: Sequence[StoredTrial], found: Mapping[int, FoundFiles], with_weights: frozenset[int]
) -> Iterator[_Training]:
    """Yield the trainings that have ended with an outcome that is whole on this machine."""
    for trial in trials:
        here = found.get(trial.number, FoundFiles())
        if trial.ending is not None and here.outcome is not None:
            yield _Training(
                place=f"trials/{trial.number:04d}",
                digests=_digests(study.files(trial.number)),
                damaged=frozenset(_damaged(trial, here)),
                is_ours=not trial.is_elsewhere,
                number=trial.number,
                has_weights=trial.number in with_weights,
            )
    for files in study.files_of_stock_models().values():
        here = stored_files.read(files)
        if here.outcome is not None and here.outcome["ending"] == Ending.FINISHED:
            yield _Training(
                place=files.folder.relative_to(study.folder).as_posix(),
                digests=_digests(files),
                damaged=frozenset() if here.weights is FileState.WHOLE else frozenset({WEIGHTS}),
                is_ours=False,  # all machines have the one that was stored first
                number=None,
                has_weights=True,
            )


def _digests(files: TrialFiles) -> dict[str, str]:
    names = [name for name in (*SMALL, WEIGHTS) if (files.folder / name).is_file()]
    return {name: digest(files.folder / name) for name in names}


def _damaged(trial: StoredTrial, here: FoundFiles) -> Iterator[str]:
    """Yield the names of the files that are not what the storage says of a trial, or are not whole."""
    if here.outcome is None or differing_fields(trial.attributes, here.outcome):
        yield _OUTCOME
    if here.model_state is not FileState.WHOLE or here.fingerprint != trial.attributes.get(FINGERPRINT):
        yield MODEL
    if here.epochs != trial.attributes.get("epochs"):
        yield _PROGRESS
    if here.weights is not FileState.WHOLE:
        yield WEIGHTS


def _file(study: str, training: _Training, name: str, stored: _Stored) -> Iterator[Finding]:
    """Compare a file of a training with its copy in the database."""
    path = f"{training.place}/{name}"
    here, there = training.digests.get(name), stored.digests.get(path)
    is_whole = here is not None and name not in training.damaged
    is_needed = training.is_ours and (training.has_weights if name == WEIGHTS else name not in {_OUTCOME, MODEL})
    problem, repair, advice = "", Repair.NONE, ""
    if path in stored.damaged:
        problem, repair = "damaged in the database", Repair.PUBLISH if is_whole else Repair.NONE
        advice = "nas fsck --repair on the machine that has trained it stores it again"
    elif there is None:
        if is_whole and (name != WEIGHTS or training.has_weights):
            problem, repair = "not in the database", Repair.PUBLISH
    elif here is None:
        if is_needed:
            problem, repair = "in the database, and not here", Repair.FETCH
    elif here != there and (is_whole or name not in {_OUTCOME, MODEL}):  # these are written from Optuna's storage first
        repair = Repair.PUBLISH if is_whole and training.is_ours else Repair.FETCH
        problem = "another one in the database"
    if problem:
        yield Finding(address=f"{study}/{path}", problem=problem, repair=repair, advice=advice, trial=training.number)


def _lost(study: str, trials: Sequence[StoredTrial], stored: _Stored) -> Iterator[Finding]:
    """Find outcomes of other machines that the database lacks, and files of trials that Optuna lacks."""
    numbers = {trial.number for trial in trials}
    for trial in trials:
        path = f"trials/{trial.number:04d}/{_OUTCOME}"
        if trial.is_elsewhere and trial.ending == Ending.FINISHED and path not in stored.digests:
            host = trial.attributes.get(HOST, "")
            advice = f"nas fsck --repair on {host}, which has trained it, stores it"
            yield Finding(address=f"{study}/{path}", problem="not in the database", advice=advice, trial=trial.number)
    for path in stored.digests:
        folder, _, rest = path.partition("/")
        number = rest.partition("/")[0]
        if folder == "trials" and number.isdecimal() and int(number) not in numbers:
            advice = "nothing reads it"
            yield Finding(address=f"{study}/{path}", problem="in the database; Optuna has no such trial", advice=advice)
