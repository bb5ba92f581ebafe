"""Checks of a study after any number of kills: nothing lost, doubled or paid twice, and all stores agree."""

import json
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from nas.records.record_file import RecordFile
from nas.records.trial_attributes import ENDING, FINGERPRINT, REPEAT, RETRY_OF
from nas.study.storage import study_id
from nas.study.stored_study import COUNTED, StoredStudy
from nas.study.tracking_state import TrackingState
from nas.study.trial_records import TrialRecords

_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "FINISHED", TrialState.FAIL: "FAILED"}
"""Status of a run in MLflow, by the state of its trial; a trial that has not ended is a problem of its own."""


def problems_of_study(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a study whose search has ended."""
    study = StoredStudy.open(folder)
    try:
        trials = study.storage.get_all_trials(study_id(study.storage, study.file.name), deepcopy=False)
        yield from _problems_of_trials(study, trials)
        yield from _problems_of_files(study, trials)
        yield from _problems_of_records(study)
        yield from _problems_of_tracking(study, trials)
    finally:
        study.storage.engine.dispose()


def _problems_of_trials(study: StoredStudy, trials: list[FrozenTrial]) -> Iterator[str]:
    left = [trial for trial in trials if not trial.state.is_finished()]
    if not study.settings.confirms:  # what a search had queued when its number of trials was reached
        left = [trial for trial in left if trial.state is not TrialState.WAITING or RETRY_OF in trial.user_attrs]
    if left:
        yield f"trials that have not ended: {[f'{trial.number} {trial.state.name}' for trial in left]}"
    trainings: dict[tuple[str, int], list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        if FINGERPRINT in trial.user_attrs and trial.state is not TrialState.WAITING:
            trainings[trial.user_attrs[FINGERPRINT], trial.user_attrs.get(REPEAT, 0)].append(trial)
    for (fingerprint, repeat), attempts in trainings.items():
        ended = [trial.number for trial in attempts if trial.user_attrs.get(ENDING) in COUNTED]
        if len(ended) != 1:
            numbers = [trial.number for trial in attempts]
            yield f"{fingerprint}, repeat {repeat}: trials {numbers}, of which ended {ended}: not exactly one"
    counted = sum(trial.user_attrs.get(ENDING) in COUNTED for trial in trials)
    if not study.settings.confirms and counted != study.file.run.trials:
        yield f"{counted} trials count, {study.file.run.trials} were asked for"
    retries = Counter(trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs)
    if doubled := [number for number, times in retries.items() if times > 1]:
        yield f"trials that were retried twice: {doubled}"


def _problems_of_files(study: StoredStudy, trials: list[FrozenTrial]) -> Iterator[str]:
    for trial in trials:
        files, ending = study.files(trial.number), trial.user_attrs.get(ENDING)
        stored = files.read_outcome()
        if ending is None:
            if stored is not None:
                yield f"trial {trial.number}: an outcome.json, and no ending in Optuna"
            continue
        if stored is None:
            if ending != "crashed":
                yield f"trial {trial.number}: {ending} in Optuna, and no outcome.json"
            continue
        for name, value in stored.items():
            if trial.user_attrs.get(name, value) != value:
                yield f"trial {trial.number}: {name} is {value} in outcome.json, {trial.user_attrs[name]} in Optuna"
        epochs = [epoch.epoch for epoch in files.read_epochs()]
        if epochs != list(range(1, stored["epochs"] + 1)):
            yield f"trial {trial.number}: {stored['epochs']} epochs in outcome.json, {epochs} in progress.jsonl"
    for record in study.front():
        if not study.files(record.trial).weights.is_file():
            yield f"trial {record.trial} is on the front and has no weights"


def _problems_of_records(study: StoredStudy) -> Iterator[str]:
    file = RecordFile(study.folder / "records.jsonl")
    fresh = TrialRecords(study.file.name, study.storage, lambda: study.space, RecordFile(study.folder / "none")).read()
    for trial, record in file.read().items():
        if fresh.get(trial) != record:
            yield f"trial {trial}: another record in records.jsonl than in Optuna"


def _problems_of_tracking(study: StoredStudy, trials: list[FrozenTrial]) -> Iterator[str]:
    identity = TrackingState.of(study.folder).study_id
    client = MlflowClient(tracking_uri=study.file.tracking)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = list(client.search_runs(experiments, f"tags.`nas.study_id` = '{identity}'", max_results=5000))
    parents = [run for run in runs if not {"nas.trial", "nas.training"} & run.data.tags.keys()]
    if [run.info.status for run in parents] != ["FINISHED"]:
        yield f"MLflow: runs of the study itself: {[run.info.status for run in parents]}, not one that is FINISHED"
    by_trial: dict[int, list[Any]] = defaultdict(list)
    for run in runs:
        if "nas.trial" in run.data.tags:
            by_trial[int(run.data.tags["nas.trial"])].append(run)
    for trial in trials:
        found = by_trial.pop(trial.number, [])
        has_ending = ENDING in trial.user_attrs
        if len(found) != 1:
            if found or has_ending:
                yield f"MLflow: {len(found)} runs of trial {trial.number}"
            continue
        expected = "KILLED" if trial.state is TrialState.FAIL and not has_ending else _STATUS.get(trial.state)
        if found[0].info.status != expected:
            yield f"MLflow: trial {trial.number} is {found[0].info.status}, in Optuna {trial.state.name}"
        for metric, name in (("score/map50_95", "map50_95"), ("gflops", "gflops")):
            if found[0].data.metrics.get(metric) != trial.user_attrs.get(name):
                yield f"MLflow: trial {trial.number}: another {metric} than in Optuna"
        steps = [point.step for point in client.get_metric_history(found[0].info.run_id, "epoch_seconds")]
        if has_ending and sorted(steps) != list(range(1, trial.user_attrs["epochs"] + 1)):
            yield f"MLflow: trial {trial.number}: epochs {steps}, {trial.user_attrs['epochs']} in Optuna"
    if by_trial:
        yield f"MLflow: runs of trials that Optuna does not have: {sorted(by_trial)}"


def problems_of_database(path: Path) -> Iterator[str]:
    """Yield what SQLite finds wrong with a file."""
    with closing(sqlite3.connect(path)) as database:
        found = [text for (text,) in database.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        yield f"{path}: {found}"


def problems_of_trace(path: Path) -> tuple[list[str], int, int]:
    """Return epochs that were trained twice although they were saved; number of saved and of unsaved epochs."""
    problems: list[str] = []
    losses: dict[tuple[str, int], Any] = {}
    begun: Counter[tuple[str, int]] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        event = json.loads(line)
        key = event["training"], event["epoch"]
        if event["event"] == "begun":
            begun[key] += 1
            if key in losses:
                problems.append(f"epoch {key[1]} of training {key[0][:8]} was saved, and trained again")
        elif losses.setdefault(key, event["losses"]) != event["losses"]:
            problems.append(f"epoch {key[1]} of training {key[0][:8]}: other losses the second time")
    unsaved = sum(begun.values()) - len(losses)
    return problems, len(losses), unsaved


def problems_of_machines_trace(path: Path) -> tuple[list[str], int, int, int]:
    """Return what is wrong with the epochs that several machines have trained, and numbers of epochs.

    An epoch may be trained again if it was saved on another machine alone, and not stored for the others.

    Returns:
        Problems; numbers of saved epochs, of unsaved ones, and of those that were saved and trained again.
    """
    problems: list[str] = []
    losses: dict[tuple[str, int], Any] = {}
    machines: dict[tuple[str, int], set[str]] = defaultdict(set)
    stored: dict[str, int] = defaultdict(int)
    begun = saved = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        training, epoch, machine = event["training"], event["epoch"], event["machine"]
        key, name = (training, epoch), f"epoch {epoch} of training {training[:8]}"
        match event["event"]:
            case "begun":
                begun += 1
                if machine in machines[key]:
                    problems.append(f"{name} was saved on {machine}, and trained there again")
                if epoch <= stored[training]:
                    problems.append(f"{name} was stored for all machines, and trained again on {machine}")
            case "saved":
                saved += 1
                machines[key].add(machine)
                if losses.setdefault(key, event["losses"]) != event["losses"]:
                    problems.append(f"{name}: other losses on {machine} than before")
            case "stored":
                stored[training] = max(stored[training], epoch)
    return problems, len(losses), begun - saved, saved - len(losses)


def conclude(problems: Sequence[str], folder: Path, *, is_temporary: bool) -> int:
    """Print the problems and where to look at them; return the exit status. Without any, delete a temporary folder."""
    for problem in problems:
        print(f"  {problem}")
    if problems:
        print(f"what was left: {folder}")
        return 1
    if is_temporary:
        shutil.rmtree(folder)
    return 0
