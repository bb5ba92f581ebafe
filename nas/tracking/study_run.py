"""Run of a study in MLflow, the parent of its trials' runs: settings, training of the stock model, Pareto front."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from nas import html_page
from nas.algorithms.hypervolume import hypervolume
from nas.algorithms.pareto import OBJECTIVES, Direction
from nas.records.front_figure import front_figure
from nas.records.record import Record, pareto_front_of, point_of
from nas.records.trial_files import TrialFiles
from nas.study.folders import REPORT, SYSTEM_METRICS, UPLOADS
from nas.tracking import note
from nas.tracking.findings import Findings, Stage
from nas.tracking.mlflow_runs import DESCRIPTION, TAG_LENGTH, Run
from nas.tracking.system_metrics import read_samples
from nas.tracking.trial_runs import changed_at
from search_spaces.files import digest


class StudyRun:
    """Writes to the study's run what it lacks.

    The hypervolume is the share that the front dominates of a box: from accuracy 0 to 1, and from no cost to twice the
    stock model's, as first measured. The box never changes, so that all points of a study compare. Points from before
    the stock model was measured are written afterwards.

    Attributes:
        run: in MLflow.
        findings: of other studies on this one's trials.

    Args:
        run: in MLflow.
        folder: the study's.
        study: name of it.
        objectives: of the study.
        commands: by purpose, as a user types them; in the note.
        view: address of the table of trials on MLflow's pages, for the note.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        *,
        study: str,
        objectives: Sequence[str],
        commands: Mapping[str, str],
        view: str = "",
    ) -> None:
        self.run = run
        self._folder, self._study, self._objectives, self._commands = folder, study, tuple(objectives), commands
        self.findings = Findings()
        self._purpose = ""
        self._written_front: object = None
        self._view = view
        self._samples = 0

    def write_stage(self, stage: Stage, parent_run_id: str | None) -> None:
        """Write which study this one is a stage of; it is shown under that one's run.

        Args:
            stage: the study's place.
            parent_run_id: of the other study; None if MLflow does not have it.
        """
        nested = {} if parent_run_id is None else {"mlflow.parentRunId": parent_run_id}
        self.run.set_tags({"nas.stage": stage.kind, "nas.stage_of": stage.folder.name, **nested})
        self._purpose = stage.purpose

    def write_findings(self) -> None:
        """Upload the tables of the findings, if they have changed; the note has them in words."""
        tables = self.findings.tables
        version = hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:12] if tables else ""
        if version == self.run.tags.get("nas.findings", ""):
            return
        for name, text in tables.items():
            self._upload(name, text, "findings")
        self.run.set_tags({"nas.findings": version})

    def write_settings(self, settings: Mapping[str, str]) -> None:
        """Write settings: the first ones as params, later ones that differ as tags, `settings.<name>`."""
        self.run.log_params(settings)
        changed, tags = self.run.changed_params(settings), self.run.tags
        present = {name: text for name, text in settings.items() if name in changed or f"settings.{name}" in tags}
        self.run.set_tags({f"settings.{name}": text for name, text in present.items()})

    def write_stock_training(self) -> None:
        """Write the epochs of the stock models' trainings, which are no trials, under `base/` or `base/<member>/`."""
        for files in TrialFiles.stock_models_in(self._folder):
            at, place = float(self.run.began), files.folder.relative_to(self._folder).as_posix()
            for epoch in files.read_epochs():
                values = {**epoch.losses, "map50_95": epoch.map50_95, "map50": epoch.map50}
                at += 1000 * epoch.seconds
                named = {f"{place}/{name}": value for name, value in values.items()}
                self.run.log_metrics(named, step=epoch.epoch, at=round(at))

    def write_report(self) -> None:
        """Upload the page of `nas report`, if the study has one that MLflow lacks."""
        page = self._folder / REPORT
        if not page.is_file():
            return
        version = digest(page)[:12]
        if version != self.run.tags.get("nas.report", ""):
            self.run.log_artifact(page)
            self.run.set_tags({"nas.report": version})

    def write_system(self) -> None:
        """Write the load of the machine, under `system/` as MLflow names it: one point for each sample."""
        for step, time_ms, values in islice(read_samples(self._folder / SYSTEM_METRICS), self._samples, None):
            self.run.log_metrics({f"system/{name}": value for name, value in values.items()}, step=step, at=time_ms)
            self._samples += 1

    def write_front(
        self, finished: Sequence[Record], best: Sequence[Record], stock: Mapping[str, float] | None
    ) -> None:
        """Write the Pareto front: its metrics after each finished trial, the note, a table and a figure.

        Args:
            finished: records of finished trials, in the order in which they were found to be finished.
            best: those on the front.
            stock: costs of the stock model; None until they are measured.
        """
        front = ([record.trial for record in finished], stock, [record.trial for record in best], self.findings)
        if front == self._written_front:
            return
        for step in range(1, len(finished) + 1):
            self._log_metrics(finished[:step], step, stock)
        text = note.describe(
            self._study,
            finished,
            best,
            self._objectives,
            stock=stock,
            commands=self._commands,
            findings=self.findings.lines,
            remarks=self.findings.remarks,
            purpose=self._purpose or note.SEARCH,
            room=TAG_LENGTH,
            view=self._view,
        )
        self.run.set_tags({DESCRIPTION: text})
        if finished:
            rows = [record.as_row() for record in best]
            self._upload("front.json", json.dumps(rows, indent=1))
            self._upload("front.csv", note.table(rows))
            figure = front_figure(self._study, finished, best, self._objectives)
            self._upload("front.html", html_page.page(figure, self._study, name="front"))
        self._written_front = front

    def _log_metrics(self, finished: Sequence[Record], step: int, stock: Mapping[str, float] | None) -> None:
        """Write the front's metrics at the step when these were the finished trials."""
        if self.run.has("front_size", step) and (stock is None or self.run.has("hypervolume", step)):
            return
        best = pareto_front_of(finished, self._objectives)
        self.run.log_metrics(
            {
                "hypervolume": None if stock is None else _share(best, self._objectives, stock),
                "front_size": len(best),
                "best_map50_95": max((record.map50_95 or 0.0 for record in best), default=None),
            },
            step=step,
            at=changed_at(TrialFiles.of(self._folder, finished[-1].trial).outcome),
        )

    def _upload(self, name: str, text: str, folder: str = "front") -> None:
        """Upload a file as an artifact; one left by a killed process is overwritten the next time."""
        file = self._folder / UPLOADS / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        self.run.log_artifact(file, folder)
        file.unlink()


def stock_costs(records: Sequence[Record], objectives: Sequence[str]) -> dict[str, float] | None:
    """Return the stock model's costs among the objectives; None until all are measured."""
    names = [name for name in objectives if OBJECTIVES[name] is Direction.MINIMIZE]
    for record in records:
        if record.role == "stock" and all(getattr(record, name) is not None for name in names):
            return {name: float(getattr(record, name)) for name in names}
    return None if names else {}


def _share(best: Sequence[Record], objectives: Sequence[str], stock: Mapping[str, float]) -> float:
    """Return the hypervolume of a front, from 0 to 1, as a share of the box that `StudyRun` describes."""
    corner = tuple(2 * stock[name] if name in stock else 0.0 for name in objectives)
    points = [point_of(record, objectives) for record in best]
    directions = [OBJECTIVES[name] for name in objectives]
    return round(hypervolume(points, directions, corner) / math.prod(2 * cost for cost in stock.values()), 6)
