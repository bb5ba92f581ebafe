"""`nas search` and `nas resume`: run a study, and print its plan, its progress and its Pareto front."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from nas.cli import data_sets, estimating, initial_weights, measured, options, show
from nas.workflows.search_options import SearchOptions

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.settings import RunSettings, Settings
    from nas.study.study import Study
    from nas.workflows.outlook import Outlook
    from nas.workflows.plan import Plan
    from nas.workflows.ray_cluster import RayCluster
    from nas.workflows.request import Request
    from search_spaces import Space


_BETWEEN_MEMBERS = {"stock": "; ", "weights": " | ", "rungs": "; "}
"""Separators in JSON of members' texts, which are lines of their own for a person, by their name in the plan."""
_DOMINATED = "a stock model that another at no higher cost leads by more than noise is not trained further"


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
        _print_plan(plan, of_plan)
        _print_calibration(plan)
        if dry_run:
            return
        request = _calibrated(request, plan, cluster)
        plan = _plan(request)
    if request.hours is not None:
        request = _fitted(request, plan, elsewhere=cluster is not None)
        plan = _plan(request)
    outlook = estimating.outlook_of(plan, always=dry_run, elsewhere=cluster is not None)
    _print_plan(plan, of_plan, slope=slope_in_words(plan, request), outlook=outlook)
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


def _start(space: "Space") -> str:
    """Return what a search tries first, an architecture a line."""
    from nas.study.trial_records import description

    after = "the stock model" if len(space.members) == 1 else "the stock models"
    return "\n".join([f"after {after}:", *(description(each, space)["summary"] for each in space.start)])


def _early_stopping(settings: "Settings") -> str:
    """Return after which epochs trainings may be stopped; empty if they may not."""
    from nas.algorithms.dominance import rungs_of

    rungs, lines = ", ".join(map(str, settings.budget.rungs)), []
    compared = ", ".join(map(str, rungs_of(settings.base.epochs))) if settings.members and settings.base else ""
    if compared or (settings.stock_only and rungs):
        lines.append(f"{_DOMINATED}, after epoch {compared or rungs}")
    if settings.stopping is not None:
        one_in = f"after epoch {rungs} about one in {settings.stopping.eta} continues"
        lines.append(one_in if rungs else "none: too few epochs")
    return "\n".join(lines)


def _seeds(settings: "Settings", run: "RunSettings") -> str:
    """Return with how many seeds models are trained, and a warning if the trials end before; empty for one seed."""
    from nas.study.repeats import SCORED_BEFORE

    if settings.seeds == 1:
        return ""
    text = f"{settings.seeds} for the stock model and the front"
    if run.trials > SCORED_BEFORE:
        return text
    return f"{text}, but {run.trials} trials are too few: repeats begin after {SCORED_BEFORE} architectures"


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


def _predicted(plan: "Plan") -> str:
    """Return for which device latency is predicted, and how many layers are timed first; empty if none was named."""
    device = plan.file.settings.latency
    if not device:
        return ""
    first = f"; {plan.unrecorded} layers that its table lacks are timed first" if plan.unrecorded else ""
    return f"predicted for {device}{first}"


def _study_name(plan: "Plan") -> str:
    """Return the study's name, with the reason if it is not the usual one."""
    from nas.study.folders import STUDY

    name, stem = plan.folder.name, plan.stem
    there = (plan.folder / STUDY).is_file()
    which = ", which exists with these settings and is resumed" if there else ""
    if stem in {None, name}:
        return f"{name}{which}"
    return f"{name}{which or f': {stem} exists with other settings (choose a name with --study)'}"


def _images(plan: "Plan") -> str:
    """Return what a large data set is trained on, and why; empty if that is all of it for a preset's epochs."""
    from nas.workflows.amount import in_words
    from nas.workflows.presets import PRESETS

    settings = plan.file.settings
    preset = PRESETS[settings.preset]
    usual = preset.epochs if settings.inherits else preset.scratch_epochs
    return in_words(settings.subset, plan.data.train_images, settings.budget.epochs, usual)


def _batch(plan: "Plan") -> str:
    """Return the batch that was chosen, why, and the learning rate that goes with it; empty if none was chosen."""
    budget = plan.file.settings.budget
    rate = f"learning rate {budget.recipe.learning_rate:g}"
    return f"{budget.batch}: {plan.batch}; {rate}" if plan.batch else ""


def _preset(settings: "Settings", images: int) -> str:
    """Return what a preset is good for, or which of its numbers for so many images were changed; empty if all were."""
    from nas.workflows.presets import PRESETS, epochs_for

    preset, budget, base = PRESETS[settings.preset], settings.budget, settings.base
    usual_epochs = preset.epochs if settings.inherits else preset.scratch_epochs
    flag, usual_epochs = ("--base-epochs", preset.base_epochs) if settings.stock_only else ("--epochs", usual_epochs)
    numbers = {
        flag: (budget.epochs, epochs_for(usual_epochs, images)),
        "--image-size": (budget.image_size, preset.image_size),
        **({"--base-epochs": (base.epochs, epochs_for(preset.base_epochs, images))} if base is not None else {}),
    }
    changed = [f"{flag} {chosen} instead of {usual}" for flag, (chosen, usual) in numbers.items() if chosen != usual]
    if len(changed) == len(numbers):
        return ""
    return f"{settings.preset}, but {', '.join(changed)}" if changed else f"{settings.preset}: {preset.purpose}"


