"""What a study knows of a trial, as one row, and the names of a trial's files."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from statistics import fmean
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

from nas.front import OBJECTIVES, front
from search_spaces.files import read_json, write_aside
from trials.scores import Ending, Epoch, Outcome

COLUMNS = (
    "trial",
    "state",
    "ending",
    "map50_95",
    "map50",
    "expected",
    "gflops",
    "params",
    "latency_ms",
    "measured_ms",
    "inherited",
    "epochs",
    "seconds",
    "repeat",
    "seeds",
    "fingerprint",
    "picks",
)
"""The names that `--format json` and `--format csv` print, and that stay."""

TRAINED_BEFORE = "trained before"
"""How the detail of a trial begins whose score another study has paid for."""
LEARNED = 0.001
"""The mAP50-95 below which a model has learned nothing: one with random weights finds next to nothing."""
_DIGITS = 10
"""More than a process's number has."""
_MOSTLY = 0.5
_POINT = 0.01


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial.

    Attributes:
        state: `waiting`, `running`, `complete`, `pruned` or `fail`, as Optuna says it.
        ending: the name of an `Ending`, in small letters; None while the trial has not ended.
        expected: the mAP50-95 that it would have another time, given all trials, where that was asked for.
        latency_ms: as it counted in the search, measured in the trial or predicted from a device's table.
        measured_ms: measured on the idle device afterwards, where the other is a prediction.
        epochs: trained so far.
        repeat: which training of its architecture it is, from 0; the seed is the study's plus this.
        seeds: of how many trainings the accuracies are the mean.
        picks: `{"4": {"UIB": {...}}, "after-9": ..., "macro": {"depth": 2}}`; empty for the stock model.
        summary: the architecture in words.
        role: `stock`, `start`, `cheapest` or `costliest` for the first ones, else empty.
        within: whether it is within the study's limits.
        detail: one line on what happened, where the ending alone does not say it.
        inherited: share of the parameters that came from a checkpoint.
        changed_layers: those that did not come whole, each with the share that did: `{"8": 0.31, "after-9": 0.0}`.
    """

    trial: int
    state: str
    ending: str | None = None
    map50_95: float | None = None
    map50: float | None = None
    expected: float | None = None
    gflops: float | None = None
    params: int | None = None
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    latency_steady: bool = True
    measured_ms: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    repeat: int = 0
    seeds: int = 1
    fingerprint: str = ""
    picks: Mapping[str, Any]
    summary: str = ""
    role: str = ""
    within: bool = True
    detail: str = ""
    inherited: float = 0.0
    changed_layers: Mapping[str, float] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """The columns that stay, in their order."""
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def finished(self) -> bool:
        """Whether it was trained for the whole budget and scored."""
        return self.ending == Ending.FINISHED.name.lower()

    @property
    def status(self) -> str:
        """How the trial ended, in a word; while it has no ending, `interrupted` or Optuna's state of it."""
        return self.ending or ("interrupted" if self.state == "fail" else self.state)

    @property
    def is_mostly_new(self) -> bool:
        """Whether it started from a checkpoint, but took over less than half: its score is in part one from scratch."""
        return 0 < self.inherited < _MOSTLY

    @property
    def cure(self) -> str:
        """What its ending says to do."""
        return Ending[self.ending.upper()].value if self.ending else ""


def averaged(records: Iterable[Record]) -> list[Record]:
    """One record for each architecture that was trained to the end: its first, with the means over its seeds."""
    trainings: dict[str, list[Record]] = {}
    for record in records:
        if record.finished:
            trainings.setdefault(record.fingerprint, []).append(record)
    return [_mean(each) for each in trainings.values()]


def _mean(trainings: Sequence[Record]) -> Record:
    first, *others = trainings
    if not others:
        return first
    return replace(
        first,
        map50_95=fmean(one.map50_95 or 0.0 for one in trainings),
        map50=fmean(one.map50 or 0.0 for one in trainings),
        seeds=len(trainings),
    )


def stock_of(records: Iterable[Record]) -> Record | None:
    """The stock model among the trials that were trained to the end, with the means over its seeds."""
    trained = averaged(records)
    return next((record for record in trained if record.role == "stock"), None)


