"""`nas ablate`: what each slot of a trial is worth, by putting the stock layer back there."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import estimating, opening, options, show
from nas.cli.estimating import Yes
from nas.cli.fronts import nothing_learned
from nas.cli.images_of_plan import images_of, lines_on_images, opening_images
from nas.cli.searching import train
from nas.defaults import ABLATION_SEEDS
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.report.ablation import Ablation, SlotWorth
    from nas.study.study import Study
    from nas.workflows.ablate import AblationPlan
    from nas.workflows.trainings_plan import TrainingsPlan

Trial = Annotated[int, typer.Option(metavar="N", help="Number of the trial; [b]nas trials STUDY[/b] lists all.")]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        help=f"Train every model with N fresh seeds, at least 2. More than before adds seeds. "
        f"\\[default: {ABLATION_SEEDS}, or as before]",
    ),
]
_COLUMNS = {
    "slot": "slot",
    "points": "points",
    "interval": "95 % interval",
    "gflops": "GFLOPs",
    "params": "params",
    "latency_ms": "latency ms",
    "finding": "finding",
    "choice": "choice",
}
_NARROW = ("latency_ms", "params")
"""Columns that a narrow terminal drops, in this order."""
_FINDINGS = {"undecided": "not told apart", "pending": "not judged yet"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ablate)


@show.reports_errors
@options.takes(
    *("epochs", "fraction", "val_images", "workers", "device", "timeout", "trial_memory"),
    unset=dict.fromkeys(("epochs", "fraction", "val_images", "workers", "device", "trial_memory"), "as the search"),
    meaning={
        "epochs": "Epochs of each training.",
        "fraction": "Train on this share of the training images, 1 for all: where the search has read a part of them.",
        "val_images": "Compare the models on at most so many images, chosen by class.",
    },
)
def ablate(
    study: options.Name,
    trial: Trial,
    typed: options.Typed,
    fresh_seeds: Seeds = None,
    margin: options.Margin = None,
    dry_run: options.DryRun = False,
    yes: Yes = False,
    trust: options.Trust = False,
    runs: options.Runs = RUNS,
    shown: options.Shown = "table",
) -> None:
    """Show what each slot of a trial is worth: put the stock layer back, one slot at a time.

    The trial, the trial without each of its operators and scaling factors,
    and the stock model are trained with the same fresh seeds, in a new study
    (STUDY-ablate-N). A slot is worth the trial's mAP50-95 less that of the
    trial with stock there. The same command goes on with what was stopped.

      nas ablate STUDY --trial 7              three seeds
      nas ablate STUDY --trial 7 --seeds 6    three more
      nas ablate STUDY --trial 7 --dry-run    how many trainings, how long
    """
    before = opening.opened(study, runs, trust=trust)
    of_trainings = {name: typed[name] for name in ("epochs", "fraction", "val_images")}
    of_run = {name: value for name, value in typed.items() if name not in of_trainings}
    from nas.words import more_seeds_than_asked
    from nas.workflows.ablate import AblationPlan

    with opening_images() as progress:
        plan = AblationPlan.of(before, trial=trial, seeds=fresh_seeds, **of_trainings, progress=progress)
    trainings = plan.of_trainings(of_run["workers"])
    show.lines(_plan_lines(plan, trainings))
    show.lines(more_seeds_than_asked(fresh_seeds, plan.seeds))
    if dry_run:
        if shown == "json":
            print(json.dumps(_plan_document(plan, trainings), indent=1))  # noqa: T201 - this is the output
        return
    estimating.require_yes_to_trainings(trainings.seconds, yes=yes)
    after = plan.begin(margin=margin, **of_run)
    is_warned = train(after) if after.unfinished_trials(after.records()) else False
    ablation = before.ablation(trial)
    if ablation is not None:
        _print(ablation, shown)
        show.lines([] if is_warned else nothing_learned(after))
        show.lines(_next_steps(before, after, trial))


def _plan_lines(plan: "AblationPlan", trainings: "TrainingsPlan") -> list[str]:
    """Say what is trained, how often and about how long."""
    from nas.words import with_unit

    ablated = plan.ablated
    parts = [part for part, reason in ablated.parts if not reason]
    seeds = f"{len(trainings.seeds)} fresh seeds ({trainings.seeds[0]} to {trainings.seeds[-1]})"
    trained = f"{with_unit(trainings.models, 'model')}, {seeds}, {with_unit(trainings.epochs, 'epoch')}"
    return [
        f"ablate    trial {ablated.trial} of {ablated.study}: {', '.join(part.title for part in parts)}",
        *(f"left out  {part.title}: {reason}" for part, reason in ablated.parts if reason),
        f"train     {trained}: {trainings.left}",
        *lines_on_images(plan),
    ]


def _plan_document(plan: "AblationPlan", trainings: "TrainingsPlan") -> dict[str, Any]:
    """Return what is trained, as values for JSON."""
    ablated = plan.ablated
    parts = [{"slot": part.name, "choice": part.choice, "left_out": reason} for part, reason in ablated.parts]
    return {
        "ablates": ablated.study,
        "trial": ablated.trial,
        "slots": parts,
        "images": images_of(plan),
        **trainings.as_document(),
    }


def _print(ablation: "Ablation", shown: str) -> None:
    """Print the ablation on stdout, its remarks on stderr."""
    if shown == "json":
        print(json.dumps(ablation.as_document(), indent=1))  # noqa: T201 - this is the output
        return
    if shown == "csv":
        show.rows([row.as_row() for row in ablation.rows], "csv", title="", columns={})
    elif ablation.rows:
        columns = dict(_COLUMNS)
        if all(row.latency_ms is None for row in ablation.rows):
            del columns["latency_ms"]
        cells = [_cells(row) for row in ablation.rows]
        show.rows(cells, "table", title=ablation.title, columns=columns, narrow=_NARROW)
    show.lines(ablation.remarks() if ablation.rows else ablation.lines())


def _cells(row: "SlotWorth") -> dict[str, Any]:
    return {
        "slot": row.slot if len(row.layers) <= 1 else ", ".join(map(str, row.layers)),
        "points": row.points,
        "interval": row.interval,
        "gflops": f"{row.gflops:+.2f}",
        "params": f"{row.params / 1e6:+.3f} M",
        "latency_ms": None if row.latency_ms is None else f"{row.latency_ms:+.2f}",
        "finding": _FINDINGS.get(str(row.finding), str(row.finding)),
        "choice": row.choice,
    }


def _next_steps(before: "Study", after: "Study", trial: int) -> list[str]:
    left = after.unfinished_trials(after.records())
    again = options.command_for("ablate", before)
    return [f"{left} trainings are left; continue with: {again} --trial {trial}"] if left else []
