"""Optuna's trials as records."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import text

from nas.records.record import Record
from nas.records.record_file import RecordFile
from nas.records.trial_attributes import ARCHITECTURE, DETAIL, FINGERPRINT, REPEAT, ROLE
from nas.study.storage import study_id
from nas.study.storage_retries import call_with_backoff, place_of

if TYPE_CHECKING:
    from search_spaces import Architecture, SearchSpace

_ATTRIBUTES_OF_RUNNING = (FINGERPRINT, ROLE, DETAIL, REPEAT)

_TRIALS = text("SELECT trial_id, number FROM trials WHERE study_id = :study")

_ONE_BY_ONE = 100
"""Up to so many trials are read one by one, which is faster than to read all of a long study."""


class TrialRecords:
    """Trials of a study as records: ended ones from a file, the others from the storage.

    Args:
        name: of Optuna's study.
        space: returns the study's space; called for a trial of an older version that is not in the file.
    """

    def __init__(self, name: str, storage: RDBStorage, space: "Callable[[], SearchSpace]", file: RecordFile) -> None:
        self._name, self._storage, self._space, self._file = name, storage, space, file

    def read(self) -> dict[int, Record]:
        """Return all records by trial number."""
        trials = self._trials_not_in_file()
        records = dict(self._ended)
        for trial in trials:
            record = records[trial.number] = _record(trial, self._space)
            if trial.state.is_finished() and DETAIL in trial.user_attrs:
                self._ended[trial.number] = record
        return records

    def save(self) -> None:
        """Append the ended trials that have been read to the file."""
        self._file.append(self._ended)

    @cached_property
    def _ended(self) -> dict[int, Record]:
        return self._file.read()

    def _trials_not_in_file(self) -> list[FrozenTrial]:
        study = study_id(self._storage, self._name)
        rows = call_with_backoff(lambda: self._rows(study), place_of(self._storage.url))
        stored = {number for _, number in rows}
        for number in self._ended.keys() - stored:  # the file is another study's
            del self._ended[number]
        missing = [trial for trial, number in rows if number not in self._ended]
        if len(missing) > _ONE_BY_ONE:
            return self._storage.get_all_trials(study, deepcopy=False)
        return [self._storage.get_trial(trial) for trial in missing]

    def _rows(self, study: int) -> list[tuple[int, int]]:
        """Return the id and number of every trial; Optuna 5 has no such query."""
        with self._storage.engine.connect() as database:
            return [(trial, number) for trial, number in database.execute(_TRIALS, {"study": study})]


def description(architecture: "Architecture") -> dict[str, Any]:
    """Return what a record shows of an architecture: the value of the attribute `architecture` of a trial."""
    return {"picks": architecture.as_picks(), "summary": architecture.summary()}


def _record(trial: FrozenTrial, space: "Callable[[], SearchSpace]") -> Record:
    """Return the record of a trial; a waiting one's parameters are those that it was enqueued with."""
    # A worker stores the attributes one by one; all of them are stored when the trial has ended.
    names_to_read = Record.__dataclass_fields__ if trial.state.is_finished() else _ATTRIBUTES_OF_RUNNING
    attributes = {name: value for name, value in trial.user_attrs.items() if name in names_to_read}
    return Record(
        **{
            **attributes,
            **(trial.user_attrs.get(ARCHITECTURE) or _from_parameters(trial, space())),
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "within": all(value <= 0 for value in trial.constraints.values()),
        }
    )


def _from_parameters(trial: FrozenTrial, space: "SearchSpace") -> dict[str, Any]:
    """Return the description of the architecture of a trial that has no such attribute; empty while it is proposed."""
    parameters = trial.system_attrs.get("fixed_params") or trial.params
    names = [f"{slot.name}.operator" for slot in space.slots] + [factor.parameter for factor in space.scaling_factors]
    if any(name not in parameters for name in names):
        return {"picks": {}, "summary": ""}
    return description(space.architecture(parameters))