def front_of(records: Iterable[Record], objectives: Sequence[str]) -> list[Record]:
    """The architectures within limits that no other dominates, by the means over their seeds, best accuracy first."""
    scored = [record for record in averaged(records) if record.within]
    points = [point_of(record, objectives) for record in scored]
    directions = [OBJECTIVES[name] for name in objectives]
    best = [scored[index] for index in front(points, directions)]
    return sorted(best, key=lambda record: (-(record.map50_95 or 0.0), record.gflops or 0.0))


def has_learned(accuracy: float | None) -> bool:
    """Whether a score is one of a model that has learned something; where there is none yet, nothing is against it."""
    return accuracy is None or accuracy >= LEARNED


def as_accurate(front: Sequence[Record], stock: Record, cost: str = "gflops") -> Record | None:
    """The cheapest of the front that loses no more than a point to the stock model.

    Args:
        cost: the one that counts.

    Returns:
        None if none is cheaper than the stock model, or the stock model has learned nothing.
    """
    ceiling = getattr(stock, cost)
    if stock.map50_95 is None or ceiling is None or not has_learned(stock.map50_95):
        return None
    least = stock.map50_95 - _POINT
    costs = [(getattr(r, cost), r) for r in front if (r.map50_95 or 0.0) >= least]
    cheaper = [(own, record) for own, record in costs if own is not None and own < ceiling]
    return min(cheaper, key=lambda each: each[0])[1] if cheaper else None


def point_of(record: Record, objectives: Sequence[str]) -> tuple[float, ...]:
    """A finished record's values of these objectives."""
    return tuple(float(getattr(record, name)) for name in objectives)


@dataclass(frozen=True)
class TrialFiles:
    """The names of one trial's files, known here and nowhere else."""

    folder: Path

    @classmethod
    def of(cls, study_folder: Path, trial: int) -> "TrialFiles":
        """Those of a trial by its number."""
        return cls(study_folder / "trials" / f"{trial:04d}")

    @classmethod
    def of_base(cls, study_folder: Path) -> "TrialFiles":
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

    def take_over(self, other: "TrialFiles") -> None:
        """Go on where another try at the same architecture was stopped."""
        if other.checkpoint.is_file():
            other.checkpoint.replace(self.checkpoint)

    def sign(self) -> None:
        """Say that this process works on the trial."""
        self.lock.write_text(str(os.getpid()), encoding="ascii")

    def read_holder(self) -> int | None:
        """The process that works on the trial, or did; None if there was none, or the file does not say."""
        text = self.lock.read_bytes() if self.lock.is_file() else b""
        return int(text) if text.isdigit() and len(text) < _DIGITS else None

    def read_sign(self) -> int:
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
        write_aside(self.outcome, json.dumps(told(outcome), indent=1))

    def read_outcome(self) -> dict[str, Any] | None:
        """Return the stored outcome, as `told` wrote it; None if the trial has not ended, or the file is damaged."""
        try:
            return _Told.model_validate(read_json(self.outcome)).model_dump(exclude_unset=True)
        except ValidationError:
            return None


def told(outcome: Outcome) -> dict[str, Any]:
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
        "ending": outcome.ending.name.lower(),  # last: who sees it sees the rest as well
    }


def took(seconds: float, detail: str) -> str:
    """How long a training took, in words; nothing, if another study has paid for it."""
    return TRAINED_BEFORE if detail.startswith(TRAINED_BEFORE) else f"{seconds:.0f} s"


_Accuracy = Annotated[float, Field(ge=0, le=1)]
_EPOCH = TypeAdapter(Epoch)
_RECORD = TypeAdapter(Record)
_STATES = {"waiting", "running", "complete", "pruned", "fail"}
_NAMES = frozenset(each.name for each in fields(Record))
_ENDINGS = {ending.name.lower() for ending in Ending}


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
        if ending not in _ENDINGS or (ending == Ending.FINISHED.name.lower() and not scored):
            raise ValueError("no ending")
        return ending


def record_of(line: bytes) -> Record | None:
    """Return the record of a line of JSON; None if it was torn, damaged, or written by another version."""
    try:
        values = json.loads(line)
        if not isinstance(values, dict) or values.keys() != _NAMES:
            return None
        record = _RECORD.validate_json(line, strict=True)
    except (ValueError, RecursionError):
        return None
    figures = (value for value in values.values() if isinstance(value, float))
    whole = record.trial >= 0 and record.state in _STATES and record.ending in {None, *_ENDINGS}
    return record if whole and all(map(isfinite, figures)) else None


def _epoch(line: bytes) -> Epoch | None:
    try:
        return _EPOCH.validate_json(line, strict=True)
    except ValueError:
        return None
