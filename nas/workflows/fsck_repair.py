"""Repair what the check of a study has found, where nothing is lost by it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from nas.execution import lost_trials, recovery
from nas.execution.lost_machines import recover_lost
from nas.records.stored_outcome import StoredOutcome
from nas.records.trial_attributes import FINGERPRINT
from nas.study import identity, stored_trials
from nas.study.cleaning import delete
from nas.study.consistency import Finding, Repair, outcome_of
from nas.study.folders import MEASURED_LATENCIES, existing
from nas.study.links import require_no_links_out
from nas.study.study import Study
from nas.study.tracking_state import TrackingState
from nas.workflows.fsck import Show, StudyCheck, check, check_study
from nas.workflows.running import send_missing
from search_spaces.errors import StudyError
from search_spaces.files import write_atomically

_OUTCOME_FIELDS = tuple(field.name for field in fields(StoredOutcome))
_ORPHANS = "orphans"
"""Folder of a study to which folders of trials are moved that its storage does not have."""
_OF_DATABASE = frozenset({Repair.PUBLISH, Repair.FETCH, Repair.DELETE_STORED})
_OF_MLFLOW = frozenset({Repair.SYNC, Repair.DROP_RUN, Repair.REWRITE_RUN})


def repair(folder: Path, checks: Sequence[StudyCheck], show: Show = lambda _: None) -> list[StudyCheck]:
    """Repair what checks of a study have found, and check again.

    Args:
        folder: of the study that was checked.
        checks: of it and of the studies beside it.
        show: called with what is being done.

    Returns:
        What the second check has found.

    Raises:
        StudyError: a process runs one of the studies, or a link leads out of its folder.
        EnvironmentProblem: MLflow cannot be used, or a disk is full.
    """
    for each in checks:
        if any(finding.repair for finding in each.findings):
            _repair(each.folder, show)
    return check(folder, show)


def _repair(folder: Path, show: Show) -> None:
    """Repair one study, by checks that are made under its lock: it may have run meanwhile."""
    study = Study.open(existing(folder.name, folder.parent))
    running = StudyError(f"{study.name} is running in another process: stop it first; without --repair it is only read")
    with study.supervision_lock.held_at_once(running):
        require_no_links_out(study.folder)
        identity.verify(study)
        show(f"{study.name}: repairing")
        for finding in check_study(folder, show, holds_lock=True).findings:
            _REPAIRS[finding.repair](study, finding)
        recovery.recover(study)
        if study.shared is not None and any(trial.is_abandoned for trial in stored_trials.stored_trials(study)):
            recover_lost(study, study.shared.machines.at_rest())
        study.records()
        study.save_records()
        checked = check_study(folder, show, holds_lock=True)
        for finding in checked.findings:
            _repair_database(study, finding)
        if any(finding.repair in _OF_MLFLOW for finding in checked.findings):
            show(f"{study.name}: sending to MLflow")
            _repair_mlflow(study, checked)


def _delete(study: Study, finding: Finding) -> None:
    delete(study.folder.parent / finding.address)


def _write_outcome(study: Study, finding: Finding) -> None:
    """Write `outcome.json` from the trial's attributes; another one stays under another name."""
    path = study.files(_number(finding)).outcome
    if path.exists():
        path.replace(_free(path.with_name(f"{path.name}.differs")))
    attributes = study.optuna_trials()[_number(finding)].user_attrs
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(outcome_of(attributes, _OUTCOME_FIELDS), indent=1))


def _write_model(study: Study, finding: Finding) -> None:
    """Write `model.yaml` as the trial's training did."""
    files = study.files(_number(finding))
    trial = study.optuna_trials()[_number(finding)]
    architecture = study.space.architecture(trial.system_attrs.get("fixed_params") or trial.params)
    if architecture.fingerprint != trial.user_attrs.get(FINGERPRINT):
        raise StudyError(f"{files.model}: the parameters of the trial are another architecture's; nothing was written")
    files.folder.mkdir(parents=True, exist_ok=True)
    settings = study.settings
    text = architecture.to_yaml(len(settings.classes), folder=files.folder, pgi=settings.budget.recipe.pgi)
    write_atomically(files.model, text)


