"""Log full trainings of a study's models in MLflow: one run each, under the study's run.

A thread reads `results.csv`, to which Ultralytics appends after every epoch. So a failure here does not end the
training, and a training on several GPUs, which runs in other processes, is logged in the same way.
"""

import csv
import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import signals
from nas.paths import RUNS
from nas.study.folders import STUDY, study_folder
from search_spaces.errors import EnvironmentProblem, NasError, unwrapped
from search_spaces.files import read_mapping, write_atomically
from trials.training.full_training import FullTrainer

if TYPE_CHECKING:
    from nas.study.study import Study
    from nas.tracking.mlflow_runs import Run
    from nas.tracking.tracker import Tracker

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 5.0
_SUMMARY = "summary.json"
_ORIGIN = "nas.json"
"""File in the folder of a training that names the study; a resumed training does not name the exported model."""
_METRICS = {
    "metrics/mAP50-95(B)": "map50_95",
    "metrics/mAP50(B)": "map50",
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
    "time": "seconds",
}
"""Metrics by Ultralytics' column; a column that is missing here is the metric's name."""


@contextmanager
def logged() -> Iterator[None]:
    """Log the trainings of studies' models that begin in a `with` block."""
    logs: list[TrainingLog] = []

    def begin(folder: Path, arguments: Mapping[str, Any]) -> None:
        try:
            origin = _origin_of(folder, arguments)
            if origin is not None:
                logs.append(TrainingLog(*origin, folder, arguments))
        except (NasError, OSError) as problem:
            _log.warning("this training is not in the MLflow of its study: %s", unwrapped(problem))

    FullTrainer.on_begin = begin
    status = "FAILED"
    try:
        with signals.as_ctrl_c():
            yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except SystemExit as leaving:
        status = "FAILED" if leaving.code else "FINISHED"
        raise
    finally:
        FullTrainer.on_begin = None
        for log in logs:
            log.finish(status)


def _origin_of(folder: Path, arguments: Mapping[str, Any]) -> "tuple[Study, Mapping[str, Any]] | None":
    """Return the study of the trained model, and its `summary.json`; None if it is no study's model."""
    from nas.study.study import Study  # noqa: PLC0415 - imports Optuna

    resumed = read_mapping(folder / _ORIGIN) if arguments.get("resume") else {}
    if resumed:
        return Study.open(Path(resumed["study"])), resumed["summary"]
    exported = Path(str(arguments["model"])).absolute().parent
    summary = read_mapping(exported / _SUMMARY)
    if "study" not in summary or "fingerprint" not in summary:
        return None
    around = [parent for parent in exported.parents if (parent / STUDY).is_file()]
    study = Study.open(around[0] if around else study_folder(str(summary["study"]), RUNS))
    if study.settings.space_hash != summary["space"]["hash"]:
        raise EnvironmentProblem(f"{exported}: of another study than {study.folder}")
    return study, summary


