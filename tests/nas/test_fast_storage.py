"""Writes in one transaction, and trials that are read once: the same content as by Optuna's own way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import event

from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.trial_attributes import FINGERPRINT, HOST
from nas.study.study import Study
from trials import Outcome

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")

MakeStudy = Callable[..., Study]
_CHOICES = CategoricalDistribution(("a", "b"))


@contextmanager
def statements(study: Study) -> Iterator[list[str]]:
    """Collect the statements that a study's storage executes."""
    found: list[str] = []

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(study.storage.engine, "before_cursor_execute", executed)
    yield found
    event.remove(study.storage.engine, "before_cursor_execute", executed)


def running_trial(study: Study, fingerprint: str) -> Trial:
    trial = study.optuna.ask()
    trial.set_user_attr(HOST, "machine")
    trial.set_user_attr(FINGERPRINT, fingerprint)
    return trial


def test_batch_stores_what_single_writes_store(make_study: MakeStudy) -> None:
    study = make_study()
    stored = []
    for batched in (False, True):
        trial = study.optuna.ask({})
        with study.storage.batch() if batched else statements(study):
            trial._fixed_params = {"first": "a", "second": "b"}
            trial.suggest_categorical("first", _CHOICES.choices)
            trial.suggest_categorical("second", _CHOICES.choices)
            trial.set_user_attr("text", "before")
            trial.set_user_attr("text", {"picks": [1, None]})
            trial.set_constraint("gflops", -0.5)
        assert trial.params == {"first": "a", "second": "b"}
        read = study.storage.get_trial(trial._trial_id)
        system = {key: value for key, value in read.system_attrs.items() if key != "fixed_params"}
        stored.append((read.params, list(read.params), read.distributions, read.user_attrs["text"], system))
    assert stored[0] == stored[1]


def test_batch_is_one_transaction(make_study: MakeStudy) -> None:
    study = make_study()
    trial = study.optuna.ask()
    for key in ("one", "two"):
        trial.set_user_attr(key, 0)
    with statements(study) as alone:
        for key in ("one", "two"):
            trial.set_user_attr(key, 1)
    with statements(study) as batched, study.storage.batch():
        for key in ("one", "two"):
            trial.set_user_attr(key, 2)
    assert len(alone) == 4
    assert len(batched) == 2


def test_batch_that_fails_stores_nothing(make_study: MakeStudy) -> None:
    study = make_study()
    trial = study.optuna.ask()

    def interrupted() -> None:
        with study.storage.batch():
            trial.set_user_attr("one", 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    trial.set_user_attr("two", 2)
    assert "one" not in study.storage.get_trial(trial._trial_id).user_attrs
    assert study.storage.get_trial(trial._trial_id).user_attrs["two"] == 2


def test_batch_refuses_a_finished_trial_and_another_distribution(make_study: MakeStudy) -> None:
    study = make_study()
    first, second = study.optuna.ask(), study.optuna.ask()
    study.storage.set_trial_param(first._trial_id, "one", 0.0, _CHOICES)
    other = CategoricalDistribution(("a", "b", "c"))
    with pytest.raises(ValueError, match="CategoricalDistribution"), study.storage.batch():
        study.storage._set_trial_param(second._trial_id, "one", 0.0, other, None)
    study.optuna.tell(first, state=TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError), study.storage.batch():
        first.set_user_attr("one", 1)


def test_running_trials_are_read_once_and_again_when_they_end(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    trials = [running_trial(study, f"architecture {number}") for number in range(4)]
    beside = Study.open(study.folder)  # as another worker
    read: list[int] = []
    build = RDBStorage._build_frozen_trial_from_trial_model

    def built(storage: RDBStorage, model: Any) -> FrozenTrial:
        read.append(model.number)
        return build(storage, model)

    monkeypatch.setattr(RDBStorage, "_build_frozen_trial_from_trial_model", built)
    for _ in range(2):  # Optuna's first look reads all; of the second on it asks for those that had not ended
        assert [trial.state for trial in beside.optuna_trials()][:4] == [TrialState.RUNNING] * 4
    read.clear()
    assert len(beside.optuna_trials()) == 4
    assert read == []
    study.optuna.tell(trials[2], state=TrialState.PRUNED)
    read.clear()
    assert beside.optuna_trials()[2].state == TrialState.PRUNED
    assert read == [2]
    running_trial(study, "architecture 4")
    assert [trial.user_attrs[FINGERPRINT] for trial in beside.optuna_trials()] == [
        f"architecture {i}" for i in range(5)
    ]


def test_trial_without_its_architecture_is_read_again(make_study: MakeStudy) -> None:
    study = make_study()
    beside = Study.open(study.folder)
    study.optuna.ask()  # the stock model, whose architecture comes from the queue
    trial = study.optuna.ask()
    for attributes in ({}, {HOST: "machine"}, {HOST: "machine", FINGERPRINT: "late"}):
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        for _ in range(2):
            found = beside.optuna_trials()[1].user_attrs
            assert {key: found[key] for key in attributes} == attributes


def test_more_trials_than_one_statement_reads_are_read(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.fast_storage._AT_ONCE", 2)
    study = make_study()
    for number in range(5):
        running_trial(study, f"architecture {number}")
    beside = Study.open(study.folder)
    monkeypatch.setattr("nas.study.trial_records._ONE_BY_ONE", 0)
    for _ in range(3):
        assert [trial.number for trial in beside.optuna_trials()] == [0, 1, 2, 3, 4]
        assert [record.fingerprint for record in beside.records()] == [f"architecture {i}" for i in range(5)]


def test_rung_values_are_those_of_trials_that_have_not_failed(make_study: MakeStudy) -> None:
    study = make_study()
    trials = [running_trial(study, f"architecture {number}") for number in range(3)]
    for number, trial in enumerate(trials):
        trial.set_user_attr("rung:1", (0.1 * number, number))
    trials[0].set_user_attr("rung:2", (0.5, 0))
    study.optuna.tell(trials[1], state=TrialState.FAIL)
    number = study.storage.get_study_id_from_name(study.file.name)
    assert study.storage.rung_values(number, "rung:1") == [[0.0, 0], [0.2, 2]]
    assert study.storage.rung_values(number, "rung:2") == [[0.5, 0]]


def test_ask_and_tell_take_few_statements(
    make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(trials=8)
    monkeypatch.setattr(worker, "evaluate", score)
    with statements(study) as found:
        Worker(study, deadline=float("inf")).run()
    trials = len(study.optuna_trials())
    assert trials == 8
    assert len(found) / trials < 65  # 20 parameters more cost none more
