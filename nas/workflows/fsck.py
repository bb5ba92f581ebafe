"""Check a study: compare its storage, its files and its runs in MLflow, and those of the studies beside it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.locks import is_held
from nas.records.recommended import finalists
from nas.records.record import Record
from nas.records.record_file import RecordFile
from nas.records.trial_files import TrialFiles
from nas.study import stored_files, stored_trials
from nas.study.cleaning import trials_with_weights
from nas.study.consistency import (
    Finding,
    FoundFiles,
    Repair,
    StoredTrial,
    compare_records,
    compare_stock_training,
    compare_trials,
)
from nas.study.folders import (
    HOLDOUT,
    LATENCY_TABLE,
    MEASURED_LATENCIES,
    RECORDS,
    SPACE,
    STUDY,
    SUPERVISOR_LOCK,
    TRACKING_STATE,
)
from nas.study.shared_consistency import compare_database
from nas.study.storage import OptunaIdentity
from nas.study.stored_study import StoredStudy
from nas.study.study_file import StudyFile
from nas.study.tracking_state import TrackingState
from nas.study.trained_again import trained_again
from nas.study.trial_records import TrialRecords
from nas.tracking.consistency import FoundRun, compare_models, compare_runs
from search_spaces.errors import DataError, NasError, SpecError, StudyError, unwrapped
from search_spaces.files import read_json
from search_spaces.yaml_text import read_yaml
from trials.data import holdout
from trials.scores import Epoch

_BACKUP = "put it back from a copy"

Show = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class StudyCheck:
    """What was read of one study, and what is wrong with it.

    Attributes:
        folder: of the study.
        findings: in the order of the check.
        notes: what was not compared, and why.
        records: of all trials, from the storage.
        runs: in MLflow.
        epochs: of each trial.
    """

    folder: Path
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    records: Mapping[int, Record] = field(default_factory=dict)
    runs: Sequence[FoundRun] = ()
    epochs: Mapping[int, Sequence[Epoch]] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What was compared, in words."""
        return f"{self.folder.name}: {len(self.records)} trials in Optuna, {len(self.runs)} runs in MLflow"


def check(folder: Path, show: Show = lambda _: None) -> list[StudyCheck]:
    """Check a study, and the studies beside it that train its models again. Nothing is written.

    Args:
        folder: of the study.
        show: called with what is being read.
    """
    checks = [check_study(folder, show)]
    try:
        beside = list(dict.fromkeys(trained_again(folder, StudyFile.read(folder).settings)))
    except StudyError as error:
        if not any(finding.address == f"{folder.name}/{STUDY}" for finding in checks[0].findings):
            checks.append(StudyCheck(folder=folder, findings=[_of_study_file(folder, error)]))
        return checks
    return [*checks, *(check_study(each, show) for each in beside)]


def check_study(folder: Path, show: Show = lambda _: None, *, holds_lock: bool = False) -> StudyCheck:
    """Check one study by itself.

    Args:
        folder: of the study.
        show: called with what is being read.
        holds_lock: whether the caller holds the supervisor's lock, so that no supervisor runs.
    """
    try:
        study = StoredStudy.open(folder)
    except StudyError as error:
        return StudyCheck(folder=folder, findings=[_of_study_file(folder, error)])
    show(f"{study.name}: its files")
    findings = [*_settings_files(study), *_caches(study)]
    found = stored_files.read_all(
        folder, lambda done, every: show(f"{study.name}: files of trial {done + 1} of {every}")
    )
    show(f"{study.name}: Optuna's storage")
    try:
        trials, records = _trials(study)
    except NasError as error:
        findings.append(_of_error(folder, error, otherwise=f"{study.name}, its storage"))
        return StudyCheck(folder=folder, findings=findings)
    is_supervised = not holds_lock and is_held(folder / SUPERVISOR_LOCK)
    is_running = is_supervised or bool(stored_trials.machines_at_work(study))
    best = frozenset() if is_running else _with_weights(study, records)
    findings += _storage(study, trials, records, found, with_weights=best, is_running=is_running)
    for files in study.files_of_stock_models().values():
        where = f"{study.name}/{files.folder.relative_to(folder).as_posix()}"
        is_stored = study.shared is not None and study.shared.has_weights(files)
        findings += compare_stock_training(where, stored_files.read(files), is_running=is_running, is_stored=is_stored)
    if is_running:
        place = "" if study.shared is None else " the files in the database,"
        note = f"{study.name} is running: trials without an ending,{place} and MLflow, were not compared"
        return StudyCheck(folder=folder, findings=findings, notes=[note], records=records)
    in_database = list(compare_database(study, trials, found, with_weights=best))
    stored = {finding.address for finding in in_database if finding.repair is Repair.FETCH}
    findings = [finding for finding in findings if finding.repair or finding.address not in stored] + in_database
    findings += [
        _leftover(study, name) for name in (*stored_files.temporary_files(folder), *stored_files.uploads(folder))
    ]
    if tracker := stored_trials.tracking_machine(study):
        note = f"{study.name}: its runs in MLflow are compared on {tracker}, which writes them"
        return StudyCheck(folder=folder, findings=findings, notes=[note], records=records)
    show(f"{study.name}: its runs in MLflow")
    epochs = {number: TrialFiles.of(folder, number).read_epochs() for number in found}
    runs, of_runs = _runs(study, records, epochs)
    findings += [*_tracking_state(study, trials), *of_runs]
    return StudyCheck(folder=folder, findings=findings, records=records, runs=runs, epochs=epochs)


