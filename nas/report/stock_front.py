"""Compare a study of several members with the stock models at equal cost: pure functions of records.

A model of one member may beat its own stock model, and yet be worse than the stock model of another member that costs
no more. So what is claimed is claimed against the most accurate of the stock models that cost at most as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.records.record import Record, its_stock
from nas.report.verdicts import UNITS
from nas.words import with_unit

_MOST = 3
"""Models of a front of which a sentence is written, the most accurate first."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Model beside the stock models of a study.

    Attributes:
        record: of the model.
        own: stock model of its member; None if it has not finished.
        best: most accurate of the stock models that cost at most as much; None if all cost more.
        cost: name of the cost.
    """

    record: Record
    own: Record | None
    best: Record | None
    cost: str

    @property
    def gain(self) -> float | None:
        """Difference in mAP50-95 to that best stock model; None if all cost more."""
        return None if self.best is None else self._gain(self.best)

    @property
    def sentence(self) -> str:
        """What the scores show of the model, in words."""
        name, at = f"trial {self.record.trial}", _at(self.record, self.cost)
        if self.best is None:
            beside = (
                "" if self.own is None else f": {self._gain(self.own):+.3f} over its own ({self._described(self.own)})"
            )
            return f"{name}: every stock model of these costs more than its {at}{beside}"
        best = self._described(self.best)
        gain = self._gain(self.best)
        if gain > 0:
            return f"{name}: no stock model of these is as accurate at {at}: {gain:+.3f} over the best one ({best})"
        if self.own is not None and _accuracy(self.record) > _accuracy(self.own):
            return f"{name}: beats its own stock model only; at {at} another is as accurate ({best})"
        return f"{name}: a stock model of these is as accurate at {at} ({best})"

    def _gain(self, stock: Record) -> float:
        return _accuracy(self.record) - _accuracy(stock)

    def _described(self, stock: Record) -> str:
        return f"{stock.member}'s, {_accuracy(stock):.3f} at {_at(stock, self.cost)}"


def bars(records: Sequence[Record], stocks: Sequence[Record], cost: str) -> list[Bar]:
    """Return each model beside the stock models that have finished; models without this cost are left out."""
    return [_bar(record, stocks, cost) for record in records if getattr(record, cost) is not None]


def _bar(record: Record, stocks: Sequence[Record], cost: str) -> Bar:
    affordable = [one for one in stocks if getattr(one, cost) is not None and _cost(one, cost) <= _cost(record, cost)]
    best = max(affordable, key=_accuracy, default=None)
    return Bar(record=record, own=its_stock(record, stocks), best=best, cost=cost)


def findings(front: Sequence[Record], stocks: Sequence[Record], cost: str, *, confirm: str, pareto: str) -> list[str]:
    """Return what the scores of a study of several members show, one sentence each.

    Args:
        front: Pareto front.
        stocks: stock models that have finished.
        cost: name of the cost at which models are compared.
        confirm: command that judges them by fresh seeds.
        pareto: command that prints the front.
    """
    candidates = sorted((one for one in front if one.role != "stock"), key=_accuracy, reverse=True)
    compared = bars(candidates, stocks, cost)
    if not compared:
        return ["Nothing that was tried is on the front beside the stock models."]
    sentences = [one.sentence for one in compared[:_MOST]]
    left = len(compared) - _MOST
    rest = [f"{with_unit(left, 'more model')} of the front: {pareto} --format json"] if left > 0 else []
    seeds = min(one.record.seeds for one in compared)
    scored = "one short training each" if seeds == 1 else f"means of {seeds} seeds, which also chose them"
    return [*sentences, *rest, f"scores are those of {scored}: no verdict ({confirm})"]


def _accuracy(record: Record) -> float:
    return record.map50_95 or 0.0


def _cost(record: Record, cost: str) -> float:
    return float(getattr(record, cost))


def _at(record: Record, cost: str) -> str:
    value = _cost(record, cost)
    shown = f"{value / 1e6:.2f} M" if cost == "params" else f"{value:.2f}"
    return f"{shown} {UNITS[cost]}"
