"""Command line: `nas`. Each module holds a group of commands; a command reads options, calls a workflow and prints."""

import logging
import os
import sys
from typing import Annotated

import typer

from nas import address_space
from nas._version import __version__
from nas.cli import (
    ablating,
    activity,
    arguments,
    benching,
    checking,
    comparing,
    confirming,
    consistency,
    data_sets,
    effects,
    environment,
    exporting,
    joining,
    latency,
    models,
    packing,
    reporting,
    reproducing,
    searching,
    show,
    studies,
    training,
    trusting,
    watching,
)

app = typer.Typer(
    name="nas",
    cls=arguments.Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Search YOLO architectures instead of guessing them.

A [b]search space[/b] lists which layers of a YOLO may be replaced by which
operators. [b]nas search[/b] proposes architectures, scores each by a short
training and its cost, and reports the Pareto front: the models that no other
beats in accuracy and cost.

  nas search --space v9                       a demonstration on built-in data
  nas search --space v9 --data my/data.yaml   the same on your data
  nas pareto v9t-digits                       the Pareto front of a study
  nas export v9t-digits --best map            its best model, to train in full
""",
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[  # noqa: ARG001 - its callback prints
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors only; no plan and no progress.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print log messages, and the traceback of errors.")
    ] = False,
) -> None:
    """Handle the options of `nas` itself, before or behind any command."""
    show.err.is_quiet, show.err.is_verbose = quiet, verbose
    if verbose:
        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
        for package in ("nas", "trials", "search_spaces"):
            logging.getLogger(package).setLevel(logging.DEBUG)


searching.register(app)
joining.register(app)
confirming.register(app)
ablating.register(app)
trusting.register(app)
reproducing.register(app)
studies.register(app)
watching.register(app)
exporting.register(app)
training.register(app)
consistency.register(app)
packing.register(app)
effects.register(app)
reporting.register(app)
comparing.register(app)
models.register(app)
checking.register(app)
latency.register(app)
benching.register(app)
environment.register(app)
data_sets.register(app)


def main() -> None:
    """Run a command; an error that the user can solve is printed as a line, with exit status 2."""
    _quieten()
    arguments.warn_of_passwords(sys.argv[1:])
    limited = address_space.warning()
    if limited or not show.err.is_terminal:
        sys.meta_path.insert(0, activity.ImportAnnouncer(lambda: show.details([limited or "loading PyTorch ..."])))
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(show.STOPPED)


def _quieten() -> None:
    """Keep third parties off the network and out of our output, unless the user has set these variables."""
    is_ultralytics = len(sys.argv) > 1 and sys.argv[1] in {"yolo", "train"}
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if not is_ultralytics:
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_VERBOSE", "false")
