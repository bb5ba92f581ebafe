"""The command line: `nas`. One module a group of commands; each command reads, calls and shows."""

import os
import sys
from typing import Annotated

import typer

from nas._version import __version__
from nas.cli import (
    arguments,
    benching,
    checking,
    confirming,
    data_sets,
    environment,
    latency,
    models,
    searching,
    show,
    studies,
)

app = typer.Typer(
    name="nas",
    cls=arguments.Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Search YOLO architectures instead of guessing them.

A [b]search space[/b] says which layers of a YOLO may carry which operator. [b]nas search[/b] proposes architectures,
scores each by a short training and its cost, and keeps the Pareto front.

  nas search --space v9                       watch a search on built-in data
  nas search --space v9 --data my/data.yaml   the same on yours
  nas pareto v9t-digits                       the front of a study
  nas export v9t-digits --best map            its best model, to train in full
""",
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Of nas.")] = False,
) -> None:
    """What is asked for without a command."""


searching.register(app)
confirming.register(app)
studies.register(app)
models.register(app)
checking.register(app)
latency.register(app)
benching.register(app)
environment.register(app)
data_sets.register(app)


def main() -> None:
    """Run a command; a problem with a known cure is told in a line and ends with status 2."""
    _quieten()
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(show.STOPPED)


def _quieten() -> None:
    """What third parties do on import, unless the user has decided: no network, no messages among our results."""
    own_settings = len(sys.argv) > 1 and sys.argv[1] == "yolo"
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if not own_settings:
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_VERBOSE", "false")