def _holdout(plan: "Plan") -> str:
    """Return by which images `nas confirm` judges that no search has read; empty if there are none."""
    from nas.words import with_unit

    if plan.sealed is not None:
        sealed = len(plan.sealed.images)
        share = f"{sealed} of {plan.sealed.of} images {'is' if sealed == 1 else 'are'} sealed"
        return f"{share}: no training and no search score reads them; nas confirm judges by them"
    if plan.judging:
        them = "it" if plan.judging == 1 else "them"
        return (
            f"the test split, {with_unit(plan.judging, 'image')}: no search reads {them}; nas confirm judges by {them}"
        )
    return ""


def slope_in_words(plan: "Plan", request: "Request") -> str:
    """Return what the stock model still gains, if that is measured; else when it will be said.

    It is measured in this study, in the one that it refines, or by equal trainings that are in the score cache. Empty
    where only stock models are trained.
    """
    from nas.cli.fronts import trust_of
    from nas.study.folders import STUDY, command, study_folder
    from nas.study.stored_study import StoredStudy
    from nas.workflows.cached_slope import cached_slope

    before = [] if request.refine is None else [study_folder(request.refine, request.runs_folder)]
    for folder in (plan.folder, *before):
        if not (folder / STUDY).is_file():
            continue
        study = StoredStudy.open(folder)
        trust = trust_of(study, None, study.records())  # a slope needs no verdict
        if trust is not None and trust.slope is not None:
            where = "" if folder == plan.folder else f"in {folder.name} "
            return f"{where}{trust.slope.sentence}"
    if plan.file.settings.stock_only:
        return ""
    if plan.file.settings.base is None:
        return f"not measured from scratch; after the search: {command('trust', plan.folder)} --measure"
    if plan.file.settings.members:
        return "whether the budget is long enough to rank is said at the end of the search"
    found = cached_slope(plan)
    if found is not None:
        return f"(trained before) {found.sentence}"
    return "whether the budget is long enough to rank is said when the stock model has been trained, as trial 0"


def _stock_costs(plan: "Plan") -> str:
    """Return the cost of the stock model; of several members that of each with its name, in lines."""
    size = plan.file.settings.budget.deploy_size
    costs = [f"{one.gflops:.2f} GFLOPs at {size} px, {one.params / 1e6:.3f} M parameters" for one in plan.stocks]
    names = plan.space.member_names or ("",)
    return "\n".join(f"{name} {cost}".lstrip() for name, cost in zip(names, costs, strict=True))


def _print_plan(plan: "Plan", shown: show.Format, *, slope: str = "", outlook: "Outlook | None" = None) -> None:
    """Print what a search is about to do, before it writes anything.

    Args:
        slope: of the stock model, in words; empty while it is not measured.
        outlook: time, memory and disk space of the search; None if they are not looked at.
    """
    from nas.report import rewarded
    from nas.report.few_images import few_images_in_words
    from nas.words import with_unit
    from search_spaces.operators import user_classes

    settings, run = plan.file.settings, plan.file.run
    budget = settings.budget
    limits = {name: value for name, value in settings.limits.model_dump().items() if value is not None}
    space, data = plan.space, plan.data
    slots = sum(len(member.slots) for member in space.members)
    plan_lines = {
        "study": _study_name(plan),
        "space": f"{space.at_scale}: {with_unit(slots, 'slot')}, {space.size:.3g} architectures",
        "stock": _stock_costs(plan),
        "reach": f"{plan.cheapest.gflops:.2f} to {plan.costliest.gflops:.2f} GFLOPs",
        "data": f"{data.name}: {data.summary.line(len(data.classes))}",
        "images": _images(plan),
        "holdout": _holdout(plan),
        "few": few_images_in_words(len(plan.sealed.images) if plan.sealed else plan.judging),
        "budget": f"{with_unit(run.trials, 'stock model' if settings.stock_only else 'trial')} of {budget.summary}",
        **({} if outlook is None else estimating.lines(outlook, plan.folder)),
        "batch": _batch(plan),
        "slope": slope,
        "rungs": _early_stopping(settings),
        "seeds": _seeds(settings, run),
        "weights": initial_weights.describe(settings, plan.coverages),
        "advice": initial_weights.advice(plan),
        "aim": rewarded.describe(settings) if settings.reward else ", ".join(settings.objectives),
        "sampler": "" if settings.stock_only else settings.sampler,
        "latency": _predicted(plan),
        "limits": ", ".join(f"{name} {value:g}" for name, value in limits.items()) or "none",
        "workers": f"{run.workers} on {run.device}{f': {plan.workers}' if plan.workers else ''}",
    }
    if shown == "json":
        numbers = {} if outlook is None else {"estimate": estimating.document(outlook)}
        texts = {name: text.replace("\n", _BETWEEN_MEMBERS.get(name, "\n")) for name, text in plan_lines.items()}
        document = {**texts, "data": data_sets.document(data, test=plan.judging), **numbers}
        print(json.dumps(document, indent=1))  # noqa: T201 - this is the output
        return
    if show.err.is_quiet:
        return
    lines = [(name, text) for name, text in plan_lines.items() if text]
    at = 1 + [name for name, _ in lines].index("data")
    lines[at:at] = data_sets.remarks(data)
    if budget.recipe.pgi:
        led = ", lead-guided" if budget.recipe.pgi is not True else ""
        lines.append(("pgi", f"trained with YOLOv9's auxiliary branch{led}, costed and deployed without"))
    if space.start:
        lines.append(("start", _start(space)))
    if preset := _preset(settings, data.train_images):
        lines.append(("preset", preset))
    if plan.data.note:
        lines.append(("note", plan.data.note))
    lines += [("note", line) for line in user_classes.left_out()]
    show.labelled(lines)
