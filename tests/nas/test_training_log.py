"""Full trainings of a study's models in MLflow, with a stand-in for the training."""

import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.study import Study
from nas.workflows import training_log
from nas.workflows.training_log import logged
from trials import Outcome
from trials.training.full_training import FullTrainer

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

HEADER = "epoch,time,train/box_loss,metrics/precision(B),metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0\n"
EPOCHS = ("1,1.5,3.0,0.1,0.3,0.2,0.01\n", "2,3.0,2.0,0.2,0.6,0.5,0.01\n", "3,4.5,1.0,0.2,0.5,0.4,0.01\n")


@pytest.fixture
def study(
    make_study: Callable[..., Study],
    score: Callable[..., Outcome],
    track_in: Callable[[Study, str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Study:
    made = make_study(trials=2)
    track_in(made, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(worker, "evaluate", score)
    monkeypatch.setattr(training_log, "_SECONDS_BETWEEN_LOOKS", 0.05)
    Worker(made, deadline=float("inf")).run()
    return made


def exported(study: Study, folder: Path | None = None) -> Path:
    """Folder with the files of `nas export` that identify a model."""
    folder = folder or study.folder / "export" / "trial-0001"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text("nc: 2\n")
    summary = {
        "trial": 1,
        "study": study.name,
        "fingerprint": "abc",
        "gflops": 2.0,
        "params": 1000,
        "space": {"hash": study.settings.space_hash},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder / "model.yaml"


def train(folder: Path, model: Path, *epochs: str, resume: bool = False, ends: Any = None) -> None:
    """Stand-in for Ultralytics' training, which ends with an exception or a signal."""
    on_begin = FullTrainer.on_begin
    assert on_begin is not None
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    on_begin(folder, {"model": str(model), "resume": resume, "epochs": 3})
    results = folder / "results.csv"
    with results.open("a") as lines:
        lines.writelines(([] if results.stat().st_size else [HEADER]) + list(epochs))
    (folder / "weights" / "best.pt").touch()
    if isinstance(ends, signal.Signals):
        os.kill(os.getpid(), ends)
        signal.pause()
    elif ends is not None:
        raise ends


def trainings(study: Study) -> list[Run]:
    client = MlflowClient(tracking_uri=study.file.tracking)
    experiment = client.get_experiment_by_name(f"nas/{study.settings.space}")
    return [run for run in client.search_runs([experiment.experiment_id]) if "nas.training" in run.data.tags]


def points(study: Study, run: Run, metric: str) -> Mapping[int, float]:
    history = MlflowClient(tracking_uri=study.file.tracking).get_metric_history(run.info.run_id, metric)
    return {point.step: point.value for point in history}


def test_full_training_is_a_child_run_of_the_study(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    with logged():
        train(folder, exported(study), *EPOCHS)
    (run,) = trainings(study)
    assert (run.info.run_name, run.info.status) == ("full-training-0001", "FINISHED")
    client = MlflowClient(tracking_uri=study.file.tracking)
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == study.name
    assert parent.info.status == "KILLED"  # nobody works on it; `nas sync` says how it had ended
    assert run.data.params == {
        "model": str(study.folder / "export/trial-0001/model.yaml"),
        "resume": "False",
        "epochs": "3",
    }
    assert points(study, run, "map50_95") == {1: 0.2, 2: 0.5, 3: 0.4}
    assert points(study, run, "train/box_loss") == {1: 3.0, 2: 2.0, 3: 1.0}
    assert {
        "score/map50_95": 0.5,
        "score/map50": 0.6,
        "gflops": 2.0,
        "params": 1000,
    }.items() <= run.data.metrics.items()
    assert run.data.tags["nas.weights"] == str(folder / "weights" / "best.pt")
    assert run.data.tags["nas.fingerprint"] == "abc"
    assert FullTrainer.on_begin is None


def test_full_training_does_not_become_the_run_of_the_study(study: Study, tmp_path: Path) -> None:
    from nas.workflows import running

    with logged():
        train(tmp_path / "train", exported(study), *EPOCHS)
    client = MlflowClient(tracking_uri=study.file.tracking)
    client.delete_run(trainings(study)[0].data.tags["mlflow.parentRunId"])
    running.sync(study)
    (run,) = trainings(study)
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (parent.info.run_name, parent.info.lifecycle_stage) == (study.name, "active")


@pytest.mark.parametrize(
    ("raised", "status"),
    [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED"), (SystemExit(1), "FAILED"), (SystemExit(0), "FINISHED")],
)
def test_run_of_a_full_training_ends_as_the_training_does(
    study: Study, tmp_path: Path, raised: Any, status: str
) -> None:
    with pytest.raises((KeyboardInterrupt, ValueError, SystemExit)), logged():
        train(tmp_path / "train", exported(study), EPOCHS[0], ends=raised)
    assert [run.info.status for run in trainings(study)] == [status]


def test_sigterm_ends_the_run_of_a_full_training_as_killed(study: Study, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt), logged():
        train(tmp_path / "train", exported(study), EPOCHS[0], ends=signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert [run.info.status for run in trainings(study)] == ["KILLED"]


def test_resumed_full_training_keeps_its_run(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    with pytest.raises(KeyboardInterrupt), logged():
        train(folder, exported(study), EPOCHS[0], EPOCHS[1][:5], ends=KeyboardInterrupt)
    results = folder / "results.csv"
    results.write_text(HEADER + EPOCHS[0])
    with logged():
        train(folder, folder / "weights" / "last.pt", *EPOCHS[1:], resume=True)
    (run,) = trainings(study)
    assert run.info.status == "FINISHED"
    assert points(study, run, "map50_95") == {1: 0.2, 2: 0.5, 3: 0.4}


def test_another_training_in_the_same_folder_has_another_run(study: Study, tmp_path: Path) -> None:
    model = exported(study)
    for _ in range(2):
        with logged():
            train(tmp_path / "train", model, EPOCHS[0])
    assert len(trainings(study)) == 2


def test_model_of_no_study_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "summary.json").write_text("[]")
    with logged():
        train(tmp_path / "train", tmp_path / "model.yaml", *EPOCHS)
        train(tmp_path / "train", Path("yolov9t.yaml"), *EPOCHS)
    assert not caplog.records


def test_exported_model_in_another_folder_finds_its_study_by_name(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = exported(study, tmp_path / "elsewhere")
    with logged():
        train(tmp_path / "train", model, *EPOCHS)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("this training is not in the MLflow of its study: ")
    monkeypatch.setattr(training_log, "RUNS", study.folder.parent)
    with logged():
        train(tmp_path / "train", model, *EPOCHS)
    assert len(trainings(study)) == 1


def test_unavailable_mlflow_ends_no_training(
    study: Study, track_in: Callable[[Study, str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    track_in(study, "http://127.0.0.1:9")
    with logged():
        train(tmp_path / "train", exported(study), *EPOCHS)
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(found) == 2
    assert found[0].endswith(
        "(start that server); the training goes on, and what is missing there is written once it works"
    )
    assert found[1] == f"the training is not, or not whole, in MLflow; its losses are in {tmp_path}/train/results.csv"
