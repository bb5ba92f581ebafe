"""Optuna's trials as records."""

from collections.abc import Callable
from functools import cached_property

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import text

from nas.records.record import Record
from nas.records.record_file import RecordFile
from nas.records.trial_attributes import DETAIL, FINGERPRINT, REPEAT, ROLE
from nas.study.storage import study_id
from nas.study.storage_retries import patiently, place_of
from search_spaces import SearchSpace

_KNOWN_BEFORE = (FINGERPRINT, ROLE, DETAIL, REPEAT)


_TRIALS = text("SELECT trial_id, number FROM trials WHERE study_id = :study")


_ONE_BY_ONE = 100
"""So many trials are read sooner one by one than all of a long study."""


class TrialRecords:
    """The trials of a study as records: those that have ended from a file, the others from the storage.

    Args:
        name: of the study.
        space: asked for as soon as a trial is read that is not on file.
    """

    def __init__(self, name: str, storage: RDBStorage, space: Callable[[], SearchSpace], file: RecordFile) -> None:
        self._name, self._storage, self._space, self._file = name, storage, space, file

    def read(self) -> dict[int, Record]:
        """All, by their trials' numbers."""
        unknown = self._not_known_to_have_ended()
        known = dict(self._ended)
        for trial in unknown:
            record = known[trial.number] = _record(trial, self._space())
            if trial.state.is_finished() and DETAIL in trial.user_attrs:
                self._ended[trial.number] = record
        return known

    def keep(self) -> None:
        """Put those that have been read and have ended on file."""
        self._file.append(self._ended)

    @cached_property
    def _ended(self) -> dict[int, Record]:
        return self._file.read()

    def _not_known_to_have_ended(self) -> list[FrozenTrial]:
        study = study_id(self._storage, self._name)
        rows = patiently(lambda: self._rows(study), place_of(self._storage.url))
        there = {number for _, number in rows}
        for number in self._ended.keys() - there:  # another study's file
            del self._ended[number]
        wanted = [trial for trial, number in rows if number not in self._ended]
        if len(wanted) > _ONE_BY_ONE:
            return self._storage.get_all_trials(study, deepcopy=False)
        return [self._storage.get_trial(trial) for trial in wanted]

    def _rows(self, study: int) -> list[tuple[int, int]]:
        """Every trial's id and number. Optuna 5 reads all of a study's trials, or one."""
        with self._storage.engine.connect() as database:
            return [(trial, number) for trial, number in database.execute(_TRIALS, {"study": study})]


def _record(trial: FrozenTrial, space: SearchSpace) -> Record:
    """A trial as a row; one that waits has its parameters in what it was enqueued with."""
    said = trial.system_attrs.get("fixed_params") or trial.params
    wanted = [f"{slot.name}.operator" for slot in space.slots] + [factor.parameter for factor in space.scaling_factors]
    proposed = all(name in said for name in wanted)  # not in the moment of the proposal
    architecture = space.architecture(said) if proposed else None
    # What a worker notes arrives one by one; all of it is there when the trial has ended.
    shown = Record.__dataclass_fields__ if trial.state.is_finished() else _KNOWN_BEFORE
    known = {name: value for name, value in trial.user_attrs.items() if name in shown}
    return Record(
        **{
            **known,
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "picks": architecture.as_picks() if architecture else {},
            "summary": architecture.summary() if architecture else "",
            "within": all(value <= 0 for value in trial.constraints.values()),
        }
    )
