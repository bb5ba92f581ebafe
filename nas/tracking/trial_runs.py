"""Runs of trials in MLflow, children of the study's run: picks, epochs, scores, costs and status of each trial."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.records.record import MEMBER, Record
from nas.records.trial_files import TrialFiles
from nas.tracking import note
from nas.tracking.consistency import OPTIONAL, best_and_last
from nas.tracking.context import DataInput
from nas.tracking.findings import JudgedTrial
from nas.tracking.mlflow_runs import DESCRIPTION, Run, Runs, now
from search_spaces.printable import markdown
from search_spaces.scaling import MACRO

_STOCK = {"architecture": "stock"}
_STATUS = {"running": "RUNNING", "complete": "FINISHED", "pruned": "FINISHED", "fail": "FAILED"}
_COSTS = ("gflops", "params", "latency_ms", "latency_spread_ms", "seconds")


class TrialRuns:
    """Runs of a study's trials; what MLflow has already is not written again.

    Args:
        runs: with which new ones begin.
        parent_run_id: of the study's run.
        folder: the study's.
        found: runs of its trials that MLflow has, by trial.
        data: data sets of the trials.
        choices: stock value of every searched choice, by name.
    """

    def __init__(
        self,
        runs: Runs,
        parent_run_id: str,
        folder: Path,
        found: Mapping[int, Run],
        *,
        data: Sequence[DataInput] = (),
        choices: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._runs, self._parent_run_id, self._folder = runs, parent_run_id, folder
        self._by_trial = dict(found)
        self._data, self._choices = data, choices
        self._compared: set[int] = set()

    def write(self, record: Record, pareto: str) -> None:
        """Write what MLflow lacks of a trial; nothing before it has an architecture.

        Args:
            record: of the trial.
            pareto: `true` or `false`: whether it is on the front; empty until it has finished.
        """
        proposed = record.summary or record.state != "running"
        if record.state not in _STATUS or not proposed:
            return
        ended = None if record.state == "running" else changed_at(self._files(record.trial).outcome)
        run = self._run(record, ended)
        status = _status_of(record)
        if run.status != status or status == "RUNNING":
            _write_training(run, record, self._files(record.trial), ended)
            self._write_optional(run, record, ended)
        elif record.trial not in self._compared:
            self._write_optional(run, record, ended)  # of an earlier version, which did not write it
            self._compared.add(record.trial)
        run.set_tags(
            {
                "mlflow.parentRunId": self._parent_run_id,
                "nas.fingerprint": record.fingerprint,
                "nas.architecture": record.summary,
                "nas.role": record.role,
                "nas.repeat": str(record.repeat or ""),
                "nas.state": record.state,
                "nas.ending": record.ending or "",
                "nas.detail": record.detail,
                "pareto": pareto,
                **({"nas.member": record.member} if record.member else {}),
                **({DESCRIPTION: _described(record)} if run.status != status else {}),  # once: users write others
            }
        )
        if run.status != status:
            run.set_status(status, ended)

    def _write_optional(self, run: Run, record: Record, ended: int | None) -> None:
        """Write data sets, choices, and the best and the last epoch."""
        run.log_data(self._data)
        if record.summary:
            run.log_params({**self._choices_of(record.member), **_pick_params(record)})
        if record.state != "running" and run.lacks(OPTIONAL):
            run.log_metrics(best_and_last(self._files(record.trial).read_epochs()), at=ended)

    def _choices_of(self, member: str) -> dict[str, str]:
        """Return the stock values of the choices of a member; all of them if there is one space."""
        return {name: value for name, value in self._choices.items() if name.startswith(_prefix(member))}

    def write_findings(self, judged: Mapping[int, JudgedTrial]) -> None:
        """Write what fresh seeds found of trials: tags, and the difference to the stock model with its interval."""
        for trial, run in self._by_trial.items():
            found = judged.get(trial)
            sentence, finding = ("", "") if found is None else (found.sentence, found.finding)
            run.set_tags({"nas.verdict": sentence, "nas.finding": finding})
            if found is not None:
                values = {"difference": found.difference, "low": found.low, "high": found.high}
                run.update_metrics({f"verdict/{name}": value for name, value in values.items()}, step=found.seeds)

    def of_trials(self) -> Mapping[int, Run]:
        """Return the runs that MLflow has, by trial."""
        return dict(self._by_trial)

    def unsent(self, records: Sequence[Record]) -> list[int]:
        """Return the trials whose run is missing, or has not ended as its trial."""
        runs = dict(self._by_trial)
        return [
            record.trial
            for record in records
            if record.state in _STATUS
            and (record.summary or record.state != "running")
            and (record.trial not in runs or runs[record.trial].status != _status_of(record))
        ]

    def kill_running(self) -> None:
        """End the runs that have not ended as `KILLED`, at their trial's last heartbeat."""
        for trial, run in self._by_trial.items():
            if run.status == "RUNNING":
                files = self._files(trial)
                run.set_status("KILLED", changed_at(files.lock) or changed_at(files.progress))

    def _files(self, trial: int) -> TrialFiles:
        return TrialFiles.of(self._folder, trial)

    def _run(self, record: Record, ended: int | None) -> Run:
        """Return the run of a trial; begin it if there is none.

        Args:
            record: of the trial.
            ended: its end time in milliseconds since 1970; None if it is running.
        """
        if record.trial not in self._by_trial:
            tags = {"nas.trial": str(record.trial), "mlflow.parentRunId": self._parent_run_id}
            began = (ended or now()) - round(record.seconds * 1000)
            self._by_trial[record.trial] = self._runs.begin(f"trial-{record.trial:04d}", tags, at=began)
        return self._by_trial[record.trial]


