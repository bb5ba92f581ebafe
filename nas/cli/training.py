"""`nas train`: the model of a trial, trained in full."""

from typing import Annotated

import typer

from nas.cli import opening, show
from nas.cli.exporting import Best
from nas.cli.options import Name, Runs, TextFormat, command_for
from nas.paths import RUNS


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(context_settings={"allow_extra_args": True})(train)


@show.reports_errors
def train(
    context: typer.Context,
    study: Name,
    trial: Annotated[int | None, typer.Option(metavar="N", help="Train this trial instead of the best.")] = None,
    best: Best = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was stopped, after its last whole epoch.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run the operators that the study brings as Python files, though you have not run them on this "
            "machine, and open checkpoints that could run code. Look at them first.",
        ),
    ] = False,
    runs: Runs = RUNS,
    shown: TextFormat = "text",
) -> None:
    """Train the model of a trial in full, from its weights, with the arguments of Ultralytics' yolo train.

      nas train v9t-digits --trial 4 epochs=300 imgsz=640 device=0,1
      nas train v9t-digits --trial 4 --resume

    It is a run under the study's in MLflow, with losses and mAP after each
    epoch. After Ctrl-C, a crash or kill -9, --resume goes on. Results lie in
    full/trial-0004 of the study's folder; nas status STUDY lists them.
    """
    from search_spaces.errors import SpecError

    if "=" in study:
        raise SpecError(f"{study}: a study is expected first; nas yolo train {study} ... trains any model file")
    opened = opening.opened(study, runs, trust=trust)
    from nas.workflows import full_training

    again = f"{command_for('train', opened)}{'' if trial is None else f' --trial {trial}'} --resume"
    try:
        with show.others_on_stderr():
            if resume:
                done = full_training.resume(opened, context.args, trial=trial, trust=trust)
            else:
                done = full_training.train(opened, context.args, trial=trial, best=best, trust=trust)
    except KeyboardInterrupt:
        show.lines([f"stopped; go on with: {again}"])
        raise
    show.result(str(done.best), done.as_document(), shown)
    show.lines([done.sentence])
