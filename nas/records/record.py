"""Record of a trial, as one row of a study; selections and means of records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import fmean
from typing import Any, get_type_hints

from pydantic import ConfigDict, create_model

from nas.algorithms.pareto import OBJECTIVES, pareto_front
from nas.records.stored_outcome import ENDINGS, StoredOutcome
from search_spaces.errors import SpecError
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
"""Columns that `--format json` and `--format csv` print; their names and order never change."""

MEMBER = "member"
"""Column behind these, in a study of several members."""

TRAINED_BEFORE = "trained before"
"""Beginning of the detail of a trial whose score was taken from another study."""
LEARNED = 0.01
"""mAP50-95 below which a model has learned nothing that could be compared: a point, twice the usual margin."""
_MOSTLY = 0.5
_TENTH = 0.1
_POINT = 0.01
"""One point of mAP, on a scale of 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Record(StoredOutcome):
    """Record of one trial.

    Attributes:
        trial: its number.
        state: Optuna's: `waiting`, `running`, `complete`, `pruned` or `fail`.
        expected: posterior mean of mAP50-95 given all trials, where it was requested.
        measured_ms: latency measured on the idle device after the search, where `latency_ms` is a prediction.
        repeat: number of earlier trainings of the architecture; the seed is the study's plus this.
        seeds: number of trainings that the accuracies are the mean of.
        fingerprint: of the architecture.
        picks: `{"4": {"UIB": {...}}, "after-9": ..., "macro": {"depth": 2}}`; empty for the stock model.
        summary: short text of the architecture.
        member: name of the space that it is of, among several; else empty.
        role: `stock`, `start`, `cheapest` or `costliest` for the first ones, else empty.
        within: whether it is within the study's limits.
    """

    trial: int
    state: str
    expected: float | None = None
    measured_ms: float | None = None
    repeat: int = 0
    seeds: int = 1
    fingerprint: str = ""
    picks: Mapping[str, Any]
    summary: str = ""
    member: str = ""
    role: str = ""
    within: bool = True

    def as_row(self, columns: Sequence[str] = ()) -> dict[str, Any]:
        """Return the values of these columns, without any those of `columns_of` this record, in their order."""
        return {name: getattr(self, name) for name in columns or columns_of([self])}

    def as_line(self) -> dict[str, Any]:
        """Return what `record_of` reads; without a member where there is only one."""
        return {name: value for name, value in asdict(self).items() if name != MEMBER or value}

    @property
    def finished(self) -> bool:
        """True if the trial was trained for the whole budget and scored."""
        return self.ending == Ending.FINISHED

    @property
    def is_unfinished(self) -> bool:
        """True if the trial waits in the queue, or runs, or was killed in its run and not recovered yet."""
        return self.state in {"waiting", "running"}

    @property
    def status(self) -> str:
        """Ending of the trial; while it has none, `interrupted` or Optuna's state."""
        return self.ending or ("interrupted" if self.state == "fail" else self.state)

    @property
    def is_mostly_new(self) -> bool:
        """True if the training began with a checkpoint of which less than half fitted: mostly from scratch."""
        return 0 < self.inherited < _MOSTLY

    @property
    def advice(self) -> str:
        """Advice on the ending; empty while there is none."""
        return Ending(self.ending).advice if self.ending else ""


