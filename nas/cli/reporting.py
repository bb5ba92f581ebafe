"""`nas report`: a study as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import opening, show
from nas.cli.options import Name, Runs, TextFormat, command_for
from nas.paths import RUNS


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


@show.reports_errors
def report(
    study: Name,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write. [default: report.html in the study's folder]"),
    ] = None,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Send the page to MLflow, too, as report.html of the study's run.")
    ] = False,
    runs: Runs = RUNS,
    shown: TextFormat = "text",
) -> None:
    """Write a report of a study: one HTML page that needs no network.

    It shows the verdict or what the scores can tell, the Pareto front, drawings
    of the recommended networks, the effect of each operator, detections where
    stock and the best model differ, learning curves, and what to do next.
    Open it in any browser, print it, or send it: everything is in the file.
    """
    from search_spaces.errors import SpecError

    if mlflow and out is not None:
        raise SpecError(f"mlflow: it gets the page in the study's folder, not {out} (leave out --out)")
    opened = opening.opened(study, runs)
    with show.err.status("reading the study"):
        written = opened.report(out)
    show.result(str(written), {"file": str(written), "bytes": written.stat().st_size}, shown)
    if mlflow:
        from nas.workflows.running import sync

        with show.err.status("writing into MLflow"):
            sync(opened)
        show.lines([f"MLflow has it; see it with: {command_for('ui', opened, named=False)}"])
