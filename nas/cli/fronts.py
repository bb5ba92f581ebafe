"""Tables of trials and Pareto fronts: one line per trial, with more columns on a wider terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.cli import show
from nas.cli.options import command_for
from nas.cli.show import Format

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.report.trust import Trust
    from nas.report.verdict import Verdict
    from nas.study.stored_study import StoredStudy

_COLUMNS = {
    "trial": "trial",
    "ended": "state",
    "map50_95": "mAP50-95",
    "map50_95_gain": "over stock",
    "expected": "expected",
    "gflops": "GFLOPs",
    "of_stock": "of stock",
    "latency_ms": "ms",
    "measured_ms": "measured",
    "repeat": "repeat",
    "seeds": "seeds",
    "progress": "epochs",
    "params": "params",
    "map50": "mAP50",
    "seconds": "s",
    "summary": "architecture",
}
_HIDDEN_VALUES = {
    "expected": None,
    "latency_ms": None,
    "measured_ms": None,
    "repeat": 0,
    "seeds": 1,
    "ended": "finished",
}
"""Values of columns that are hidden if all trials have them, or have none."""
_STOCK_COLUMNS = {
    "trial": "trial",
    "member": "model",
    "map50_95": "mAP50-95",
    "gflops": "GFLOPs",
    "latency_ms": "ms",
    "measured_ms": "measured",
    "params": "params",
    "map50": "mAP50",
    "epochs": "epochs",
    "seconds": "s",
    "finding": "finding",
}
"""Columns of a study of stock models; the latencies where there are any."""
_STOCK_NARROW, _FINDING = ("seconds", "map50", "trial", "params", "epochs"), 42
"""Columns that a narrow terminal drops, in this order, until a finding has so much room."""
_NARROW = ("seconds", "map50", "params", "progress", "measured_ms", "repeat", "seeds", "latency_ms", "gflops")
"""Columns that a narrow terminal drops, in this order."""


def print_trials(
    study: "StoredStudy",
    some: "Sequence[Record]",
    shown: Format,
    *,
    title: str,
    among: "Sequence[Record]",
    further: "Mapping[int, Mapping[str, Any]] | None" = None,
) -> None:
    """Print trials as a table that fits the terminal, or every column of them as JSON or CSV.

    Args:
        among: all trials of the study, including the stock model.
        further: values for JSON, by trial.
    """
    from nas.algorithms import pareto
    from nas.records.distinct_summaries import distinct_summaries
    from nas.records.record import columns_of, its_stock, stocks_of
    from nas.report.beside_stock import reference_in_words
    from nas.study.running_trials import with_progress

    records = with_progress(study, some)
    if shown != "table":
        columns = columns_of(among)
        rows = [{**record.as_row(columns), **(further or {}).get(record.trial, {})} for record in records]
        show.rows(rows, shown, title=title, columns=dict.fromkeys(columns, ""))
        return
    if not records:
        show.lines([f"{title}: nothing yet"])
        return
    stocks, cost = stocks_of(among), pareto.main_cost(study.settings.objectives)
    summaries, epochs = distinct_summaries(records), study.settings.budget.epochs
    rows = [
        _row(record, its_stock(record, stocks), cost, epochs=epochs, summary=summaries[record.trial])
        for record in records
    ]
    silent = {name for name, usual in _HIDDEN_VALUES.items() if all(row[name] in {usual, None} for row in rows)}
    names = [name for name in _COLUMNS if name not in silent | {"of_stock"}]
    if study.settings.stock_only:  # each is its own stock model
        names.remove("map50_95_gain")
    else:
        names.insert(names.index(cost if cost in names else "gflops") + 1, "of_stock")  # beside its cost
    stock = reference_in_words(record.member for record in among)
    named = {**_COLUMNS, "map50_95_gain": f"over {stock}", "of_stock": f"of {stock}"}
    headings = {name: named[name] for name in names}
    show.rows(rows, shown, title=title, columns=headings, narrow=[name for name in _NARROW if name != cost])


def print_front(study: "StoredStudy", shown: Format, *, is_warned: bool = False) -> None:
    """Print the Pareto front, the stock model, and the verdict, or which difference can be detected.

    Args:
        is_warned: whether the user has read already that nothing was learned.
    """
    records = study.records()
    front = study.front(records)
    if study.settings.stock_only:
        _print_stock_models(study, records, front, shown)
        return
    title = f"Pareto front of {study.name}: {', '.join(study.settings.objectives)}"
    warning = nothing_learned(study, records)
    verdict, problem = (None, []) if warning or not front else _verdict(study, records)
    further = _judged(front, verdict) if shown == "json" else None
    if further is not None:
        for trial, beside in _beside_stocks(study, records, front).items():
            further[trial] |= beside
    print_trials(study, front, shown, title=title, among=records, further=further)
    show.lines(["No comparison: nothing was learned (see above)."] if warning and is_warned else warning)
    if shown == "table" and front:
        show.lines(_remarks(study, records, front, verdict, problem, learned=not warning))
    elif problem:
        show.lines(problem)


def _print_stock_models(study: "StoredStudy", records: "list[Record]", front: "list[Record]", shown: Format) -> None:
    """Print all models of a study of stock models, with what was found of each, and which to take."""
    from nas.records.record import columns_of, stock_of
    from nas.report.search_findings import search_findings
    from nas.report.stock_models import ordered, remarks_on
    from nas.study.running_trials import with_progress

    stock_models = with_progress(study, ordered(records))
    found, on_front = remarks_on(records, front, study.settings), {record.trial for record in front}
    rows = [
        {**record.as_row(columns_of(records)), "on_front": record.trial in on_front, "finding": found[record.trial]}
        for record in stock_models
    ]
    headings = {**_STOCK_COLUMNS}
    for name in ("latency_ms", "measured_ms"):
        if all(row[name] is None for row in rows):
            del headings[name]
    verdict, problem = _verdict(study, records)
    if shown == "json":
        judged = _judged(stock_models, verdict)
        rows = [{**row, **judged[row["trial"]]} for row in rows]
    title = f"Stock models of {study.name}: {', '.join(study.settings.objectives)}, {study.settings.budget.summary}"
    narrow = _STOCK_NARROW if shown == "table" else None
    show.rows(rows, shown, title=title, columns=headings, narrow=narrow, least=_FINDING)
    if shown == "table":
        show.lines(nothing_learned(study, records))
        stock = stock_of(records)
        if verdict is not None:
            judged_by = [*verdict.lines(), *_columns_and_verdict(study, front, verdict)]
            show.lines([*judged_by, *_exporting(study, records, verdict)])
        elif stock is not None:
            show.lines([*problem, *search_findings(study, records, front, stock, None)])
    elif problem:
        show.lines(problem)


def _beside_stocks(study: "StoredStudy", records: "list[Record]", front: "list[Record]") -> dict[int, dict[str, Any]]:
    """Return each model of a front beside the stock models of several members, as values for JSON by trial.

    `bar` is the most accurate of these that costs at most as much, null if all cost more. Of a stock model, which may
    be that one itself, the other values are null.
    """
    from nas.algorithms import pareto
    from nas.records.record import stocks_of
    from nas.report.stock_front import bars

    if not study.settings.members:
        return {}
    cost = pareto.main_cost(study.settings.objectives)
    beside = {}
    for one in bars(front, stocks_of(records), cost):
        best, is_stock = one.best, one.record.role == "stock"
        names = ("trial", "member", "map50_95", cost)
        beside[one.record.trial] = {
            "bar": best and {name: getattr(best, name) for name in names},
            "best_stock": None if is_stock or best is None else best.trial,
            "over_best_stock": None if is_stock else one.gain,
            "beside_stock_models": None if is_stock else one.sentence,
        }
    return beside


def _judged(front: "Sequence[Record]", verdict: "Verdict | None") -> dict[int, dict[str, Any]]:
    """Return what a verdict says of each model of a front, as values for JSON by trial; None for the others."""
    finalists = {} if verdict is None else {one.fingerprint: one.as_document() for one in verdict.finalists}
    rests_on = {} if verdict is None else {"seeds": list(verdict.seeds), "images": verdict.images}
    return {
        one.trial: {"verdict": {**finalists[one.fingerprint], **rests_on} if one.fingerprint in finalists else None}
        for one in front
    }


def nothing_learned(study: "StoredStudy", records: "Sequence[Record] | None" = None) -> list[str]:
    """Return a warning if the stock model has learned nothing; empty if it has, or is not trained yet."""
    return study.nothing_learned(records)


def relative(value: float | None, stock: float | None) -> str:
    """Format a cost as a percentage of the stock model's."""
    return "-" if value is None or not stock else f"{value / stock:.1%}"


