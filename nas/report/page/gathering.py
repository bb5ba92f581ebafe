"""Gather the contents of a report from a study."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from nas._version import __version__
from nas.algorithms.pareto import main_cost
from nas.records.facts import LABELS
from nas.records.front_figure import axes_of, front_figure
from nas.records.record import Record, stock_of
from nas.report.effects import Effects
from nas.report.front_table import front_table
from nas.report.page import charts, conditions, recommended, verdict_table
from nas.report.page.contents import Chart, Contents
from nas.report.page.reported import Reported
from nas.report.page.trust_list import trust_list
from nas.report.search_findings import search_findings
from nas.report.trust import Trust
from nas.report.verdict import Verdict
from nas.settings import Settings
from nas.study.ablations import ablated_trials
from nas.study.folders import command
from nas.words import duration, with_unit
from search_spaces.errors import NasError
from trials import Ending

T = TypeVar("T")


def gather(study: Reported) -> Contents:
    """Read a study and return the contents of its report.

    A part that cannot be read is named in `problems`; the others are shown.
    """

    def attempted(part: str, read: Callable[[], T]) -> T | None:
        """Return what `read` returns; None, with the reason in `problems`, if a file that it needs cannot be read."""
        try:
            return read()
        except NasError as error:
            problems[part] = str(error).replace(f"{study.folder}/", "")  # the page may be read on another machine
            return None

    problems: dict[str, str] = {}
    records = study.records()
    front = study.front(records)
    verdict = attempted("verdict", lambda: study.verdict(records=records))
    proposes = study.settings.proposes
    trust = attempted("trust", lambda: study.trust_beside(verdict, records)) if proposes else None
    effects = attempted("effects", lambda: study.effects(records)) if proposes else None
    members = attempted("members", lambda: recommended.members(study, records, front, verdict))
    samples = attempted("samples", lambda: recommended.samples(study, records, front, verdict))
    ablations = [
        attempted(f"ablation of trial {trial}", partial(study.ablation, trial))
        for trial in ablated_trials(study.folder)
    ]
    latency = charts.latency_chart(records)
    is_judged = verdict is not None and study.settings.confirms is None  # a confirmation numbers its trials anew
    fresh = verdict_table.fresh_cells(verdict) if verdict is not None and is_judged else {}
    columns, rows = front_table(records, front, main_cost(study.settings.objectives), fresh)
    conclusions, basis = trust_list(trust) if trust is not None else ([], [])
    return Contents(
        study=study.name,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        about=_about(study, records),
        findings=_findings(study, records, front, verdict, trust),
        judged=verdict_table.verdict_table(verdict) if verdict is not None else ((), []),
        remarks=verdict_table.remarks(verdict) if verdict is not None else [],
        charts=_charts(
            study, records, front, verdict=verdict, effects=effects, latency=latency[0] if latency else None
        ),
        columns=columns,
        front=rows,
        members=members or [],
        effects=[] if effects is None else effects.remarks(),
        ablations=[ablation.lines() for ablation in ablations if ablation is not None],
        trust=conclusions,
        basis=basis,
        latency=latency[1] if latency else "",
        samples=samples or [],
        endings=_endings(records),
        reproduce=f"{command('reproduce', study.folder)} --trial {front[0].trial if front else 0}",
        conditions=conditions.conditions(study, records),
        commands=_commands(study, verdict),
        problems=problems,
    )


def _clock(study: Reported, records: Sequence[Record]) -> str:
    """Return when the first trial began and the last one ended, and the time between them."""
    began, ended = study.began_and_ended()
    if began is None:
        return "no trial has begun"
    start = f"{began:%Y-%m-%d %H:%M}"
    if ended is None or any(record.state == "running" for record in records):
        return f"first trial began {start}; the search runs, or was interrupted"
    passed = duration((ended - began).total_seconds())
    return f"first trial began {start}, last one ended {ended:%Y-%m-%d %H:%M}: {passed}, pauses included"


def _about(study: Reported, records: Sequence[Record]) -> dict[str, str]:
    settings, run = study.settings, study.file.run
    finished = sum(record.finished for record in records)
    seconds = sum(record.seconds or 0.0 for record in records)
    budget = settings.budget
    sealed = settings.holdout
    whose = "weights of the stock model of its member" if settings.members else "the stock model's weights"
    base = f", from {whose} after {with_unit(settings.base.epochs, 'epoch')}" if settings.base else ""
    return {
        "space": f"{settings.space} at scale {settings.scale}" if settings.scale else settings.space,
        "data": f"{settings.data}: {conditions.sizes(study)}",
        **({} if sealed is None else {"holdout": f"{with_unit(sealed.images, 'image')} sealed: no search reads them"}),
        "trials": f"{finished} finished of {len(records)}, {duration(seconds)} of training",
        "clock": _clock(study, records),
        "workers": f"{run.workers} on {run.device}",
        "budget": f"{with_unit(budget.epochs, 'epoch')} at {budget.image_size} px, batch {budget.batch}{base}",
        "objectives": ", ".join(LABELS[name] for name in settings.objectives),
        **({"latency": _latency(settings)} if settings.needs_latency or settings.latency else {}),
        "proposals": f"sampler {settings.sampler}, seed {budget.seed}",
    }


def _latency(settings: Settings) -> str:
    return f"predicted for {settings.latency}" if settings.latency else "measured in each trial"


def _findings(
    study: Reported, records: Sequence[Record], front: Sequence[Record], verdict: Verdict | None, trust: Trust | None
) -> list[str]:
    stock = stock_of(records)
    if not front:
        return ["No trial has finished yet."]
    if stock is None or stock.map50_95 is None:
        return ["The stock model has not finished, so nothing can be compared with it."]
    if warning := study.nothing_learned(records):
        return warning
    if verdict is not None:
        return [verdict.headline]
    return search_findings(study, records, front, stock, trust)


def _charts(
    study: Reported,
    records: Sequence[Record],
    front: Sequence[Record],
    *,
    verdict: Verdict | None,
    effects: Effects | None,
    latency: Any,
) -> dict[str, Chart]:
    finished = [record for record in records if record.finished]
    trained = [*{record.trial: record for record in [*front, stock_of(records)] if record is not None}.values()]
    epochs = {_curve(record): study.files(record.trial).read_epochs() for record in trained}
    on_front = {record.trial for record in front}
    beside = [_curve(record) for record in trained if record.trial not in on_front]
    objectives = study.settings.objectives
    drawn = front_figure(study.name, finished, front, objectives) if front else None
    if drawn is not None and verdict is not None:
        charts.add_confirmed(drawn, verdict, records, axes_of(objectives))
    figures = {
        "front": drawn,
        "effects": charts.effects_chart(effects.rows) if effects else None,
        "curves": charts.learning_curves(epochs, beside),
        "accuracy": charts.accuracy_curves(epochs, beside),
        "latency": latency,
    }
    return {
        name: Chart(name=name, figure=charts.as_json(figure)) for name, figure in figures.items() if figure is not None
    }


def _endings(records: Sequence[Record]) -> list[tuple[str, int, str]]:
    counted = Counter(record.ending for record in records if record.ending and not record.finished)
    return [(ending, number, Ending(ending).advice) for ending, number in counted.most_common()]


def _commands(study: Reported, verdict: Verdict | None) -> dict[str, str]:
    """Return what to type next, by its purpose; of a confirmation, for its search."""
    confirms = study.settings.confirms
    search = study.folder if confirms is None else study.folder.with_name(confirms)
    found, confirm = {}, command("confirm", search)
    if verdict is None:
        found["Judge the front with fresh seeds"] = confirm
    elif verdict.unfinished:
        found["Train the fresh seeds that are left"] = confirm
    elif verdict.wanted_seeds is not None:
        found["Judge the front with more seeds"] = f"{confirm} --seeds {verdict.wanted_seeds}"
    if confirms is not None or study.settings.proposes:
        found["Ask how far the ranking can be believed"] = command("trust", search)
    if study.settings.proposes:
        found["Go on searching"] = f"{command('resume', search)} --trials {study.file.run.trials * 2}"
    return found


def _curve(record: Record) -> str:
    """Return the name of a learning curve: `trial 5`, `trial 0 (stock)`, of several members `trial 0 (v9t stock)`."""
    stock = f" ({f'{record.member} stock'.lstrip()})" if record.role == "stock" else ""
    return f"trial {record.trial}{stock}"
