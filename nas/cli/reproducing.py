"""`nas reproduce`: train a trial again, and compare the result with the recorded one to the bit."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import opening, options, show
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.workflows.reproduction import ComparedEpoch, Reproduction

Trial = Annotated[int, typer.Option(metavar="N", help="Number of the trial; [b]nas trials STUDY[/b] lists all.")]
Anyway = Annotated[
    bool,
    typer.Option(
        "--anyway", help="Train also if versions, device or code differ from the recorded ones; never on other data."
    ),
]

_EXIT_STATUSES = {"equal": 0, "different": 1, "refused": 2}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reproduce)


@show.reports_errors
def reproduce(
    study: options.Name,
    trial: Trial,
    anyway: Anyway = False,
    trust: options.Trust = False,
    runs: options.Runs = RUNS,
    shown: options.TextFormat = "text",
) -> None:
    """Train a trial again as it was trained, and compare the result with the recorded one to the bit.

    First the data set, the device, the code and the versions are compared
    with what the trial recorded. If they are equal, the trial is trained with
    the same budget, seed and initial weights, in a temporary folder; the study
    stays as it is. Every loss and score must be equal.

    Exit status: 0 equal to the bit, 1 different, 2 refused (with the reason).

      nas reproduce v9t-digits --trial 4
    """
    opened = opening.opened(study, runs, trust=trust)
    from nas.workflows import reproduce as workflow

    try:
        result = workflow.reproduce(opened, trial=trial, anyway=anyway, show=_show_epoch)
    except KeyboardInterrupt:
        show.lines(["Stopped; nothing was written."])
        raise typer.Exit(show.STOPPED) from None
    if shown == "json":
        print(json.dumps({"verdict": result.verdict, **asdict(result)}, indent=1))  # noqa: T201 - this is the output
    else:
        for name, text in _report(result):
            show.text(f"{name:<10} {text}".rstrip())
    raise typer.Exit(_EXIT_STATUSES[result.verdict])


def _show_epoch(epoch: "ComparedEpoch") -> None:
    accuracy = next((figure.here for figure in epoch.figures if figure.name == "map50_95"), None)
    score = "" if accuracy is None else f", mAP50-95 {accuracy:.3f}"
    show.lines([f"epoch {epoch.epoch} of {epoch.of}{score}: {'equal to the bit' if epoch.is_equal else 'different'}"])


def _report(result: "Reproduction") -> Iterator[tuple[str, str]]:
    """Yield the lines of a report, each with its label."""
    yield "trial", f"{result.trial} of {result.study}{f': {result.summary}' if result.summary else ''}"
    origin = f"; the score is from the score cache, trained in {result.origin}" if result.origin else ""
    yield "recorded", f"{result.recorded_ending or 'no result'}{origin}"
    if result.conditions and not result.differing:
        kinds = dict.fromkeys(condition.name.partition(".")[0] for condition in result.conditions)
        yield "conditions", f"equal: {', '.join(kinds)}"
    if result.verdict == "refused":
        yield from (("refused", reason) for reason in result.reasons)
        if result.trains_anyway:
            yield "", "--anyway trains it here, and compares the results"
        return
    for condition in result.differing:
        yield "differs", str(condition)
    yield from _comparison(result)
    for remark in result.remarks:
        yield "note", remark


def _comparison(result: "Reproduction") -> Iterator[tuple[str, str]]:
    """Yield the compared results: the final figures, and how far the trainings are apart."""
    from nas.words import with_unit

    for figure in result.figures:
        other = "" if figure.is_equal else f" recorded, {figure.here} here"
        yield figure.name, f"{figure.recorded}{other}"
    if result.ending != result.recorded_ending:
        yield "ending", f"{result.recorded_ending} recorded, {result.ending} here"
    compared = f"{with_unit(len(result.epochs), 'epoch')} and {with_unit(len(result.figures), 'final figure')}"
    if result.verdict == "equal":
        yield "equal", f"to the bit: {compared}"
        return
    apart = ", ".join(f"{name} {value:.3g}" for name, value in result.largest_differences.items())
    first = next((epoch.epoch for epoch in result.epochs if not epoch.is_equal), None)
    since = f", from epoch {first} on" if first is not None else ""
    yield "different", f"of {compared}{since}{f'; largest differences: {apart}' if apart else ''}"
