"""Read the runs that MLflow has of a study, and repair single ones; reading creates nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nas.addresses import redact, without_password
from nas.records.record import Record
from nas.tracking.consistency import FoundModel, FoundRun, differences, last_metrics
from nas.tracking.database import sqlite_file
from nas.tracking.mlflow_runs import advice_on, client_of, data_of, models_of, now
from search_spaces.errors import EnvironmentProblem, unwrapped
from trials.scores import Epoch

_TRIAL, _TRAINING = "nas.trial", "nas.training"


class StoredRuns:
    """Runs of one study in one experiment.

    Args:
        uri: address of MLflow.
        experiment: name of it.
        study_id: of the study, by whose tag its runs are found.
    """

    def __init__(self, uri: str, experiment: str, study_id: str) -> None:
        self._uri, self._experiment, self._study_id = uri, experiment, study_id

    def read(self) -> list[FoundRun]:
        """Return the runs of the study and its trials, by start time; none if there is no database.

        Raises:
            EnvironmentProblem: MLflow cannot be used.
        """
        path = sqlite_file(self._uri)
        if path is not None and not (path.is_file() and path.stat().st_size):
            return []
        with self._as_problem():
            return list(self._find(client_of(self._uri)))

    def _find(self, client: Any) -> Iterator[FoundRun]:
        experiment = client.get_experiment_by_name(self._experiment)
        token = None
        while experiment is not None:
            query = f"tags.`nas.study_id` = '{self._study_id}'"
            order = ["attributes.start_time ASC"]
            page = client.search_runs([experiment.experiment_id], query, order_by=order, page_token=token)
            yield from (_found(run) for run in page if _TRAINING not in run.data.tags)
            token = page.token
            if not token:
                return

    def read_models(self) -> list[FoundModel]:
        """Return the models of the study's trials.

        Raises:
            EnvironmentProblem: MLflow cannot be used.
        """
        with self._as_problem():
            client = client_of(self._uri)
            experiment = client.get_experiment_by_name(self._experiment)
            if experiment is None:
                return []
            return [
                FoundModel(trial=int(model.tags[_TRIAL]), is_ready=str(model.status) == "READY")
                for model in models_of(client, experiment.experiment_id, self._study_id)
            ]

    def drop(self, run: str) -> None:
        """Mark a run as deleted; MLflow can restore it.

        Raises:
            EnvironmentProblem: MLflow cannot be used.
        """
        with self._as_problem():
            client_of(self._uri).delete_run(run)

    def rewrite(self, run: FoundRun, record: Record, epochs: Sequence[Epoch]) -> None:
        """Write the right values to the run of a trial, and open it, so that the tracker sends all that it lacks.

        Raises:
            EnvironmentProblem: MLflow cannot be used.
        """
        of_last_epoch = last_metrics(epochs)
        with self._as_problem():
            client = client_of(self._uri)
            for name, _, wanted in differences(record, run, epochs):
                if isinstance(wanted, str):
                    client.set_tag(run.id, name, wanted)
                else:
                    step = epochs[-1].epoch if name in of_last_epoch else 0
                    client.log_metric(run.id, name, wanted, timestamp=now(), step=step)
            client.update_run(run.id, status="RUNNING")

    @contextmanager
    def _as_problem(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            line = redact(unwrapped(error), self._uri)[:300] or type(error).__name__
            advice = advice_on(self._uri, error)
            where = without_password(self._uri)
            raise EnvironmentProblem(f"{where} cannot be used: {line}{f' ({advice})' if advice else ''}") from error


def _found(run: Any) -> FoundRun:
    info, data = run.info, run.data
    tags = dict(data.tags)
    return FoundRun(
        id=info.run_id,
        trial=int(tags[_TRIAL]) if tags.get(_TRIAL, "").isdecimal() else None,
        status=info.status,
        parent=tags.get("mlflow.parentRunId", ""),
        tags=tags,
        metrics=dict(data.metrics),
        data=data_of(run),
    )