def _remarks(
    study: "StoredStudy",
    records: "list[Record]",
    front: "list[Record]",
    verdict: "Verdict | None",
    problem: list[str],
    *,
    learned: bool,
) -> list[str]:
    from nas.algorithms import pareto
    from nas.records.record import stock_of, stocks_of
    from nas.report import verdicts
    from nas.report.search_findings import search_findings

    stock, cost = stock_of(records), pareto.main_cost(study.settings.objectives)
    remarks: list[str] = []
    if stock is not None and stock.map50_95 is not None:
        for one in stocks_of(records):
            stock_cost = f"{show.figure(cost, getattr(one, cost))} {verdicts.UNITS[cost]}".rstrip()
            remarks.append(f"{f'{one.member} ' * bool(one.member)}stock: mAP50-95 {one.map50_95:.3f} at {stock_cost}")
        if learned:
            trust = None if problem else trust_of(study, verdict, records)
            judged = [*verdict.lines(), *_columns_and_verdict(study, front, verdict)] if verdict else problem
            remarks += judged or search_findings(study, records, front, stock, trust)
            remarks += [trust.slope.sentence] if trust and trust.slope and trust.slope.is_warning else []
    new = [str(record.trial) for record in front if record.is_mostly_new]
    if new:
        remarks.append(
            f"trial {', '.join(new)}: less than half of the weights could be inherited; such a score is partly one "
            "from scratch, and too low in comparison."
        )
    return [*remarks, *(_exporting(study, records, verdict) if learned else [])]


