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
    opening += [f"**{len(best)}** of {len(trained)} architectures are on the front of {named}.", ""]
    opening += [f"[Table of the trials, the most accurate first]({view})", ""] if view else []
    on_front = {record.trial for record in best}
    references = [record for record in trained if record.role == "stock" and record.trial not in on_front]
    summaries = distinct_summaries([*best, *references])
    rows = [
        f"| {'&emsp; | '.join(_HEADINGS)} |",  # MLflow's tables have no space between the columns
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(record, str(record.trial), summaries) for record in best),
    ]
    closing = [_row(record, f"({record.trial})", summaries) for record in references] if best else []
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
    shown, cut = _fitting(rows, available) if best else ([], 0)
    rest = [f"| | | | | | {cut} more in the artifact `front/front.csv` |"] if cut else []
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


def _row(record: Record, trial: str, summaries: Mapping[int, str]) -> str:
    cells = (trial, *facts(record).values(), markdown(summaries[record.trial]))
    return f"| {' | '.join(cells)} |"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the front as CSV, as `nas pareto --format csv` prints it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else COLUMNS)
    writer.writeheader()
    writer.writerows({**row, "picks": json.dumps(row["picks"])} for row in rows)
    return text.getvalue()
