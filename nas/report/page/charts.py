"""Charts of the report: Plotly figures of a study's records and effects."""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from plotly import graph_objects

from nas.algorithms.paired_comparison import Finding
from nas.algorithms.rank_agreement import agreement
from nas.records.facts import LABELS
from nas.records.record import Record, mean_over_seeds, stock_of
from nas.report.beside_stock import reference_in_words
from nas.report.comparison import Comparison
from nas.report.effects import Effect, Significance
from nas.report.verdict import JudgedFinalist, Verdict
from nas.words import with_unit
from search_spaces.printable import html
from trials.scores import Epoch

_COLOURS = {Significance.BETTER: "#16a34a", Significance.UNCLEAR: "#8b95a5", Significance.WORSE: "#dc2626"}
_FINDINGS = {Finding.BETTER: "#16a34a", Finding.WORSE: "#dc2626"}
"""Colours of judged finalists; others are grey, as what is not told apart."""
_ROW = 26
"""Height of a row of effects in pixels."""
_STOCK = {"color": "#ea580c", "size": 15, "symbol": "star"}
_FRESH = {"size": 11, "symbol": "diamond-open", "line": {"width": 2}}
_MEASURED = {**_FRESH, "color": "#8b95a5"}
"""Marks of the stock model, of trainings with fresh seeds, and of latencies that were measured after a search."""
_LEAST_POINTS = 2
"""Fewest epochs of which a curve is drawn."""


def add_confirmed(
    figure: graph_objects.Figure, verdict: Verdict, records: Sequence[Record], axes: tuple[str, str]
) -> None:
    """Add the finalists of a confirmation to the figure of a front: means over fresh seeds, with 95 % intervals.

    A point is the stock model's mean plus the finalist's paired difference, whose interval it has; so is the stock
    model, without one. Their level is that of the fresh trainings, on the images that judged.

    Args:
        records: of all trials of the search, for the costs.
        axes: cost and accuracy of the figure; without mAP50-95 as accuracy, nothing is added.
    """
    cost, accuracy = axes
    costs = {one.fingerprint: getattr(one, cost) for one in records if one.finished}
    base, reference, named = verdict.stock_map50_95, stock_of(records), "stock model"
    if (cheapest := verdict.cheapest) is not None:  # the finalists are stock models, too
        base, named = fmean(cheapest.map50_95_by_seed), cheapest.member
        reference = next((one for one in records if one.fingerprint == cheapest.fingerprint and one.finished), None)
    judged = [one for one in verdict.finalists if costs.get(one.fingerprint) is not None]
    stock = getattr(reference, cost, None)
    if accuracy != "map50_95" or base is None or stock is None or not judged:
        return
    about = f"{len(verdict.seeds)} fresh seeds, on {html(verdict.images)}"
    figure.add_trace(
        graph_objects.Scatter(
            x=[costs[one.fingerprint] for one in judged],
            y=[fmean(one.map50_95_by_seed) for one in judged],
            mode="markers",
            name="fresh seeds",
            marker={**_FRESH, "color": [_FINDINGS.get(one.finding, "#8b95a5") for one in judged]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [(one.high - one.difference) / 100 for one in judged],
                "arrayminus": [(one.difference - one.low) / 100 for one in judged],
                "thickness": 1.5,
                "color": "#8b95a5",  # legible on white and in the dark
            },
            hovertext=[_hover_judged(one, about) for one in judged],
            hoverinfo="text",
        )
    )
    figure.add_trace(
        graph_objects.Scatter(
            x=[stock],
            y=[base],
            mode="markers",
            name="stock, fresh seeds",
            marker={**_FRESH, "color": _STOCK["color"], "symbol": "star-open"},
            hovertext=[f"<b>{html(named)}</b><br>mAP50-95 {base:.3f}<br>{about}"],
            hoverinfo="text",
        )
    )


def _hover_judged(one: JudgedFinalist, about: str) -> str:
    beside = html(one.stock) or "stock"
    interval = f"{one.difference:+.1f} points over {beside} ({one.low:+.1f} to {one.high:+.1f}), {one.finding}"
    name = html(one.summary) if one.trial is None else f"trial {one.trial}"
    return f"<b>{name}</b><br>mAP50-95 {fmean(one.map50_95_by_seed):.3f}<br>{interval}<br>{about}"


