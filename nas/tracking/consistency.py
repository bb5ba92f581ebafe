"""Compare a study's trials with their runs in MLflow. Pure: values in, findings out; MLflow is not imported."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nas.records.record import Record
from nas.study.consistency import Finding, Repair
from trials.scores import Epoch

_STATUS = {"running": "RUNNING", "complete": "FINISHED", "pruned": "FINISHED", "fail": "FAILED"}
_METRICS = {
    "score/map50_95": "map50_95",
    "score/map50": "map50",
    "gflops": "gflops",
    "params": "params",
    "latency_ms": "latency_ms",
    "seconds": "seconds",
}
"""Field of the record, by metric."""
_TAGS = {"nas.fingerprint": "fingerprint", "nas.state": "state", "nas.ending": "ending", "nas.detail": "detail"}
_TAG_LENGTH = 8000
OPTIONAL = "last/epoch"
"""Metric of every run with epochs, except of those that versions before `best_and_last` wrote."""
_ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """Run of a study in MLflow.

    Attributes:
        trial: number of the trial; None for the study's own run.
        parent: id of the run under which it is shown.
        metrics: latest value of each.
        data: digests of its data sets.
    """

    id: str
    trial: int | None = None
    status: str
    parent: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """Model of a study in MLflow.

    Attributes:
        is_ready: whether all of it has arrived.
    """

    trial: int
    is_ready: bool


def compare_models(study: str, wanted: Collection[int], models: Sequence[FoundModel]) -> Iterator[Finding]:
    """Yield what is missing of the models of a search that has finished.

    Args:
        study: name of its folder.
        wanted: trials whose models MLflow should have.
        models: that it has.
    """
    ready = {model.trial for model in models if model.is_ready}
    begun = {model.trial for model in models}
    for trial in sorted(set(wanted) - ready):
        problem = "its model has not arrived whole" if trial in begun else "its model is missing"
        yield Finding(address=f"{study} in MLflow, trial-{trial:04d}", problem=problem, repair=Repair.SYNC, trial=trial)


def status_of(record: Record) -> str | None:
    """Return the status in MLflow of a trial; None if it has no run."""
    if record.state not in _STATUS or (record.state == "running" and not record.summary):
        return None
    return "KILLED" if record.status == "interrupted" else _STATUS[record.state]


def compare_runs(
    study: str,
    records: Sequence[Record],
    runs: Sequence[FoundRun],
    epochs: Mapping[int, Sequence[Epoch]],
    data: str = "",
) -> Iterator[Finding]:
    """Yield what disagrees between a study that no supervisor runs and its runs in MLflow.

    Args:
        study: name of its folder.
        records: of all trials.
        runs: of the study and its trials, by start time.
        epochs: of each trial, from its `progress.jsonl`.
        data: fingerprint of the data set that trials train on; empty to compare none.
    """
    where = f"{study} in MLflow"
    if not runs:
        if any(status_of(record) for record in records):
            yield Finding(address=where, problem="has none of this study's runs", repair=Repair.SYNC)
        return
    parents = [run for run in runs if run.trial is None]
    yield from _parents(where, parents)
    by_trial: dict[int, list[FoundRun]] = {}
    for run in runs:
        if run.trial is not None:
            by_trial.setdefault(run.trial, []).append(run)
    for record in records:
        mine = by_trial.pop(record.trial, [])
        yield from _of_trial(where, record, mine, parents, epochs.get(record.trial, ()))
    yield from _of_earlier_versions(where, records, runs, epochs, data)
    for number, strangers in sorted(by_trial.items()):
        address = f"{where}, trial-{number:04d}"
        yield from (_dropped(address, "a run of a trial that Optuna does not have", run) for run in strangers)


def _of_earlier_versions(
    where: str,
    records: Sequence[Record],
    runs: Sequence[FoundRun],
    epochs: Mapping[int, Sequence[Epoch]],
    data: str,
) -> Iterator[Finding]:
    """Find runs of ended trials without what earlier versions did not write."""
    ended = {record.trial for record in records if status_of(record) not in {None, "RUNNING"}}
    of_trials = [run for run in runs if run.trial in ended and run.status in _ENDED]
    without_data = [run for run in of_trials if data and data not in run.data]
    trained = {trial for trial, found in epochs.items() if found}
    without_epochs = [run for run in of_trials if run.trial in trained and OPTIONAL not in run.metrics]
    for lacking, what in ((without_data, "data set"), (without_epochs, "best and last epoch")):
        if lacking:
            problem = f"{len(lacking)} of {len(of_trials)} ended trials' runs lack their {what}"
            yield Finding(address=where, problem=problem, repair=Repair.SYNC)


def _of_trial(
    where: str, record: Record, runs: Sequence[FoundRun], parents: Sequence[FoundRun], epochs: Sequence[Epoch]
) -> Iterator[Finding]:
    """Find what is wrong with the runs of a trial: one is right, of several the tracker takes the last."""
    address, status = f"{where}, trial-{record.trial:04d}", status_of(record)
    if status is None:
        yield from (_dropped(address, f"a run of a trial that is {record.state}", run) for run in runs)
        return
    if not runs:
        yield Finding(address=address, problem="its run is missing", repair=Repair.SYNC, trial=record.trial)
        return
    *others, last = runs
    yield from (_dropped(address, "a second run of the trial", run) for run in others)
    for problem, repair in _problems(record, status, last, parents, epochs):
        yield Finding(address=address, problem=problem, repair=repair, trial=record.trial, run=last.id)


def _dropped(address: str, problem: str, run: FoundRun) -> Finding:
    return Finding(address=address, problem=problem, repair=Repair.DROP_RUN, trial=run.trial, run=run.id)


def _parents(where: str, parents: Sequence[FoundRun]) -> Iterator[Finding]:
    """Find what is wrong with the study's own run; of several the tracker takes the first."""
    if not parents:
        yield Finding(address=where, problem="the study's own run is missing", repair=Repair.SYNC)
        return
    first, *others = parents
    for other in others:
        yield _dropped(where, "a second run of the study", other)
    if first.status not in _ENDED:
        problem = f"the study's own run is {first.status}, but no process runs the study"
        yield Finding(address=where, problem=problem, repair=Repair.SYNC, run=first.id)


