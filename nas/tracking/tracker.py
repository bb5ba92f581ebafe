"""Tracking of a study in MLflow: a parent run per study, a child run per trial, the front as a table and a figure.

Only the supervisor of a study uses it; its workers write files. A tracker reads from MLflow what is there when it
opens, and stores no copy: after a kill between two writes the next tracker finds exactly what had arrived.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.addresses import redact, without_password
from nas.algorithms.hypervolume import hypervolume
from nas.algorithms.pareto import OBJECTIVES, Direction
from nas.locks import is_held
from nas.records.record import Record, pareto_front_of, point_of
from nas.records.trial_files import TrialFiles
from nas.study.folders import SPACE, SUPERVISOR_LOCK, TRACKING_STATE
from nas.tracking import figures, note
from nas.tracking.mlflow_runs import TAG_LENGTH, Run, Runs, advice_on, now
from nas.tracking.state import TrackingState
from search_spaces.errors import EnvironmentProblem, unwrapped
from search_spaces.scaling import MACRO

_log = logging.getLogger(__name__)

_TRAINING = "nas.training"
"""Tag of the run of a full training: the folder in which it writes."""
_SECONDS_BETWEEN_ATTEMPTS = 10.0
_STATUS = {"running": "RUNNING", "complete": "FINISHED", "pruned": "FINISHED", "fail": "FAILED"}
_COSTS = ("gflops", "params", "latency_ms", "latency_spread_ms", "seconds")


class Tracker:
    """Synchronises MLflow's runs of one study with its records.

    The parent has the settings, the training of the stock model under `base/`, the front (in its note and
    under `front/`), and one point per finished trial, in the order in which they finished, of `front_size`,
    `best_map50_95` and `hypervolume`. The hypervolume is the share that the front dominates of a box: from
    accuracy 0 to 1, and from no cost to twice the stock model's, as first measured. The box never changes, so
    that all points of a study compare. Points from before the stock model was measured are written afterwards.

    A child has the picks, epochs, scores and costs of its trial; once that is finished, its tag `pareto`
    is whether it is on the front.

    Args:
        uri: `sqlite:////...`, with artifacts beside it in `mlartifacts`; another database; or a server.
        folder: the study's.
        experiment: `nas/<space>`.
        study: name of it.
        settings: as text. If a study is resumed with others, the parent keeps the first as params and has the
            present ones as tags, `settings.<name>`.
        objectives: of the study.
        commands: by purpose, as a user types them.
        sync_command: command that writes what is missing.
        activity: that goes on if MLflow does not work, in messages.
        clock: in seconds, for the pause between two attempts to reach a server.

    A failure is logged once, and what is missing is written when MLflow works again: a search neither ends nor fails
    to begin because of its tracking.
    """

    def __init__(
        self,
        uri: str,
        folder: Path,
        *,
        experiment: str,
        study: str,
        settings: Mapping[str, str],
        objectives: Sequence[str],
        commands: Mapping[str, str],
        sync_command: str = "nas sync",
        activity: str = "the search",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uri = uri
        self.folder = folder.absolute()
        self.experiment = experiment
        self.study = study
        self.settings = settings
        self.objectives = tuple(objectives)
        self.commands = commands
        self.sync_command = sync_command
        self.problem: str | None = None
        self._activity = activity
        self._clock = clock
        self._records: Sequence[Record] = ()
        self._not_before = -math.inf
        self._up_to_date = self._warned = self._has_trained = False
        self._attempt(lambda: None)

    @property
    def parent_run_id(self) -> str:
        """Id of the study's run in MLflow."""
        return self._parent.id

    @property
    def page(self) -> str:
        """Path of the study's page on MLflow's web server."""
        # By default MLflow 3.17 opens an experiment in its view for language models.
        return f"/#/experiments/{self._runs.experiment}/runs/{self._parent.id}?workflowType=machine_learning"

    def sync(self, records: Sequence[Record]) -> None:
        """Write what is new in the records of all trials; if nothing is, MLflow is not accessed."""
        self._records = records
        running = any(record.state == "running" for record in records)
        self._has_trained = self._has_trained or self._stock_is_trained or running
        if self._clock() >= self._not_before:
            self._attempt(self._follow)

    def finish(self, status: str, records: Sequence[Record] | None = None) -> None:
        """End the parent as `FINISHED` or `KILLED`; children that are still running are killed.

        If nothing was trained, the end time is that of the last trial.

        Args:
            status: of the parent.
            records: of all trials; by default those of the last `sync`.
        """
        if records is not None:
            self._records = records

        def end() -> None:
            self._store_end(status, self._parent.ended)
            self._write()
            for trial, child in self._children.items():
                if child.status == "RUNNING":
                    child.set_status("KILLED", _last_heartbeat(TrialFiles.of(self.folder, trial)))
            self._parent.set_status(status, self._state.ended)

        self._attempt(end, last=True)
        if self.problem is not None:
            with suppress(OSError):  # only the end time is lost
                self._state = TrackingState.of(self.folder)
                self._store_end(status, None)

    def send(self, records: Sequence[Record], *, unfinished: bool) -> None:
        """Write what is missing of a study without workers, and end its runs.

        Args:
            records: of all trials.
            unfinished: whether trials remain.

        Raises:
            EnvironmentProblem: MLflow cannot be used.
        """
        try:
            status = TrackingState.of(self.folder).status
        except OSError as problem:
            raise EnvironmentProblem(f"{self.folder / TRACKING_STATE}: {problem.strerror}") from None
        self.finish(status or ("KILLED" if unfinished else "FINISHED"), records)
        if self.problem:
            raise EnvironmentProblem(self.problem)

    def begin_training(self, name: str, folder: Path, *, at: int, resumed: bool) -> Run:
        """Return the child run of a full training of one of the study's models.

        Args:
            name: of the run.
            folder: in which the training writes.
            at: start time in milliseconds since 1970.
            resumed: whether a stopped training is resumed, with its run.

        Raises:
            EnvironmentProblem: MLflow cannot be used.
        """
        if not self._up_to_date and self._clock() >= self._not_before:
            self._attempt(lambda: None)
        if self.problem is not None:
            raise EnvironmentProblem(self.problem)
        if self._parent.status == "RUNNING" and not is_held(self.folder / SUPERVISOR_LOCK):
            self._parent.set_status(self._state.status or "KILLED", self._state.ended)
        for run in reversed(self._trainings if resumed else []):
            if run.tags[_TRAINING] == str(folder):
                run.set_status("RUNNING")
                return run
        return self._runs.begin(name, {_TRAINING: str(folder), "mlflow.parentRunId": self._parent.id}, at=at)

    @property
    def _stock_is_trained(self) -> bool:
        """True while the stock model is being trained."""
        files = TrialFiles.of_stock_model(self.folder)
        return files.folder.is_dir() and not files.outcome.is_file()

    def _attempt(self, write: Callable[[], None], *, last: bool = False) -> None:
        try:
            if not self._up_to_date:
                self._open()
            self._up_to_date = False  # a failure or Ctrl-C may leave MLflow ahead of what we know
            write()
        except Exception as problem:  # noqa: BLE001 - no failure of MLflow ends a search
            self._not_before = self._clock() + _SECONDS_BETWEEN_ATTEMPTS
            self.problem = self._message(problem)
            if last:
                _log.warning("%s; what is missing there is sent by: %s", self.problem, self.sync_command)
            elif not self._warned:
                _log.warning(
                    "%s; %s goes on, and what is missing there is written once it works", self.problem, self._activity
                )
            self._warned = True
        else:
            self._up_to_date, self._warned, self.problem = True, False, None

    def _message(self, problem: Exception) -> str:
        """Return the problem and advice in one line, without passwords."""
        line = redact(unwrapped(problem), self.uri)
        line = line or type(problem).__name__
        line = line if len(line) <= 300 else f"{line[:120]} ... {line[-180:]}"
        advice = advice_on(self.uri, problem)
        return f"MLflow cannot be used at {without_password(self.uri)}: {line}{f' ({advice})' if advice else ''}"

    def _open(self) -> None:
        """Find this study's runs; begin its parent if there is none."""
        self._state = TrackingState.of(self.folder)
        tags = {"nas.study": self.study, "nas.study_id": self._state.study_id}
        self._runs = Runs(self.uri, self.experiment, self.folder.parent, tags, key="nas.study_id")
        runs = list(self._runs.find())
        self._children = {int(run.tags["nas.trial"]): run for run in runs if "nas.trial" in run.tags}
        self._trainings = [run for run in runs if _TRAINING in run.tags]
        parents = [run for run in runs if not {"nas.trial", _TRAINING} & run.tags.keys()]
        self._parent = parents[0] if parents else self._runs.begin(self.study, at=_changed_at(self.folder / SPACE))
        self._written_front: object = None
        self._parent.log_params(self.settings)
        self._parent.set_tags(self._changed_settings())
        self._up_to_date = True

    def _follow(self) -> None:
        if self._has_trained:
            self._parent.set_status("RUNNING")
            if self._state.status:
                self._store(replace(self._state, status="", ended=None))
        self._write()

    def _changed_settings(self) -> dict[str, str]:
        changed, tags = self._parent.changed_params(self.settings), self._parent.tags
        return {
            f"settings.{name}": text
            for name, text in self.settings.items()
            if name in changed or f"settings.{name}" in tags
        }

    def _write(self) -> None:
        # A worker stores the ending first, then the scores; all are there once Optuna calls the trial complete.
        finished = {record.trial: record for record in self._records if record.finished and record.state == "complete"}
        self._store_finished(finished)
        best = pareto_front_of(list(finished.values()), self.objectives)
        on_front = {record.trial for record in best}
        for record in self._records:
            proposed = record.summary or record.state != "running"
            if record.state in _STATUS and proposed:
                pareto = str(record.trial in on_front).lower() if record.trial in finished else ""
                self._write_child(record, pareto)
        for training in self._trainings:
            training.set_tags({"mlflow.parentRunId": self._parent.id})
        self._write_stock_training()
        self._write_parent(finished, best)

    def _write_stock_training(self) -> None:
        """Write the training of the stock model to the parent: it is no trial."""
        for epoch in TrialFiles.of_stock_model(self.folder).read_epochs():
            figures = {**epoch.losses, "map50_95": epoch.map50_95, "map50": epoch.map50}
            self._parent.log_metrics({f"base/{name}": value for name, value in figures.items()}, step=epoch.epoch)

    def _store_finished(self, finished: Mapping[int, Record]) -> None:
        state = self._state
        new = sorted(finished.keys() - set(state.finished))
        stock = _stock_costs(self._records, self.objectives) if state.stock is None else state.stock
        self._store(replace(state, finished=(*state.finished, *new), stock=stock))

    def _store(self, state: TrackingState) -> None:
        if state != self._state:
            state.write(self.folder)
            self._state = state

    def _store_end(self, status: str, before: int | None) -> None:
        """Store the final status and the end time: now, or that of the last trial if nothing was trained.

        Args:
            status: final status of the parent.
            before: end time in MLflow, if the run has ended before.
        """
        files = [
            TrialFiles.of_stock_model(self.folder),
            *(TrialFiles.of(self.folder, one.trial) for one in self._records),
        ]
        ends = [self._state.ended or before, *(_changed_at(each.outcome) for each in files)]
        last = max((end for end in ends if end is not None), default=None)
        self._store(replace(self._state, status=status, ended=now() if self._has_trained or last is None else last))

    def _write_child(self, record: Record, pareto: str) -> None:
        ended = None if record.state == "running" else _changed_at(TrialFiles.of(self.folder, record.trial).outcome)
        child = self._children.get(record.trial)
        if child is None:
            tags = {"nas.trial": str(record.trial), "mlflow.parentRunId": self._parent.id}
            began = (ended or now()) - round(record.seconds * 1000)
            child = self._runs.begin(f"trial-{record.trial:04d}", tags, at=began)
            self._children[record.trial] = child
        status = _status_of(record)
        if child.status != status or status == "RUNNING":
            self._write_training(child, record)
        child.set_tags(
            {
                "mlflow.parentRunId": self._parent.id,
                "nas.fingerprint": record.fingerprint,
                "nas.architecture": record.summary,
                "nas.role": record.role,
                "nas.repeat": str(record.repeat or ""),
                "nas.state": record.state,
                "nas.ending": record.ending or "",
                "nas.detail": record.detail,
                "pareto": pareto,
            }
        )
        if child.status != status:
            child.set_status(status, ended)

    def _write_training(self, child: Run, record: Record) -> None:
        """Write what does not change once the trial has ended."""
        child.log_params(_pick_params(record.picks) if record.summary else {})
        files = TrialFiles.of(self.folder, record.trial)
        for epoch in files.read_epochs():
            losses = {f"train/{name}": loss for name, loss in epoch.losses.items()}
            accuracies = {"map50_95": epoch.map50_95, "map50": epoch.map50}
            child.log_metrics({**losses, **accuracies, "epoch_seconds": epoch.seconds}, step=epoch.epoch)
        if record.state == "running":
            return
        scores = {"score/map50_95": record.map50_95, "score/map50": record.map50}
        costs = {name: getattr(record, name) for name in _COSTS}
        child.log_metrics(scores | costs | {"inherited": record.inherited or None})
        for path in (files.model, files.outcome, files.error):
            if path.is_file():
                child.log_artifact(path)

    def _write_parent(self, finished: Mapping[int, Record], best: Sequence[Record]) -> None:
        stock, order = self._state.stock, [trial for trial in self._state.finished if trial in finished]
        front = (order, stock, [record.trial for record in best])
        if front == self._written_front:
            return
        shown = [finished[trial] for trial in order]
        for step in range(1, len(shown) + 1):
            self._log_front(shown[:step], step)
        text = note.describe(
            self.study, shown, best, self.objectives, stock=stock, commands=self.commands, room=TAG_LENGTH
        )
        self._parent.set_tags({"mlflow.note.content": text})
        if shown:
            rows = [record.as_row() for record in best]
            self._upload("front.json", json.dumps(rows, indent=1))
            self._upload("front.csv", note.table(rows))
            self._upload("front.html", figures.figure(self.study, shown, best, self.objectives))
        self._written_front = front

    def _upload(self, name: str, text: str) -> None:
        """Upload a file of the Pareto front; one left by a killed process is overwritten the next time."""
        file = self.folder / "mlflow" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        self._parent.log_artifact(file, "front")
        file.unlink()

    def _log_front(self, finished: Sequence[Record], step: int) -> None:
        """Write the front's metrics at the step when these were the finished trials."""
        stock = self._state.stock
        if self._parent.has("front_size", step) and (stock is None or self._parent.has("hypervolume", step)):
            return
        best = pareto_front_of(finished, self.objectives)
        self._parent.log_metrics(
            {
                "hypervolume": None if stock is None else _share(best, self.objectives, stock),
                "front_size": len(best),
                "best_map50_95": max((record.map50_95 or 0.0 for record in best), default=None),
            },
            step=step,
        )


