"""Compare what a study stores in several places: Optuna's trials with their files. Pure: values in, findings out.

`nas fsck` reads both, compares them by these functions, and repairs what they find.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nas.records.record import TRAINED_BEFORE
from nas.records.stored_outcome import JUDGED, PROVENANCE
from nas.records.trial_attributes import DETAIL, ENDING, FINGERPRINT, RETRY_OF
from trials.scores import Ending

_FROM_OUTCOME = frozenset({"finished", "stopped", "over_limit", "diverged"})
"""Endings that a trial has only through its `outcome.json`; the others may be those of a worker that was killed."""
_TRAINED = frozenset({"finished", "stopped"})
"""Endings of trainings whose epochs and model are complete."""
_SHOWN = 3
"""Most fields that a line about different values names."""


class FileState(StrEnum):
    """State of one file."""

    MISSING = "missing"
    DAMAGED = "damaged"
    WHOLE = "whole"


class Repair(StrEnum):
    """Repair of a finding by `nas fsck --repair`; the value is the text that is shown."""

    NONE = ""
    TAKE_OVER = "ends the trial with its outcome.json"
    INTERRUPT = "ends the trial as interrupted; its architecture goes first in the queue"
    ENQUEUE = "puts its architecture into the queue"
    WRITE_OUTCOME = "writes it from Optuna's storage"
    REPLACE_OUTCOME = "renames it to outcome.json.differs, and writes it from Optuna's storage"
    WRITE_MODEL = "writes it from the trial's parameters"
    DELETE_CHECKPOINT = "deletes it: the training begins anew"
    ADD_TRIAL = "adds the trial to Optuna's storage, from its files"
    MOVE_ASIDE = "moves the folder to orphans/"
    DELETE_TEMPORARY = "deletes it"
    REBUILD_RECORDS = "writes the file anew from Optuna's storage"
    RENAME_MEASURED = "renames it to measured.json.damaged; nas measures anew what it needs"
    RECOVER_LOST = (
        "watches the machine for a moment; if it stays silent, ends the trial and puts it into the queue again"
    )
    PUBLISH = "stores it there from this machine"
    FETCH = "fetches it from there"
    DELETE_STORED = "deletes it there"
    SYNC = "sends what is missing, and ends the run"
    REWRITE_RUN = "writes it to the run again"
    DROP_RUN = "marks the run as deleted in MLflow, from where it can be restored"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Disagreement between two places of a study, or damage in one.

    Attributes:
        address: of what is wrong, relative to the folder of all studies: `v9t-digits/trials/0007/outcome.json`.
        problem: in words.
        repair: what `--repair` does; nothing where it cannot repair without loss.
        advice: what the user can do where nothing is repaired.
        trial: number of the trial that it is about.
        run: id of the run in MLflow that it is about.
    """

    address: str
    problem: str
    repair: Repair = Repair.NONE
    advice: str = ""
    trial: int | None = None
    run: str = ""

    def describe(self) -> str:
        """Return the finding as a line."""
        remedy = f"--repair {self.repair}" if self.repair else self.advice
        return f"{self.address}: {self.problem}{f' ({remedy})' if remedy else ''}"


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """One trial in Optuna's storage.

    Attributes:
        state: `waiting`, `running`, `complete`, `pruned` or `fail`.
        values: of the objectives, or the reward; None without a score.
        attributes: its user attributes.
        is_elsewhere: whether it is, or was, another machine's, where its files are.
        is_abandoned: whether it is running in the storage, and that machine works no more.
    """

    number: int
    state: str
    values: tuple[float, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    is_elsewhere: bool = False
    is_abandoned: bool = False

    @property
    def ending(self) -> str | None:
        """Value of its `Ending`; None while it has none."""
        return self.attributes.get(ENDING) if self.state in {"complete", "pruned", "fail"} else None


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """Files of one trial, as they were found.

    Attributes:
        is_held: whether a process holds the trial's lock.
        outcome: fields of `outcome.json`; None unless it is whole.
        outcome_state: of `outcome.json`.
        epochs: number of whole lines of `progress.jsonl`.
        fingerprint: in `model.yaml`; empty unless it is whole.
        model_state: of `model.yaml`.
        weights: state of `weights.pt`.
        checkpoint: state of `checkpoint.bin`.
        temporary: names of temporary files that a killed process left.
    """

    is_held: bool = False
    outcome: Mapping[str, Any] | None = None
    outcome_state: FileState = FileState.MISSING
    epochs: int = 0
    fingerprint: str = ""
    model_state: FileState = FileState.MISSING
    weights: FileState = FileState.MISSING
    checkpoint: FileState = FileState.MISSING
    temporary: Sequence[str] = ()


def compare_trials(
    study: str,
    trials: Sequence[StoredTrial],
    files: Mapping[int, FoundFiles],
    *,
    expected_values: Mapping[int, tuple[float, ...]],
    with_weights: frozenset[int] = frozenset(),
    is_running: bool = False,
) -> Iterator[Finding]:
    """Yield what disagrees between Optuna's trials and the folders `trials/NNNN`.

    Args:
        study: name of its folder.
        trials: all of the study's.
        files: by trial; a folder that is not there has no entry.
        expected_values: what Optuna must have as the values of each complete trial, by its attributes.
        with_weights: trials whose weights must be there.
        is_running: whether a supervisor runs; trials without an ending are then its business.
    """
    yield from _numbering(study, trials)
    retried = {trial.attributes[RETRY_OF] for trial in trials if RETRY_OF in trial.attributes}
    for trial in trials:
        where = f"{study}/trials/{trial.number:04d}"
        found = files.get(trial.number, FoundFiles())
        if trial.ending is None:
            if not is_running:
                yield from _without_ending(where, trial, found, retried)
        else:
            if not trial.is_elsewhere:
                yield from _ended(where, trial, found, is_expected=trial.number in with_weights)
            yield from _values(study, trial, expected_values.get(trial.number))
        if not found.is_held:
            yield from (_leftover(f"{where}/{name}", trial.number) for name in found.temporary)
    if not is_running:
        yield from _orphans(study, trials, files)


def _numbering(study: str, trials: Sequence[StoredTrial]) -> Iterator[Finding]:
    """Find gaps and doubles among the numbers, which Optuna counts from 0."""
    numbers = [trial.number for trial in trials]
    missing = sorted(set(range(len(numbers))) - set(numbers))
    if missing:
        yield Finding(
            address=f"{study}/study.db",
            problem=f"trial {', '.join(map(str, missing[:_SHOWN]))} is missing among {len(numbers)} trials: rows of "
            "the storage were deleted",
            advice="put the database of a backup there",
        )


def _without_ending(where: str, trial: StoredTrial, found: FoundFiles, retried: set[int]) -> Iterator[Finding]:
    """Find what is wrong with a trial that has no ending while no supervisor runs."""
    ending = None if found.outcome is None else found.outcome["ending"]
    is_interrupted = trial.state == "fail" and FINGERPRINT in trial.attributes
    match trial.state:
        case "running" if not trial.is_elsewhere and not found.is_held:
            if ending is not None and ending != Ending.BROKEN:
                problem, repair = f"RUNNING in Optuna, but it is {ending}", Repair.TAKE_OVER
            else:
                problem, repair = "RUNNING in Optuna, but no process works on it", Repair.INTERRUPT
            yield Finding(address=where, problem=problem, repair=repair, trial=trial.number)
        case "fail" if is_interrupted and trial.number not in retried:
            problem = "interrupted, and its architecture is not in the queue"
            yield Finding(address=where, problem=problem, repair=Repair.ENQUEUE, trial=trial.number)
        case "waiting" if found.outcome is not None:
            yield _waiting_with_outcome(where, trial, found)
    if found.checkpoint is FileState.DAMAGED:
        yield Finding(
            address=f"{where}/checkpoint.bin",
            problem="neither of its halves is whole",
            repair=Repair.DELETE_CHECKPOINT,
            trial=trial.number,
        )


def _waiting_with_outcome(where: str, trial: StoredTrial, found: FoundFiles) -> Finding:
    """Describe a trial of which the storage has lost the end, or whose folder is another trial's."""
    is_same = found.fingerprint != "" and found.fingerprint == trial.attributes.get(FINGERPRINT)
    if is_same and found.outcome is not None:
        problem, repair = f"WAITING in Optuna, but it is {found.outcome['ending']}", Repair.TAKE_OVER
    else:
        problem, repair = "holds the files of a trial that Optuna does not have", Repair.MOVE_ASIDE
    return Finding(address=where, problem=problem, repair=repair, trial=trial.number)


def _ended(where: str, trial: StoredTrial, found: FoundFiles, *, is_expected: bool) -> Iterator[Finding]:
    """Find what is wrong with the files of a trial that has ended."""
    is_trained = trial.ending in _TRAINED
    if trial.ending in _FROM_OUTCOME:
        yield from _outcome(where, trial, found)
        yield from _model(where, trial, found)
    if is_trained and found.epochs != trial.attributes.get("epochs"):
        yield Finding(
            address=f"{where}/progress.jsonl",
            problem=f"{found.epochs} of {trial.attributes.get('epochs')} epochs",
            advice="nothing else has the others; scores are not affected",
            trial=trial.number,
        )
    is_copied = str(trial.attributes.get(DETAIL, "")).startswith(TRAINED_BEFORE)
    is_lost = found.weights is FileState.MISSING and is_expected and trial.ending == Ending.FINISHED and not is_copied
    if found.weights is FileState.DAMAGED or is_lost:
        yield Finding(
            address=f"{where}/weights.pt",
            problem="missing, and the trial is a best one" if is_lost else str(found.weights),
            advice="put it back; nas export writes the trial without weights",
            trial=trial.number,
        )


def _outcome(where: str, trial: StoredTrial, found: FoundFiles) -> Iterator[Finding]:
    address = f"{where}/outcome.json"
    if found.outcome is None:
        repair = Repair.WRITE_OUTCOME
        yield Finding(address=address, problem=str(found.outcome_state), repair=repair, trial=trial.number)
        return
    differing = differing_fields(trial.attributes, found.outcome)
    if differing:
        shown = [f"{name} {found.outcome.get(name)}, in Optuna {trial.attributes.get(name)}" for name in differing]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        problem = f"{'; '.join(shown[:_SHOWN])}{more}"
        yield Finding(address=address, problem=problem, repair=Repair.REPLACE_OUTCOME, trial=trial.number)


def differing_fields(attributes: Mapping[str, Any], outcome: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of an outcome that a trial's attributes have with another value."""
    return [name for name in outcome if name in attributes and attributes[name] != outcome[name]]


def outcome_of(attributes: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the outcome that a trial's attributes hold, with the ending last, as `outcome_fields` returned it.

    Args:
        attributes: of a trial that has ended.
        names: of an outcome's fields.
    """
    fields = {name: attributes[name] for name in (*names, PROVENANCE, JUDGED) if name in attributes}
    return {**{name: value for name, value in fields.items() if name != ENDING}, ENDING: attributes[ENDING]}


def _model(where: str, trial: StoredTrial, found: FoundFiles) -> Iterator[Finding]:
    wanted = trial.attributes.get(FINGERPRINT)
    if found.model_state is not FileState.WHOLE:
        problem = str(found.model_state)
    elif wanted is not None and found.fingerprint != wanted:
        problem = f"is architecture {found.fingerprint}, in Optuna {wanted}"
    else:
        return
    yield Finding(address=f"{where}/model.yaml", problem=problem, repair=Repair.WRITE_MODEL, trial=trial.number)


def _values(study: str, trial: StoredTrial, expected: tuple[float, ...] | None) -> Iterator[Finding]:
    """Find values that are not those of the trial's attributes: two rows of one database, of which one was changed."""
    if trial.state == "complete" and expected is not None and trial.values != expected:
        yield Finding(
            address=f"{study}/study.db trial {trial.number}",
            problem=f"its values are {trial.values}, by its attributes {expected}",
            advice="put the database of a backup there",
            trial=trial.number,
        )


def _orphans(study: str, trials: Sequence[StoredTrial], files: Mapping[int, FoundFiles]) -> Iterator[Finding]:
    """Find folders of trials that the storage does not have; the next ones by number can be added to it."""
    following = len(trials)
    for number in sorted(files.keys() - {trial.number for trial in trials}):
        found = files[number]
        ending = None if found.outcome is None else found.outcome["ending"]
        is_next = number == following and ending is not None and found.model_state is FileState.WHOLE
        following += is_next
        yield Finding(
            address=f"{study}/trials/{number:04d}",
            problem=f"Optuna has no such trial{f', but it is {ending}' if ending else ''}",
            repair=Repair.ADD_TRIAL if is_next else Repair.MOVE_ASIDE,
            trial=number,
        )


def _leftover(address: str, trial: int | None = None) -> Finding:
    problem = "a temporary file that a killed process left"
    return Finding(address=address, problem=problem, repair=Repair.DELETE_TEMPORARY, trial=trial)


def compare_stock_training(
    where: str, found: FoundFiles, *, is_running: bool, is_stored: bool = False
) -> Iterator[Finding]:
    """Yield what is wrong with the files of a stock model's training.

    Args:
        where: address of its folder, `STUDY/base`.
        found: there.
        is_running: whether the study is.
        is_stored: whether its weights are in a database, from which they are fetched when they are needed.
    """
    if found.is_held or is_running:
        return
    yield from (_leftover(f"{where}/{name}") for name in found.temporary)
    ending = None if found.outcome is None else found.outcome["ending"]
    advice = "nas resume trains the stock model again, to the same bits"
    if found.outcome_state is FileState.DAMAGED:
        yield Finding(address=f"{where}/outcome.json", problem="damaged", advice=advice)
    elif ending is None and found.weights is FileState.WHOLE and found.checkpoint is FileState.MISSING:
        yield Finding(address=f"{where}/outcome.json", problem="missing, though the weights are there", advice=advice)
    is_fetched = is_stored and found.weights is FileState.MISSING
    if ending == Ending.FINISHED and found.weights is not FileState.WHOLE and not is_fetched:
        yield Finding(address=f"{where}/weights.pt", problem=str(found.weights), advice=advice)


def compare_records(study: str, stored: Mapping[int, Any], cached: Mapping[int, Any]) -> Iterator[Finding]:
    """Yield the rows of `records.jsonl` that are not those of Optuna's trials; rows that are missing are no mistake.

    Args:
        study: name of its folder.
        stored: records by trial, as the storage has them.
        cached: records by trial, as the file has them.
    """
    for number, record in cached.items():
        if stored.get(number) != record:
            yield Finding(
                address=f"{study}/records.jsonl",
                problem=f"trial {number} is another one than in Optuna's storage",
                repair=Repair.REBUILD_RECORDS,
                trial=number,
            )
