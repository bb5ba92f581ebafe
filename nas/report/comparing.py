"""Compare two studies: read their settings and records, and decide what can be compared."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from nas.algorithms.pareto import main_cost
from nas.algorithms.seed_noise import SeedNoise
from nas.records.distinct_summaries import distinct_summaries
from nas.records.record import Record, stock_of
from nas.report.comparison import ComparedModel, ComparedStudy, Comparison, SettingDifference
from nas.report.readable_study import ReadableStudy
from nas.report.trusting import noise_of
from nas.settings import Settings, flatten
from nas.study.folders import SPACE, command
from nas.study.trained_again import Trained
from search_spaces.errors import StudyError, unwrapped
from search_spaces.files import YAML_BYTES, read_plain_text
from trials import Budget

_NOT_OF_THE_SCORE = frozenset({"data", "seed", "rungs", "timeout", "device", "deploy_size"})
"""Fields of a budget that do not decide what a training can reach; `data` is a path, its content has a fingerprint."""


def compare(first: ReadableStudy, second: ReadableStudy) -> Comparison:
    """Return the comparison of two studies."""
    both = first.settings, second.settings
    records = first.records(), second.records()
    costs = [main_cost(settings.objectives) for settings in both]
    cost = costs[0] if costs[0] == costs[1] else "gflops"
    return Comparison(
        studies=(_compared(first, records[0], cost), _compared(second, records[1], cost)),
        cost=cost,
        differences=tuple(_differences(first, second)),
        obstacles=tuple(obstacles(*both)),
        cost_obstacles=tuple(cost_obstacles(*both, cost)),
        space_difference=tuple(_space_difference(first.folder, second.folder)),
        measure=_measure(first, second),
        noise=_noise(first, records[0]) or _noise(second, records[1]),
    )


def obstacles(one: Settings, other: Settings) -> list[str]:
    """Return why the accuracies of two studies cannot be compared; empty if they can."""
    found = []
    if one.data_fingerprint != other.data_fingerprint:
        found.append(f"data: trained or validated on other images ({one.data} and {other.data})")
    if one.classes != other.classes:
        found.append(f"data: {len(one.classes)} and {len(other.classes)} classes, or other names")
    if one.judging != other.judging:
        found.append("data: other images judge")
    found += _budget_obstacles("budget", one.budget, other.budget)
    if (one.base is None) != (other.base is None):
        found.append("weights: in one study candidates start from a trained stock model, in the other not")
    elif one.base is not None and other.base is not None:
        found += _budget_obstacles("stock model", one.base, other.base)
    return found


def cost_obstacles(one: Settings, other: Settings, cost: str) -> list[str]:
    """Return why the costs of two studies cannot be compared; empty if they can."""
    sizes = one.budget.deploy_size, other.budget.deploy_size
    if cost != "params" and sizes[0] != sizes[1]:
        return [f"costs: counted at {sizes[0]} and {sizes[1]} px"]
    if cost == "latency_ms" and one.latency != other.latency:
        return [
            f"costs: latency of {one.latency or 'the training device'} and {other.latency or 'the training device'}"
        ]
    return []


def _budget_obstacles(what: str, one: Budget, other: Budget) -> list[str]:
    """Return the fields in which two trainings differ that decide what they can reach."""
    there, here = (dict(flatten(budget.model_dump(mode="json"))) for budget in (one, other))
    return [
        f"{what}: {name} {there.get(name)} and {here.get(name)}"
        for name in there | here
        if name not in _NOT_OF_THE_SCORE and there.get(name) != here.get(name)
    ]


def _compared(study: ReadableStudy, records: Sequence[Record], cost: str) -> ComparedStudy:
    stock, front = stock_of(records), study.front(records)
    summaries = distinct_summaries(front)
    return ComparedStudy(
        name=study.name,
        members=tuple(_model(one, cost, summaries[one.trial]) for one in front if getattr(one, cost) is not None),
        stock=_model(stock, cost, stock.summary) if stock is not None and getattr(stock, cost) is not None else None,
        finished=sum(record.finished for record in records),
    )


def _model(record: Record, cost: str, summary: str) -> ComparedModel:
    return ComparedModel(
        trial=record.trial,
        map50_95=record.map50_95 or 0.0,
        cost=float(getattr(record, cost)),
        seeds=record.seeds,
        summary=summary,
    )


def _differences(first: ReadableStudy, second: ReadableStudy) -> list[SettingDifference]:
    """Return the settings that differ, those of the run included."""
    flat = [
        {**one.settings.flat(), **{f"run.{name}": str(value) for name, value in flatten(one.file.run.model_dump())}}
        for one in (first, second)
    ]
    values = {name: (flat[0].get(name, "None"), flat[1].get(name, "None")) for name in flat[0] | flat[1]}
    return [SettingDifference(setting=name, values=(one, two)) for name, (one, two) in values.items() if one != two]


def _space_difference(first: Path, second: Path) -> list[str]:
    """Return the lines of two studies' space files that differ, each with a sign.

    Raises:
        StudyError: one cannot be read.
    """
    texts = [_lines(folder / SPACE) for folder in (first, second)]
    lines = difflib.unified_diff(texts[0], texts[1], fromfile=first.name, tofile=second.name, n=0, lineterm="")
    return [line for line in lines if not line.startswith("@@")]


def _lines(file: Path) -> list[str]:
    try:
        return read_plain_text(file, most=YAML_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{file}: the study's copy of its space cannot be read: {unwrapped(error)}") from None


def _measure(first: ReadableStudy, second: ReadableStudy) -> str:
    """Return the command that measures the noise between seeds, of the first that is a search."""
    study = next((one for one in (first, second) if one.settings.confirms is None), first)
    search = study.folder if study.settings.confirms is None else study.folder.with_name(study.settings.confirms)
    return f"{command('trust', search)} --measure"


def _noise(study: ReadableStudy, records: list[Record]) -> SeedNoise | None:
    return noise_of(Trained.of(study.folder, study.file, records), [])