def columns_of(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the columns of some records: `COLUMNS`, and `member` in a study of several."""
    return (*COLUMNS, MEMBER) if any(record.member for record in records) else COLUMNS


def mean_over_seeds(records: Iterable[Record]) -> list[Record]:
    """Return one record for each architecture with a finished training: its first, with the means over its seeds."""
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


def stocks_of(records: Iterable[Record]) -> list[Record]:
    """Return the records of the finished stock models, with the means over their seeds, in the order of the trials."""
    finished = [record for record in records if record.finished]
    first: dict[str, Record] = {}
    for record in finished:
        first.setdefault(record.fingerprint, record)
    stocks = [record for record in first.values() if record.role == "stock"]
    return [_mean([record for record in finished if record.fingerprint == stock.fingerprint]) for stock in stocks]


def stock_of(records: Iterable[Record]) -> Record | None:
    """Return the record of the stock model, with the means over its seeds; None unless it has finished.

    Of several members that of the most accurate one.
    """
    return max(stocks_of(records), key=lambda stock: stock.map50_95 or 0.0, default=None)


def its_stock(record: Record, stocks: Iterable[Record]) -> Record | None:
    """Return the stock model of a record's member among several; None if it has not finished."""
    return next((stock for stock in stocks if stock.member == record.member), None)


def find_record(records: Iterable[Record], trial: int, *, study: str) -> Record:
    """Return the record of a trial.

    Args:
        trial: its number.
        study: name of the study, for the message.

    Raises:
        SpecError: there is no such trial.
    """
    by_number = {record.trial: record for record in records}
    if trial not in by_number:
        which = f"0 to {max(by_number)}" if by_number else "it has none yet"
        raise SpecError(f"trial: {study} has no trial {trial!r} ({which})")
    return by_number[trial]


def pareto_front_of(records: Iterable[Record], objectives: Sequence[str]) -> list[Record]:
    """Return the Pareto front of the architectures within limits, by means over seeds, best accuracy first."""
    scored = [record for record in mean_over_seeds(records) if record.within]
    points = [point_of(record, objectives) for record in scored]
    directions = [OBJECTIVES[name] for name in objectives]
    best = [scored[index] for index in pareto_front(points, directions)]
    return sorted(best, key=lambda record: (-(record.map50_95 or 0.0), record.gflops or 0.0))


def has_learned(accuracy: float | None) -> bool:
    """Return whether a mAP50-95 is that of a model that has learned something; True while there is none."""
    return accuracy is None or accuracy >= LEARNED


def cheapest_as_accurate(front: Sequence[Record], stock: Record, cost: str = "gflops") -> Record | None:
    """Return the cheapest model of the front that is about as accurate as the stock model.

    It is at most one point of mAP worse, and at most a tenth of the stock model's own mAP: among models that score one
    or two points, a point is no small difference.

    Args:
        front: to choose from.
        stock: record of the stock model.
        cost: name of the cost to compare.

    Returns:
        None if none is cheaper than the stock model, or the stock model has learned nothing.
    """
    ceiling = getattr(stock, cost)
    if stock.map50_95 is None or ceiling is None or not has_learned(stock.map50_95):
        return None
    least = stock.map50_95 - min(_POINT, _TENTH * stock.map50_95)
    costs = [(getattr(one, cost), one) for one in front if (one.map50_95 or 0.0) >= least]
    cheaper = [(value, record) for value, record in costs if value is not None and value < ceiling]
    return min(cheaper, key=lambda each: each[0])[1] if cheaper else None


def point_of(record: Record, objectives: Sequence[str]) -> tuple[float, ...]:
    """Return the values of these objectives of a finished record."""
    return tuple(float(getattr(record, name)) for name in objectives)


def duration(seconds: float, detail: str) -> str:
    """Return the duration of a training as text; `trained before` if its score is another study's."""
    return TRAINED_BEFORE if detail.startswith(TRAINED_BEFORE) else f"{seconds:.0f} s"


_FIELDS = get_type_hints(Record, include_extras=True)
_REQUIRED: dict[str, Any] = {
    each.name: (_FIELDS[each.name], "" if each.name == MEMBER else ...) for each in fields(Record)
}
_Line = create_model("_Line", __config__=ConfigDict(strict=True, allow_inf_nan=False, extra="forbid"), **_REQUIRED)
"""A record as JSON: it has every field, also those with a default; only the member is not there without several."""
_STATES = {"waiting", "running", "complete", "pruned", "fail"}


def record_of(line: bytes) -> Record | None:
    """Return the record of a line of JSON; None if it was torn, damaged, or written by another version."""
    try:
        record = Record(**vars(_Line.model_validate_json(line)))
    except ValueError:
        return None
    valid = record.trial >= 0 and record.state in _STATES and record.ending in {None, *ENDINGS}
    return record if valid else None
