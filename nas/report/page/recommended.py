"""Models that a report recommends: their networks, and their detections beside those of the stock model."""

import base64
from collections.abc import Sequence

from nas.algorithms.pareto import main_cost
from nas.records.facts import facts
from nas.records.record import Record, has_learned, stock_of, stocks_of
from nas.report.page import network
from nas.report.page.contents import Member, Sample
from nas.report.page.reported import Reported
from nas.report.stock_front import bars
from nas.report.verdict import Verdict
from nas.study.export import choose
from nas.study.folders import runs_option
from nas.words import with_unit
from search_spaces.errors import StudyError
from trials.accuracy.sample_detections import SampleImage, compare

_BEST = {"map": "most accurate", "knee": "best compromise", "cheapest": "cheapest"}
"""Reasons to recommend a model of the front, by the value of `nas export --best`."""


def members(
    study: Reported, records: Sequence[Record], front: Sequence[Record], verdict: Verdict | None
) -> list[Member]:
    """Return the models of the front that are recommended, each once, with all reasons."""
    reasons: dict[int, list[str]] = {}
    if not front:
        return []
    if (supported := _supported(study, verdict)) is not None:
        reasons[supported[0]] = [supported[1]]
    for best, reason in _BEST.items():
        found = choose(list(records), study.settings.objectives, study=study.name, trial=None, best=best)
        reasons.setdefault(found.trial, []).append(reason)
    by_trial = {record.trial: record for record in records}
    return [_member(study, by_trial[trial], tuple(why)) for trial, why in reasons.items()]


def _supported(study: Reported, verdict: Verdict | None) -> tuple[int, str] | None:
    """Return the trial that the verdict supports, with the reason; None if there is none."""
    if verdict is None or study.settings.confirms is not None:
        return None
    by_trial = {one.trial: one for one in verdict.finalists if one.trial is not None}
    if verdict.best_trial is not None:
        if verdict.cheapest is not None:
            return verdict.best_trial, "taken by the verdict"
        best = by_trial[verdict.best_trial]
        return verdict.best_trial, f"better than {best.bar if best.stock else 'stock'} by the verdict"
    if verdict.saving_trial is not None:
        own = by_trial[verdict.saving_trial].stock
        bar = f"the stock model of {own}" if own else "stock"
        return verdict.saving_trial, f"as accurate as {bar} by the verdict, and cheaper"
    return None


def _member(study: Reported, record: Record, reasons: tuple[str, ...]) -> Member:
    architecture, classes = study.architecture(record), len(study.settings.classes)
    operators = [choice.operator for _, choice in architecture.picks]
    operators += [new.choice.operator for new in architecture.insertions]
    where = runs_option(study.folder.parent)
    words = architecture.summary(with_parameters=True)
    return Member(
        trial=record.trial,
        reasons=reasons,
        summary=f"{record.member}: {words}" if record.member else words,
        facts=facts(record),
        operators=tuple(dict.fromkeys(operators)),
        drawing=network.drawing(architecture.document(classes), classes, title=f"Network of trial {record.trial}"),
        commands={"export": f"nas export {study.name}{where} --trial {record.trial}"},
    )


def samples(
    study: Reported, records: Sequence[Record], front: Sequence[Record], verdict: Verdict | None
) -> list[Sample]:
    """Return images with detections of the stock model and of the one that the verdict, else the front, puts first.

    Raises:
        StudyError: the weights of one of the two are no longer there.
    """
    supported = _supported(study, verdict)
    best = supported[0] if supported is not None else front[0].trial if front else None
    stock = None if best is None else _stock_beside(best, study, records, verdict)
    if stock is None or best is None or best == stock.trial or not has_learned(stock.map50_95):
        return []
    pair = study.files(stock.trial).weights, study.files(best).weights
    if missing := [path for path in pair if not path.is_file()]:
        raise StudyError(f"{missing[0]} is not there (nas clean removes weights)")
    budget = study.settings.budget
    compared = compare(pair, str(study.settings.data), study.sealed, image_size=budget.image_size)
    names = f"{stock.member} stock, trial {stock.trial}".lstrip(), f"trial {best}"
    return [
        Sample(
            captions=(_caption(names[0], one, 0), _caption(names[1], one, 1)),
            pictures=(_data_url(one.pictures[0]), _data_url(one.pictures[1])),
        )
        for one in compared
    ]


def _stock_beside(trial: int, study: Reported, records: Sequence[Record], verdict: Verdict | None) -> Record | None:
    """Return the stock model beside which a trial is shown.

    Of several the one that the verdict has put it beside, or else the most accurate that costs no more; if all cost
    more, that of its member.
    """
    stocks, judged = stocks_of(records), verdict.finalists if verdict is not None else ()
    if not study.settings.members:
        return stock_of(records)
    beside = next((one.stock for one in judged if one.trial == trial), "")
    if (named := next((stock for stock in stocks if stock.member == beside), None)) is not None:
        return named
    shown = [one for one in records if one.trial == trial]
    (bar,) = bars(shown, stocks, main_cost(study.settings.objectives))
    return bar.best or bar.own


def _caption(model: str, sample: SampleImage, which: int) -> str:
    return (
        f"{sample.name}, {model}: {sample.found[which]} of {with_unit(sample.labels, 'object')} found, "
        f"{sample.extra[which]} false"
    )


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
