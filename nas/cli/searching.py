"""`nas search` and `nas resume`."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from nas.cli import data_sets, measured, options, show
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.settings import Settings
    from nas.study.study import Study
    from nas.workflows.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(search)
    app.command()(resume)


@show.told
def search(
    space: options.Space = "v9",
    scale: options.Scale = None,
    refine: options.Refine = None,
    data: options.Data = None,
    weights: options.Weights = None,
    from_scratch: options.FromScratch = False,
    preset: options.Preset = None,
    study: options.Study = None,
    trials: options.Trials = None,
    timeout: options.Timeout = None,
    trial_timeout: options.TrialTimeout = None,
    trial_memory: options.TrialMemory = None,
    epochs: options.Epochs = None,
    base_epochs: options.BaseEpochs = None,
    image_size: options.ImageSize = None,
    deploy_size: options.DeploySize = None,
    batch: options.Batch = None,
    precision: options.Precision = None,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    device: options.Device = None,
    no_cache: options.NoCache = False,
    objectives: options.Objectives = "map50_95,gflops",
    reward: options.Reward = None,
    sampler: options.Sampler = "ours",
    eta: options.Eta = None,
    first_rung: options.FirstRung = None,
    seeds: options.Seeds = 1,
    latency: options.Latency = None,
    target_gflops: options.TargetGflops = None,
    target_latency: options.TargetLatency = None,
    max_gflops: options.MaxGflops = None,
    max_params: options.MaxParams = None,
    max_latency: options.MaxLatency = None,
    storage: options.Storage = None,
    runs: options.Runs = RUNS,
    dry_run: options.DryRun = False,
    shown: options.PlanFormat = "text",
) -> None:
    """Search a space for the Pareto front of accuracy and cost. On a study that is there, go on with it.

    The stock model is trained once; each trial is one architecture that starts from it, trained briefly and scored.

      nas search                                  a demonstration on built-in data
      nas search --data my/data.yaml --dry-run    check everything, print the plan
      nas search --data my/data.yaml              search, and show the front
      nas search --space v8 --scale s --max-gflops 20 --trials 60

    Then: nas pareto STUDY, nas confirm STUDY, nas export STUDY.
    """
    from nas.algorithms.rewards import Reward
    from nas.settings import Sampler
    from nas.workflows.plan import Plan
    from nas.workflows.request import Request

    request = Request(
        space=space,
        scale=scale,
        refine=refine,
        data=data,
        weights=weights,
        from_scratch=from_scratch,
        preset=preset,
        base_epochs=base_epochs,
        study=study,
        trials=trials,
        timeout=timeout,
        trial_timeout=trial_timeout,
        trial_memory=trial_memory,
        epochs=epochs,
        image_size=image_size,
        deploy_size=deploy_size,
        batch=batch,
        precision=precision,
        seed=seed,
        workers=workers,
        device=device,
        cache=not no_cache,
        objectives=tuple(name.strip() for name in objectives.split(",") if name.strip()),
        reward=Reward(reward) if reward else None,
        sampler=Sampler(sampler),
        eta=eta,
        first_rung=first_rung,
        seeds=seeds,
        latency=latency,
        target_gflops=target_gflops,
        target_latency=target_latency,
        max_gflops=max_gflops,
        max_params=max_params,
        max_latency=max_latency,
        storage=storage,
        runs=runs,
    )
    with show.err.status("checking space, data and costs") as status:
        plan = Plan.of(
            request, progress=lambda done, total: status.update(f"opening images: {done} of {total} are checked")
        )
    _print_plan(plan, shown)
    if not dry_run:
        _run(_begin(plan))


def _begin(plan: "Plan") -> "Study":
    """The study, after what the device's table lacks was timed under a bar."""
    if not plan.unrecorded:
        return plan.begin()
    ending = "Stopped; what was timed is kept, and the same command goes on from there."
    with show.progress(f"timing {plan.unrecorded} layers", ending) as show_progress:
        return plan.begin(show_progress)


