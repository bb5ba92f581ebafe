"""Figure of the accuracies and costs of a study's architectures, with their Pareto front."""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects

from nas.algorithms.pareto import OBJECTIVES, Direction, pareto_front
from nas.records.facts import LABELS, facts
from nas.records.record import Record, mean_over_seeds, point_of
from search_spaces.printable import html


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
    points = [point_of(record, axes) for record in best]
    line = sorted(points[index] for index in pareto_front(points, [OBJECTIVES[name] for name in axes]))
    stock = [record for record in trained if record.role == "stock"]
    apart = {record.trial for record in [*best, *stock]}
    others = [record for record in trained if record.trial not in apart]
    drawn = [
        _markers("trial", others, axes, {"color": "#b3b8c2", "size": 8}),
        graph_objects.Scatter(
            x=[x for x, _ in line],
            y=[y for _, y in line],
            mode="lines",
            line={"shape": "hv", "color": "#2563eb", "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        ),
        _markers("front", best, axes, {"color": "#2563eb", "size": 11}, mode="markers+text"),
        _markers("stock model", stock, axes, {"color": "#ea580c", "size": 15, "symbol": "star"}),
    ]
    drawing = graph_objects.Figure(drawn)
    drawing.update_layout(
        title={"text": f"{html(study)}: {len(best)} of {len(trained)} architectures are on the front"},
        template="plotly_white",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
        margin={"l": 70, "r": 30, "t": 80, "b": 60},
    )
    xs = [point_of(record, axes)[0] for record in trained]
    drawing.update_xaxes(title_text=LABELS[axes[0]], type="log" if max(xs) > 10 * min(xs) else "linear")
    drawing.update_yaxes(title_text=LABELS[axes[1]])
    return drawing


def _markers(
    name: str, records: Sequence[Record], axes: tuple[str, str], marker: Mapping[str, Any], *, mode: str = "markers"
) -> Any:
    points = [point_of(record, axes) for record in records]
    return graph_objects.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode=mode,
        name=name,
        marker=dict(marker),
        text=[f"{record.trial}" for record in records],
        textposition="top left",
        hovertext=[_hover(record) for record in records],
        hoverinfo="text",
    )


def _hover(record: Record) -> str:
    lines = "<br>".join(f"{name} {text}" for name, text in facts(record).items())
    over = "" if record.within else "<br>over a limit"
    choices = html(record.summary).replace(" · ", "<br>")
    return f"<b>trial {record.trial}</b><br>{choices}<br>{lines}{over}"