def _take_over(study: Study, finding: Finding) -> None:
    """End a trial that waits in Optuna with the outcome in its folder; a running one is recovered by `recover`."""
    lost_trials.end_waiting(study, _number(finding))


def _add_trial(study: Study, finding: Finding) -> None:
    lost_trials.add(study, _number(finding))


def _move_aside(study: Study, finding: Finding) -> None:
    folder = study.files(_number(finding)).folder
    target = _free(study.folder / _ORPHANS / folder.name)
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)


def _rebuild_records(study: Study, _: Finding) -> None:
    study.record_file.delete()


def _rename_measured(study: Study, _: Finding) -> None:
    path = study.folder / MEASURED_LATENCIES
    path.replace(_free(path.with_name(f"{path.name}.damaged")))


def _nothing(_study: Study, _finding: Finding) -> None:
    """Leave it to `recover`, `recover_lost`, `_repair_database` or `_repair_mlflow`, or to the user."""


_REPAIRS: dict[Repair, Callable[[Study, Finding], None]] = {
    Repair.NONE: _nothing,
    Repair.TAKE_OVER: _take_over,
    Repair.INTERRUPT: _nothing,
    Repair.ENQUEUE: _nothing,
    Repair.WRITE_OUTCOME: _write_outcome,
    Repair.REPLACE_OUTCOME: _write_outcome,
    Repair.WRITE_MODEL: _write_model,
    Repair.DELETE_CHECKPOINT: _delete,
    Repair.ADD_TRIAL: _add_trial,
    Repair.MOVE_ASIDE: _move_aside,
    Repair.DELETE_TEMPORARY: _delete,
    Repair.REBUILD_RECORDS: _rebuild_records,
    Repair.RENAME_MEASURED: _rename_measured,
    Repair.RECOVER_LOST: _nothing,
    **dict.fromkeys((*_OF_DATABASE, *_OF_MLFLOW), _nothing),
}
"""By what a finding needs; running and interrupted trials are ended and enqueued by `recover`, as in `nas resume`."""


def _repair_database(study: Study, finding: Finding) -> None:
    """Make a file in the database that of its training, after the files on this machine were repaired."""
    shared, file = study.shared, study.folder.parent / finding.address
    if shared is None:
        return
    match finding.repair:
        case Repair.PUBLISH:
            shared.publish_file(file)
        case Repair.FETCH:
            shared.fetch(file, anew=True)
        case Repair.DELETE_STORED:
            shared.delete(file)


def _number(finding: Finding) -> int:
    if finding.trial is None:
        raise ValueError(f"{finding.address}: is not about a trial")
    return finding.trial


def _free(path: Path) -> Path:
    """Return the path, with a number if something is there."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _repair_mlflow(study: Study, checked: StudyCheck) -> None:
    """Drop runs that are no trial's, correct those that differ, and send what is missing.

    Raises:
        EnvironmentProblem: MLflow cannot be used.
    """
    from nas.tracking.stored_runs import StoredRuns  # noqa: PLC0415 - MLflow takes seconds to import

    records = study.records()
    by_number = {record.trial: record for record in records}
    state = TrackingState.of(study.folder)
    complete = tuple(
        number for number in state.finished if number in by_number and by_number[number].state == "complete"
    )
    replace(state, finished=complete).write(study.folder)
    runs = StoredRuns(study.tracking, f"nas/{study.settings.space}", state.study_id)
    found = {run.id: run for run in checked.runs}
    for finding in checked.findings:
        if finding.repair is Repair.DROP_RUN:
            runs.drop(finding.run)
    for run_id, number in {f.run: f.trial for f in checked.findings if f.repair is Repair.REWRITE_RUN}.items():
        if number is not None:
            runs.rewrite(found[run_id], by_number[number], checked.epochs.get(number, ()))
    send_missing(study, records)
