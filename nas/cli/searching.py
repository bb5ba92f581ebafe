"""`nas search` and `nas resume`: run a study, and print its plan, its progress and its Pareto front."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from nas.cli import estimating, measured, options, show
from nas.cli.planning import print_plan, slope_in_words
from nas.workflows.search_options import SearchOptions

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.settings import RunSettings
    from nas.study.study import Study
    from nas.workflows.plan import Plan
    from nas.workflows.ray_cluster import RayCluster
    from nas.workflows.request import Request


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(search)
    app.command()(resume)


@show.reports_errors
@options.takes()
def search(
    typed: options.Typed,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    shown: options.SearchFormat = "table",
) -> None:
    """Search a space for the Pareto front of accuracy and cost. A study that exists already is resumed.

    First the stock model (the unchanged YOLO) is trained. Then each trial
    takes one architecture, starts from the stock model's weights, trains it
    briefly and scores it.

      nas search                                  a demonstration on built-in data
      nas search --data my/data.yaml --dry-run    check everything, print the plan
      nas search --data my/data.yaml              search, and show the front
      nas search --data my/data.yaml --hours 8    as many trials as end by tomorrow
      nas search --data my/data.yaml --holdout 15%   seal images to judge by
      nas search --space v8 --scale s --max-gflops 20 --trials 60

    Then: nas pareto STUDY, nas confirm STUDY, nas export STUDY.
    """
    SearchOptions(**typed)  # refuses wrong values before PyTorch is imported
    with show.err.status("reading space and options"):
        from nas.workflows.ray_cluster import RayCluster
        from nas.workflows.request import Request

        request = Request(**typed)
    plan = _plan(request)
    cluster = RayCluster.of(request.ray, request.gpus_per_worker, request.storage, device=request.device)
    of_plan: show.Format = shown if dry_run else "table"  # of a search stdout has the front alone
    if request.calibrate:
        print_plan(plan, of_plan)
        _print_calibration(plan)
        if dry_run:
            return
        request = _calibrated(request, plan, cluster)
        plan = _plan(request)
    if request.hours is not None:
        request = _fitted(request, plan, elsewhere=cluster is not None)
        plan = _plan(request)
    outlook = estimating.outlook_of(plan, always=dry_run, elsewhere=cluster is not None)
    print_plan(plan, of_plan, slope=slope_in_words(plan, request), outlook=outlook)
    if not dry_run:
        estimating.require_yes(outlook, yes=yes)
        _run(_begin(plan), cluster, shown)


def _fitted(request: "Request", plan: "Plan", *, elsewhere: bool) -> "Request":
    """Choose trials and epochs that fit into the hours of a request, and print what was chosen."""
    from nas.workflows.check_cache import CheckCache
    from nas.workflows.fit_hours import fitted
    from search_spaces.errors import SpecError

    if elsewhere:
        raise SpecError("hours: trainings on a Ray cluster cannot be timed before (give --trials and --timeout)")
    with estimating.timing() as report:
        found = fitted(request, plan, CheckCache.of_user(), report=report)
    show.details([f"hours     {request.hours:g}: {found.reason}"])
    return found.request


def _plan(request: "Request") -> "Plan":
    """Check a request, and show what is being checked."""
    with show.err.status("checking space, data and costs") as status:
        from nas.workflows.plan import Plan

        return Plan.of(
            request,
            progress=lambda done, total: status.update(f"opening images: {done} of {total} checked"),
            measuring=lambda done, total: status.update(f"measuring latencies of the space: {done} of {total}"),
            trying=status.update,
            fetching=lambda _: show.paused(status),  # Ultralytics' progress bar takes its place
        )


def _print_calibration(plan: "Plan") -> None:
    """Print what a calibration trains, how long that takes, and what it may choose."""
    from nas.report.budget import MOST_SEEDS
    from nas.words import duration
    from nas.workflows.calibrate import size_of
    from nas.workflows.calibrated_search import MOST_GROWTH, seconds

    with show.err.status("timing the stock model"):
        took = duration(seconds(plan))
    size = size_of(plan.space)
    trained = f"{size.short_in_words}, {size.longer_in_words} also 3 times as long"
    bound = f"sets at most {MOST_GROWTH} times these epochs, and {MOST_SEEDS} seeds"
    show.lines([f"calibrate {trained}: about {took}, before the search; {bound}"])


def _calibrated(request: "Request", plan: "Plan", cluster: "RayCluster | None") -> "Request":
    """Run the calibration of a search, and print what follows from it."""
    from nas.workflows.calibrated_search import calibrated

    found = calibrated(request, plan, lambda study: train(study, again=options.typed_command(), cluster=cluster))
    show.lines(["", *(f"calibrate {reason}" for reason in found.reasons), ""])
    return found.request


def _begin(plan: "Plan") -> "Study":
    """Create or resume the study; first time the layers that the device's table lacks, with a progress bar."""
    if not plan.unrecorded:
        return plan.begin()
    ending = "Stopped; timed layers are saved, and the same command continues from there."
    with show.progress(f"timing {plan.unrecorded} layers", ending) as show_progress:
        return plan.begin(show_progress)


