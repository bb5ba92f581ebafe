"""Say which of several stock models to take, after a study of these alone: pure functions of records."""

from collections.abc import Mapping, Sequence
from typing import Any

from nas.algorithms.dominance import least_difference
from nas.algorithms.pareto import main_cost
from nas.records.record import Record, stocks_of
from nas.report.verdicts import UNITS
from nas.settings import Settings
from nas.words import with_unit
from trials import Ending


def ordered(records: Sequence[Record]) -> list[Record]:
    """Return one record for each model: the finished ones first, the most accurate at the head, then the others."""
    models = {
        record.member: record for record in records if record.role == "stock" and not _is_replaced(record, records)
    }
    return sorted(models.values(), key=lambda one: (not one.finished, -(one.map50_95 or 0.0), -one.epochs, one.trial))


def _is_replaced(record: Record, records: Sequence[Record]) -> bool:
    """Return whether a later trial retries that of a model."""
    return any(other.member == record.member and other.trial > record.trial for other in records)


def remarks_on(records: Sequence[Record], front: Sequence[Record], settings: Settings) -> dict[int, str]:
    """Return what was found of each model, in a few words, by trial.

    Args:
        records: of all trials.
        front: Pareto front.
        settings: of the study.
    """
    on_front, stocks = {record.trial for record in front}, stocks_of(records)
    best = max(stocks, key=_accuracy, default=None)
    cost = main_cost(settings.objectives)
    found = {}
    for one in ordered(records):
        if one is best or (best is not None and one.trial == best.trial):
            found[one.trial] = "most accurate"
        elif one.trial in on_front:
            found[one.trial] = "on the front"
        elif one.finished:
            found[one.trial] = _beside(one, stocks, cost, settings)
        elif one.ending == Ending.STOPPED:
            found[one.trial] = f"stopped: {one.detail}"
        else:
            found[one.trial] = ": ".join(text for text in (one.status, one.detail) if text)
    return found


def _beside(one: Record, stocks: Sequence[Record], cost: str, settings: Settings) -> str:
    """Return which finished model costs no more than one off the front, and by how much it is more accurate."""
    cheaper = [other for other in stocks if other.trial != one.trial and _value(other, cost) <= _value(one, cost)]
    by = max(cheaper, key=_accuracy, default=None)
    if by is None or _accuracy(by) < _accuracy(one):
        return "off the front by another cost"
    lead = _accuracy(by) - _accuracy(one)
    noise = "" if lead > least_difference(settings.stock_noise) else ", within noise"
    return f"{by.member} costs no more: {lead:+.3f}{noise}"


def contenders(stocks: Sequence[Record], settings: Settings) -> list[Record]:
    """Return the finished models that could be on the front: no other leads by more than noise and costs no more."""
    return [one for one in stocks if _leader_over(one, stocks, settings) is None]


def _leader_over(one: Record, stocks: Sequence[Record], settings: Settings) -> Record | None:
    """Return the most accurate model that leads one by more than noise and costs no more; None if there is none."""
    cost, least = main_cost(settings.objectives), least_difference(settings.stock_noise)
    leaders = [
        other
        for other in stocks
        if _value(other, cost) <= _value(one, cost) and _accuracy(other) - _accuracy(one) > least
    ]
    return max(leaders, key=_accuracy, default=None)


def rivals_of(finalists: Sequence[Record], stocks: Sequence[Record], settings: Settings) -> list[Record]:
    """Return the stock models with which finalists are trained again: of their members, and that may be the bar.

    The bar of a finalist is the most accurate stock model that costs no more. Among those that are not told apart the
    best score may be luck; without the better one, a finalist would be claimed to be better than all
    (`benchmarks/verdict_members.py`).

    Args:
        finalists: records with costs.
        stocks: stock models that have finished.
        settings: of the search.
    """
    own = {one.member for one in finalists}
    return [one for one in stocks if one.member in own or not why_no_bar(one, finalists, stocks, settings)]