@show.told
def resume(
    study: options.Name,
    trials: options.TrialsAgain = None,
    timeout: options.Timeout = None,
    workers: options.WorkersAgain = None,
    device: options.DeviceAgain = None,
    trial_memory: options.TrialMemoryAgain = None,
    storage: options.StorageAgain = None,
    runs: options.Runs = RUNS,
) -> None:
    """Go on with a study where it stopped; nothing that finished is trained again."""
    from nas.workflows.begin import resume as take_up

    changes = {"trials": trials, "timeout": timeout, "workers": workers, "device": device, "trial_memory": trial_memory}
    _run(take_up(study, runs=runs, storage=storage, **changes))


def _run(study: "Study") -> None:
    """Run a study under a live table, then show its front."""
    from nas.cli.fronts import print_front

    train(study)
    measured.measure_after_search(study)
    records = study.records()
    places = study.remaining_trials(records)
    if places or any(record.state == "running" for record in records):
        show.lines([_why_short(study, records), f"Go on with: {options.typed('resume', study)}"])
    print_front(study, "table")
    show.lines([f"open its page in MLflow with: {options.typed('ui', study, named=False)}"])
    if places and not study.file.run.timeout and any(record.state == "waiting" for record in records):
        raise typer.Exit(1)


def train(study: "Study") -> None:
    """Run a study under a live table; one that is stopped says how to go on."""
    from nas.cli.live import Watching
    from nas.workflows.running import supervise
    from search_spaces.errors import EnvironmentProblem

    again = options.typed("resume", study)
    show.lines(
        [
            *([f"note      {study.remark}"] if study.remark else []),
            f"study     {study.folder}",
            f"resume    {again}",
            f"MLflow    {options.typed('ui', study, named=False)}",
            "",
        ]
    )
    try:
        with Watching() as watching:
            supervise(study, show=watching.update)
    except KeyboardInterrupt:
        show.lines(
            [
                "",
                "Stopped; finished trials are kept, running ones go back into the queue.",
                f"Go on with: {again}",
            ]
        )
        raise typer.Exit(show.STOPPED) from None
    except EnvironmentProblem:
        show.lines(["", f"Stopped; finished trials are kept. When the following is mended, go on with: {again}"])
        raise


def _judged(settings: "Settings") -> str:
    """When trainings are judged before their end; empty if they are not."""
    if settings.stopping is None:
        return ""
    rungs = ", ".join(map(str, settings.budget.rungs))
    return f"after epoch {rungs} about one of {settings.stopping.eta} goes on" if rungs else "none: too few epochs"


def _begun(settings: "Settings") -> str:
    """What every candidate's weights start from."""
    from nas.report.verdicts import with_unit

    if settings.base is not None:
        first = f", itself from {settings.base.weights}" if settings.base.weights else ""
        return (
            f"of the stock model, which is trained first, once, for {with_unit(settings.base.epochs, 'epoch')}{first}"
        )
    start = settings.budget.weights
    return f"of {start}, where layers and shapes agree" if start else "random: every candidate from scratch"


def _why_short(study: "Study", records: "Sequence[Record]") -> str:
    """Why a search has ended before its number of trials."""
    from nas.study.study import COUNTED

    of, done = study.file.run.trials, sum(record.ending in COUNTED for record in records)
    states = Counter(record.state for record in records)
    words = {"waiting": "in the queue", "running": "running, in processes that this search did not start"}
    left = ", ".join(f"{states[state]} {where}" for state, where in words.items() if states[state])
    if study.file.run.timeout:
        return f"The time is over after {done} of {of} trials{f', with {left}' if left else ''}."
    if left:
        return f"The search has ended after {done} of {of} trials, with {left}."
    return f"Every architecture within limits has been seen after {done} of {of} trials."