@show.reports_errors
@options.takes(
    *("trials", "timeout", "workers", "device", "ray", "gpus_per_worker"),
    *("trial_memory", "data", "weights", "storage", "runs"),
    unset=dict.fromkeys(("trials", "workers", "device", "trial_memory", "data", "weights"), options.AS_BEFORE)
    | {"storage": ""},
    meaning={
        "data": "Where the data set lies now, if the study was moved to another machine. It must be the same one.",
        "weights": "Where the checkpoint lies now from which the stock model's training started; of several members "
        "the folder with theirs.",
        "storage": "Address of the database that holds the study's trials, with its password, which is not saved.",
    },
)
def resume(
    study: options.Name, typed: options.Typed, trust: options.Trust = False, shown: options.Shown = "table"
) -> None:
    """Continue a study where it stopped, and print its front; finished trials are not trained again.

    nas resume v9t-digits
    nas resume v9t-digits --trials 20    until there are twenty trials
    """
    with show.err.status(f"opening {study}"):
        from nas.workflows import begin
        from nas.workflows.ray_cluster import RayCluster

        resumed = begin.resume(study, trust=trust, **typed)
    _run(resumed, RayCluster.of(typed["ray"], typed["gpus_per_worker"], resumed.file.storage), shown)


def _run(study: "Study", cluster: "RayCluster | None" = None, shown: show.Format = "table") -> None:
    """Run a study with a live table, then print its Pareto front."""
    from nas.cli.fronts import print_front

    is_warned = train(study, cluster=cluster)
    measured.measure_after_search(study)
    records = study.records()
    remaining = study.remaining_trials(records)
    if study.unfinished_trials(records):
        again = options.command_for("resume", study) + (cluster.flags if cluster else "")
        show.lines([_why_short(study.file.run, records), f"Continue with: {again}"])
    if shown == "table":
        _draw_front(study, records)
    print_front(study, shown, is_warned=is_warned)
    show.lines([f"open its page in MLflow with: {options.command_for('ui', study, named=False)}"])
    if remaining and not study.file.run.timeout and any(record.state == "waiting" for record in records):
        raise typer.Exit(show.NEGATIVE)


def _draw_front(study: "Study", records: "Sequence[Record]") -> None:
    """Draw the front with characters, in a terminal that has room for it."""
    from nas.algorithms.pareto import main_cost
    from nas.cli import text_front
    from nas.records.facts import LABELS

    if not show.err.is_terminal or show.err.width < text_front.LEAST_COLUMNS or "utf" not in show.err.encoding:
        return
    cost = main_cost(study.settings.objectives)
    drawn = text_front.of_records(records, study.front(records), cost, LABELS[cost])
    show.lines(["", *drawn, ""] if drawn else [])


def train(
    study: "Study", *, again: str | None = None, tracks: bool = True, cluster: "RayCluster | None" = None
) -> bool:
    """Run a study with a live table; if it is stopped, print the command that resumes it.

    Args:
        again: that command; None for `nas resume`.
        tracks: whether this machine tracks the study in MLflow.
        cluster: Ray cluster on which the workers run; None for this machine.

    Returns:
        Whether it was printed that the stock model has learned nothing.
    """
    from nas.cli.live import Watching
    from nas.workflows.ray_workers import supervisor_on
    from nas.workflows.running import supervise
    from search_spaces.errors import EnvironmentProblem

    again = again or options.command_for("resume", study) + (cluster.flags if cluster else "")
    show.details(
        [
            *([f"note      {study.remark}"] if study.remark else []),
            f"study     {study.folder}",
            f"resume    {again}",
            *([f"MLflow    {options.command_for('ui', study, named=False)}"] if tracks else []),
            "",
        ]
    )
    try:
        with Watching() as watching:
            watching.begin(study)
            supervise(study, show=watching.update, tracks=tracks, supervisor=supervisor_on(cluster))
    except KeyboardInterrupt:
        show.lines(
            [
                "",
                "Stopped; finished trials are saved, running ones go back into the queue.",
                f"Continue with: {again}",
            ]
        )
        raise typer.Exit(show.STOPPED) from None
    except EnvironmentProblem:
        show.lines(
            ["", f"Stopped; finished trials are saved. When the problem below is solved, continue with: {again}"]
        )
        raise
    return watching.has_warned


def _why_short(run: "RunSettings", records: "Sequence[Record]") -> str:
    """Return why a search ended before its number of trials."""
    from nas.study.stored_study import COUNTED

    of, done = run.trials, sum(record.ending in COUNTED for record in records)
    states = Counter(record.state for record in records)
    descriptions = {"waiting": "in the queue", "running": "running, in processes that this search did not start"}
    left = ", ".join(f"{states[state]} {where}" for state, where in descriptions.items() if states[state])
    if run.timeout:
        return f"The time was over after {done} of {of} trials{f', with {left}' if left else ''}."
    if left:
        return f"The search ended after {done} of {of} trials, with {left}."
    return f"Every architecture within the limits was tried after {done} of {of} trials."