def fronts_chart(comparison: Comparison) -> graph_objects.Figure:
    """Return the Pareto fronts of two studies, each with its stock model."""
    figure = graph_objects.Figure()
    for one, colour, form in zip(comparison.studies, ("#2563eb", "#c026d3"), ("", "-open"), strict=True):
        points = sorted((member.cost, member) for member in one.members)
        figure.add_trace(
            graph_objects.Scatter(
                x=[cost for cost, _ in points],
                y=[member.map50_95 for _, member in points],
                mode="lines+markers",
                name=html(one.name),
                line={"shape": "hv", "color": colour, "width": 1.5},
                marker={"size": 13 if form else 9, "symbol": f"circle{form}", "line": {"width": 2}},
                opacity=0.8,  # one study must not hide the other
                hovertext=[
                    f"<b>trial {member.trial} of {html(one.name)}</b><br>{html(member.summary)}<br>"
                    f"mAP50-95 {member.map50_95:.3f}, {cost:.4g} {comparison.unit}"
                    for cost, member in points
                ],
                hoverinfo="text",
            )
        )
        if one.stock is not None:
            figure.add_trace(
                graph_objects.Scatter(
                    x=[one.stock.cost],
                    y=[one.stock.map50_95],
                    mode="markers",
                    name=f"stock of {html(one.name)}",
                    marker={
                        "symbol": f"star{form}",
                        "size": 20 if form else 13,
                        "color": colour,
                        "line": {"width": 2 if form else 0},
                    },
                    opacity=0.8,
                )
            )
    figure.update_xaxes(title_text=LABELS[comparison.cost])
    figure.update_yaxes(title_text=LABELS["map50_95"])
    return figure


def effects_chart(effects: Sequence[Effect]) -> graph_objects.Figure | None:
    """Return the effect of each operator in each slot with its 95 % interval, in points; None if there is none."""
    if not effects:
        return None
    shown = list(reversed(effects))  # Plotly draws the first at the bottom
    drawn = [
        graph_objects.Scatter(
            x=[one.effect_points for one in group],
            y=[_named(one) for one in group],
            mode="markers",
            name=str(verdict),
            marker={"color": _COLOURS[verdict], "size": 9},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [one.upper_points - one.effect_points for one in group],
                "arrayminus": [one.effect_points - one.lower_points for one in group],
                "thickness": 1.5,
            },
            hovertext=[_hover(one) for one in group],
            hoverinfo="text",
        )
        for verdict in Significance
        if (group := [one for one in shown if one.verdict is verdict])
    ]
    figure = graph_objects.Figure(drawn)
    figure.add_vline(x=0, line={"width": 1, "color": "#8b95a5"})
    figure.update_layout(height=130 + _ROW * len(shown), showlegend=True)  # also where all are of one colour
    figure.update_xaxes(title_text=f"points of mAP50-95 over {reference_in_words(one.member for one in shown)}")
    names = list(dict.fromkeys(_named(one) for one in shown))
    figure.update_yaxes(categoryorder="array", categoryarray=names, range=[-0.7, len(names) - 0.3])
    return figure


def _named(effect: Effect) -> str:
    where = effect.slot if len(effect.layers) <= 1 else ", ".join(map(str, effect.layers))
    is_factor = not effect.layers
    named = f"{where} {effect.operator}" if is_factor else f"{effect.operator} {where}"
    return f"{effect.member}: {named}" if effect.member else named


def _hover(effect: Effect) -> str:
    interval = f"{effect.lower_points:+.1f} to {effect.upper_points:+.1f}"
    cost = "" if effect.gflops_percent_least is None else f"<br>GFLOPs {effect.gflops_percent_least:+.1f} %"
    aliases = f"<br>not separable from {html(', '.join(effect.aliases))}" if effect.aliases else ""
    return f"<b>{html(_named(effect))}</b><br>{effect.effect_points:+.1f} ({interval}), {effect.verdict}{cost}{aliases}"


def learning_curves(epochs: Mapping[str, Sequence[Epoch]], beside: Collection[str] = ()) -> graph_objects.Figure | None:
    """Return the sum of the losses by epoch of each training; None if none has two epochs.

    Args:
        epochs: of each training, by its name.
        beside: those that are no members of the front: they are drawn thin, below the others.
    """
    losses = {name: [(one.epoch, sum(one.losses.values())) for one in each] for name, each in epochs.items()}
    return _curves(losses, "training loss", beside)


def accuracy_curves(epochs: Mapping[str, Sequence[Epoch]], beside: Collection[str] = ()) -> graph_objects.Figure | None:
    """Return mAP50-95 by validated epoch of each training; None if none has two of them.

    Args:
        epochs: of each training, by its name.
        beside: as of `learning_curves`.
    """
    scores = {
        name: [(one.epoch, one.map50_95) for one in each if one.map50_95 is not None] for name, each in epochs.items()
    }
    return _curves(scores, LABELS["map50_95"], beside)


