"""Access to MLflow's runs: find, begin, and write only what is missing.

Everything goes through a separate client, so that the caller's active run, tracking URI and `MLFLOW_RUN_ID` are
neither used nor changed.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.addresses import without_password
from nas.private_files import require_private
from nas.tracking.context import DataInput
from nas.tracking.database import locked, sqlite_file
from search_spaces.errors import EnvironmentProblem, unwrapped

SETTLED = MappingProxyType(
    {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",  # no warning where git is not installed
        "MLFLOW_LOGGING_LEVEL": "WARNING",  # else it logs to stderr how it creates its tables
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results
        # By default 7 repetitions of 120 s; a supervisor has workers to watch meanwhile, and to repeat the creation
        # of a run whose response was lost would create two.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        # Its server's job runner evaluates language models: a process of 260 MB for nothing.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
)
"""Environment variables of MLflow that this module sets, for its process, where the user has not."""


def _settle_environment() -> None:
    for name, value in SETTLED.items():
        os.environ.setdefault(name, value)


_settle_environment()  # before the import: some of it is read only then

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from nas.tracking.artifact_places import limit_of, require_within  # noqa: E402 - it imports MLflow

_log = logging.getLogger(__name__)
if os.environ["MLFLOW_LOGGING_LEVEL"] == "WARNING":  # as set above
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what is raised anyway

# mlflow/utils/validation.py:67-78
_ENTITIES_PER_BATCH = 100
_KEY_LENGTH = 250
_PARAM_LENGTH = 6000
TAG_LENGTH = 8000
DESCRIPTION = "mlflow.note.content"
"""Tag that MLflow's pages show as the description."""

_OF_SQLALCHEMY = re.compile(r"\(raised as a result of [^)]*\) ?| ?(?:\[SQL: |\(Background on this error at: ).*")
"""When it wrote, the statement and its values, and an address."""
_SERVERS = ("http:", "https:", "databricks")


def client_of(uri: str) -> MlflowClient:
    """Return a client of MLflow at an address, in the environment that this module has set.

    Raises:
        EnvironmentProblem: it is a server, and other users may open MLflow's file of passwords.
    """
    if uri.startswith(_SERVERS):
        require_private(Path.home() / ".mlflow" / "credentials", "it is used only if no one else can read it")
    return MlflowClient(tracking_uri=uri)


def ui_command(uri: str, host: str, port: int) -> list[str]:
    """Return the command that serves MLflow's pages of a database; it answers at `/health` after some ten seconds.

    The address is not in it, since every user of a machine can read command lines: `ui_environment` has it.

    Raises:
        EnvironmentProblem: the address is that of a server already.
    """
    if uri.startswith(_SERVERS):
        raise EnvironmentProblem(f"{without_password(uri)} is a server with pages of its own: open it in a browser")
    database = sqlite_file(uri)
    options = {
        "--host": host,
        "--port": str(port),
        "--workers": "1",  # the default is four, of 280 MB each
        "--uvicorn-opts": "--log-level warning",  # else it prints a line for each request
        # Without it, uploads of the pages would be written to the current folder.
        **({"--artifacts-destination": str(database.parent / "mlartifacts")} if database else {}),
    }
    return [sys.executable, "-m", "mlflow", "ui", *(word for option in options.items() for word in option)]