def _columns_and_verdict(study: "StoredStudy", front: "Sequence[Record]", verdict: "Verdict") -> list[str]:
    """Return which trainings and images the table stands on, beside a verdict, and how that numbers the trials."""
    from nas.report.verdict import CHOSEN_BY

    if not verdict.finalists:
        return []
    lines = []
    if study.settings.members and verdict.cheapest is None:
        lines.append(
            "in the table, own stock is the stock model of a trial's own member; the verdict is beside the one that it "
            "names, of those that cost no more"
        )
    if not study.settings.confirms:
        chosen_by, judging = (f", on {CHOSEN_BY}", f", on {verdict.images}") if verdict.judged else ("", "")
        lines.append(f"the table has the search's scores{chosen_by}; the verdict is of fresh seeds{judging}")
    elif verdict.judged:
        lines.append(
            f"the table has the scores of these trainings on {CHOSEN_BY}; the verdict has theirs on {verdict.images}"
        )
    numbers = {one.fingerprint: one.trial for one in verdict.finalists}
    other = [f"{numbers[one.fingerprint]} is {one.trial}" for one in front if one.fingerprint in numbers]
    if study.settings.confirms and other:
        lines.append(f"the verdict numbers trials as {verdict.study} does: {', '.join(other)} in the table")
    return lines


def _exporting(study: "StoredStudy", records: "list[Record]", verdict: "Verdict | None") -> list[str]:
    """Return which model to export: the one that the verdict calls better, else that of the highest reward."""
    from nas.report import rewarded
    from nas.report.verdicts import UNITS

    if verdict is not None and (best := _best_trial(study, records, verdict)) is not None:
        return [exporting(verdict, study, best)]
    found = rewarded.best_of(records, study.settings)
    if found is None:
        most_accurate = "export the most accurate with"
        if verdict is not None and verdict.is_final:
            most_accurate = "the verdict calls no finalist better; export the most accurate by the table with"
        return [f"{most_accurate}: {command_for('export', study)} --best map"]
    record, value = found
    costs = ", ".join(f"{show.figure(name, getattr(record, name))} {UNITS[name]}" for name in study.settings.targets)
    scored = f"{value:.3f}, of mAP50-95 {record.map50_95:.3f} and {costs}"
    return [
        f"best by {rewarded.describe(study.settings)}: trial {record.trial} with {scored}",
        f"export it with: {command_for('export', study)} --trial {record.trial}",
    ]


def exporting(verdict: "Verdict", study: "StoredStudy", trial: int) -> str:
    """Return how to export the trial of a study that its verdict supports; of stock models the line before names it.

    Beside several stock models the largest gain need not be that of the most accurate model.
    """
    which = "the most accurate" if verdict.stocks == 1 else "the one with the largest gain"
    which = which if verdict.cheapest is None else "it"
    return f"export {which} with: {command_for('export', study)} --trial {trial}"


def _best_trial(study: "StoredStudy", records: "Sequence[Record]", verdict: "Verdict") -> int | None:
    """Return the trial of this study with the largest gain that is claimed; None if there is none."""
    if not study.settings.confirms:  # the verdict numbers the trials of the search
        return verdict.best_trial
    best = verdict.best_fingerprint
    return next((one.trial for one in records if one.finished and one.fingerprint == best), None)


def _verdict(study: "StoredStudy", records: "list[Record]") -> "tuple[Verdict | None, list[str]]":
    """Return the verdict on a study's finalists, None before its confirmation, or why it cannot be read."""
    from search_spaces.errors import NasError

    try:
        return study.verdict(records=records), []
    except NasError as error:
        which = "search" if study.settings.confirms else "confirmation"
        return None, [f"no verdict: the {which} of {study.name} cannot be read: {error}"]


def trust_of(study: "StoredStudy", verdict: "Verdict | None", records: "Sequence[Record]") -> "Trust | None":
    """Return how far a search can be believed, without rungs; None of other studies, or if one cannot be read."""
    from search_spaces.errors import NasError

    try:
        return None if study.settings.confirms else study.trust_beside(verdict, records, reads_rungs=False)
    except NasError:  # the front can be read; `nas trust` says what is wrong
        return None


def _row(record: "Record", stock: "Record | None", cost: str, *, epochs: int, summary: str) -> dict[str, Any]:
    from nas.report.beside_stock import accuracy_gain, cost_share

    share = cost_share(record, stock, cost)
    running = record.state == "running"
    return {
        **record.as_row(),
        "summary": summary or "-",
        "ended": record.status,
        "map50_95_gain": accuracy_gain(record, stock),
        "of_stock": "-" if share is None else f"{share:.1%}",
        "progress": f"{record.epochs}/{epochs}" if running else record.epochs or None,
    }
