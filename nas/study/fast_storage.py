"""Optuna's storage with fewer round trips: writes in one transaction, and running trials that are not read again.

Optuna writes each parameter and each attribute of a trial in a transaction of its own, and reads all unfinished trials
at every look at the study. With a hundred running trials a proposal would take a second, during which no other worker
may propose.
"""

import json
import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nas.records.trial_attributes import FINGERPRINT, HOST

_AT_ONCE = 500
"""Trials that one statement reads; SQLite has a limit on a statement's variables."""
_GREATEST_ID = 2**31 - 1
_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
"""Insertions that replace what is there, by the name of the database."""


class _Batch:
    """Writes to trials that wait for the end of a batch.

    Attributes:
        parameters: trial, name, internal value, distribution, and the distribution that earlier trials have, if known.
        attributes: table of user or system attributes, trial, key, value.
    """

    def __init__(self) -> None:
        self.parameters: list[tuple[int, str, float, BaseDistribution, BaseDistribution | None]] = []
        self.attributes: list[tuple[Any, int, str, Any]] = []


class FastStorage(RDBStorage):
    """Optuna's storage in a database, with batches of writes; running trials are read once."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._thread = threading.local()
        self._unchanged: dict[int, FrozenTrial] = {}
        super().__init__(*arguments, **named)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Store the parameters and attributes that are set in a `with` block in one transaction, at its end.

        Nothing is stored if an exception leaves the block. Batches are of a thread, and are not nested.
        """
        self._thread.batch = batch = _Batch()
        try:
            yield
        finally:
            self._thread.batch = None
        if batch.parameters or batch.attributes:
            self.store(batch)

    def store(self, batch: _Batch) -> None:
        """Store a batch, in one transaction."""
        with _create_scoped_session(self.scoped_session) as session:
            for trial in {trial for trial, *_ in batch.parameters} | {trial for _, trial, *_ in batch.attributes}:
                stored: Any = models.TrialModel.find_or_raise_by_id(trial, session)
                self.check_trial_is_updatable(trial, stored.state)
            _require_compatible(batch.parameters, session)
            self._set_parameters(batch, session)
            self._set_attributes(batch, session)

    def _set_parameters(self, batch: _Batch, session: Session) -> None:
        """Insert the parameters of a batch, except those that an attempt whose answer was lost has inserted."""
        table = models.TrialParamModel
        rows = [
            {
                "trial_id": trial,
                "param_name": name,
                "param_value": value,
                "distribution_json": distribution_to_json(distribution),
            }
            for trial, name, value, distribution, _ in batch.parameters
        ]
        if not rows:
            return
        if (insert := _INSERTS.get(self.engine.name)) is None:
            session.add_all(table(**row) for row in rows)
            return
        session.execute(
            insert(table).values(rows).on_conflict_do_nothing(index_elements=[table.trial_id, table.param_name])
        )

    def _set_attributes(self, batch: _Batch, session: Session) -> None:
        """Insert or replace the attributes of a batch; of two with one key the later one counts."""
        values = {(table, trial, key): value for table, trial, key, value in batch.attributes}
        if (insert := _INSERTS.get(self.engine.name)) is None:
            for (table, trial, key), value in values.items():
                self._set_trial_attr_without_commit(session, table, trial, key, value)
            return
        for table in {table for table, _, _ in values}:
            rows = [
                {"trial_id": trial, "key": key, "value_json": json.dumps(value)}
                for (of, trial, key), value in values.items()
                if of is table
            ]
            statement = insert(table).values(rows)
            replaced = {"value_json": statement.excluded.value_json}
            session.execute(statement.on_conflict_do_update(index_elements=[table.trial_id, table.key], set_=replaced))

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        parameter = trial_id, param_name, param_value_internal, distribution, previous_distribution
        if (batch := self._batch) is None:
            super()._set_trial_param(*parameter)
        else:
            batch.parameters.append(parameter)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a trial, at the end of the batch if there is one."""
        if (batch := self._batch) is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            batch.attributes.append((models.TrialUserAttributeModel, trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a trial, at the end of the batch if there is one."""
        if (batch := self._batch) is None:
            super().set_trial_system_attr(trial_id, key, value)
        else:
            batch.attributes.append((models.TrialSystemAttributeModel, trial_id, key, value))

    @property
    def _batch(self) -> _Batch | None:
        return getattr(self._thread, "batch", None)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Return trials as Optuna's cache asks for them: new ones, and those that had not ended when it read them last.

        A waiting trial does not change, and neither do the architecture, the parameters and the machine of a running
        one that has them. So these are read from the database when their state changes. Until then a running trial
        lacks attributes that were set since; `rung_values` reads these.
        """
        if states is not None or not included_trial_ids:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        present = self._states(study_id, included_trial_ids, trial_id_greater_than)
        before = self._unchanged
        trials = {number: before[number] for number, state in present.items() if _has_state(before.get(number), state)}
        for trial in self.read_trials(study_id, present.keys() - trials.keys()):
            trials[trial._trial_id] = trial  # noqa: SLF001 - Optuna's storages take it
        self._unchanged = {number: trial for number, trial in trials.items() if _is_unchanging(trial)}
        return [trials[number] for number in sorted(trials)]

    def _states(self, study_id: int, included: set[int], greater_than: int) -> dict[int, TrialState]:
        """Return the states of some trials, and of all that were created after a given one."""
        trial, found = models.TrialModel, select(models.TrialModel.trial_id, models.TrialModel.state)
        wanted = [trial.trial_id > greater_than, *(trial.trial_id.in_(some) for some in _parts(included))]
        with self.engine.connect() as connection:
            parts = [connection.execute(found.where(trial.study_id == study_id, each)) for each in wanted]
            return {number: state for part in parts for number, state in part}

    def read_trials(self, study_id: int, trial_ids: Iterable[int]) -> list[FrozenTrial]:
        """Return some trials of a study."""
        read = super()._get_trials
        return [trial for part in _parts(trial_ids) for trial in read(study_id, None, set(part), _GREATEST_ID)]

    def read_attributes(self, study_id: int, trial_ids: Iterable[int]) -> list[FrozenTrial]:
        """Return some trials of a study with number, state and attributes alone: a tenth of the time of the whole."""
        trial, tables = models.TrialModel, (models.TrialUserAttributeModel, models.TrialSystemAttributeModel)
        trials: list[FrozenTrial] = []
        with self.engine.connect() as connection:
            for part in _parts(trial_ids):
                in_part = trial.study_id == study_id, trial.trial_id.in_(part)
                # states first: an attribute is stored before the state that it belongs to
                rows = connection.execute(select(trial.trial_id, trial.number, trial.state).where(*in_part)).all()
                user, system = (_attributes(connection, table, part) for table in tables)
                trials += [
                    FrozenTrial(
                        number=number,
                        state=state,
                        value=None,
                        datetime_start=None,
                        datetime_complete=None,
                        params={},
                        distributions={},
                        user_attrs=user.get(each, {}),
                        system_attrs=system.get(each, {}),
                        intermediate_values={},
                        trial_id=each,
                    )
                    for each, number, state in rows
                ]
        return trials

    def rung_values(self, study_id: int, name: str) -> list[Any]:
        """Return the values of a user attribute of all trials that have it and have not failed, in order."""
        trial, attribute = models.TrialModel, models.TrialUserAttributeModel
        values = (
            select(attribute.value_json)
            .join(trial, trial.trial_id == attribute.trial_id)
            .where(trial.study_id == study_id, attribute.key == name, trial.state != TrialState.FAIL)
            .order_by(trial.number)
        )
        with self.engine.connect() as connection:
            return [json.loads(value) for (value,) in connection.execute(values)]


def _attributes(connection: Connection, table: Any, trial_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the attributes of trials in a table, by the trial's id."""
    found: dict[int, dict[str, Any]] = {}
    columns = select(table.trial_id, table.key, table.value_json)
    for trial, key, value in connection.execute(columns.where(table.trial_id.in_(trial_ids))):
        found.setdefault(trial, {})[key] = json.loads(value)
    return found