def changed_at(path: Path) -> int | None:
    """Return the modification time of a file, in milliseconds since 1970; None if there is none."""
    return round(path.stat().st_mtime * 1000) if path.is_file() else None


def _described(record: Record) -> str:
    return note.of_trial(record) if record.finished else markdown(record.summary)


def _status_of(record: Record) -> str:
    """Return MLflow's status of a trial; an interrupted one is `fail` in Optuna and `KILLED` in MLflow."""
    return "KILLED" if record.status == "interrupted" else _STATUS[record.state]


def _write_training(run: Run, record: Record, files: TrialFiles, ended: int | None) -> None:
    """Write what does not change once the trial has ended, at `ended`."""
    at = float(run.began)
    for epoch in files.read_epochs():
        at += 1000 * epoch.seconds
        losses = {f"train/{name}": loss for name, loss in epoch.losses.items()}
        accuracies = {"map50_95": epoch.map50_95, "map50": epoch.map50}
        run.log_metrics({**losses, **accuracies, "epoch_seconds": epoch.seconds}, step=epoch.epoch, at=round(at))
    if record.state == "running":
        return
    scores = {"score/map50_95": record.map50_95, "score/map50": record.map50}
    costs = {name: getattr(record, name) for name in _COSTS}
    run.log_metrics(scores | costs | {"inherited": record.inherited or None}, at=ended)
    for path in (files.model, files.outcome, files.error):
        if path.is_file():
            run.log_artifact(path)


def axes(choices: Collection[str]) -> list[str]:
    """Return the params that the parallel coordinates show: the choices, of several members what all trials have."""
    return [MEMBER] if any("/" in name for name in choices) else list(choices)


def _prefix(member: str) -> str:
    return f"{member}/" if member else ""


def _pick_params(record: Record) -> dict[str, str]:
    """Return picks as params with Optuna's names; `architecture: stock` where there are none."""
    flat = _flat(record.picks)
    if not record.member:
        return flat or _STOCK
    named = {f"{_prefix(record.member)}{name}": value for name, value in flat.items()}
    return {MEMBER: record.member, **(named or _STOCK)}


def _flat(picks: Mapping[str, Any]) -> dict[str, str]:
    """Return the operators, their parameters and the scaling factors by their names in one space."""
    slots = {name: choice for name, choice in picks.items() if name != MACRO}
    flat = {f"{MACRO}.{factor}": f"{value:g}" for factor, value in picks.get(MACRO, {}).items()}
    for slot, choice in slots.items():
        for operator, parameters in choice.items():
            flat[f"{slot}.operator"] = operator
            flat |= {f"{slot}.{operator}.{name}": str(value) for name, value in parameters.items()}
    return flat
