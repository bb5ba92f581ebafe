"""Tracking of a study in MLflow: a parent run per study, a child run per trial; failures, attempts, the end.

Only the supervisor of a study uses it; its workers write files. A tracker reads from MLflow what is there when it
opens, and stores no copy: after a kill between two writes the next tracker finds exactly what had arrived.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nas.addresses import redact, without_password
from nas.locks import is_held
from nas.records.recommended import finalists
from nas.records.record import Record, pareto_front_of
from nas.records.trial_files import TrialFiles
from nas.study.folders import SPACE, SUPERVISOR_LOCK, TRACKING_STATE
from nas.study.tracking_state import TrackingState
from nas.tracking.context import Context
from nas.tracking.doubled_runs import without_doubles
from nas.tracking.findings import Findings, Stage
from nas.tracking.mlflow_runs import Run, Runs, advice_on, message_of, now
from nas.tracking.models import LoggedModels
from nas.tracking.study_run import StudyRun, stock_costs
from nas.tracking.trial_runs import TrialRuns, axes, changed_at
from nas.tracking.views import view_key, view_tags
from search_spaces.errors import EnvironmentProblem

_log = logging.getLogger(__name__)

_TRAINING = "nas.training"
"""Tag of the run of a full training: the folder in which it writes."""
_SECONDS_BETWEEN_ATTEMPTS = 10.0
_OF_LATENCY = ("latency", "limits.latency_ms", "target_latency")
"""Settings with which trials have a latency; `None` as text is the value of one that is not set."""
_NAMED = 8
"""Number of trials that a message names."""


class Tracker:
    """Synchronises MLflow's runs of one study with its records.

    The parent has the settings, the training of the stock model under `base/`, the front (in its note and
    under `front/`), and one point per finished trial, in the order in which they finished, of `front_size`,
    `best_map50_95` and `hypervolume`: see `StudyRun`. A child has the picks, epochs, scores and costs of its trial;
    once that is finished, its tag `pareto` is whether it is on the front: see `TrialRuns`.

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
        activity: that goes on if MLflow does not work, in messages; empty where the problem is raised, and not logged.
        clock: in seconds, for the pause between two attempts to reach a server.
        findings: returns what other studies found of this one's trials; called at the beginning and at the end.
        stage: the study's place in another one, under whose run it is shown; None for a search.
        context: data sets, searched choices, and who started the study.

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
        findings: Callable[[], Findings] = Findings,
        stage: Stage | None = None,
        context: Context | None = None,
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
        self._findings, self._stage, self._context = findings, stage, context or Context()
        self._records: Sequence[Record] = ()
        self._is_open = False
        self._not_before = -math.inf
        self._up_to_date = self._warned = self._has_trained = self._has_failed = False
        self._attempt(lambda: None)

    @property
    def parent_run_id(self) -> str:
        """Id of the study's run in MLflow."""
        return self._parent.run.id

    @property
    def page(self) -> str:
        """Path of the study's page on MLflow's web server."""
        # By default MLflow 3.17 opens an experiment in its view for language models.
        return f"/#/experiments/{self._runs.experiment}/runs/{self._parent.run.id}?workflowType=machine_learning"

    @property
    def view(self) -> str:
        """Path of the table of the study's trials, as a saved view."""
        key = view_key(self._state.study_id)
        return f"/#/experiments/{self._runs.experiment}/runs?viewStateShareKey={key}&workflowType=machine_learning"

    def sync(self, records: Sequence[Record]) -> None:
        """Write what is new in the records of all trials; if nothing is, MLflow is not accessed."""
        self._records = records
        running = any(record.state == "running" for record in records)
        self._has_trained = self._has_trained or self._stock_is_trained or running
        if self._clock() >= self._not_before:
            self._attempt(self._follow)

    def finish(self, status: str, records: Sequence[Record] | None = None, *, sends_models: bool = False) -> None:
        """End the parent as `FINISHED` or `KILLED`; children that are still running are killed.

        If nothing was trained, the end time is that of the last trial.

        Args:
            status: of the parent.
            records: of all trials; by default those of the last `sync`.
            sends_models: send the finalists' models, also of a search that somebody has stopped.
        """
        if records is not None:
            self._records = records

        if self._has_failed:  # a server may have carried out a request later than it was waited for
            self._up_to_date = False

        def end() -> None:
            self._store_end(status, self._parent.run.ended)
            self._parent.findings = self._findings()
            self._write()
            self._trials.kill_running()
            self._parent.run.set_status(status, self._state.ended)

        self._attempt(end, last=True)
        if self.problem is None and self._stage is None and (sends_models or status == "FINISHED"):
            self._attempt(self._write_models, last=True)  # the largest part last
        if self.problem is not None:
            with suppress(OSError, EnvironmentProblem):  # only the end time is lost
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
        self.finish(status or ("KILLED" if unfinished else "FINISHED"), records, sends_models=True)
        if self.problem:
            raise EnvironmentProblem(self.problem)

    def unsent(self, records: Sequence[Record]) -> str:
        """Return what MLflow lacks at the end, in words.

        Args:
            records: of all trials.
        """
        missing = self._trials.unsent(records) if self._is_open else [record.trial for record in records]
        shown = ", ".join(map(str, missing[:_NAMED]))
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        end = "the end of the study's run" if self._is_open else "the study's run"
        return f"{end}, {'trial' if len(missing) == 1 else 'trials'} {shown}{more}" if missing else end

    def register(self, record: Record, name: str) -> str:
        """Register the model of a trial under a name in MLflow's registry; return its version.

        Args:
            record: of a finished trial with weights.
            name: of the registered model, which is created if it is missing.

        Raises:
            EnvironmentProblem: MLflow cannot be used, or does not have the trial yet.
        """
        runs: list[str] = []

        def write() -> None:
            run = self._trials.of_trials().get(record.trial)
            if run is None:
                raise EnvironmentProblem(f"MLflow does not have trial {record.trial} yet; {self.sync_command} sends it")
            runs.append(self._models.register(record, run, name))

        self._attempt(write)
        if self.problem is not None:
            raise EnvironmentProblem(self.problem)
        return runs[0]

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
        if self._parent.run.status == "RUNNING" and not is_held(self.folder / SUPERVISOR_LOCK):
            self._parent.run.set_status(self._state.status or "KILLED", self._state.ended)
        for run in reversed(self._trainings if resumed else []):
            if run.tags[_TRAINING] == str(folder):
                run.set_status("RUNNING")
                return run
        return self._runs.begin(name, {_TRAINING: str(folder), "mlflow.parentRunId": self._parent.run.id}, at=at)

    @property
    def _stock_is_trained(self) -> bool:
        """True while a stock model is being trained."""
        return any(
            files.folder.is_dir() and not files.outcome.is_file() for files in TrialFiles.stock_models_in(self.folder)
        )

    def _attempt(self, write: Callable[[], None], *, last: bool = False) -> None:
        try:
            if not self._up_to_date:
                self._open()
            self._up_to_date = False  # a failure or Ctrl-C may leave MLflow ahead of what we know
            write()
        except Exception as problem:  # noqa: BLE001 - no failure of MLflow ends a search
            self._not_before, self._has_failed = self._clock() + _SECONDS_BETWEEN_ATTEMPTS, True
            self.problem = self._message(problem)
            if self._activity:
                self._log_problem(last=last)
            self._warned = True
        else:
            self._up_to_date, self._warned, self.problem = True, False, None

    def _log_problem(self, *, last: bool) -> None:
        if last:
            lacks = self.unsent(self._records)
            _log.warning("%s; what is missing there (%s) is sent by: %s", self.problem, lacks, self.sync_command)
        elif not self._warned:
            _log.warning(
                "%s; %s goes on, and what is missing there is written once it works", self.problem, self._activity
            )

    def _message(self, problem: Exception) -> str:
        """Return the problem and advice in one line, without passwords."""
        line = redact(message_of(problem), self.uri)
        line = line or type(problem).__name__
        line = line if len(line) <= 300 else f"{line[:120]} ... {line[-180:]}"
        advice = advice_on(self.uri, problem)
        return f"MLflow cannot be used at {without_password(self.uri)}: {line}{f' ({advice})' if advice else ''}"

    def _open(self) -> None:
        """Find this study's runs; begin its parent if there is none."""
        self._state = TrackingState.of(self.folder)
        tags = {**self._context.source, "nas.study": self.study, "nas.study_id": self._state.study_id}
        self._runs = Runs(self.uri, self.experiment, self.folder.parent, tags, key="nas.study_id")
        runs = without_doubles(list(self._runs.find()))
        trials = {int(run.tags["nas.trial"]): run for run in runs if "nas.trial" in run.tags}
        self._trainings = [run for run in runs if _TRAINING in run.tags]
        parents = [run for run in runs if not {"nas.trial", _TRAINING} & run.tags.keys()]
        parent = parents[0] if parents else self._runs.begin(self.study, at=changed_at(self.folder / SPACE))
        data, choices = self._context.data, self._context.choices()
        if data and data[0].digest not in parent.data:
            parent.log_data(data, self._context.sizes())
        self._trials = TrialRuns(self._runs, parent.id, self.folder, trials, data=data, choices=choices)
        self._models = LoggedModels(self._runs, self.study, self._state.study_id, self.folder, data)
        self._is_open = True
        self._parent = StudyRun(
            parent,
            self.folder,
            study=self.study,
            objectives=self.objectives,
            commands=self.commands,
            view=self.view.removeprefix("/"),
        )
        if self._stage is not None:
            self._parent.write_stage(self._stage, self._run_of(self._stage.folder))
        self._parent.findings = self._findings()
        self._parent.write_settings(self.settings)
        self._write_views(axes(choices))
        self._up_to_date = True

    def _write_views(self, choices: Sequence[str]) -> None:
        """Write the saved views of the experiment's pages."""
        has_latency = any(self.settings.get(name, "None") != "None" for name in _OF_LATENCY)
        has_latency = has_latency or "latency_ms" in self.objectives
        state = self._state.study_id
        tags = view_tags(self.study, state, choices=choices, has_latency=has_latency, began=self._parent.run.began)
        self._runs.set_experiment_tags(tags)

    def _run_of(self, folder: Path) -> str | None:
        """Return the id of the run of the study in another folder; None if it is not tracked here."""
        is_tracked = (folder / TRACKING_STATE).is_file()
        return self._runs.of_study(TrackingState.of(folder).study_id) if is_tracked else None

    def _follow(self) -> None:
        if self._has_trained:
            self._parent.run.set_status("RUNNING")
            if self._state.status:
                self._store(replace(self._state, status="", ended=None))
        self._write()

    def _write(self) -> None:
        # A worker stores the ending first, then the scores; all are there once Optuna calls the trial complete.
        finished = {record.trial: record for record in self._records if record.finished and record.state == "complete"}
        self._store_finished(finished)
        best = pareto_front_of(list(finished.values()), self.objectives)
        on_front = {record.trial for record in best}
        for record in self._records:
            pareto = str(record.trial in on_front).lower() if record.trial in finished else ""
            self._trials.write(record, pareto)
        for training in self._trainings:
            training.set_tags({"mlflow.parentRunId": self._parent.run.id})
        self._parent.write_stock_training()
        in_order = [finished[trial] for trial in self._state.finished if trial in finished]
        self._parent.write_front(in_order, best, self._state.stock)
        self._parent.write_findings()
        self._parent.write_report()
        self._parent.write_system()
        self._trials.write_findings(self._parent.findings.trials)

    def _write_models(self) -> None:
        """Write the models of the finalists, whose weights no training changes any more."""
        finished = [record for record in self._records if record.finished and record.state == "complete"]
        best, judged = pareto_front_of(finished, self.objectives), self._parent.findings.trials
        on_front = {record.trial for record in best}
        tags = {record.trial: {"pareto": str(record.trial in on_front).lower()} for record in finished}
        for trial, found in judged.items():
            tags.setdefault(trial, {}).update({"nas.finding": found.finding, "nas.verdict": found.sentence})
        chosen = finalists(best, self.objectives, judged.keys(), finished)
        self._models.write(chosen, self._trials.of_trials(), tags)

    def _store_finished(self, finished: Mapping[int, Record]) -> None:
        state = self._state
        new = sorted(finished.keys() - set(state.finished), key=self._ended_at)
        stock = stock_costs(self._records, self.objectives) if state.stock is None else state.stock
        self._store(replace(state, finished=(*state.finished, *new), stock=stock))

    def _ended_at(self, trial: int) -> tuple[int, int]:
        """Return when a trial ended: while MLflow is away, several end before it is written to."""
        return changed_at(TrialFiles.of(self.folder, trial).outcome) or 0, trial

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
            *TrialFiles.stock_models_in(self.folder),
            *(TrialFiles.of(self.folder, one.trial) for one in self._records),
        ]
        ends = [self._state.ended or before, *(changed_at(each.outcome) for each in files)]
        last = max((end for end in ends if end is not None), default=None)
        self._store(replace(self._state, status=status, ended=now() if self._has_trained or last is None else last))