def _parts(trial_ids: Iterable[int]) -> list[list[int]]:
    ordered = sorted(trial_ids)
    return [ordered[first : first + _AT_ONCE] for first in range(0, len(ordered), _AT_ONCE)]


def _has_state(trial: FrozenTrial | None, state: TrialState) -> bool:
    return trial is not None and trial.state == state


def _is_unchanging(trial: FrozenTrial) -> bool:
    """Return whether nothing that proposals and recovery need of a trial changes before its state does."""
    is_proposed = trial.state == TrialState.RUNNING and {FINGERPRINT, HOST} <= trial.user_attrs.keys()
    return is_proposed or trial.state == TrialState.WAITING


def _require_compatible(
    parameters: Sequence[tuple[int, str, float, BaseDistribution, BaseDistribution | None]], session: Session
) -> None:
    """Refuse parameters whose distributions differ from those of earlier trials, as Optuna does for each of them.

    Raises:
        ValueError: one differs.
    """
    table = models.TrialParamModel
    for trial, name, _, distribution, before in parameters:
        previous = before
        if previous is None:
            studies = select(models.TrialModel.study_id).where(models.TrialModel.trial_id == trial).scalar_subquery()
            stored = session.execute(
                select(table.distribution_json)
                .join(models.TrialModel, models.TrialModel.trial_id == table.trial_id)
                .where(models.TrialModel.study_id == studies, table.param_name == name)
                .limit(1)
            ).scalar()
            previous = None if stored is None else json_to_distribution(stored)
        if previous is not None:
            check_distribution_compatibility(previous, distribution)
