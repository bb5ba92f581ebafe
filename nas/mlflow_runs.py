"""MLflow's runs: found, begun, and written to only where they lack something.

Everything goes through a client of our own, so that the caller's active run, tracking URI and `MLFLOW_RUN_ID` are
neither used nor changed.
"""

import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from search_spaces.errors import EnvironmentProblem


def _settle_environment() -> None:
    """What MLflow reads from the environment, where the user has not decided."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("GIT_PYTHON_REFRESH", "quiet"),  # no warning where git is not installed
        ("MLFLOW_LOGGING_LEVEL", "WARNING"),  # else it tells on stderr how it makes its tables
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),  # stdout is for results
        # By default 7 repetitions of 120 s; a supervisor has workers to watch meanwhile, and to repeat the making
        # of a run whose answer was lost would make two.
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        # Its server's job runner evaluates language models: a process of 260 MB for nothing.
        ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"),
    ):
        os.environ.setdefault(name, value)


_settle_environment()  # before the import: some of it is read only then

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

# MLflow, its database, files, and the way to a server: requests' errors are OSErrors.
FAILURES = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError)

# mlflow/utils/validation.py:67-78
_ENTITIES_PER_BATCH = 100
_KEY_LENGTH = 250
_PARAM_LENGTH = 6000
TAG_LENGTH = 8000

_SERVERS = ("http:", "https:", "databricks")


def ui_command(uri: str, host: str, port: int) -> list[str]:
    """The command that serves MLflow's pages of a database; it answers at `/health` after some ten seconds.

    Raises:
        EnvironmentProblem: the address is a server's already.
    """
    if uri.startswith(_SERVERS):
        raise EnvironmentProblem(f"{without_password(uri)} is a server with pages of its own: open it in a browser")
    database = _sqlite_file(uri)
    options = {
        "--backend-store-uri": uri,
        "--host": host,
        "--port": str(port),
        "--workers": "1",  # the default is four, of 280 MB each
        # Without it, what the pages upload would lie in the folder where the server was started.
        **({"--artifacts-destination": str(database.parent / "mlartifacts")} if database else {}),
    }
    return [sys.executable, "-m", "mlflow", "ui", *(word for option in options.items() for word in option)]


class Run:
    """One run as MLflow holds it: what it holds is not written again."""

    def __init__(self, client: MlflowClient, run: Any) -> None:
        self.id: str = run.info.run_id
        self.status: str = run.info.status
        self.tags: dict[str, str] = dict(run.data.tags)
        self.params: dict[str, str] = dict(run.data.params)
        self._client = client
        self._metrics_before = frozenset(run.data.metrics)
        self._steps: dict[str, set[int]] = {}

    def tag(self, tags: Mapping[str, str]) -> None:
        """Tags may change; an empty one need not be there."""
        cut = {name: text[:TAG_LENGTH] for name, text in tags.items()}
        new = {name: text for name, text in cut.items() if text != self.tags.get(name, "")}
        for batch in _batches(new):
            self._client.log_batch(self.id, tags=[RunTag(name, text) for name, text in batch.items()])
        self.tags |= new

    def fix(self, params: Mapping[str, str]) -> None:
        """Params cannot change: the first value stays."""
        cut = {name[:_KEY_LENGTH]: text[:_PARAM_LENGTH] for name, text in params.items()}
        new = {name: text for name, text in cut.items() if name not in self.params}
        for batch in _batches(new):
            self._client.log_batch(self.id, params=[Param(name, text) for name, text in batch.items()])
        self.params |= new

    def changed(self, params: Mapping[str, str]) -> dict[str, str]:
        """Those of which it holds another text."""
        return {name: text for name, text in params.items() if text[:_PARAM_LENGTH] != self.params[name[:_KEY_LENGTH]]}

    def measure(self, metrics: Mapping[str, float | None], *, step: int = 0) -> None:
        """One point of each metric that has a value and no point at this step."""
        new = {name: float(value) for name, value in metrics.items() if value is not None and not self.has(name, step)}
        if new:
            now = _now()
            self._client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in new.items()])
        for name in new:
            self._steps[name].add(step)

    def has(self, metric: str, step: int) -> bool:
        """Whether the metric has a point at this step."""
        if metric not in self._steps:
            before = self._client.get_metric_history(self.id, metric) if metric in self._metrics_before else []
            self._steps[metric] = {point.step for point in before}
        return step in self._steps[metric]

    def attach(self, name: str, text: str) -> None:
        """An artifact, in place of the one of this name."""
        self._client.log_text(self.id, text, name)

    def become(self, status: str) -> None:
        """`RUNNING` again, or ended."""
        if status == self.status:
            return
        if status == "RUNNING":
            self._client.update_run(self.id, status=status)
        else:
            self._client.set_terminated(self.id, status)
        self.status = status


class Runs:
    """Those of one study in one experiment, which is made if it is not there.

    Attributes:
        experiment: MLflow's name of it.

    Args:
        uri: `sqlite:////...`, whose artifacts lie beside it in `mlartifacts`, another database, or a server.
        beside: the folder for the artifacts of another database.
        tags: of all its runs.
        key: the name of the tag by which they are found.

    Raises:
        EnvironmentProblem: the experiment was deleted.
    """

    def __init__(self, uri: str, experiment: str, beside: Path, tags: Mapping[str, str], *, key: str) -> None:
        _require_database(uri)
        self._client, self._tags = MlflowClient(tracking_uri=uri), dict(tags)
        self._query = f"tags.`{key}` = '{tags[key]}'"
        self.experiment = self._find_or_make(uri, experiment, beside)

    def _find_or_make(self, uri: str, experiment: str, beside: Path) -> str:
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            root = _artifact_root(uri, beside)
            # "Machine learning", not "GenAI", for the pages of MLflow before 3.17; that asks its user instead.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return self._client.create_experiment(experiment, root.as_uri() if root else None, kind)
        if found.lifecycle_stage != "active":
            raise EnvironmentProblem(
                f"the MLflow experiment {experiment} was deleted; to have it back: "
                f"MLFLOW_TRACKING_URI={without_password(uri)} "
                f"python -m mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        return found.experiment_id

    def found(self) -> Iterator[Run]:
        """Those that are there, the first to begin first."""
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment], self._query, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from (Run(self._client, run) for run in page)
            token = page.token
            if not token:
                return

    def begin(self, name: str, tags: Mapping[str, str] = MappingProxyType({}), *, seconds: float = 0.0) -> Run:
        """A new one that began so many seconds ago."""
        start = _now() - round(seconds * 1000)
        return Run(self._client, self._client.create_run(self.experiment, start, {**self._tags, **tags}, name))


def _batches(entries: Mapping[str, str]) -> Iterator[dict[str, str]]:
    items = list(entries.items())
    for start in range(0, len(items), _ENTITIES_PER_BATCH):
        yield dict(items[start : start + _ENTITIES_PER_BATCH])


def _now() -> int:
    """In milliseconds since 1970, as MLflow counts."""
    return round(time.time() * 1000)


def _artifact_root(uri: str, runs: Path) -> Path | None:
    """Beside a SQLite file, for another database under `runs`; a server has a place of its own.

    MLflow's own choice for a database is `./mlruns`, in whatever folder the process stands.
    """
    if uri.startswith(_SERVERS):
        return None
    database = _sqlite_file(uri)
    return (database.parent if database else runs) / "mlartifacts"


def _sqlite_file(uri: str) -> Path | None:
    """The file of a `sqlite:` address."""
    if not uri.startswith("sqlite:"):
        return None
    name = make_url(uri).database
    return Path(name).absolute() if name else None


def _require_database(uri: str) -> None:
    """Fail at once where MLflow would try for 100 seconds to open a SQLite file."""
    path = _sqlite_file(uri)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        try:
            connection.execute("PRAGMA schema_version")
        finally:
            connection.close()


def without_password(uri: str) -> str:
    """An address without its password."""
    try:
        return make_url(uri).render_as_string()
    except ArgumentError:
        return uri
