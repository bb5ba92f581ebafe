"""What a study's pages in MLflow say: a description, a table and a figure of the front. Pure functions."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from plotly import graph_objects

from nas.front import OBJECTIVES, Direction, front
from nas.records import COLUMNS, Record, averaged, point_of

_LABELS = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "gflops": "GFLOPs",
    "params": "parameters",
    "latency_ms": "latency in ms",
}
_HEADINGS = ("trial", "mAP50-95", "GFLOPs", "params", "latency", "architecture")


def note(
    study: str,
    finished: Sequence[Record],
    best: Sequence[Record],
    objectives: Sequence[str],
    *,
    stock: Mapping[str, float] | None,
    commands: Mapping[str, str],
    room: int,
) -> str:
    """The parent's description in Markdown, within `room` characters: of a long front the first rows.

    MLflow shows the first lines and hides the rest behind a button: the front comes first.
    """
    named, trained = ", ".join(_LABELS[name] for name in objectives), averaged(finished)
    opening = [f"**{len(best)}** of {len(trained)} architectures are on the front of {named}.", ""]
    rows = [
        f"| {'&emsp; | '.join(_HEADINGS)} |",  # MLflow's tables have no space between the columns
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(record, str(record.trial)) for record in best),
    ]
    on_front = {record.trial for record in best}
    references = [record for record in trained if record.role == "stock" and record.trial not in on_front]
    closing = [_row(record, f"({record.trial})") for record in references] if best else []
    explained = (
        f"**{study}** is a search for YOLO architectures; each child run is one trial. No other is as good as one "
        "on the front in everything and better in something. Among the children `tags.pareto = 'true'` finds them; the "
        "figure is the artifact `front/front.html`. A trial in brackets is the stock model, off the front."
    )
    closing += ["", explained]
    if stock:
        sides = ", ".join(f"{_LABELS[name]} 0 to {_plain(2 * cost)}" for name, cost in stock.items())
        closing += ["", f"`hypervolume`: the front's share of the box accuracy 0 to 1, {sides} (twice stock)."]
    for purpose, command in commands.items():
        closing += ["", f"{purpose}:", "", f"    {command}"]
    left = room - sum(len(line) + 1 for line in [*opening, *closing]) - 100  # for the row that says so
    kept, cut = _fitting(rows, left) if best else ([], 0)
    rest = [f"| | | | | | {cut} more in the artifact `front/front.csv` |"] if cut else []
    return "\n".join([*opening, *kept, *rest, *closing])


def _fitting(lines: Sequence[str], room: int) -> tuple[list[str], int]:
    """The first lines that have room together, and how many have not."""
    kept = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept, len(lines) - len(kept)


def _row(record: Record, trial: str) -> str:
    facts = (trial, *_facts(record).values(), record.summary.replace("|", r"\|"))
    return f"| {' | '.join(facts)} |"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _facts(record: Record) -> dict[str, str]:
    """A finished record's numbers as people read them."""
    unsteady = "" if record.latency_steady else " (unsteady)"
    mean = f" (mean of {record.seeds})" if record.seeds > 1 else ""
    return {
        "mAP50-95": f"{record.map50_95:.4f}{mean}",
        "GFLOPs": f"{record.gflops:.2f}",
        "params": f"{(record.params or 0) / 1e6:.2f} M",
        "latency": f"{record.latency_ms:.1f} ms{unsteady}" if record.latency_ms else "-",
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The front as CSV, as `nas pareto --format csv` prints it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({**row, "picks": json.dumps(row["picks"])} for row in rows)
    return text.getvalue()


def figure(study: str, finished: Sequence[Record], best: Sequence[Record], objectives: Sequence[str]) -> str:
    """A page that needs no network: accuracy over the first cost, of every architecture the mean of its trainings.

    The line joins the front of these two alone; with a third objective, points of the front may lie off it.
    """
    trained = averaged(finished)
    costs = [name for name in objectives if OBJECTIVES[name] is Direction.MINIMIZE]
    accuracies = [name for name in objectives if OBJECTIVES[name] is Direction.MAXIMIZE]
    axes = (*costs, "gflops")[0], (*accuracies, "map50_95")[0]
    points = [point_of(record, axes) for record in best]
    line = sorted(points[index] for index in front(points, [OBJECTIVES[name] for name in axes]))
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
        title={"text": f"{study}: {len(best)} of {len(trained)} architectures are on the front"},
        template="plotly_white",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
        margin={"l": 70, "r": 30, "t": 80, "b": 60},
    )
    xs = [point_of(record, axes)[0] for record in trained]
    drawing.update_xaxes(title_text=_LABELS[axes[0]], type="log" if max(xs) > 10 * min(xs) else "linear")
    drawing.update_yaxes(title_text=_LABELS[axes[1]])
    return page(drawing, study, name="front")


def page(drawing: graph_objects.Figure, title: str, *, name: str) -> str:
    """A figure alone on a page that needs no network; `name` is its element's."""
    # Plotly 7 offers by default to send the data to its company.
    config = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
    plot = drawing.to_html(full_html=False, include_plotlyjs=True, div_id=name, default_height="100vh", config=config)
    return f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title><style>body {{margin: 0}}</style>{plot}"


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
    facts = "<br>".join(f"{name} {text}" for name, text in _facts(record).items())
    over = "" if record.within else "<br>over a limit"
    words = record.summary.replace(" · ", "<br>")
    return f"<b>trial {record.trial}</b><br>{words}<br>{facts}{over}"