def _curves(
    trainings: Mapping[str, Sequence[tuple[int, float]]], heading: str, beside: Collection[str]
) -> graph_objects.Figure | None:
    """Return values by epoch of each training that has two of them; None if none has."""
    drawn = {name: points for name, points in trainings.items() if len(points) >= _LEAST_POINTS}
    if not drawn:
        return None
    figure = graph_objects.Figure()
    for name, points in sorted(drawn.items(), key=lambda one: one[0] not in beside):  # the last one is on top
        epochs, values = zip(*points, strict=True)
        line = {"width": 1.2, "dash": "dot"} if name in beside else {"width": 2.5}
        figure.add_trace(graph_objects.Scatter(x=epochs, y=values, mode="lines+markers", name=name, line=line))
    last = max(points[-1][0] for points in drawn.values())
    figure.update_xaxes(title_text="epoch", dtick=1 if last <= _ROW else None)
    figure.update_yaxes(title_text=heading)
    return figure


def latency_chart(records: Sequence[Record]) -> tuple[graph_objects.Figure, str] | None:
    """Return latency over GFLOPs of each architecture, and how far the two orders agree; None without latencies."""
    trained = [one for one in mean_over_seeds(records) if one.latency_ms and one.gflops]
    if len(trained) < _LEAST_POINTS:
        return None
    others = [one for one in trained if one.role != "stock"]
    groups = {
        "trial": (others, "latency_ms", _by_accuracy(others)),
        "stock model": ([one for one in trained if one.role == "stock"], "latency_ms", _STOCK),
        "measured after the search": ([one for one in trained if one.measured_ms], "measured_ms", _MEASURED),
    }
    figure = graph_objects.Figure([_latencies(name, *group) for name, group in groups.items() if group[0]])
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text=LABELS["gflops"])
    figure.update_yaxes(title_text=LABELS["latency_ms"])
    return figure, f"{_order(trained)}{_missed(groups['measured after the search'][0])}"


def _by_accuracy(records: Sequence[Record]) -> dict[str, Any]:
    """Return marks whose colour is the accuracy, legible on white and in the dark."""
    return {
        "size": 10,
        "color": [one.map50_95 for one in records],
        "colorscale": "Viridis",
        "showscale": True,
        "colorbar": {"title": {"text": LABELS["map50_95"], "side": "right"}},
        "line": {"width": 1, "color": "#8b95a5"},
    }


def _latencies(name: str, records: Sequence[Record], field: str, marks: Mapping[str, Any]) -> Any:
    """Return the points of latencies in milliseconds over GFLOPs."""
    values = [getattr(one, field) for one in records]
    return graph_objects.Scatter(
        x=[one.gflops for one in records],
        y=values,
        mode="markers",
        name=name,
        marker=dict(marks),
        hovertext=[
            f"<b>trial {one.trial}</b><br>{html(one.summary)}<br>{name}: {value:.1f} ms"
            for one, value in zip(records, values, strict=True)
        ],
        hoverinfo="text",
    )


def _missed(measured: Sequence[Record]) -> str:
    """Return by how much predictions miss what was measured, as a sentence; empty if nothing was."""
    if not measured:
        return ""
    errors = [100 * abs((one.latency_ms or 0.0) / (one.measured_ms or 1.0) - 1) for one in measured]
    models = with_unit(len(measured), "model")
    return f" Of {models} that were measured, predictions miss by {median(errors):.1f} % in the median."


def _order(trained: Sequence[Record]) -> str:
    pairs = [(one.gflops or 0.0, one.latency_ms or 0.0) for one in trained]
    found = agreement([gflops for gflops, _ in pairs], [latency for _, latency in pairs], [0.0] * len(pairs))
    if found is None:
        return "Too few architectures to compare the order of GFLOPs with that of latency."
    return (
        f"GFLOPs and latency order {found.inverted} of {found.inverted + found.same} pairs differently "
        f"(Kendall's tau {found.tau:.2f})."
    )


def as_json(figure: graph_objects.Figure) -> dict[str, Any]:
    """Return data and layout of a figure as values for JSON; the page adds colours, which follow its theme."""
    figure.update_layout(template=None)
    document: dict[str, Any] = figure.to_plotly_json()
    return {"data": document["data"], "layout": document["layout"]}
