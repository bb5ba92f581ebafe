"""Description of a study for its MLflow run, and the Pareto front as a table: pure functions."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nas.records.distinct_summaries import distinct_summaries
from nas.records.facts import LABELS, facts
from nas.records.record import COLUMNS, Record, mean_over_seeds
from search_spaces.printable import markdown

SEARCH = "is a search for YOLO architectures"
"""Purpose of a search, in words."""


def describe(
    study: str,
    finished: Sequence[Record],
    best: Sequence[Record],
    objectives: Sequence[str],
    *,
    stock: Mapping[str, float] | None,
    commands: Mapping[str, str],
    room: int,
    findings: Sequence[str] = (),
    remarks: Sequence[str] = (),
    purpose: str = SEARCH,
    view: str = "",
) -> str:
    """Return the parent run's description in Markdown.

    MLflow shows the first lines and hides the rest behind a button: findings over fresh seeds come first, then the
    front, then remarks on the scores.

    Args:
        study: name of it.
        finished: records of finished trials.
        best: records of the Pareto front; of a long front only the first rows are shown.
        objectives: of the study.
        stock: costs of the stock model, once they are measured.
        commands: by purpose, as a user types them.
        findings: of other studies on this one's trials, in words.
        remarks: on the scores, in words.
        purpose: of the study, in words.
        room: largest number of characters.
        view: address of the table of trials on MLflow's pages; empty shows no link.
    """
    named, trained = ", ".join(LABELS[name] for name in objectives), mean_over_seeds(finished)
    opening = [*_lines(findings, room // 2), ""] if findings else []
    opening += [
        f"**{len(best)}** of {len(trained)} architectures are on the front of {named}.{_first(trained, best)}",
        "",
    ]
    opening += [f"[Table of the trials, the most accurate first]({view})", ""] if view else []
    on_front = {record.trial for record in best}
    references = [record for record in trained if record.role == "stock" and record.trial not in on_front]
    columns, rows = _rows(best, references)
    closing = rows[len(best) :] if best else []
    explained = (
        f"**{study}** {purpose}; each child run is one trial. No other is as good as one "
        "on the front in everything and better in something. Among the children `tags.pareto = 'true'` finds them; the "
        "figure is the artifact `front/front.html`. A trial in brackets is the stock model, off the front."
    )
    closing += ["", *_lines(remarks, room // 4)] if remarks else []
    closing += ["", explained]
    if stock:
        sides = ", ".join(f"{LABELS[name]} 0 to {_plain(2 * cost)}" for name, cost in stock.items())
        closing += ["", f"`hypervolume`: the front's share of the box accuracy 0 to 1, {sides} (twice stock)."]
    for aim, command in commands.items():
        closing += ["", f"{aim}:", "", f"    {command}"]
    available = (
        room - sum(len(line) + 1 for line in [*opening, *closing]) - 100
    )  # for the row with the number of rows left out
    shown, cut = _fitting([*_heading(columns), *rows[: len(best)]], available) if best else ([], 0)
    rest = [f"|{' |' * (len(columns) - 1)} {cut} more in the artifact `front/front.csv` |"] if cut else []
    return "\n".join([*opening, *shown, *rest, *closing])


def _lines(texts: Sequence[str], room: int) -> list[str]:
    """Return lines in Markdown, which two spaces end, and how many are left out."""
    shown, cut = _fitting([text and f"{markdown(text)}  " for text in texts], room)
    return [*shown, *([f"{cut} more in the artifacts `findings/`"] if cut else [])]


def _fitting(lines: Sequence[str], room: int) -> tuple[list[str], int]:
    """Return the first lines that fit, and the number of the others."""
    fitting = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        fitting.append(line)
    return fitting, len(lines) - len(fitting)


def _rows(best: Sequence[Record], references: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Return the columns of the front's table, and its rows; trials off the front are in brackets.

    Latency is a column where one was measured or predicted.
    """
    records, on_front = [*best, *references], {record.trial for record in best}
    summaries, has_latency = distinct_summaries(records), any(record.latency_ms is not None for record in records)
    rows = [
        {
            "trial": str(record.trial) if record.trial in on_front else f"({record.trial})",
            **{name: text for name, text in facts(record).items() if has_latency or name != "latency"},
            "architecture": markdown(summaries[record.trial]),
        }
        for record in records
    ]
    return list(rows[0]) if rows else [], [f"| {' | '.join(row.values())} |" for row in rows]


def _heading(columns: Sequence[str]) -> list[str]:
    """Return the first lines of a table; MLflow's tables have no space between the columns."""
    return [f"| {'&emsp; | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]


def _first(trained: Sequence[Record], best: Sequence[Record]) -> str:
    """Return the most accurate model beside the stock model, in words; empty before both are trained."""
    stocks = [record for record in trained if record.role == "stock"]
    if not best or not stocks:
        return ""
    most, stock = (max(one, key=lambda record: record.map50_95 or 0) for one in (best, stocks))
    beside = "" if most.role == "stock" else f"; the stock model has {_figures(stock)}"
    return f" The most accurate is {of_trial(most)}{beside}."


def of_trial(record: Record) -> str:
    """Return a finished trial in one line: `trial 6, UIB 21: mAP50-95 0.5484, 7.56 GFLOPs`."""
    return f"trial {record.trial}, {markdown(record.summary)}: {_figures(record)}"


def _figures(record: Record) -> str:
    found = facts(record)
    return f"mAP50-95 {found['mAP50-95']}, {found['GFLOPs']} GFLOPs"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the front as CSV, as `nas pareto --format csv` prints it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else COLUMNS)
    writer.writeheader()
    writer.writerows({**row, "picks": json.dumps(row["picks"])} for row in rows)
    return text.getvalue()