def _of_error(folder: Path, error: Exception, *, otherwise: str, advice: str = "") -> Finding:
    """Return an error that begins with the path of a file of a study as a finding.

    Args:
        folder: of the study.
        otherwise: address, if it begins with no such path.
        advice: if the error has none.
    """
    place, _, problem = unwrapped(error).partition(": ")
    runs = str(folder.parent)
    is_file = place.startswith(f"{runs}/") and place != str(folder)
    address = place.removeprefix(f"{runs}/") if is_file else otherwise
    return Finding(address=address, problem=problem if place.startswith(runs) else unwrapped(error), advice=advice)


def _of_study_file(folder: Path, error: StudyError) -> Finding:
    """Return the finding of a `study.json` that cannot be read, of a study or of one beside it."""
    return _of_error(folder, error, otherwise=f"{folder.name}/{STUDY}", advice=_BACKUP)


def _leftover(study: StoredStudy, name: str) -> Finding:
    kind = "folder" if (study.folder / name).is_dir() else "file"
    problem = f"a temporary {kind} that a killed process left"
    return Finding(address=f"{study.name}/{name}", problem=problem, repair=Repair.DELETE_TEMPORARY)


def _settings_files(study: StoredStudy) -> Iterator[Finding]:
    """Find what is wrong with the files that decide what the study is: they stand nowhere else."""
    settings, folder = study.settings, study.folder
    try:
        space = read_yaml(folder / SPACE)
    except (SpecError, RecursionError) as error:
        yield _of_error(folder, error, otherwise=f"{study.name}/{SPACE}", advice=_BACKUP)
    else:
        modules = space.get("modules")
        for module in modules if isinstance(modules, list) else []:
            if isinstance(module, str) and not (folder / module).is_file():
                yield Finding(address=f"{study.name}/{module}", problem="missing", advice=_BACKUP)
    if settings.holdout is not None:
        try:
            sealed = holdout.read(folder / HOLDOUT)
        except DataError as error:
            yield _of_error(folder, error, otherwise=f"{study.name}/{HOLDOUT}")
        else:
            if (sealed.fingerprint, len(sealed.images)) != (settings.holdout.fingerprint, settings.holdout.images):
                problem = f"lists other images than those of {STUDY}"
                yield Finding(address=f"{study.name}/{HOLDOUT}", problem=problem, advice=_BACKUP)
    if settings.latency is not None and not (folder / LATENCY_TABLE).is_file():
        yield Finding(address=f"{study.name}/{LATENCY_TABLE}", problem="missing", advice=_BACKUP)


def _caches(study: StoredStudy) -> Iterator[Finding]:
    """Find damaged files of which the loss is small: what they hold is measured or sent again."""
    measured = study.folder / MEASURED_LATENCIES
    if measured.is_file() and not isinstance(read_json(measured), dict):
        yield Finding(address=f"{study.name}/{MEASURED_LATENCIES}", problem="damaged", repair=Repair.RENAME_MEASURED)


