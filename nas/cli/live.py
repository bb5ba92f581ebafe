"""Progress of a running search on stderr: a live table on a terminal, otherwise one line per change."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nas.cli.fronts import nothing_learned
from nas.cli.show import err, figure

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.study.study import Study

_BASE = "the stock model, for every trial to start from"
_ROWS = 14
"""Number of trials that the live table shows; `nas trials` shows all."""


class Watching:
    """Shows a study while it runs.

    Attributes:
        has_warned: whether it has printed that the stock model has learned nothing.
    """

    def __init__(self) -> None:
        self._live = Live(console=err, refresh_per_second=2, transient=True) if err.is_terminal else None
        self._began = time.monotonic()
        self._printed: dict[int | str, tuple[str, str | None]] = {}
        self._ended_before: int | None = None
        self.has_warned = False

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, study: "Study", records: "Sequence[Record]") -> None:
        """Show the present state of the study."""
        left = self._time_left(records, remaining=study.remaining_trials(records))
        self._print_stock_training(study)
        for record in records:
            state = (record.state, record.ending)
            if self._printed.get(record.trial) != state and record.summary and record.state != "waiting":
                self._printed[record.trial] = state
                if record.ending is not None or self._live is None:
                    err.print(_line(record), markup=False)
        self._print_slope(study, records)
        if self._live is not None:
            self._live.update(_table(study, records, left))

    def _print_stock_training(self, study: "Study") -> None:
        """Print a line when the training of the stock model begins, and one when it ends."""
        from nas.records.record import duration
        from nas.words import with_unit

        base = study.stock_training
        if base is None or self._printed.get("base") == ("ended", None):
            return
        outcome = base.outcome()
        if outcome is None and "base" not in self._printed and self._live is None:
            self._printed["base"] = ("running", None)
            host = study.stock_training_host()
            where = f" on {host}, which this machine waits for" if host else ""
            epochs = with_unit(base.budget.epochs, "epoch")
            err.print(f"stock model  training{where}, {epochs}, for every trial to start from", markup=False)
        if outcome is not None:
            self._printed["base"] = ("ended", None)
            self._began, self._ended_before = time.monotonic(), None  # trials are timed from here
            accuracy = figure("map50_95", outcome.get("map50_95"))
            trained = f"{with_unit(outcome['epochs'], 'epoch')}, {duration(outcome['seconds'], outcome['detail'])}"
            err.print(f"stock model  {outcome['ending']}  mAP50-95 {accuracy} after {trained}", markup=False)
            warning = nothing_learned(study, [])
            self.has_warned = bool(warning)
            for line in warning:
                err.print(line, markup=False)

    def _print_slope(self, study: "Study", records: "Sequence[Record]") -> None:
        """Print once, when the stock model has ended as a trial, whether the budget is too short to rank."""
        from nas.records.record import stock_of
        from nas.report.slope import slope
        from nas.study.trained_again import base_accuracy

        if "slope" in self._printed or study.settings.confirms or stock_of(records) is None:
            return
        self._printed["slope"] = ("printed", None)
        found = slope(study.settings, records, base=base_accuracy(study.folder, study.settings))
        if found is not None:
            err.print(f"slope     {found.sentence}", markup=False)

    def _time_left(self, records: "Sequence[Record]", *, remaining: int) -> str:
        """Estimate the remaining time from the trials that ended since this display started."""
        ended = [record for record in records if record.ending is not None]
        if self._ended_before is None:
            self._ended_before = len(ended)
        done = len(ended) - self._ended_before
        missing = remaining + sum(record.state == "running" for record in records)
        if not done:
            return ""
        seconds = (time.monotonic() - self._began) / done * missing
        return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


def _line(record: "Record") -> str:
    """Describe a trial in one line."""
    from nas.records.record import duration

    begins = f"trial {record.trial:>3}  {record.status:<9} "
    if record.ending is None:
        return f"{begins}{_named(record)}{f'  ({record.detail})' if record.detail else ''}"
    unsteady = "" if record.latency_steady else " (unsteady)"
    latency = f"{figure('latency_ms', record.latency_ms)} ms{unsteady}  " if record.latency_ms else ""
    accuracy, gflops = figure("map50_95", record.map50_95), figure("gflops", record.gflops)
    figures = f"mAP50-95 {accuracy}  {gflops} GFLOPs  {latency}{duration(record.seconds, record.detail)}"
    inherited = f"  {record.inherited:.0%} inherited" if record.inherited else ""
    why = "" if record.finished else f"  {record.advice}{f' ({record.detail})' if record.detail else ''}"
    return f"{begins}{figures}{inherited}  {_named(record)}{why}"


def _named(record: "Record") -> str:
    if record.repeat:
        return f"seed {record.repeat + 1}: {record.summary}"
    has_role = record.role in {"start", "cheapest", "costliest"}
    return f"{record.role}: {record.summary}" if has_role else record.summary


def _table(study: "Study", records: "Sequence[Record]", left: str) -> Group:
    from nas.algorithms.pareto import main_cost
    from nas.report.verdicts import UNITS
    from nas.words import with_unit

    total = study.file.run.trials
    done = sum(record.ending is not None for record in records)
    front = study.front(records)
    on_front = {record.trial for record in front}
    table = Table(
        title=f"{study.name}   {done} of {with_unit(total, 'trial')}   {left}",
        title_justify="left",
        header_style="bold",
        expand=True,
    )
    for heading in ("trial", "state", "epoch", "mAP50-95", "GFLOPs", "ms", "s"):
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    table.add_column("architecture", no_wrap=True, overflow="ellipsis", ratio=1)
    for record in records[-_ROWS:]:
        running = record.state == "running"
        epochs = study.files(record.trial).read_epochs() if running else []
        epoch = f"{len(epochs)}/{study.settings.budget.epochs}" if running else str(record.epochs or "-")
        table.add_row(
            f"{record.trial}{' *' if record.trial in on_front else ''}",
            record.status,
            epoch,
            figure("map50_95", record.map50_95),
            figure("gflops", record.gflops),
            figure("latency_ms", record.latency_ms) + ("" if record.latency_steady else "~"),
            figure("seconds", record.seconds or None),
            _named(record) or "-",
            style="bold" if running else "dim" if record.state == "waiting" else "",
        )
    base = study.stock_training
    if base is not None and not base.is_done:
        epochs = base.files.read_epochs()
        table.add_row("-", "training", f"{len(epochs)}/{base.budget.epochs}", "-", "-", "-", "-", _BASE, style="bold")
    cost = main_cost(study.settings.objectives)
    best = "   ".join(f"{record.map50_95:.3f} at {figure(cost, getattr(record, cost))}" for record in front)
    front_line = f"front (*), mAP50-95 at {UNITS[cost]}: {best or 'nothing finished yet'}   ~ unsteady latency"
    return Group(
        table, *(Text(line, no_wrap=False, overflow="fold") for line in [front_line, *nothing_learned(study, records)])
    )
