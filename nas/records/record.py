"""What a study knows of a trial, as one row, and the names of a trial's files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from statistics import fmean
from typing import Any

from pydantic import (
    TypeAdapter,
)

from nas.algorithms.pareto import OBJECTIVES, pareto_front
from trials.scores import Ending

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
_MOSTLY = 0.5
_POINT = 0.01


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial.

    Attributes:
        state: `waiting`, `running`, `complete`, `pruned` or `fail`, as Optuna says it.
        ending: the value of an `Ending`; None while the trial has not ended.
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
        return self.ending == Ending.FINISHED

    @property
    def status(self) -> str:
        """How the trial ended, in a word; while it has no ending, `interrupted` or Optuna's state of it."""
        return self.ending or ("interrupted" if self.state == "fail" else self.state)

    @property
    def is_mostly_new(self) -> bool:
        """Whether it started from a checkpoint, but took over less than half: its score is in part one from scratch."""
        return 0 < self.inherited < _MOSTLY

    @property
    def advice(self) -> str:
        """Return what to do about its ending."""
        return Ending(self.ending).advice if self.ending else ""


def mean_over_seeds(records: Iterable[Record]) -> list[Record]:
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
    trained = mean_over_seeds(records)
    return next((record for record in trained if record.role == "stock"), None)


def pareto_front_of(records: Iterable[Record], objectives: Sequence[str]) -> list[Record]:
    """The architectures within limits that no other dominates, by the means over their seeds, best accuracy first."""
    scored = [record for record in mean_over_seeds(records) if record.within]
    points = [point_of(record, objectives) for record in scored]
    directions = [OBJECTIVES[name] for name in objectives]
    best = [scored[index] for index in pareto_front(points, directions)]
    return sorted(best, key=lambda record: (-(record.map50_95 or 0.0), record.gflops or 0.0))


def has_learned(accuracy: float | None) -> bool:
    """Whether a score is one of a model that has learned something; where there is none yet, nothing is against it."""
    return accuracy is None or accuracy >= LEARNED


def cheapest_as_accurate(front: Sequence[Record], stock: Record, cost: str = "gflops") -> Record | None:
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


def duration(seconds: float, detail: str) -> str:
    """How long a training took, in words; nothing, if another study has paid for it."""
    return TRAINED_BEFORE if detail.startswith(TRAINED_BEFORE) else f"{seconds:.0f} s"


_RECORD = TypeAdapter(Record)
_STATES = {"waiting", "running", "complete", "pruned", "fail"}
_NAMES = frozenset(each.name for each in fields(Record))
ENDINGS = {ending.value for ending in Ending}


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
    whole = record.trial >= 0 and record.state in _STATES and record.ending in {None, *ENDINGS}
    return record if whole and all(map(isfinite, figures)) else None
