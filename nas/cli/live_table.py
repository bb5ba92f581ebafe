"""Live table of a search, laid out for the terminal as it is at each drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from nas.cli.show import figure, table_lines

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.study.stored_study import StoredStudy

_COLUMNS = {
    "trial": "trial",
    "state": "state",
    "epoch": "epoch",
    "map50_95": "mAP50-95",
    "gflops": "GFLOPs",
    "ms": "ms",
    "seconds": "s",
    "summary": "architecture",
}
_NARROW = ("seconds", "ms", "gflops", "epoch")
"""Columns that a narrow terminal drops, in this order."""
_EMPTY = (None, "", "-")
"""A column in which no row has more is left out."""
_ROWS = 14
"""Greatest number of trials in the table; `nas trials` shows all."""
_BASE = "the stock model, for every trial to start from"
_LEAST_ROWS = 3


@dataclass(frozen=True, kw_only=True)
class LiveTable:
    """State of a search at one moment.

    Attributes:
        title: name, counts and time left.
        rows: one for each trial, oldest first.
        styles: of the rows.
        remarks: lines under the table.
    """

    title: str
    rows: Sequence[dict[str, Any]]
    styles: Sequence[str]
    remarks: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay out the newest trials that have room."""
        around = 2 + len(self.remarks)  # the title, the headings
        shown = max(_LEAST_ROWS, min(_ROWS, console.size.height - around - 1))
        rows = self.rows[-shown:]
        columns = {name: text for name, text in _COLUMNS.items() if any(row[name] not in _EMPTY for row in rows)}
        head, *lines = table_lines(rows, columns or _COLUMNS, _NARROW, width=options.max_width)
        title = Text(self.title, style="italic", no_wrap=True, overflow="ellipsis")
        table = [Text(line, style=style, no_wrap=True) for line, style in zip(lines, self.styles[-shown:], strict=True)]
        remarks = [Text(line, no_wrap=True, overflow="ellipsis") for line in self.remarks]
        yield Group(title, Text(head, style="bold", no_wrap=True), *table, *remarks)


def live_table(study: "StoredStudy", records: "Sequence[Record]", left: str) -> LiveTable:
    """Return the present state of a study.

    Args:
        records: of all trials.
        left: remaining time in words; empty while it is not known.
    """
    from nas.algorithms.pareto import main_cost
    from nas.report.verdicts import UNITS
    from nas.words import with_unit

    front = study.front(records)
    on_front = {record.trial for record in front}
    newest = records[-_ROWS:]
    rows = [_row(study, record, is_on_front=record.trial in on_front) for record in newest]
    styles = ["bold" if one.state == "running" else "dim" if one.state == "waiting" else "" for one in newest]
    for row in _stock_training(study):
        rows.append(row)
        styles.append("bold")
    cost = main_cost(study.settings.objectives)
    best = "   ".join(f"{record.map50_95:.3f} at {figure(cost, getattr(record, cost))}" for record in front)
    unsteady = "   ~ unsteady latency" if any("~" in row["ms"] for row in rows) else ""
    done, running = sum(one.ending is not None for one in records), sum(one.state == "running" for one in records)
    counts = f"{done} of {with_unit(study.file.run.trials, 'trial')}   {running} running"
    return LiveTable(
        title=f"{study.name}   {counts}   {left}".rstrip(),
        rows=rows,
        styles=styles,
        remarks=[
            f"front (*), mAP50-95 at {UNITS[cost]}: {best or 'nothing finished yet'}{unsteady}",
            *study.nothing_learned(records),
        ],
    )


def _row(study: "StoredStudy", record: "Record", *, is_on_front: bool) -> dict[str, Any]:
    running = record.state == "running"
    epochs = len(study.files(record.trial).read_epochs()) if running else 0
    latency = "" if record.latency_ms is None else figure("latency_ms", record.latency_ms)
    return {
        "trial": f"{record.trial}{' *' if is_on_front else '  '}",
        "state": record.status,
        "epoch": f"{epochs}/{study.settings.budget.epochs}" if running else str(record.epochs or "-"),
        "map50_95": record.map50_95,
        "gflops": record.gflops,
        "ms": latency + ("" if record.latency_steady or not latency else "~"),
        "seconds": record.seconds or None,
        "summary": described(record) or "-",
    }


def _stock_training(study: "StoredStudy") -> list[dict[str, Any]]:
    """Return the rows of the stock models' trainings before all trials that have not ended."""
    from nas.study.running_trials import stock_trainings

    return [
        {
            **dict.fromkeys(_COLUMNS),
            "trial": "-  ",
            "state": "waiting" if one.is_waiting else "training",
            "epoch": f"{one.epochs}/{one.of}",
            "ms": "",
            "summary": f"{one.member}: {_BASE}" if one.member else _BASE,
        }
        for one in stock_trainings(study)
    ]


def described(record: "Record") -> str:
    """Return the architecture of a trial, with why it was tried."""
    if record.repeat:
        return f"seed {record.repeat + 1}: {record.summary}"
    has_role = record.role in {"start", "cheapest", "costliest"}
    return f"{record.role}: {record.summary}" if has_role else record.summary