def _tracking_state(study: StoredStudy, trials: Sequence[StoredTrial]) -> Iterator[Finding]:
    address = f"{study.name}/{TRACKING_STATE}"
    state = TrackingState.read(study.folder)
    identity = study.file.identity
    has_begun = any(trial.state != "waiting" for trial in trials)
    if state is None:
        is_there = (study.folder / TRACKING_STATE).exists()
        if is_there or has_begun:
            yield Finding(address=address, problem="damaged" if is_there else "missing", repair=Repair.SYNC)
        return
    if identity is not None and identity.study_id and state.study_id not in {identity.study_id, identity.was}:
        yield Finding(address=address, problem=f"is of another study than {STUDY}", repair=Repair.SYNC)
    strangers = set(state.finished) - {trial.number for trial in trials if trial.state == "complete"}
    if strangers:
        listed = ", ".join(map(str, sorted(strangers)))
        yield Finding(address=address, problem=f"lists trial {listed} as finished, which is not", repair=Repair.SYNC)


def _trials(study: StoredStudy) -> tuple[list[StoredTrial], dict[int, Record]]:
    """Return all trials and their records, from the storage alone.

    Raises:
        NasError: it cannot be opened, is damaged, or is another study's.
    """
    if study.database is not None and (problem := stored_trials.database_problem(study.database)):
        raise StudyError(f"{study.database}: damaged: {problem} ({_BACKUP})")
    identity, owner = study.file.identity, OptunaIdentity(study.storage, study.file)
    accepted = {identity.study_id, identity.was} - {""} if identity else set()
    if owner.study_id and accepted and owner.study_id not in accepted:
        raise StudyError(f"{study.database}: holds the trials of another study ({_BACKUP})")
    without_file = RecordFile(study.folder / f"{RECORDS}.none")
    records = TrialRecords(study.file.name, study.storage, lambda: study.space, without_file).read()
    return stored_trials.stored_trials(study), records


def _with_weights(study: StoredStudy, records: Mapping[int, Record]) -> frozenset[int]:
    """Return the trials whose weights must be there; none where the means over seeds move the front."""
    if study.settings.confirms is not None or study.settings.seeds != 1:
        return frozenset()
    return frozenset(trials_with_weights([records[number] for number in sorted(records)], study.settings.objectives))


def _storage(
    study: StoredStudy,
    trials: Sequence[StoredTrial],
    records: Mapping[int, Record],
    found: Mapping[int, FoundFiles],
    *,
    with_weights: frozenset[int],
    is_running: bool,
) -> Iterator[Finding]:
    """Compare the storage with the files."""
    yield from compare_trials(
        study.name,
        trials,
        found,
        expected_values=stored_trials.expected_values(trials, study.settings),
        with_weights=with_weights,
        is_running=is_running,
    )
    yield from compare_records(study.name, records, study.record_file.read())


def _runs(
    study: StoredStudy, records: Mapping[int, Record], epochs: Mapping[int, Sequence[Epoch]]
) -> tuple[list[FoundRun], list[Finding]]:
    """Return the study's runs in MLflow, and what is wrong with them."""
    from nas.tracking.stored_runs import StoredRuns  # noqa: PLC0415 - MLflow takes seconds to import

    state = TrackingState.read(study.folder)
    identity = study.file.identity
    study_id = (identity.study_id if identity else "") or (state.study_id if state else "")
    in_order = [records[number] for number in sorted(records)]
    try:
        stored = StoredRuns(study.tracking, f"nas/{study.settings.space}", study_id)
        runs = stored.read() if study_id else []
        wanted = _with_models(study, in_order, state) if runs else set()
        models = stored.read_models() if wanted else []
    except NasError as error:
        problem = f"was not compared: {unwrapped(error)}"
        return [], [Finding(address=f"{study.name} in MLflow", problem=problem)]
    found = list(compare_runs(study.name, in_order, runs, epochs, study.settings.data_fingerprint))
    return runs, [*found, *compare_models(study.name, wanted, models)]


def _with_models(study: StoredStudy, records: Sequence[Record], state: TrackingState | None) -> set[int]:
    """Return the trials whose models MLflow should have: of a search that has finished, recommended ones."""
    if state is None or state.status != "FINISHED" or study.settings.confirms is not None:
        return set()
    front = study.front([record for record in records if record.state == "complete"])
    chosen = finalists(front, study.settings.objectives, (), records)
    return {record.trial for record in chosen if study.files(record.trial).has_model}
