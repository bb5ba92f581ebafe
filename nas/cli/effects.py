"""`nas effects`: what each operator of a study did, in each slot."""

from typing import TYPE_CHECKING, Any

import typer

from nas.cli import fronts, opening, show
from nas.cli.options import Name, Runs, Shown
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.report.effects import Effect

_COLUMNS = {
    "place": "slot",
    "operator": "operator",
    "effect": "points",
    "interval": "95 % interval",
    "trials": "trials",
    "gflops": "GFLOPs %",
    "latency": "latency %",
    "verdict": "accuracy is",
}
_NARROW = ("latency", "trials", "gflops")
"""Columns that a narrow terminal drops, in this order."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(effects)


@show.reports_errors
def effects(study: Name, runs: Runs = RUNS, shown: Shown = "table") -> None:
    """Show the effect of each operator in each slot on accuracy, with intervals, and on cost.

    Accuracy is mAP50-95 in points, compared with the stock layer, estimated
    from all finished trials. Cost is that of the stock model with this slot
    alone replaced. Of several spaces each is estimated from its own trials.

      nas effects v9t-digits
    """
    opened = opening.opened(study, runs)
    from nas.report.effects import COLUMNS
    from nas.study.kinds import require_candidates

    require_candidates(opened.folder, opened.file, "effects")
    with show.err.status("estimating effects"):
        records = opened.records()
        found = opened.effects(records)
    title = f"Effects of operators in {study}: mAP50-95 and costs, compared with stock"
    if shown != "table":
        show.rows([row.as_row() for row in found.rows], shown, title=title, columns=dict.fromkeys(COLUMNS, ""))
    elif found.rows:
        columns = {"member": "member", **_COLUMNS} if found.by_member else dict(_COLUMNS)
        if all(row.latency_percent_least is None for row in found.rows):
            del columns["latency"]
        show.rows([_cells(row) for row in found.rows], shown, title=title, columns=columns, narrow=_NARROW)
    if shown == "table" or not found.rows:
        show.lines(found.remarks())
    show.lines(fronts.nothing_learned(opened, records))


def _cells(effect: "Effect") -> dict[str, Any]:
    return {
        "member": effect.member,
        "place": effect.slot if len(effect.layers) <= 1 else ", ".join(map(str, effect.layers)),
        "operator": effect.operator,
        "effect": _signed(effect.effect_points),
        "interval": f"{_signed(effect.lower_points)}..{_signed(effect.upper_points)}",
        "trials": effect.trials,
        "gflops": _range(effect.gflops_percent_least, effect.gflops_percent_most),
        "latency": _range(effect.latency_percent_least, effect.latency_percent_most),
        "verdict": str(effect.verdict).removesuffix(" from noise"),  # has to fit beside a member and several layers
    }


def _range(least: float | None, most: float | None) -> str | None:
    if least is None or most is None:
        return None
    return "..".join(dict.fromkeys((_signed(least), _signed(most))))


def _signed(value: float) -> str:
    """Format with a sign and one decimal; -0.04 as +0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"
