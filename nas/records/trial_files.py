"""Files of one trial: their names, and how each is written and read."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from nas.records.stored_outcome import outcome_fields, parse_outcome
from search_spaces.files import as_environment_problems, sync_file, write_atomically
from trials.accuracy.judged import JUDGED
from trials.file_names import CHECKPOINT, ERROR, MODEL, SCRATCH, WEIGHTS
from trials.scores import Epoch, Outcome

BASE = "base"
"""Folder of the training of the stock model in a study's folder; of several members it has a folder for each."""
BASE_PATTERN = rf"{BASE}(?:/(?!{SCRATCH}/)[A-Za-z0-9][A-Za-z0-9._-]*)?"
"""Regular expression of these folders."""
_LONGEST_PID = 10
"""Number of digits that no process id has."""


@dataclass(frozen=True)
class TrialFiles:
    """Files of one trial. `trials.evaluation` defines the names of the files that an evaluation writes."""

    folder: Path

    @classmethod
    def of(cls, study_folder: Path, trial: int) -> "TrialFiles":
        """Return the files of a trial by its number."""
        return cls(study_folder / "trials" / f"{trial:04d}")

    @classmethod
    def of_stock_model(cls, study_folder: Path, member: str = "") -> "TrialFiles":
        """Return the files of the training of a stock model, from which all trials of its member start.

        Args:
            member: name of the member, in a study of several.
        """
        return cls(study_folder / BASE / member)

    @classmethod
    def of_stock_models(cls, study_folder: Path, members: Iterable[str]) -> "dict[str, TrialFiles]":
        """Return the files of the training of each stock model by member; without members that of an empty name."""
        return {member: cls.of_stock_model(study_folder, member) for member in tuple(members) or ("",)}

    @classmethod
    def stock_models_in(cls, study_folder: Path) -> "list[TrialFiles]":
        """Return the files of those trainings of stock models that lie in a study's folder, whatever its settings."""
        base = cls.of_stock_model(study_folder)
        inside = sorted(base.folder.iterdir()) if base.folder.is_dir() else []
        members = [path.name for path in inside if path.is_dir() and path.name != base.scratch.name]
        return [cls.of_stock_model(study_folder, member) for member in members] or [base]

    @property
    def lock(self) -> Path:
        """Lock held by the worker while the trial runs.

        It contains the process id of the worker; its modification time is the last heartbeat.
        """
        return self.folder / "lock"

    @property
    def progress(self) -> Path:
        """JSON lines, one for each epoch."""
        return self.folder / "progress.jsonl"

    @property
    def outcome(self) -> Path:
        """Outcome of the trial as JSON; written atomically."""
        return self.folder / "outcome.json"

    @property
    def model(self) -> Path:
        """Model YAML of the architecture."""
        return self.folder / MODEL

    @property
    def weights(self) -> Path:
        """EMA weights in fp32, as `YOLO()` loads them."""
        return self.folder / WEIGHTS

    @property
    def has_model(self) -> bool:
        """Whether weights and model YAML are there: weights of trials off the front are deleted."""
        return self.weights.is_file() and self.model.is_file()

    @property
    def checkpoint(self) -> Path:
        """State of the training, from which it is resumed."""
        return self.folder / CHECKPOINT

    @property
    def judged(self) -> Path:
        """Accuracy on the images that judge, with the matched detections; only in a confirmation with such images."""
        return self.folder / JUDGED

    @property
    def error(self) -> Path:
        """Traceback of a trial whose training raised an error."""
        return self.folder / ERROR

    @property
    def scratch(self) -> Path:
        """Folder in which Ultralytics' trainer writes."""
        return self.folder / SCRATCH

    def move_checkpoint_from(self, other: "TrialFiles") -> None:
        """Move the checkpoint of the trial that this one retries here, to resume from it."""
        if other.checkpoint.is_file():
            other.checkpoint.replace(self.checkpoint)

    def write_heartbeat(self) -> None:
        """Write the id of this process to the lock; the time of the write is the heartbeat.

        Raises:
            EnvironmentProblem: the disk is full, or the place cannot be written to.
        """
        with as_environment_problems(self.lock):
            self.lock.write_text(str(os.getpid()), encoding="ascii")

    def read_holder(self) -> int | None:
        """Return the id of the process that works on the trial, or did; None if the lock has none."""
        text = self.lock.read_bytes() if self.lock.is_file() else b""
        return int(text) if text.isdigit() and len(text) < _LONGEST_PID else None

    def read_heartbeat(self) -> int:
        """Return the time of the last heartbeat, in nanoseconds; 0 if there was none."""
        return self.lock.stat().st_mtime_ns if self.lock.is_file() else 0

    def write_epoch(self, epoch: Epoch) -> None:
        """Append an epoch to the progress.

        Raises:
            EnvironmentProblem: the disk is full, or the place cannot be written to.
        """
        with as_environment_problems(self.progress), self.progress.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(epoch)) + "\n")

    def read_epochs(self) -> list[Epoch]:
        """Return the epochs so far; torn and damaged lines are skipped."""
        if not self.progress.is_file():
            return []
        *lines, _torn = self.progress.read_bytes().split(b"\n")
        return [epoch for line in lines if (epoch := _epoch(line)) is not None]

    def write_outcome(self, outcome: Outcome) -> None:
        """Write the outcome atomically; its epochs, which MLflow gets, are flushed to the disk before it."""
        sync_file(self.progress)
        write_atomically(self.outcome, json.dumps(outcome_fields(outcome), indent=1))

    def read_outcome(self) -> dict[str, Any] | None:
        """Return the fields of the stored outcome; None if the trial has not ended, or the file is damaged."""
        return parse_outcome(self.outcome.read_bytes()) if self.outcome.is_file() else None


_EPOCH = TypeAdapter(Epoch)


def _epoch(line: bytes) -> Epoch | None:
    try:
        return _EPOCH.validate_json(line, strict=True)
    except ValueError:
        return None
