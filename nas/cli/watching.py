"""`nas watch`: follow a search that runs in another process."""

import json
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli import show
from nas.cli.options import Name, Runs, command_for
from nas.paths import RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.records.record import Record
    from nas.study.stored_study import StoredStudy

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_FETCHES = 30.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(watch)


@show.reports_errors
def watch(
    study: Name,
    once: Annotated[bool, typer.Option("--once", help="Show the present state, and end.")] = False,
    runs: Runs = RUNS,
    shown: Annotated[
        Literal["text", "json"],
        typer.Option("--format", help="Display it, or print JSON: a line for each trial that is new or has changed."),
    ] = "text",
) -> None:
    """Follow a search that runs in another process, with the same display; it only reads.

    Ends when the search ends. Ctrl-C ends this display, not the search.
    In a pipe, each change is one line; with --format json, that line is the
    trial as nas trials --format json prints it.

      nas watch v9t-digits            until it ends
      nas watch v9t-digits --once     its present state
    """
    from nas.cli.live import Watching
    from nas.cli.live_table import live_table
    from nas.locks import is_held
    from nas.study.fetching import fetched
    from nas.study.folders import existing
    from nas.study.running_trials import with_progress
    from nas.study.stored_study import StoredStudy
    from nas.words import duration

    opened = fetched(StoredStudy.open(existing(study, runs)))
    running = is_held(opened.supervision_lock.path) or opened.shared is not None
    lines = _JsonLines()
    try:
        with Watching(from_now=True) if shown == "text" else nullcontext(lines) as watching:
            looked_at = time.monotonic()
            while running and not once:
                records = opened.records()
                watching.update(opened, records)
                if opened.shared is not None and time.monotonic() - looked_at > _SECONDS_BETWEEN_FETCHES:
                    opened, looked_at = fetched(opened), time.monotonic()
                if not _goes_on(opened, records):
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        show.lines([f"Stopped watching; {study} goes on."])
        raise typer.Exit(show.STOPPED) from None
    records = with_progress(opened, opened.records())
    if shown == "json":
        lines.update(opened, records)
        return
    left = opened.pace(records) if running else None
    words = f"about {duration(left.seconds_left)} left" if left is not None and left.seconds_left else ""
    show.console().print(live_table(opened, records, words))
    if not running:
        show.lines([f"no process on this machine runs it; continue it with: {command_for('resume', opened)}"])


class _JsonLines:
    """Prints a line of JSON for each trial whose state is another one than before."""

    def __init__(self) -> None:
        self._printed: dict[int, tuple[str, str | None]] = {}

    def update(self, _study: "StoredStudy", records: "Sequence[Record]") -> None:
        """Print what has changed."""
        for record in records:
            state = (record.state, record.ending)
            if self._printed.get(record.trial) != state:
                self._printed[record.trial] = state
                print(json.dumps(record.as_row()), flush=True)  # noqa: T201 - this is the output


def _goes_on(study: "StoredStudy", records: "Sequence[Record]") -> bool:
    """Return whether the search runs, on this machine or on others."""
    from nas.locks import is_held

    if is_held(study.supervision_lock.path):
        return True
    return study.shared is not None and any(record.state == "running" for record in records)
