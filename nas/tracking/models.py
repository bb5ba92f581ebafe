"""Models of a search's finalists in MLflow: weights with signature and input example, and their scores per data set."""

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas._version import __version__
from nas.locks import Lock
from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.study.folders import UPLOAD_LOCK, UPLOADS
from nas.tracking.consistency import expected_metrics
from nas.tracking.context import DataInput
from nas.tracking.mlflow_runs import DESCRIPTION, Run, Runs, models_of
from nas.tracking.pyfunc_model import MODEL, WEIGHTS
from nas.tracking.trial_runs import changed_at
from search_spaces.printable import markdown

_SIDE = 64
"""Side of the image of the input example, in pixels: as text, one of 640 pixels takes ten megabytes."""
_TRIAL = "nas.trial"
_VERSIONS = "mlflow.modelVersions"
"""Tag by which a model's page lists its registered versions, as `mlflow.register_model` writes it."""
_COSTS = ("gflops", "params", "latency_ms")


class LoggedModels:
    """Models of one study in MLflow; one is written once, and ends as `READY` when all of it has arrived.

    Args:
        runs: of the study.
        study: name of it.
        study_id: tag of its models.
        folder: the study's.
        data: data sets of the trials; the first is the one of the scores.
    """

    def __init__(self, runs: Runs, study: str, study_id: str, folder: Path, data: Sequence[DataInput]) -> None:
        self._runs, self._study, self._study_id, self._folder, self._data = runs, study, study_id, folder, data

    def write(self, records: Sequence[Record], runs: Mapping[int, Run], tags: Mapping[int, Mapping[str, str]]) -> None:
        """Write the models that MLflow lacks, and their tags, which may change.

        Args:
            records: of the finalists; one whose weights were deleted is left out.
            runs: of trials, by number.
            tags: of the finalists, by trial.
        """
        found = [record for record in records if record.trial in runs]
        here = [record for record in found if TrialFiles.of(self._folder, record.trial).has_model]
        if not here:
            return
        stored = self._stored()
        for record in here:
            stored[record.trial] = self._write(record, runs[record.trial], stored.get(record.trial))
        for trial, model in stored.items():
            changed = {name: text for name, text in tags.get(trial, {}).items() if model.tags.get(name, "") != text}
            if changed:
                self._runs.client.set_logged_model_tags(model.model_id, changed)

    def register(self, record: Record, run: Run, name: str) -> str:
        """Register a trial's model under a name; return its version there, which it may have already."""
        client = self._runs.client
        model = self._write(record, run, self._stored().get(record.trial))
        if not any(found.name == name for found in client.search_registered_models(f"name = '{name}'")):
            client.create_registered_model(name)
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.source == model.artifact_location:  # a list of versions has no ids of models
                return str(version.version)
        # Not `models:/...`, which MLflow would look for at the address of the process, not of this client.
        version = client.create_model_version(name, model.artifact_location, run.id, model_id=model.model_id)
        listed = [*json.loads(model.tags.get(_VERSIONS, "[]")), {"name": name, "version": version.version}]
        client.set_logged_model_tags(model.model_id, {_VERSIONS: json.dumps(listed)})
        return str(version.version)

    def _stored(self) -> dict[int, Any]:
        """Return the models that MLflow has, by trial; a second one of a trial is deleted."""
        models: dict[int, Any] = {}
        for model in models_of(self._runs.client, self._runs.experiment, self._study_id):
            if models.setdefault(int(model.tags[_TRIAL]), model) is not model:
                self._runs.client.delete_logged_model(model.model_id)
        return models

    def _write(self, record: Record, run: Run, model: Any) -> Any:
        """Create the model unless it is there, and write what it lacks; return it."""
        if model is not None and str(model.status) == "READY":
            return model
        client = self._runs.client
        if model is None:
            model = client.create_logged_model(
                self._runs.experiment,
                f"{self._study}-trial-{record.trial:04d}",
                run.id,
                {
                    **self._runs.tags,
                    _TRIAL: str(record.trial),
                    "nas.fingerprint": record.fingerprint,
                    "nas.architecture": record.summary,
                    DESCRIPTION: f"Trial {record.trial} of {self._study}: {markdown(record.summary)}",
                },
                dict(run.params),
                "object-detection",
            )
        self._send(record, model, run.id)
        values, files = expected_metrics(record), TrialFiles.of(self._folder, record.trial)
        scores = {name: value for name, value in values.items() if name.startswith("score/")}
        costs = {name: values[name] for name in _COSTS if name in values}
        data = self._data[0] if self._data else None
        run.log_model(model.model_id, scores, costs, data, changed_at(files.outcome) or run.began)
        client.finalize_logged_model(model.model_id, "READY")
        return model

    def _send(self, record: Record, model: Any, run_id: str) -> None:
        """Send a model's files; of two processes that do, one after the other."""
        with Lock(self._folder / UPLOAD_LOCK).held():
            folder = self._folder / UPLOADS / "model"
            shutil.rmtree(folder, ignore_errors=True)  # of a killed process, if it is there
            folder.mkdir(parents=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of type hints in modules of MLflow that are imported here
                _save(TrialFiles.of(self._folder, record.trial), folder / "saved", model, run_id)
            self._runs.send_model(model, folder / "saved")
            shutil.rmtree(folder)


def _save(files: TrialFiles, folder: Path, model: Any, run_id: str) -> None:
    """Write a model in MLflow's form: its weights and YAML, signature, input example, requirements."""
    import numpy as np  # noqa: PLC0415 - with the next ones a second, which a search does not need before its end
    from mlflow import pyfunc  # noqa: PLC0415
    from mlflow.models import Model, ModelSignature  # noqa: PLC0415
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415

    data = folder.with_name("data")
    data.mkdir()
    for source, name in ((files.weights, WEIGHTS), (files.model, MODEL)):
        (data / name).write_bytes(source.read_bytes())
    number = np.dtype("float32")
    signature = ModelSignature(
        inputs=Schema([TensorSpec(number, (-1, 3, -1, -1))]),
        outputs=Schema([TensorSpec(number, (-1, -1, -1))]),
    )
    pyfunc.save_model(
        folder,
        loader_module="nas.tracking.pyfunc_model",
        data_path=str(data),
        mlflow_model=Model(model_uuid=model.model_id, model_id=model.model_id, run_id=run_id),
        signature=signature,
        input_example=np.full((1, 3, _SIDE, _SIDE), 0.5, number),
        pip_requirements=[f"nas-for-yolo=={__version__}"],
    )