def ui_environment(uri: str) -> dict[str, str]:
    """Return the variables by which the command of `ui_command` finds the database, perhaps with a password."""
    return {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_REGISTRY_STORE_URI": uri}


class Run:
    """One run, with the contents that MLflow has; these are not written again."""

    def __init__(self, client: MlflowClient, run: Any, limit: Path | None) -> None:
        self.id: str = run.info.run_id
        self.status: str = run.info.status
        self.began: int = run.info.start_time
        self.ended: int | None = run.info.end_time
        self.tags: dict[str, str] = dict(run.data.tags)
        self.params: dict[str, str] = dict(run.data.params)
        self.data: frozenset[str] = data_of(run)
        self._models = {one.model_id for one in getattr(run.outputs, "model_outputs", None) or ()}
        self._client = client
        self._artifacts, self._limit = str(run.info.artifact_uri), limit
        self._latest: dict[str, float] = dict(run.data.metrics)
        self._steps: dict[str, set[int]] = {}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags that are new or have changed; an empty one is not written if it is missing."""
        cut = {name: text[:TAG_LENGTH] for name, text in tags.items()}
        new = {name: text for name, text in cut.items() if text != self.tags.get(name, "")}
        for batch in _batches(new):
            self._client.log_batch(self.id, tags=[RunTag(name, text) for name, text in batch.items()])
        self.tags |= new

    def log_params(self, params: Mapping[str, str]) -> None:
        """Write params that are new; params cannot change, the first value stays."""
        cut = {name[:_KEY_LENGTH]: text[:_PARAM_LENGTH] for name, text in params.items()}
        new = {name: text for name, text in cut.items() if name not in self.params}
        for batch in _batches(new):
            self._client.log_batch(self.id, params=[Param(name, text) for name, text in batch.items()])
        self.params |= new

    def log_data(self, data: Sequence[DataInput], sizes: Mapping[str, int] = MappingProxyType({})) -> None:
        """Write the data sets that are missing.

        Args:
            data: of the run.
            sizes: of the first one, such as numbers of images; MLflow stores them with the first run of a data set.
        """
        new = [_data_input(one, sizes if one is data[0] else {}) for one in data if one.digest not in self.data]
        if new:
            self._client.log_inputs(self.id, new)
            self.data |= {one.digest for one in data}

    def log_model(
        self, model_id: str, scores: Mapping[str, float], costs: Mapping[str, float], data: DataInput | None, at: int
    ) -> None:
        """Write that the run has produced a model, and the points at step 0 that are the model's, too.

        Args:
            model_id: MLflow's.
            scores: metrics on the data set.
            costs: metrics without data.
            data: of the scores.
            at: time of these points in the run, in milliseconds since 1970; a run has one of equal time and value once.
        """
        of_data = {} if data is None else {"dataset_name": data.name, "dataset_digest": data.digest}
        points = [
            Metric(name, value, at, 0, model_id=model_id, run_id=self.id, **fields)
            for values, fields in ((scores, of_data), (costs, {}))
            for name, value in values.items()
        ]
        if points:
            self._client.log_batch(self.id, metrics=points)
        if model_id not in self._models:
            self._client.log_outputs(self.id, [LoggedModelOutput(model_id, 0)])
            self._models.add(model_id)

    def lacks(self, metric: str) -> bool:
        """Return whether the run had no point of a metric when it was read, and none was written since."""
        return metric not in self._latest and metric not in self._steps

    def changed_params(self, params: Mapping[str, str]) -> dict[str, str]:
        """Return the params that have another value in the run."""
        return {name: text for name, text in params.items() if text[:_PARAM_LENGTH] != self.params[name[:_KEY_LENGTH]]}

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int = 0, at: int | None = None) -> None:
        """Write a point of each metric that has a value, and no point at this step yet.

        Args:
            step: of the point.
            at: its time in milliseconds since 1970; by default now. A point with the same time and value as one that
                MLflow has is not written twice, also if a server carries out a request later than it was waited for.
        """
        new = {name: float(value) for name, value in metrics.items() if value is not None and not self.has(name, step)}
        if new:
            time_ms = at or now()
            self._client.log_batch(self.id, metrics=[Metric(name, value, time_ms, step) for name, value in new.items()])
        for name in new:
            self._steps[name].add(step)

    def update_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Write a point of each metric whose latest value is another one."""
        new = {name: float(value) for name, value in metrics.items() if self._latest.get(name) != value}
        if new:
            time_ms = now()
            self._client.log_batch(self.id, metrics=[Metric(name, value, time_ms, step) for name, value in new.items()])
        self._latest |= new

    def has(self, metric: str, step: int) -> bool:
        """Return whether the metric has a point at this step."""
        if metric not in self._steps:
            before = self._client.get_metric_history(self.id, metric) if metric in self._latest else []
            self._steps[metric] = {point.step for point in before}
        return step in self._steps[metric]

    def content(self) -> int:
        """Return how many params, metrics and tags the run had when it was read."""
        return len(self.params) + len(self._latest) + len(self.tags)

    def delete(self) -> None:
        """Delete the run; MLflow keeps it in its bin."""
        self._client.delete_run(self.id)

    def log_artifact(self, file: Path, folder: str | None = None) -> None:
        """Upload a file as an artifact; one of this name is replaced.

        `log_text` is not used: a killed process would leave its temporary folder.

        Raises:
            EnvironmentProblem: it would be written outside of the folder of all studies.
        """
        require_within(self._limit, self._artifacts, [Path(folder or "", file.name)])
        self._client.log_artifact(self.id, str(file), folder)

    def set_status(self, status: str, at: int | None = None) -> None:
        """Set the status: `RUNNING` again, or ended.

        Args:
            status: MLflow's.
            at: end time in milliseconds since 1970; by default now, or that of a run that has ended before.
        """
        if status == "RUNNING":
            if status != self.status:
                self._client.update_run(self.id, status=status)
        else:
            before = None if self.status == "RUNNING" else self.ended
            end = max(at or before or now(), self.began)
            if (status, end) == (self.status, self.ended):
                return
            self._client.set_terminated(self.id, status, end)
            self.ended = end
        self.status = status


class Runs:
    """Runs of one study in one experiment, which is created if it is missing.

    Attributes:
        experiment: its id in MLflow.
        client: of MLflow.
        tags: of all runs of the study.

    Args:
        uri: `sqlite:////...`, with artifacts beside it in `mlartifacts`; another database; or a server.
        experiment: name of it.
        artifacts_beside: folder for the artifacts of another database.
        tags: of all runs of the study.
        key: name of the tag by which they are found.

    Raises:
        EnvironmentProblem: the experiment was deleted, or its artifacts are outside of the folder of all studies.
    """

    def __init__(self, uri: str, experiment: str, artifacts_beside: Path, tags: Mapping[str, str], *, key: str) -> None:
        self.tags = dict(tags)
        self._experiment_tags: dict[str, str] = {}
        self._query = f"tags.`{key}` = '{tags[key]}'"
        self._limit = limit_of(uri)
        with locked(uri):
            self.client = client_of(uri)
            self.experiment = self._find_or_create(uri, experiment, artifacts_beside)

    def _find_or_create(self, uri: str, experiment: str, artifacts_beside: Path) -> str:
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            root = _artifact_root(uri, artifacts_beside)
            # "Machine learning", not "GenAI", for the pages of MLflow before 3.17; since then they ask the user.
            kind = {
                "mlflow.experimentKind": "custom_model_development",
                "mlflow.experiment.primaryMetric.name": "score/map50_95",
            }
            try:
                created: str = self.client.create_experiment(experiment, root.as_uri() if root else None, kind)
            except MlflowException:
                found = self.client.get_experiment_by_name(experiment)
                if found is None:  # else another process has created it meanwhile
                    raise
            else:
                return created
        if found.lifecycle_stage != "active":
            raise EnvironmentProblem(
                f"the MLflow experiment {experiment} was deleted; to have it back: "
                f"MLFLOW_TRACKING_URI={without_password(uri)} "
                f"python -m mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        require_within(self._limit, found.artifact_location)
        self._experiment_tags = dict(found.tags)
        return str(found.experiment_id)

    def set_experiment_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags of the experiment that are new or have changed."""
        for name, text in tags.items():
            if self._experiment_tags.get(name) != text:
                self.client.set_experiment_tag(self.experiment, name, text)
                self._experiment_tags[name] = text

    def find(self) -> Iterator[Run]:
        """Yield the runs of the study, by start time."""
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], self._query, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from (Run(self.client, run, self._limit) for run in page)
            token = page.token
            if not token:
                return

    def of_study(self, study_id: str) -> str | None:
        """Return the id of another study's run in this experiment; None if there is none.

        Args:
            study_id: unique for the other study.
        """
        found = self.client.search_runs([self.experiment], f"tags.`nas.study_id` = '{study_id}'")
        parents = [run for run in found if not {"nas.trial", "nas.training"} & run.data.tags.keys()]
        return parents[0].info.run_id if parents else None

    def begin(self, name: str, tags: Mapping[str, str] = MappingProxyType({}), *, at: int | None = None) -> Run:
        """Create a run.

        Args:
            name: of the run.
            tags: beside those of all runs.
            at: start time in milliseconds since 1970; by default now.
        """
        run = self.client.create_run(self.experiment, at or now(), {**self.tags, **tags}, name)
        return Run(self.client, run, self._limit)

    def send_model(self, model: Any, folder: Path) -> None:
        """Upload the files of a folder as those of a model.

        Raises:
            EnvironmentProblem: they would be written outside of the folder of all studies.
        """
        files = [path.relative_to(folder) for path in folder.rglob("*")]
        require_within(self._limit, model.artifact_location, ["", *files])
        self.client.log_model_artifacts(model.model_id, str(folder))


def _batches(entries: Mapping[str, str]) -> Iterator[dict[str, str]]:
    items = list(entries.items())
    for start in range(0, len(items), _ENTITIES_PER_BATCH):
        yield dict(items[start : start + _ENTITIES_PER_BATCH])


def data_of(run: Any) -> frozenset[str]:
    """Return the digests of the data sets of a run of MLflow's."""
    inputs = getattr(run.inputs, "dataset_inputs", None) or ()
    return frozenset(one.dataset.digest for one in inputs)


def models_of(client: MlflowClient, experiment: str, study_id: str) -> Iterator[Any]:
    """Yield the models of a study in an experiment, the oldest first."""
    query, token = f"tags.`nas.study_id` = '{study_id}'", None
    oldest = [{"field_name": "creation_time", "ascending": True}]
    while True:
        page = client.search_logged_models([experiment], query, order_by=oldest, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _data_input(data: DataInput, sizes: Mapping[str, int]) -> DatasetInput:
    """Return a data set as MLflow stores it, as `mlflow.data` does for a local one; that needs pandas."""
    kind, place = ("local", {"uri": data.place}) if data.place else ("code", {"tags": {"mlflow.source.name": "nas"}})
    profile = json.dumps(dict(sizes)) if sizes else None
    stored = Dataset(data.name, data.digest, kind, json.dumps(place), profile=profile)
    return DatasetInput(stored, [InputTag("mlflow.data.context", data.use)])


def now() -> int:
    """Return the time in milliseconds since 1970, as MLflow counts."""
    return round(time.time() * 1000)


def _artifact_root(uri: str, runs: Path) -> Path | None:
    """Return the folder of artifacts: beside a SQLite file, else under `runs`; None for a server, which decides itself.

    MLflow's default for a database is `./mlruns` in the current folder.
    """
    if uri.startswith(_SERVERS):
        return None
    database = sqlite_file(uri)
    return (database.parent if database else runs) / "mlartifacts"


def message_of(problem: Exception) -> str:
    """Return the message of a failure of MLflow in one line, without what SQLAlchemy adds to its database's."""
    return _OF_SQLALCHEMY.sub("", unwrapped(problem))


def advice_on(uri: str, problem: Exception) -> str:
    """Return advice on a failure of MLflow; empty if the error has some."""
    if isinstance(problem, EnvironmentProblem):
        return ""
    message, path = str(problem).lower(), sqlite_file(uri)
    if "database schema" in message or "can't locate revision" in message:
        return f"its tables are of another version of MLflow: python -m mlflow db upgrade {without_password(uri)}"
    if uri.startswith(_SERVERS):
        refused = any(status in message for status in ("401", "403", "unauthorized", "forbidden"))
        if refused:
            return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return "see the log of that server" if re.search(r"\b5\d\d error", message) else "start that server"
    if path is None:
        return "start that database, or name one of sqlite, postgresql, mysql or http(s): in MLFLOW_TRACKING_URI"
    if "not a database" in message or "malformed" in message or "already exists" in message:
        return f"move {path} elsewhere, and another is made"
    if "full" in message or "no space" in message:
        return f"make room in {path.parent}"
    if "locked" in message:
        return "end the other program that holds it"
    if isinstance(problem, OSError) or "readonly" in message or "unable to open" in message:
        return f"make {path.parent} a folder that can be written to"
    return ""