def _problems(
    record: Record, status: str, run: FoundRun, parents: Sequence[FoundRun], epochs: Sequence[Epoch]
) -> Iterator[tuple[str, Repair]]:
    """Yield what is wrong with the run of a trial, and the repair."""
    if run.status != status and not (status == "RUNNING" and run.status == "KILLED"):
        yield f"the run is {run.status}, the trial is {record.status}", Repair.SYNC
    elif status == "RUNNING" and run.status == "RUNNING":
        yield "the run is RUNNING, but no process works on the trial", Repair.SYNC
    if parents and run.parent != parents[0].id:
        yield "is not shown under the study's run", Repair.SYNC
    if run.status == status and status != "RUNNING":
        for name, found, wanted in differences(record, run, epochs):
            yield f"{name} is {found}, of the trial {wanted}", Repair.REWRITE_RUN


def differences(
    record: Record, run: FoundRun, epochs: Sequence[Epoch]
) -> Iterator[tuple[str, float | str | None, float | str]]:
    """Yield name, value and right value of each metric and tag of a run that is not that of its trial that has ended.

    Args:
        record: of the trial.
        run: of the trial.
        epochs: of the trial.
    """
    optional = best_and_last(epochs) if OPTIONAL in run.metrics else {}
    for name, wanted in {**expected_metrics(record), **last_metrics(epochs), **optional}.items():
        found = run.metrics.get(name)
        if found is None or not math.isclose(found, wanted, rel_tol=1e-12):
            yield name, found, wanted
    for tag, attribute in _TAGS.items():
        text = (getattr(record, attribute) or "")[:_TAG_LENGTH]
        if run.tags.get(tag, "") != text:
            yield tag, run.tags.get(tag), text


def expected_metrics(record: Record) -> dict[str, float]:
    """Return the metrics at step 0 that the run of an ended trial must have."""
    values = {metric: getattr(record, attribute) for metric, attribute in _METRICS.items()}
    return {metric: float(value) for metric, value in values.items() if value is not None}


def last_metrics(epochs: Sequence[Epoch]) -> dict[str, float]:
    """Return the metrics of the last epoch, whose step is its number."""
    if not epochs:
        return {}
    losses = {f"train/{name}": loss for name, loss in epochs[-1].losses.items() if math.isfinite(loss)}
    return {**losses, "epoch_seconds": epochs[-1].seconds}


def best_and_last(epochs: Sequence[Epoch]) -> dict[str, float]:
    """Return the metrics at step 0 that tell the epoch with the best mAP50-95 from the last one.

    Empty without epochs. Only some epochs are validated; of equally good ones, the first is the best.
    """
    if not epochs:
        return {}
    validated = [epoch for epoch in epochs if epoch.map50_95 is not None]
    named = {"last": epochs[-1]}
    if validated:
        named["best"] = max(validated, key=lambda epoch: epoch.map50_95 or 0.0)
    values = {
        f"{name}/{what}": value
        for name, epoch in named.items()
        for what, value in (("epoch", epoch.epoch), ("map50_95", epoch.map50_95), ("map50", epoch.map50))
    }
    return {name: float(value) for name, value in values.items() if value is not None}
