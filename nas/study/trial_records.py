"""Optuna's trials as records."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial
from sqlalchemy import text

from nas.records.record import MEMBER, Record
from nas.records.record_file import RecordFile
from nas.records.trial_attributes import ARCHITECTURE, DETAIL, FINGERPRINT, REPEAT, ROLE
from nas.study.fast_storage import FastStorage
from nas.study.storage import study_id
from nas.study.storage_retries import ADVICE, call_with_backoff, place_of
from search_spaces.errors import StudyError

if TYPE_CHECKING:
    from search_spaces import Architecture, Space

_ATTRIBUTES_OF_RUNNING = (FINGERPRINT, ROLE, DETAIL, REPEAT)

_TRIALS = text(
    "SELECT trial_id, number, state FROM trials WHERE study_id = :study AND number >= :first ORDER BY number"
)

_UNENDED = ("RUNNING", "WAITING")
_ONE_BY_ONE = 100
"""Up to so many trials are read one by one, which is faster than to read all of a long study."""


class TrialRecords:
    """Trials of a study as records: ended ones from a file, the others from the storage.

    Args:
        name: of Optuna's study.
        space: returns the study's space; called for a trial of an older version that is not in the file.
    """

    def __init__(self, name: str, storage: FastStorage, space: "Callable[[], Space]", file: RecordFile) -> None:
        self._name, self._storage, self._space, self._file = name, storage, space, file
        self._unended: dict[int, tuple[str, Record]] = {}
        self._first = 0

    def read(self) -> dict[int, Record]:
        """Return all records by trial number.

        Those of ended trials, and of unended ones whose architecture was read in the state that they have, are not read
        again.
        """
        states = self._states_not_in_file()
        self._unended = {
            number: (state, record)
            for number, (state, record) in self._unended.items()
            if number in states and states[number][1] == state in _UNENDED and record.fingerprint
        }
        missing = [trial for number, (trial, _) in states.items() if number not in self._unended]
        for trial in self._trials(missing):
            record, state = _record(trial, self._space), trial.state
            if state.is_finished() and DETAIL in trial.user_attrs:
                self._ended[trial.number] = record
                self._unended.pop(trial.number, None)
            else:
                self._unended[trial.number] = state.name, record
        return self._ended | {number: record for number, (_, record) in self._unended.items()}

    def save(self) -> None:
        """Append the ended trials that have been read to the file."""
        self._file.append(self._ended)

    @cached_property
    def _ended(self) -> dict[int, Record]:
        ended = self._file.read()
        stored = {number for _, number, _ in self._rows(0)}
        return {number: record for number, record in ended.items() if number in stored}  # else the file is another's

    def _states_not_in_file(self) -> dict[int, tuple[int, str]]:
        """Return id and state, by number, of the trials whose records have not been read since they ended."""
        while self._first in self._ended:
            self._first += 1
        rows = self._rows(self._first)
        return {number: (trial, state) for trial, number, state in rows if number not in self._ended}

    def _trials(self, missing: list[int]) -> list[FrozenTrial]:
        if len(missing) <= _ONE_BY_ONE:
            return [self._storage.get_trial(trial) for trial in missing]
        study = self._study
        read = self._storage.read_attributes(study, missing)
        old = [trial._trial_id for trial in read if ARCHITECTURE not in trial.user_attrs]  # noqa: SLF001 - as Optuna's storages
        return [trial for trial in read if ARCHITECTURE in trial.user_attrs] + self._storage.read_trials(study, old)

    @property
    def _study(self) -> int:
        return study_id(self._storage, self._name)

    def _rows(self, first: int) -> list[tuple[int, int, str]]:
        """Return the id, number and state of every trial from a number on; Optuna 5 has no such query."""
        study = self._study

        def rows() -> list[tuple[int, int, str]]:
            with self._storage.engine.connect() as database:
                found = database.execute(_TRIALS, {"study": study, "first": first}).all()
                return [(trial, number, str(state)) for trial, number, state in found]

        return call_with_backoff(rows, place_of(self._storage.url))


def description(architecture: "Architecture", space: "Space") -> dict[str, Any]:
    """Return what a record shows of an architecture: the value of the attribute `architecture` of a trial.

    In a joined space it has the name of the member, with which the summary begins, too.
    """
    picks, summary, member = architecture.as_picks(), architecture.summary(), space.member_name(architecture)
    if not member:
        return {"picks": picks, "summary": summary}
    return {"picks": picks, "summary": f"{member}: {summary}", MEMBER: member}


def _record(trial: FrozenTrial, space: "Callable[[], Space]") -> Record:
    """Return the record of a trial; a waiting one's parameters are those that it was enqueued with.

    Raises:
        StudyError: what the database holds of it is damaged.
    """
    # A worker stores the attributes one by one; all of them are stored when the trial has ended.
    names_to_read = Record.__dataclass_fields__ if trial.state.is_finished() else _ATTRIBUTES_OF_RUNNING
    attributes = {name: value for name, value in trial.user_attrs.items() if name in names_to_read}
    described = trial.user_attrs.get(ARCHITECTURE) or _from_parameters(trial, space())
    if not isinstance(described, dict) or not described.keys() <= Record.__dataclass_fields__.keys():
        raise StudyError(f"trial {trial.number}: {ARCHITECTURE} is damaged in the study's database: {ADVICE}")
    return Record(
        **{
            **attributes,
            **described,
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "within": all(value <= 0 for value in trial.constraints.values()),
        }
    )


def _from_parameters(trial: FrozenTrial, space: "Space") -> dict[str, Any]:
    """Return the description of the architecture of a trial that has no such attribute; empty while it is proposed."""
    parameters = trial.system_attrs.get("fixed_params") or trial.params
    if not space.has_all(parameters):
        return {"picks": {}, "summary": ""}
    return description(space.architecture(parameters), space)
