"""`nas trust`: how far the ranking of a study can be believed, and what would make it more reliable."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import opening, options, show
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.report.further_trust import FurtherTrust
    from nas.report.trust import Trust
    from nas.study.study import Study
    from nas.workflows.trainings_plan import TrainingsPlan

Others = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDY]...",
        help="Further searches of the same kind, with other seeds: predict from all what a further one would lose.",
        show_default=False,
    ),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure",
        help="First train what measures noise and slope: the stock model and two neighbours with two seeds, and the "
        "stock model three times as long; of several members each stock model and a neighbour. They are kept in "
        "STUDY-calibrate.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trust)


@show.reports_errors
@options.takes(
    *("workers", "device", "timeout", "trial_memory"),
    unset=dict.fromkeys(("workers", "device", "trial_memory"), options.AS_BEFORE),
)
def trust(
    study: options.Name,
    typed: options.Typed,
    others: Others = None,
    measure: Measure = False,
    dry_run: options.DryRun = False,
    runs: options.Runs = RUNS,
    shown: options.TextFormat = "text",
) -> None:
    """Show how far the ranking of a search can be believed: which differences it can tell, and what to do.

    From what was trained: the noise between seeds, the least difference that
    so many seeds tell, what the front will lose when it is trained again,
    whether short and long trainings agree, and whether the budget is long
    enough to rank. Nothing new is trained, unless --measure is given.
    Of several searches that differ in their seed, noise and spread are
    pooled, and the shrinkage of a further one is predicted.

      nas trust STUDY
      nas trust STUDY STUDY2        what to expect of a further search like these
      nas trust STUDY --measure     where no architecture was trained twice
      nas trust STUDY --measure --dry-run    how many trainings, how long
    """
    if not measure:
        _require_unset({**typed, "dry_run": dry_run or None})
    if others:
        with show.err.status("estimating what a further search would find"):
            found = _of_several([study, *others], runs, measure=measure)
        _show(found, shown)
        return
    opened = opening.opened(study, runs)
    with show.err.status("estimating what the ranking tells"):
        report = opened.trust()  # refuses a study that is no search before anything is trained
    if measure:
        trainings = _plan(opened, typed)
        if dry_run:
            if shown == "json":
                print(json.dumps(trainings.as_document(), indent=1))  # noqa: T201 - this is the output
            return
        _measure(opened, typed, again=report.measure)
        report = opened.trust()
    _show(report, shown)


def _show(report: "Trust | FurtherTrust", shown: str) -> None:
    """Print a report as text or JSON."""
    if shown == "json":
        print(json.dumps(report.as_document(), indent=1))  # noqa: T201 - this is the output
    else:
        show.prose(report.lines())


def _of_several(names: list[str], runs: Path, *, measure: bool) -> "FurtherTrust":
    """Return what several searches say of a further one.

    Raises:
        SpecError: something is to be trained, which is done for one search at a time.
        StudyError: the searches cannot be pooled.
    """
    from nas import trust_further
    from nas.study.folders import runs_option
    from search_spaces.errors import SpecError

    if measure:
        raise SpecError(f"measure: is done for one search at a time: nas trust {names[0]}{runs_option(runs)} --measure")
    return trust_further(*names, runs=runs)


def _require_unset(typed: options.Typed) -> None:
    """Refuse options of trainings where nothing is trained.

    Raises:
        SpecError: with every such option.
    """
    from nas.ranges import flag
    from search_spaces.errors import SpecError

    mistakes = [
        f"{flag(name)}: nothing is trained without --measure (add --measure, or leave --{flag(name)} out)"
        for name, value in typed.items()
        if value is not None
    ]
    if mistakes:
        raise SpecError(mistakes)


def _plan(study: "Study", typed: options.Typed) -> "TrainingsPlan":
    """Plan what measures noise and slope, and print what is trained and about how long it takes."""
    from nas.words import with_unit
    from nas.workflows.calibrate import plan_of, size_of

    found, size = plan_of(study, typed["workers"]), size_of(study.searched)
    trained = f"{size.short_in_words}, {with_unit(found.epochs, 'epoch')}"
    show.lines([f"measure   {trained}, and {size.longer_in_words} 3 times as long: {found.left}"])
    return found


def _measure(study: "Study", typed: options.Typed, *, again: str) -> None:
    """Train what measures noise and slope, unless that is done.

    Args:
        again: command that continues it if it is stopped.
    """
    from nas.cli.searching import train
    from nas.workflows.calibrate import calibration, longer_stock

    short = calibration(study, **typed)
    for trained in (short, longer_stock(short, **typed)):
        if trained.unfinished_trials(trained.records()):
            train(trained, again=again)
