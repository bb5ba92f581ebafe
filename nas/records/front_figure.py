"""Figure of the accuracies and costs of a study's architectures, with their Pareto front."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from plotly import graph_objects

from nas.algorithms.pareto import OBJECTIVES, Direction, pareto_front
from nas.records.facts import LABELS, facts
from nas.records.record import Record, mean_over_seeds, point_of
from search_spaces.printable import html

_NEAR = 0.02
"""Share of an axis within which two labels would overlap."""


def axes_of(objectives: Sequence[str]) -> tuple[str, str]:
    """Return the cost and the accuracy that a figure of a front shows: the first objectives of each kind."""
    costs = [name for name in objectives if OBJECTIVES[name] is Direction.MINIMIZE]
    accuracies = [name for name in objectives if OBJECTIVES[name] is Direction.MAXIMIZE]
    return (*costs, "gflops")[0], (*accuracies, "map50_95")[0]


def front_figure(
    study: str, finished: Sequence[Record], best: Sequence[Record], objectives: Sequence[str]
) -> graph_objects.Figure:
    """Return a figure of accuracy over the first cost, the means over seeds of each architecture.

    The line joins the Pareto front of these two objectives; with a third one, points of the front may lie off it.

    Args:
        study: name of it.
        finished: records of finished trials.
        best: records of the Pareto front.
        objectives: of the study.
    """
    trained = mean_over_seeds(finished)
    axes = axes_of(objectives)
    stock = [record for record in trained if record.role == "stock"]
    apart = {record.trial for record in [*best, *stock]}
    others = [record for record in trained if record.trial not in apart]
    xs = [point_of(record, axes)[0] for record in trained]
    is_log = max(xs) > 10 * min(xs)
    drawn = [
        _markers("trial", others, axes, {"color": "#b3b8c2", "size": 8}),
        _front_line(best, axes),
        _markers(
            "front",
            best,
            axes,
            {"color": "#2563eb", "size": 11},
            labels=_labels(best, [_place(record, axes, is_log=is_log) for record in trained], axes, is_log=is_log),
        ),
        _markers(
            "stock model",
            stock,
            axes,
            {"color": "#ea580c", "size": 15, "symbol": "star"},
            labels=[record.member for record in stock] if any(record.member for record in stock) else None,
            position="bottom center",
        ),
    ]
    drawing = graph_objects.Figure(drawn)
    drawing.update_layout(
        title={"text": f"{html(study)}: {len(best)} of {len(trained)} architectures are on the front"},
        template="plotly_white",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
        margin={"l": 70, "r": 30, "t": 80, "b": 60},
    )
    drawing.update_xaxes(title_text=LABELS[axes[0]], type="log" if is_log else "linear")
    drawing.update_yaxes(title_text=LABELS[axes[1]])
    return drawing


def _front_line(best: Sequence[Record], axes: tuple[str, str]) -> Any:
    """Return the stairs through the Pareto front of two objectives."""
    points = [point_of(record, axes) for record in best]
    line = sorted(points[index] for index in pareto_front(points, [OBJECTIVES[name] for name in axes]))
    return graph_objects.Scatter(
        x=[x for x, _ in line],
        y=[y for _, y in line],
        mode="lines",
        line={"shape": "hv", "color": "#2563eb", "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
    )


def _labels(
    best: Sequence[Record], places: Sequence[tuple[float, float]], axes: tuple[str, str], *, is_log: bool
) -> list[str]:
    """Return the number of each member of the front; the first of several in one place has all their numbers.

    Args:
        places: of all architectures in the figure.
    """
    width, height = (max(values) - min(values) or 1.0 for values in zip(*places, strict=True))
    shown = [_place(record, axes, is_log=is_log) for record in best]
    labelled: list[int] = []
    for at, (x, y) in enumerate(shown):
        near = (
            other
            for other in dict.fromkeys(labelled)
            if abs(x - shown[other][0]) < _NEAR * width and abs(y - shown[other][1]) < _NEAR * height
        )
        labelled.append(next(near, at))
    return [
        ", ".join(str(record.trial) for record, other in zip(best, labelled, strict=True) if other == at)
        for at in range(len(best))
    ]


def _place(record: Record, axes: tuple[str, str], *, is_log: bool) -> tuple[float, float]:
    """Return where a record stands in the figure, on its axes."""
    x, y = point_of(record, axes)
    return (log10(x) if is_log else x), y


def _markers(
    name: str,
    records: Sequence[Record],
    axes: tuple[str, str],
    marker: Mapping[str, Any],
    *,
    labels: Sequence[str] | None = None,
    position: str = "top left",
) -> Any:
    points = [point_of(record, axes) for record in records]
    return graph_objects.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="markers" if labels is None else "markers+text",
        name=name,
        marker=dict(marker),
        text=labels,
        textposition=position,
        hovertext=[_hover(record) for record in records],
        hoverinfo="text",
    )


def _hover(record: Record) -> str:
    lines = "<br>".join(f"{name} {text}" for name, text in facts(record).items() if text != "-")
    over = "" if record.within else "<br>over a limit"
    choices = html(record.summary).replace(" · ", "<br>")
    return f"<b>trial {record.trial}</b><br>{choices}<br>{lines}{over}"
