"""Saved views of an experiment on MLflow's pages: which trials and columns the table shows, and which charts.

MLflow 3.17 lists views in the menu "Views" of an experiment's runs. It stores each as a tag of the experiment, in a
form that is its own: an envelope with a name and the state of the page, as its pages write it. Earlier versions ignore
the tags.
"""

import json
from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

_TAG = "mlflow.sharedViewState."
_SCORE, _COSTS = "score/map50_95", ("gflops", "latency_ms", "params")
_COLUMNS = (
    "tags.`pareto`",
    "tags.`nas.architecture`",
    "tags.`nas.finding`",
    "tags.`nas.ending`",
    "metrics.`best/epoch`",
    "metrics.`last/epoch`",
)
_WIDTHS = {
    "tags.`nas.architecture`": 440,
    "tags.`pareto`": 90,
    "metrics.`score/map50_95`": 140,
    "metrics.`gflops`": 120,
}
_CHOICES, _OVER_COSTS = "Choices", "Accuracy over costs"
"""Sections of the charts: parallel coordinates are as wide as the page."""
_MOST_CHARACTERS = 5000
"""Longest tag of an experiment in MLflow."""


def view_tags(study: str, study_id: str, *, choices: Sequence[str], has_latency: bool, began: int) -> dict[str, str]:
    """Return the tags of two views: the trials of a study, and the Pareto fronts of all studies of its experiment.

    Args:
        study: name of it.
        study_id: tag of its runs.
        choices: names of the params that the parallel coordinates show, in order.
        has_latency: whether trials have a latency.
        began: start time of the study in milliseconds since 1970, as the time of the view.
    """
    of_study = f"tags.`nas.study_id` = '{study_id}' AND tags.`nas.trial` != ''"
    return {
        f"{_TAG}{view_key(study_id)}": _view(f"{study}: trials", of_study, choices, began, has_latency=has_latency),
        f"{_TAG}{view_key('')}": _view("Pareto fronts", "tags.pareto = 'true'", (), 0, has_latency=True),
    }


def view_key(study_id: str) -> str:
    """Return the key of a study's view in the page's address, `?viewStateShareKey=...`; empty is that of all fronts."""
    return f"nas-{study_id[:12]}" if study_id else "nas-fronts"


def _view(name: str, query: str, choices: Sequence[str], began: int, *, has_latency: bool) -> str:
    """Return the envelope; choices are left out from the last until the tag is short enough."""
    for shown in range(len(choices), -1, -1):
        state = json.dumps(_state(query, choices[:shown], has_latency=has_latency), separators=(",", ":"))
        text = json.dumps({"name": name, "createdAt": began, "updatedAt": began, "state": state})
        if len(text) <= _MOST_CHARACTERS:
            break
    return text


def _state(query: str, choices: Sequence[str], *, has_latency: bool) -> dict[str, Any]:
    """Return what the page stores of itself: filter, order, columns and charts."""
    costs = [name for name in _COSTS if has_latency or name != "latency_ms"]
    metrics = [f"metrics.`{name}`" for name in (_SCORE, *costs)]
    columns = [*metrics[:-1], *_COLUMNS[:2], metrics[-1], *_COLUMNS[2:]]
    charts = [_scatter(query, cost) for cost in costs if cost != "params"]
    sections = [_section(query, _OVER_COSTS, columns=2)]
    if choices:
        charts.insert(0, _parallel(query, choices))
        sections.insert(0, _section(query, _CHOICES, columns=1))
    return {
        "searchFilter": query,
        "orderByKey": metrics[0],
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {name: width for name, width in _WIDTHS.items() if name in columns},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }


def _section(query: str, name: str, *, columns: int) -> dict[str, Any]:
    """Return a section of charts, so many of them in a row."""
    shown = {"name": name, "display": True, "columns": columns}
    return {"uuid": _id(query, name), **shown, "isReordered": True, "deleted": False, "isGenerated": False}


def _parallel(query: str, choices: Sequence[str]) -> dict[str, Any]:
    fixed = {"type": "PARALLEL", "showAllRuns": True, "selectedMetrics": [_SCORE], "displayName": "Choices and score"}
    return _chart(query, "choices", _CHOICES) | fixed | {"selectedParams": list(choices)}


def _scatter(query: str, cost: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": cost, "type": "METRIC"}, "yaxis": {"key": _SCORE, "type": "METRIC"}}
    return _chart(query, cost, _OVER_COSTS) | {"type": "SCATTER", **axes, "runsCountToCompare": 100}


def _chart(query: str, name: str, section: str) -> dict[str, Any]:
    shown = {"metricSectionId": _id(query, section), "deleted": False, "isGenerated": False}
    return {"uuid": _id(query, name), **shown}


def _id(query: str, name: str) -> str:
    """Return an id that is the same whenever the view is written."""
    return str(uuid5(NAMESPACE_URL, f"{query} {name}"))