def why_no_bar(one: Record, finalists: Sequence[Record], stocks: Sequence[Record], settings: Settings) -> str:
    """Return why a stock model cannot be the bar of any finalist, to be read after its name; empty if it may be.

    Args:
        one: stock model of a search, whether it has finished or not.
        finalists: as of `rivals_of`, as are the others.
    """
    if not one.finished:
        why = one.detail.removeprefix(f"the stock model of {one.member} ") or one.status
        return f"has no score in the search: {why}"
    cost = main_cost(settings.objectives)
    if _value(one, cost) > max((_value(finalist, cost) for finalist in finalists), default=0.0):
        return f"costs more than every finalist ({_in_words(one, cost)})"
    leader = _leader_over(one, stocks, settings)
    if leader is None:
        return ""
    lead, least = _accuracy(leader) - _accuracy(one), least_difference(settings.stock_noise)
    return f"was {lead:.3f} behind {leader.member} in the search, more than noise ({least:.3f}), and costs no less"


def verdict_lines(
    records: Sequence[Record], front: Sequence[Record], settings: Settings, *, export: str, confirm: str
) -> list[str]:
    """Return which model to take, one sentence each; empty while none has finished.

    Args:
        records: of all trials.
        front: Pareto front, the most accurate first.
        settings: of the study.
        export: command that exports a trial, without its number.
        confirm: command that judges the models by fresh seeds.
    """
    if not front:
        return []
    cost, best, least = main_cost(settings.objectives), front[0], least_difference(settings.stock_noise)
    near = [one for one in front[1:] if _accuracy(best) - _accuracy(one) <= least]
    epochs, models = settings.budget.epochs, ordered(records)
    open_ones = [one.member for one in models if one.ending is None]
    lines = [f"not trained to an end yet: {', '.join(open_ones)}; this is said of the others"] if open_ones else []
    lines.append(f"most accurate: {_described(best, cost)}")
    if near:
        taken = min(near, key=lambda one: _value(one, cost))
        lines.append(f"take {_described(taken, cost)}: the cheapest that is not told apart from {best.member}")
    else:
        taken = best
        why = "cheaper ones are less accurate by more than noise" if len(front) > 1 else "no cheaper one is there"
        lines.append(f"take {taken.member}: {why}")
    lines += [f"{one.member} {_left_out(one, epochs)}" for one in models if one.ending not in {None, Ending.FINISHED}]
    if not open_ones:
        trained = sum(one.epochs for one in models)
        lines.append(f"{trained} epochs were trained, of {epochs * len(models)} that all models in full would take")
    lines.append(
        f"scores are those of one training each: differences up to {least:.3f} count as noise, of trainings from "
        "scratch on other data; it was not measured here"
    )
    if len(contenders(stocks_of(records), settings)) > 1:
        lines.append(f"let fresh seeds judge them: {confirm}")
    return [*lines, f"export it with: {export} --trial {taken.trial}"]


def _left_out(one: Record, epochs: int) -> str:
    """Return why a model was not trained to its end."""
    if one.ending == Ending.STOPPED:
        return f"was stopped after {one.epochs} of {with_unit(epochs, 'epoch')}: {one.detail}"
    why = f"{one.status}{f': {one.detail}' if one.detail else ''}"
    return f"has no score: {why}{f' ({one.advice})' if one.advice else ''}"


def left_out_lines(outcomes: Mapping[str, Mapping[str, Any] | None], epochs: int) -> list[str]:
    """Return a line for each member of a search that was left out, by the outcome of its stock model's training.

    Args:
        outcomes: stored ones by member; None for a training that has not ended.
        epochs: of these trainings.
    """
    return [
        f"{member} was left out: its stock model {_ended(outcome, epochs)}"
        for member, outcome in outcomes.items()
        if outcome is not None and outcome["ending"] != Ending.FINISHED
    ]


def _ended(outcome: Mapping[str, Any], epochs: int) -> str:
    if outcome["ending"] == Ending.STOPPED:
        return f"was stopped after {outcome['epochs']} of {with_unit(epochs, 'epoch')}: {outcome['detail']}"
    return f"could not be trained: {outcome['detail'] or outcome['ending']}"


def _described(one: Record, cost: str) -> str:
    return f"{one.member}, mAP50-95 {_accuracy(one):.3f} at {_in_words(one, cost)}"


def _in_words(one: Record, cost: str) -> str:
    value = _value(one, cost)
    shown = f"{value / 1e6:.2f} M" if cost == "params" else f"{value:.2f}"
    return f"{shown} {UNITS[cost]}"


def _accuracy(record: Record) -> float:
    return record.map50_95 or 0.0


def _value(record: Record, cost: str) -> float:
    return float(getattr(record, cost) or 0.0)
