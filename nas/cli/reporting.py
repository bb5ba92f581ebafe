"""`nas report`: a study as one HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import opening, show
from nas.cli.options import Name, Runs, TextFormat, Trust, command_for
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study.study import Study


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
        bool | None,
        typer.Option(
            "--mlflow/--no-mlflow",
            help="Send the page to MLflow, as report.html of the study's run. [default: if the study is tracked]",
            show_default=False,
        ),
    ] = None,
    trust: Trust = False,
    runs: Runs = RUNS,
    shown: TextFormat = "text",
) -> None:
    """Write a report of a study: one HTML page that needs no network.

    It shows the verdict or what the scores can tell, the Pareto front, drawings
    of the recommended networks, the effect of each operator, detections where
    stock and the best model differ, learning curves, and what to do next.
    Open it in any browser, print it, or send it: everything is in the file.

      nas report v9t-digits
      nas report v9t-digits --out digits.html
    """
    from search_spaces.errors import SpecError
    from search_spaces.files import require_place

    if out is not None:
        require_place(out, "out")
    if mlflow and out is not None:
        raise SpecError(f"mlflow: it gets the page in the study's folder, not {out} (leave out --out)")
    opened = opening.opened(study, runs, trust=trust)
    with show.err.status("reading the study"):
        written = opened.report(out)
    show.result(str(written), {"file": str(written), "bytes": written.stat().st_size}, shown)
    if mlflow or (mlflow is None and out is None and _is_tracked(opened)):
        _send(opened, must=bool(mlflow))


def _is_tracked(study: "Study") -> bool:
    """Return whether this machine tracks a study; a copy of one becomes another study only when it is continued."""
    from nas.study import identity
    from nas.study.tracking_state import TrackingState

    return TrackingState.read(study.folder) is not None and not identity.is_copy(study)


def _send(study: "Study", *, must: bool) -> None:
    """Send what MLflow lacks of a study, its page with it; the search does it itself while it runs.

    Args:
        must: whether a problem is an error, not a warning: the page is written.
    """
    from nas.locks import is_held
    from nas.workflows.running import sync
    from search_spaces.errors import NasError

    if not must and is_held(study.supervision_lock.path):
        show.details(["the search, which runs, sends the page to MLflow"])
        return
    try:
        with show.err.status("writing into MLflow"):
            sync(study)
    except NasError as problem:
        if must:
            raise
        show.lines([f"MLflow lacks the page: {problem}"])
        return
    show.lines([f"MLflow has it; see it with: {command_for('ui', study, named=False)}"])