def _status_of(record: Record) -> str:
    """Return MLflow's status of a trial; an interrupted one is `fail` in Optuna and `KILLED` in MLflow."""
    return "KILLED" if record.status == "interrupted" else _STATUS[record.state]


def _changed_at(path: Path) -> int | None:
    """Return the modification time of a file, in milliseconds since 1970; None if there is none."""
    return round(path.stat().st_mtime * 1000) if path.is_file() else None


def _last_heartbeat(files: TrialFiles) -> int | None:
    """Return the time of the last heartbeat of an interrupted training, in milliseconds since 1970."""
    return _changed_at(files.lock) or _changed_at(files.progress)


def _stock_costs(records: Sequence[Record], objectives: Sequence[str]) -> dict[str, float] | None:
    """Return the stock model's costs among the objectives; None until all are measured."""
    names = [name for name in objectives if OBJECTIVES[name] is Direction.MINIMIZE]
    for record in records:
        if record.role == "stock" and all(getattr(record, name) is not None for name in names):
            return {name: float(getattr(record, name)) for name in names}
    return None if names else {}


def _share(best: Sequence[Record], objectives: Sequence[str], stock: Mapping[str, float]) -> float:
    """Return the hypervolume of a front, from 0 to 1, as a share of the box that `Tracker` describes."""
    corner = tuple(2 * stock[name] if name in stock else 0.0 for name in objectives)
    points = [point_of(record, objectives) for record in best]
    directions = [OBJECTIVES[name] for name in objectives]
    return round(hypervolume(points, directions, corner) / math.prod(2 * cost for cost in stock.values()), 6)


def _pick_params(picks: Mapping[str, Any]) -> dict[str, str]:
    """Return picks as params with Optuna's names; `architecture: stock` where there are none."""
    slots = {name: choice for name, choice in picks.items() if name != MACRO}
    flat = {f"{MACRO}.{factor}": f"{value:g}" for factor, value in picks.get(MACRO, {}).items()}
    for slot, choice in slots.items():
        for operator, parameters in choice.items():
            flat[f"{slot}.operator"] = operator
            flat |= {f"{slot}.{operator}.{name}": str(value) for name, value in parameters.items()}
    return flat or {"architecture": "stock"}
