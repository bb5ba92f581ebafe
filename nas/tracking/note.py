"""What a study's pages in MLflow say: a description, a table and a figure of the front. Pure functions."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nas.records.record import COLUMNS, Record, mean_over_seeds

LABELS = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "gflops": "GFLOPs",
    "params": "parameters",
    "latency_ms": "latency in ms",
}
"""Objectives in words: labels of axes, tables and notes."""

_HEADINGS = ("trial", "mAP50-95", "GFLOPs", "params", "latency", "architecture")


def describe(
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
    named, trained = ", ".join(LABELS[name] for name in objectives), mean_over_seeds(finished)
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
        sides = ", ".join(f"{LABELS[name]} 0 to {_plain(2 * cost)}" for name, cost in stock.items())
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
    cells = (trial, *facts(record).values(), record.summary.replace("|", r"\|"))
    return f"| {' | '.join(cells)} |"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def facts(record: Record) -> dict[str, str]:
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