class TrainingLog:
    """Log of one training, which a thread writes until `finish`.

    Args:
        study: of the model.
        summary: content of the exported `summary.json`.
        folder: of the training, in which Ultralytics writes.
        arguments: of Ultralytics' trainer.
    """

    def __init__(self, study: "Study", summary: Mapping[str, Any], folder: Path, arguments: Mapping[str, Any]) -> None:
        self._study, self._summary, self._folder = study, summary, folder.absolute()
        self._arguments = {name: str(value) for name, value in arguments.items()}
        self._resumed = bool(arguments.get("resume"))
        self._began = round(time.time() * 1000)
        self._tracker: Tracker | None = None
        self._run: Run | None = None
        self._is_unavailable = self._warned = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="training log", daemon=True)
        self._thread.start()

    def finish(self, status: str) -> None:
        """Write the last epochs, and end the run with a status: `FINISHED`, `FAILED` or `KILLED`."""
        self._ended.set()
        self._thread.join()
        if not self._attempt(status) and not self._is_unavailable:
            _log.warning("the training is not, or not whole, in MLflow; its losses are in %s", self._results)

    @property
    def _results(self) -> Path:
        return self._folder / "results.csv"

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._attempt(None)
            self._ended.wait(_SECONDS_BETWEEN_LOOKS)

    def _attempt(self, status: str | None) -> bool:
        """Write the new epochs; return whether that succeeded."""
        try:
            return self._write(status)
        except EnvironmentProblem:
            return False  # the tracker has logged it
        except Exception as problem:  # noqa: BLE001 - logging must not end a training
            if not self._warned:
                line = unwrapped(problem) or type(problem).__name__
                _log.warning("MLflow: %s; the training goes on, and what is missing there is written later", line)
            self._warned = True
            return False

    def _write(self, status: str | None) -> bool:
        run = self._open_run()
        if run is None:
            return False
        rows = list(self._epochs())
        for epoch, figures in rows:
            run.log_metrics(figures, step=epoch)
        if status is not None:
            best = max((row for _, row in rows if "map50_95" in row), key=lambda row: row["map50_95"], default=None)
            if best is not None:
                run.log_metrics({"score/map50_95": best["map50_95"], "score/map50": best.get("map50")})
                run.update_metrics(_best_and_last(rows, best), step=0)
            weights = self._folder / "weights" / "best.pt"
            run.set_tags({"nas.weights": str(weights) if weights.is_file() else ""})
            run.set_status(status)
        return True

    def _open_run(self) -> "Run | None":
        """Return the training's run, created at the first call; None if MLflow cannot be imported."""
        if self._run is None and not self._is_unavailable:
            self._tracker = self._tracker or self._make_tracker()
            self._is_unavailable = self._tracker is None
            if self._tracker is not None:
                trial = int(self._summary["trial"])
                name = f"full-training-{trial:04d}"
                run = self._tracker.begin_training(name, self._folder, at=self._began, resumed=self._resumed)
                run.log_params(self._arguments)
                run.set_tags({"nas.fingerprint": str(self._summary["fingerprint"]), "nas.trained_trial": str(trial)})
                run.log_metrics({name: self._summary.get(name) for name in ("gflops", "params")})
                self._run = run
        if self._run is not None and self._folder.is_dir() and not (self._folder / _ORIGIN).is_file():
            origin = {"study": str(self._study.folder), "summary": dict(self._summary)}
            write_atomically(self._folder / _ORIGIN, json.dumps(origin, indent=1))
        return self._run

    def _make_tracker(self) -> "Tracker | None":
        """Return the tracker of the study; None if MLflow cannot be imported."""
        from nas.study import identity  # noqa: PLC0415 - imports what Ultralytics' command does not need
        from nas.workflows import running  # noqa: PLC0415 - the same

        identity.verify_unless_running(self._study)
        return running.tracker_of(self._study, activity="the training")

    def _epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield number and metrics of each epoch so far, without a line that is only partly written."""
        if not self._results.is_file():
            return
        *lines, _torn = self._results.read_text(encoding="utf-8").split("\n")
        for row in csv.DictReader(lines, skipinitialspace=True):
            figures = {_metric(column): float(text) for column, text in row.items() if column != "epoch" and text}
            yield int(float(row["epoch"])), figures


def _best_and_last(rows: Sequence[tuple[int, Mapping[str, float]]], best: Mapping[str, float]) -> dict[str, float]:
    """Return number and mAP50-95 of the best and of the last epoch.

    Args:
        rows: number and metrics of each epoch.
        best: metrics of the best one.
    """
    best_epoch = next(epoch for epoch, row in rows if row is best)
    last_epoch, last = rows[-1]
    values = {
        "best/epoch": best_epoch,
        "best/map50_95": best["map50_95"],
        "last/epoch": last_epoch,
        "last/map50_95": last.get("map50_95"),
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def _metric(column: str) -> str:
    """Return the metric of a column; MLflow allows no parentheses in names."""
    return _METRICS.get(column) or re.sub(r"[^\w\-. /]", "", column)