def _predicted(plan: "Plan") -> str:
    """For which device latency is predicted, and what is timed before that; empty if none was named."""
    device = plan.file.settings.latency
    if not device:
        return ""
    first = f"; {plan.unrecorded} entries that its table lacks are timed first" if plan.unrecorded else ""
    return f"predicted for {device}{first}"


def _placed(plan: "Plan") -> str:
    """The study's name, and why it is not the usual one."""
    name, stem = plan.folder.name, plan.stem
    there = (plan.folder / "study.json").is_file()
    which = ", which is there with these settings and goes on" if there else ""
    if stem in {None, name}:
        return f"{name}{which}"
    return f"{name}{which or f': {stem} is there with other settings (--study gives it a name of your own)'}"


def _preset(settings: "Settings") -> str:
    """Say what a preset is good for, or what was given instead of its numbers; empty if none of them is left."""
    from nas.workflows.presets import PRESETS

    preset, budget, base = PRESETS[settings.preset], settings.budget, settings.base
    numbers = {
        "--epochs": (budget.epochs, preset.epochs if settings.inherits else preset.scratch_epochs),
        "--image-size": (budget.image_size, preset.image_size),
        **({"--base-epochs": (base.epochs, preset.base_epochs)} if base is not None else {}),
    }
    changed = [f"{flag} {own} instead of {usual}" for flag, (own, usual) in numbers.items() if own != usual]
    if len(changed) == len(numbers):
        return ""
    return f"{settings.preset}, but {', '.join(changed)}" if changed else f"{settings.preset}: {preset.purpose}"


def _print_plan(plan: "Plan", shown: str) -> None:
    from nas.report.verdicts import with_unit

    settings, run = plan.file.settings, plan.file.run
    budget = settings.budget
    limits = {name: value for name, value in settings.limits.model_dump().items() if value is not None}
    space, data, stock = plan.space, plan.data, plan.stock
    told = {
        "study": _placed(plan),
        "space": f"{space.at_scale}: {with_unit(len(space.slots), 'slot')}, {space.size:.3g} architectures",
        "stock": f"{stock.gflops:.2f} GFLOPs at {budget.deploy_size} px, {stock.params / 1e6:.3f} M parameters",
        "reach": f"{plan.cheapest.gflops:.2f} to {plan.costliest.gflops:.2f} GFLOPs",
        "data": f"{data.name}: {data.summary.line(len(data.classes))}",
        "budget": f"{with_unit(run.trials, 'trial')} of {budget.said}",
        "rungs": _judged(settings),
        "seeds": f"{settings.seeds} for the stock model and the front" if settings.seeds > 1 else "",
        "weights": _begun(settings),
        "aim": f"reward {settings.reward}, {settings.targets}" if settings.reward else ", ".join(settings.objectives),
        "sampler": settings.sampler,
        "latency": _predicted(plan),
        "limits": ", ".join(f"{name} {value:g}" for name, value in limits.items()) or "none",
        "workers": f"{run.workers} on {run.device}",
    }
    if shown == "json":
        print(json.dumps({**told, "data": data_sets.document(data)}, indent=1))  # noqa: T201 - this is the output
        return
    lines = [(name, text) for name, text in told.items() if text]
    at = 1 + [name for name, _ in lines].index("data")
    lines[at:at] = data_sets.remarks(data)
    show.lines(f"{name:<9} {text}" for name, text in lines)
    if budget.recipe.pgi:
        led = ", lead-guided" if budget.recipe.pgi is not True else ""
        show.lines([f"{'pgi':<9} trained with YOLOv9's auxiliary branch{led}, costed and deployed without"])
    if space.start:
        first = " | ".join(architecture.summary() for architecture in space.start)
        show.lines([f"{'start':<9} after the stock model: {first}"])
    show.lines(f"{'preset':<9} {text}" for text in [_preset(settings)] if text)
    if plan.data.note:
        show.lines([f"{'note':<9} {plan.data.note}"])
