"""The files of one trial: their names, and how each is written and read."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from nas.records.record import ENDINGS
from search_spaces.files import read_json, write_atomically
from trials.scores import Ending, Epoch, Outcome

_DIGITS = 10
"""More than a process's number has."""


@dataclass(frozen=True)
class TrialFiles:
    """The names of one trial's files, known here and nowhere else."""

    folder: Path

    @classmethod
    def of(cls, study_folder: Path, trial: int) -> "TrialFiles":
        """Those of a trial by its number."""
        return cls(study_folder / "trials" / f"{trial:04d}")

    @classmethod
    def of_stock_model(cls, study_folder: Path) -> "TrialFiles":
        """Those of the stock model's own training."""
        return cls(study_folder / "base")

    @property
    def lock(self) -> Path:
        """Held by the worker while the trial runs.

        Its text is the worker's process, its time the last sign of life.
        """
        return self.folder / "lock"

    @property
    def progress(self) -> Path:
        """One JSON line an epoch."""
        return self.folder / "progress.jsonl"

    @property
    def outcome(self) -> Path:
        """How the trial ended; there or not there, never half."""
        return self.folder / "outcome.json"

    @property
    def model(self) -> Path:
        """The architecture as a model YAML."""
        return self.folder / "model.yaml"

    @property
    def weights(self) -> Path:
        """The moving average in fp32, as `YOLO()` loads it."""
        return self.folder / "weights.pt"

    @property
    def checkpoint(self) -> Path:
        """Where the training stands; it goes on from there."""
        return self.folder / "checkpoint.bin"

    def move_checkpoint_from(self, other: "TrialFiles") -> None:
        """Go on where another try at the same architecture was stopped."""
        if other.checkpoint.is_file():
            other.checkpoint.replace(self.checkpoint)

    def write_heartbeat(self) -> None:
        """Say that this process works on the trial."""
        self.lock.write_text(str(os.getpid()), encoding="ascii")

    def read_holder(self) -> int | None:
        """The process that works on the trial, or did; None if there was none, or the file does not say."""
        text = self.lock.read_bytes() if self.lock.is_file() else b""
        return int(text) if text.isdigit() and len(text) < _DIGITS else None

    def read_heartbeat(self) -> int:
        """A number that changes with every sign of life."""
        return self.lock.stat().st_mtime_ns if self.lock.is_file() else 0

    def write_epoch(self, epoch: Epoch) -> None:
        """Append one epoch."""
        with self.progress.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(epoch)) + "\n")

    def read_epochs(self) -> list[Epoch]:
        """The epochs so far; a line that was left half-written, or is none of ours, is not one of them."""
        if not self.progress.is_file():
            return []
        *lines, _torn = self.progress.read_bytes().split(b"\n")
        return [epoch for line in lines if (epoch := _epoch(line)) is not None]

    def write_outcome(self, outcome: Outcome) -> None:
        """Write how the trial ended, aside and then renamed."""
        write_atomically(self.outcome, json.dumps(outcome_fields(outcome), indent=1))

    def read_outcome(self) -> dict[str, Any] | None:
        """Return the stored outcome, as `told` wrote it; None if the trial has not ended, or the file is damaged."""
        try:
            return _Told.model_validate(read_json(self.outcome)).model_dump(exclude_unset=True)
        except ValidationError:
            return None


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """What is kept of an outcome: the fields of a record."""
    costs = {} if outcome.costs is None else asdict(outcome.costs)
    scores = {} if outcome.scores is None else {"map50_95": outcome.scores.map50_95, "map50": outcome.scores.map50}
    return {
        **scores,
        **costs,
        "epochs": len(outcome.epochs),
        "seconds": round(outcome.seconds, 1),
        "detail": outcome.detail,
        "inherited": outcome.coverage.share,
        "changed_layers": dict(outcome.coverage.layers),
        **({} if outcome.provenance is None else {"provenance": asdict(outcome.provenance)}),
        "ending": outcome.ending.value,  # last: who sees it sees the rest as well
    }


_Accuracy = Annotated[float, Field(ge=0, le=1)]


_EPOCH = TypeAdapter(Epoch)


class _Told(BaseModel):
    """The form of an outcome on disk, as `told` writes it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    map50_95: _Accuracy | None = None
    map50: _Accuracy | None = None
    params: PositiveInt | None = None
    gflops: PositiveFloat | None = None
    latency_ms: PositiveFloat | None = None
    latency_spread_ms: NonNegativeFloat | None = None
    latency_steady: bool = True
    epochs: NonNegativeInt
    seconds: NonNegativeFloat
    detail: str
    inherited: float = 0.0
    changed_layers: dict[str, float] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    ending: str

    @field_validator("ending")
    @classmethod
    def _of_a_trial(cls, ending: str, known: ValidationInfo) -> str:
        """An `Ending`; one with scores has them."""
        scored = all(known.data.get(name) is not None for name in ("map50_95", "map50", "params", "gflops"))
        if ending not in ENDINGS or (ending == Ending.FINISHED and not scored):
            raise ValueError("no ending")
        return ending


def _epoch(line: bytes) -> Epoch | None:
    try:
        return _EPOCH.validate_json(line, strict=True)
    except ValueError:
        return None
