"""Study of random scores with given numbers of finished and running trials, stored as workers store them."""

import json
import random
from datetime import datetime
from pathlib import Path

import sqlalchemy
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from nas.records.stored_outcome import outcome_fields
from nas.records.trial_attributes import ARCHITECTURE, FINGERPRINT, HOST
from nas.settings import RunSettings, Settings
from nas.study.creation import create
from nas.study.folders import default_storage
from nas.study.named_addresses import remember_both
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.study.trial_records import description
from search_spaces import Architecture, Space, joined_file, space_file
from trials import Budget, Costs, Ending, Outcome, Scores

SPACE = "v9"
_OF_A_TRIAL = (
    models.TrialUserAttributeModel,
    models.TrialSystemAttributeModel,
    models.TrialParamModel,
    models.TrialValueModel,
    models.TrialIntermediateValueModel,
    models.TrialHeartbeatModel,
)


def make_study(folder: Path, storage: str | None) -> Study:
    """Create a study on a space of the catalog."""
    space = space_file.load(SPACE)
    settings = Settings(
        space=space.name,
        scale=space.scale,
        space_hash=space.hash,
        data="digits",
        data_fingerprint="0",
        classes=("a", "b"),
        budget=Budget(data=folder / "data.yaml", epochs=3, deploy_size=640),
    )
    file = StudyFile(
        name=folder.name,
        settings=settings,
        run=RunSettings(trials=10**6, cache=False),
        storage=storage or default_storage(folder),
        tracking="sqlite://",
        version="0",
    )
    remember_both(file, folder)
    return create(folder, file, joined_file.text(SPACE))


def score(architecture: Architecture) -> Outcome:
    """Return a finished outcome whose accuracy depends on the fingerprint alone."""
    rng = random.Random(architecture.fingerprint)
    costs = Costs(params=rng.randrange(10**6, 10**7), gflops=rng.uniform(1, 10))
    accuracy = 0.5 * rng.random()
    scores = Scores(map50_95=accuracy, map50=accuracy, costs=costs)
    return Outcome(architecture=architecture, ending=Ending.FINISHED, costs=costs, scores=scores, seconds=60.0)


def fill(study: Study, finished: int, running: int = 0) -> None:
    """Replace the trials of a study by finished and running ones of random architectures."""
    remove_trials(study, 0)
    study.record_file.delete()
    number, rng = study.storage.get_study_id_from_name(study.file.name), random.Random(0)
    with study.storage.engine.begin() as database:
        for trial in range(finished + running):
            _insert(database, number, trial, study.space, study.space.sample(rng), finished=trial < finished)
    if study.database is None:
        with study.storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            database.execute(sqlalchemy.text("VACUUM ANALYZE"))
    fresh = Study.open(study.folder)  # the supervisor keeps the records of finished trials in a file
    fresh.records()
    fresh.save_records()


def remove_trials(study: Study, first: int) -> None:
    """Remove the trials of a study from a number on."""
    number = study.storage.get_study_id_from_name(study.file.name)
    with study.storage.engine.begin() as database:
        trials = models.TrialModel.__table__
        removed = (trials.c.study_id == number) & (trials.c.number >= first)
        for model in _OF_A_TRIAL:
            there = sqlalchemy.select(trials.c.trial_id).where(removed)
            database.execute(sqlalchemy.delete(model.__table__).where(model.__table__.c.trial_id.in_(there)))
        database.execute(sqlalchemy.delete(trials).where(removed))


def _insert(
    database: sqlalchemy.Connection,
    study: int,
    number: int,
    space: Space,
    architecture: Architecture,
    *,
    finished: bool,
) -> None:
    """Insert a trial as a worker stores it."""
    now = datetime.now()  # noqa: DTZ005 - as Optuna
    state = TrialState.COMPLETE if finished else TrialState.RUNNING
    inserted = database.execute(
        models.TrialModel.__table__.insert().values(
            study_id=study, number=number, state=state, datetime_start=now, datetime_complete=now if finished else None
        )
    ).inserted_primary_key
    trial = inserted[0] if inserted else 0
    fields = outcome_fields(score(architecture))
    attributes = {
        HOST: "another",
        ARCHITECTURE: description(architecture, space),
        FINGERPRINT: architecture.fingerprint,
        **(fields if finished else {}),
    }
    database.execute(
        models.TrialUserAttributeModel.__table__.insert(),
        [{"trial_id": trial, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()],
    )
    rows = []
    for name, value in space.values(architecture).items():
        distribution = CategoricalDistribution(space.parameters[name])
        text, index = distribution_to_json(distribution), distribution.to_internal_repr(value)
        rows.append({"trial_id": trial, "param_name": name, "param_value": index, "distribution_json": text})
    database.execute(models.TrialParamModel.__table__.insert(), rows)
    if finished:
        kind, values = models.TrialValueModel.TrialValueType.FINITE, (fields["map50_95"], fields["gflops"])
        database.execute(
            models.TrialValueModel.__table__.insert(),
            [{"trial_id": trial, "objective": i, "value": v, "value_type": kind} for i, v in enumerate(values)],
        )
    else:
        database.execute(models.TrialHeartbeatModel.__table__.insert().values(trial_id=trial))
