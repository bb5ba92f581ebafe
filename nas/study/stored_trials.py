"""Read Optuna's trials of a study as values, and check the file that holds them."""

import socket
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from nas.records.trial_attributes import ENDING, HOST, MACHINE
from nas.settings import Settings
from nas.study.consistency import StoredTrial
from nas.study.machines import TRACKING, Machine
from nas.study.storage import reading, study_id, unreadable
from nas.study.stored_study import StoredStudy


def stored_trials(study: StoredStudy) -> list[StoredTrial]:
    """Return all trials of a study, in order.

    Raises:
        StudyError: its storage is missing, damaged, or another study's.
        EnvironmentProblem: it cannot be opened.
    """
    number = study_id(study.storage, study.file.name)
    trials = study.storage.get_all_trials(number, deepcopy=False)
    working = {machine.id for machine in _others_at_work(study)}
    return [_stored(trial, study, working) for trial in sorted(trials, key=lambda trial: trial.number)]


def _stored(trial: FrozenTrial, study: StoredStudy, working: Collection[str]) -> StoredTrial:
    is_elsewhere = _is_elsewhere(trial, study)
    runs_nowhere = study.shared is not None and trial.user_attrs.get(MACHINE) not in working
    return StoredTrial(
        number=trial.number,
        state=trial.state.name.lower(),
        values=None if trial.values is None else tuple(trial.values),
        attributes=trial.user_attrs,
        is_elsewhere=is_elsewhere,
        is_abandoned=is_elsewhere and runs_nowhere and trial.state == TrialState.RUNNING,
    )


def _is_elsewhere(trial: FrozenTrial, study: StoredStudy) -> bool:
    """Return whether a trial is, or was, another machine's, by identity or else by host name."""
    if study.shared is not None and MACHINE in trial.user_attrs:
        return bool(trial.user_attrs[MACHINE] != study.shared.machines.id)
    here = socket.gethostname()
    return study.database is None and trial.user_attrs.get(HOST, here) != here


def machines_at_work(study: StoredStudy) -> list[str]:
    """Return the names of the other machines that work on a study, or may be."""
    return [machine.host for machine in _others_at_work(study)]


def _others_at_work(study: StoredStudy) -> list[Machine]:
    if study.shared is None:
        return []
    machines = study.shared.machines
    others = [machine for machine in machines.all() if machine.id != machines.id and not machine.ended]
    return [machine for machine in others if machine.silent < machines.grace]


def tracking_machine(study: StoredStudy) -> str:
    """Return the name of the other machine that writes a shared study to MLflow; empty if none does."""
    return "" if study.shared is None else study.shared.machines.other_holder(TRACKING)


def expected_values(trials: Sequence[StoredTrial], settings: Settings) -> dict[int, tuple[float, ...]]:
    """Return what the values of the complete trials must be by their attributes, where these are complete."""
    return {
        trial.number: tuple(settings.objective_values(trial.attributes))
        for trial in trials
        if trial.state == "complete" and _has_figures(trial.attributes, settings)
    }


def _has_figures(attributes: Mapping[str, object], settings: Settings) -> bool:
    names = settings.objectives if settings.reward is None else ("map50_95", *settings.targets)
    return ENDING in attributes and all(isinstance(attributes.get(name), int | float) for name in names)


def database_problem(path: Path) -> str:
    """Return what SQLite finds damaged in a file of a storage; empty if it finds nothing, or there is no such file.

    Raises:
        EnvironmentProblem: it cannot be read, such as on a full disk.
    """
    if not path.is_file():
        return ""
    try:
        with closing(reading(path)) as database:
            rows = database.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        if problem := unreadable(error, path):
            raise problem from None
        return str(error)
    return "" if rows == [("ok",)] else str(rows[0][0])
