"""Gather the contents of a report from a study."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from nas._version import __version__
from nas.algorithms.pareto import main_cost
from nas.records.facts import LABELS, facts
from nas.records.front_figure import front_figure
from nas.records.record import Record, stock_of
from nas.report import verdicts
from nas.report.distinct_summaries import distinct_summaries
from nas.report.effects import Effects
from nas.report.page import charts, recommended
from nas.report.page.contents import Chart, Contents
from nas.report.page.reported import Reported
from nas.report.trust import Trust
from nas.report.trusting import noise_of, number_of_finalists
from nas.report.unlearned import nothing_learned
from nas.report.verdict import Verdict
from nas.study.ablations import ablated_trials
from nas.study.folders import runs_option
from nas.study.trained_again import Trained
from nas.words import duration, with_unit
from search_spaces.errors import NasError
from trials import Ending

T = TypeVar("T")

_COLUMNS = ("trial", "mAP50-95", "over stock", "GFLOPs", "of stock", "params", "latency", "architecture")


def gather(study: Reported) -> Contents:
    """Read a study and return the contents of its report.

    A part that cannot be read is named in `problems`; the others are shown.
    """
    problems: list[str] = []
    records = study.records()
    front = study.front(records)
    verdict = _attempted(lambda: study.verdict(records=records), "verdict", problems)
    is_search = study.settings.confirms is None
    trust = _attempted(lambda: study.trust_beside(verdict, records), "trust", problems) if is_search else None
    effects = _attempted(lambda: study.effects(records), "effects", problems) if is_search else None
    members = (
        _attempted(lambda: recommended.members(study, records, front, verdict), "recommended models", problems) or []
    )
    latency = charts.latency_chart(records)
    columns, rows = _table(records, front)
    return Contents(
        study=study.name,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        about=_about(study, records),
        findings=_findings(study, records, front, verdict, trust),
        charts=_charts(study, records, front, effects, latency[0] if latency else None),
        columns=columns,
        front=rows,
        members=members or [],
        effects=[] if effects is None else effects.remarks(),
        ablations=_ablations(study, problems),
        trust=[] if trust is None else [*trust.lines()],
        latency=latency[1] if latency else "",
        samples=_attempted(lambda: recommended.samples(study, records, front, verdict), "detections", problems) or [],
        endings=_endings(records),
        commands=_commands(study),
        problems=problems,
    )


def _attempted(read: Callable[[], T], part: str, problems: list[str]) -> T | None:
    """Return what `read` returns; None, with a line in `problems`, if a file that it needs cannot be read."""
    try:
        return read()
    except NasError as error:
        problems.append(f"{part}: {error}")
        return None


def _ablations(study: Reported, problems: list[str]) -> list[list[str]]:
    """Return what each slot of an ablated trial is worth, in words, for every ablation of this search."""
    found = [
        _attempted(partial(study.ablation, trial), f"ablation of trial {trial}", problems)
        for trial in ablated_trials(study.folder)
    ]
    return [ablation.lines() for ablation in found if ablation is not None]


def _about(study: Reported, records: Sequence[Record]) -> dict[str, str]:
    settings, run = study.settings, study.file.run
    finished = sum(record.finished for record in records)
    seconds = sum(record.seconds or 0.0 for record in records)
    budget = settings.budget
    base = f", from the stock model's weights after {with_unit(settings.base.epochs, 'epoch')}" if settings.base else ""
    return {
        "space": f"{settings.space} at scale {settings.scale}",
        "data": f"{settings.data}, {len(settings.classes)} classes",
        "trials": f"{finished} finished of {len(records)}, {duration(seconds)} of training",
        "workers": f"{run.workers} on {run.device}",
        "budget": f"{with_unit(budget.epochs, 'epoch')} at {budget.image_size} px, batch {budget.batch}{base}",
        "objectives": ", ".join(LABELS[name] for name in settings.objectives),
        "proposals": f"{settings.sampler} sampler, seed {budget.seed}",
    }


def _findings(
    study: Reported, records: Sequence[Record], front: Sequence[Record], verdict: Verdict | None, trust: Trust | None
) -> list[str]:
    stock = stock_of(records)
    if not front:
        return ["No trial has finished yet."]
    if stock is None or stock.map50_95 is None:
        return ["The stock model has not finished, so nothing can be compared with it."]
    best = max(front, key=lambda record: record.map50_95 or 0.0)
    if warning := nothing_learned(study.settings, records, None):
        return warning
    if verdict is not None:
        return verdict.lines()
    where = runs_option(study.folder.parent)
    noise = trust.noise if trust else noise_of(Trained.of(study.folder, study.file, records), [])
    confirm, measure = f"nas confirm {study.name}{where}", f"nas trust {study.name}{where} --measure"
    finalists = trust.finalists if trust else number_of_finalists(front)
    commands = {"confirm": confirm, "measure": measure}
    gained = verdicts.gain(list(records), best, stock, noise=noise, finalists=finalists, **commands)
    return [gained, *filter(None, [verdicts.saving(front, stock, main_cost(study.settings.objectives))])]


def _charts(
    study: Reported, records: Sequence[Record], front: Sequence[Record], effects: Effects | None, latency: Any
) -> dict[str, Chart]:
    finished = [record for record in records if record.finished]
    trained = [*{record.trial: record for record in [*front, stock_of(records)] if record is not None}.values()]
    epochs = {
        f"trial {record.trial}{' (stock)' if record.role == 'stock' else ''}": study.files(record.trial).read_epochs()
        for record in trained
    }
    figures = {
        "front": front_figure(study.name, finished, front, study.settings.objectives) if front else None,
        "effects": charts.effects_chart(effects.rows) if effects else None,
        "curves": charts.learning_curves(epochs),
        "latency": latency,
    }
    return {
        name: Chart(name=name, figure=charts.as_json(figure)) for name, figure in figures.items() if figure is not None
    }


def _table(records: Sequence[Record], front: Sequence[Record]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns of the front's table, and its rows; latency is a column where it was measured."""
    stock = stock_of(records)
    shown = [*front, *([stock] if stock is not None and stock.trial not in {one.trial for one in front} else [])]
    summaries = distinct_summaries(shown)
    cells = []
    for record in shown:
        values = facts(record)
        base, cost = (stock.map50_95, stock.gflops) if stock else (None, None)
        gained = "" if base is None or record.map50_95 is None else f"{record.map50_95 - base:+.3f}"
        share = "" if not cost or record.gflops is None else f"{record.gflops / cost:.1%}"
        cells.append(
            {
                "trial": str(record.trial),
                "mAP50-95": values["mAP50-95"],
                "over stock": gained,
                "GFLOPs": values["GFLOPs"],
                "of stock": share,
                "params": values["params"],
                "latency": values["latency"],
                "architecture": summaries[record.trial],
            }
        )
    has_latency = any(record.latency_ms for record in shown)
    columns = tuple(name for name in _COLUMNS if has_latency or name != "latency")
    return columns, [tuple(row[name] for name in columns) for row in cells]


def _endings(records: Sequence[Record]) -> list[tuple[str, int, str]]:
    counted = Counter(record.ending for record in records if record.ending and not record.finished)
    return [(ending, number, Ending(ending).advice) for ending, number in counted.most_common()]


def _commands(study: Reported) -> dict[str, str]:
    where = runs_option(study.folder.parent)
    name = f"{study.name}{where}"
    return {
        "Judge the front with fresh seeds": f"nas confirm {name}",
        "Ask how far the ranking can be believed": f"nas trust {name}",
        "Train a trial again and compare to the bit": f"nas reproduce {name} --trial 0",
        "Go on searching": f"nas resume {name} --trials {study.file.run.trials * 2}",
    }
