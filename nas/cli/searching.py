"""`nas search` and `nas resume`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli import measured, show

if TYPE_CHECKING:
    from nas.config import Settings
    from nas.plan import Plan
    from nas.study import Study

_WHAT, _HOW, _WORTH, _LIMITS, _WHERE = "What", "How long and with what", "What counts", "Limits", "Where"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(search)
    app.command()(resume)


def number(text: str) -> int:
    """`2.5M`, `800k` or `2500000`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    if not match:
        raise typer.BadParameter(f"a number such as 2.5M or 2500000 is expected, got {text!r}")
    return round(float(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()])


def _seconds(text: str) -> float:
    """`90`, `90s`, `30m` or `8h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise typer.BadParameter(f"a time such as 90s, 30m or 8h is expected, got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def size(text: str) -> int:
    """`8G`, `800M` or a number of bytes; binary units."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)(?:i?[bB])?", text.strip())
    if not match:
        raise typer.BadParameter(f"an amount such as 8G or 800M is expected, got {text!r}")
    return round(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


Trials = Annotated[
    int | None,
    typer.Option(min=1, help="In all, earlier ones counted. \\[default: 10 for digits, else 30]", rich_help_panel=_HOW),
]
Timeout = Annotated[
    float | None,
    typer.Option(parser=_seconds, metavar="TIME", help="Begin no trial after 90s, 30m, 8h.", rich_help_panel=_HOW),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes. \\[default: one per core or GPU]", rich_help_panel=_HOW)
]
Device = Annotated[
    str | None, typer.Option(help="cpu, 0, or 0,1. \\[default: a GPU if there is one]", rich_help_panel=_HOW)
]
TrialMemory = Annotated[
    int | None,
    typer.Option(
        parser=size,
        metavar="SIZE",
        help="Of the host's, for a worker's trials: 8G, 800M. \\[default: its share of what is free]",
        rich_help_panel=_HOW,
    ),
]
Runs = Annotated[Path, typer.Option(help="The folder of all studies.", rich_help_panel=_WHERE)]


@show.told
def search(
    space: Annotated[
        str, typer.Option(help="v5, v8, v9 (see [b]nas spaces[/b]), or a space file.", rich_help_panel=_WHAT)
    ] = "v9",
    scale: Annotated[
        str | None,
        typer.Option(help="t, s, m, c, e or n, s, m, l, x. \\[default: the space's]", rich_help_panel=_WHAT),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Instead of a space: around what this study's front carries, every layer by itself, with all "
            "worthwhile parameters. Its front is tried first.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits (built in), or an Ultralytics data.yaml. \\[default: digits, or the refined study's]",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint that the stock model's training starts from, such as yolov9t.pt.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="Start every candidate from random weights, not from the trained stock model.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    preset: Annotated[
        Literal["quick", "standard", "thorough"] | None,
        typer.Option(help="How much is trained. \\[default: quick for digits, else standard]", rich_help_panel=_HOW),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="The study's name. \\[default: space and data]", rich_help_panel=_WHERE)
    ] = None,
    trials: Trials = None,
    timeout: Timeout = None,
    trial_timeout: Annotated[
        float | None,
        typer.Option(parser=_seconds, metavar="TIME", help="End a trial's training after this.", rich_help_panel=_HOW),
    ] = None,
    trial_memory: TrialMemory = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of each trial. \\[default: the preset's: 3, 8 or 20]", rich_help_panel=_HOW),
    ] = None,
    base_epochs: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of the stock model, once, before every trial starts from it; 0 for none. "
            "\\[default: the preset's: 6, 24 or 60]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Of training, pixels. \\[default: the preset's: 128, 320 or 640]", rich_help_panel=_HOW),
    ] = None,
    deploy_size: Annotated[
        int | None, typer.Option(help="Of cost and latency, pixels.  [default: 640]", rich_help_panel=_WORTH)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step. \\[default: 8]", rich_help_panel=_HOW)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and proposals.", rich_help_panel=_HOW)] = 0,
    workers: Workers = None,
    device: Device = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="Train again what other studies have trained in the very same way, instead of taking its score.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    objectives: Annotated[
        str,
        typer.Option(
            help="Of map50_95, map50, gflops, params, latency_ms: what spans the front.",
            rich_help_panel=_WORTH,
        ),
    ] = "map50_95,gflops",
    reward: Annotated[
        Literal["tunas", "mnasnet", "mnasnet-hard", "linear"] | None,
        typer.Option(
            help="One number instead: accuracy with penalties for missing the targets.",
            rich_help_panel=_WORTH,
        ),
    ] = None,
    sampler: Annotated[
        Literal["ours", "tpe", "nsga2", "gp", "random"],
        typer.Option(
            help="Who proposes: ours, which learns accuracy alone since costs are known before; Optuna's multivariate "
            "TPE, NSGA-II or GP (seconds a proposal); or nobody, for comparison.",
            rich_help_panel=_WORTH,
        ),
    ] = "ours",
    eta: Annotated[
        int | None,
        typer.Option(
            help="Stop trainings early: at each rung the best of so many go on, compared with what costs no more. Such "
            "as 3. \\[default: none is stopped]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    first_rung: Annotated[
        int | None,
        typer.Option(help="The epoch after which they are first judged. \\[default: 1]", rich_help_panel=_HOW),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Train whoever stands on the front, and the stock model, with so many seeds, out of the same number "
            "of trials; the front then goes by the means.",
            rich_help_panel=_HOW,
        ),
    ] = 1,
    latency: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="Predict latencies from this device's table, which [b]nas latency record[/b] makes; the front is "
            "measured afterwards. \\[default: measured in each trial, where they count]",
            rich_help_panel=_WORTH,
        ),
    ] = None,
    target_gflops: Annotated[float | None, typer.Option(help="For the reward.", rich_help_panel=_WORTH)] = None,
    target_latency: Annotated[
        float | None, typer.Option(help="For the reward, milliseconds.", rich_help_panel=_WORTH)
    ] = None,
    max_gflops: Annotated[float | None, typer.Option(help="Train nothing above.", rich_help_panel=_LIMITS)] = None,
    max_params: Annotated[
        int | None, typer.Option(parser=number, metavar="N", help="Such as 2.5M.", rich_help_panel=_LIMITS)
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option(help="Milliseconds, on this device.", rich_help_panel=_LIMITS)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna's, such as postgresql://... \\[default: a file]", rich_help_panel=_WHERE),
    ] = None,
    runs: Runs = Path("runs/nas"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
) -> None:
    """Search a space for the Pareto front of accuracy and cost. On a study that is there, go on with it."""
    from nas.config import Sampler
    from nas.plan import Plan
    from nas.request import Request
    from nas.rewards import Reward

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
    with show.err.status("checking space, data and costs"):
        plan = Plan.of(request)
    _print_plan(plan)
    if not dry_run:
        _run(plan.begin())


@show.told
def resume(
    study: Annotated[str, typer.Argument(help="The study's name.")],
    trials: Trials = None,
    timeout: Timeout = None,
    workers: Workers = None,
    device: Device = None,
    trial_memory: TrialMemory = None,
    runs: Runs = Path("runs/nas"),
) -> None:
    """Go on with a study where it stopped; nothing that finished is trained again."""
    from nas.plan import resume as take_up

    changes = {"trials": trials, "timeout": timeout, "workers": workers, "device": device, "trial_memory": trial_memory}
    _run(take_up(study, runs=runs, **changes))


def _run(study: "Study") -> None:
    """Run a study under a live table, then show its front."""
    from nas.cli.studies import print_front

    train(study)
    measured.measure_after_search(study)
    if study.places():
        show.lines([_why_short(study), f"Go on with: {command('resume', study)}"])
    print_front(study, "table")
    show.lines([f"open its page in MLflow with: {command('ui', study, named=False)}"])


def train(study: "Study") -> None:
    """Run a study under a live table; one that is stopped says how to go on."""
    from nas.cli.live import Watching
    from nas.plan import supervise

    again = command("resume", study)
    show.lines(
        [
            f"study     {study.folder}",
            f"resume    {again}",
            f"MLflow    {command('ui', study, named=False)}",
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
        raise typer.Exit(130) from None


def _judged(settings: "Settings") -> str:
    """When trainings are judged before their end; empty if they are not."""
    if settings.stopping is None:
        return ""
    rungs = ", ".join(map(str, settings.budget.rungs))
    return f"after epoch {rungs} about one of {settings.stopping.eta} goes on" if rungs else "none: too few epochs"


def _begun(settings: "Settings") -> str:
    """What every candidate's weights start from."""
    if settings.base is not None:
        first = f", itself from {settings.base.weights}" if settings.base.weights else ""
        return f"of the stock model, which is trained first, once, for {settings.base.epochs} epochs{first}"
    start = settings.budget.weights
    return f"of {start}, where layers and shapes agree" if start else "random: every candidate from scratch"


def _why_short(study: "Study") -> str:
    done = study.file.run.trials - study.places()
    if study.file.run.timeout:
        return f"The time is over after {done} of {study.file.run.trials} trials."
    return f"Every architecture within limits has been seen after {done} of {study.file.run.trials} trials."


def command(name: str, study: "Study", *, named: bool = True) -> str:
    """What to type for a study."""
    runs = study.folder.parent
    where = "" if runs == Path("runs/nas").absolute() else f" --runs {runs}"
    return f"nas {name}{f' {study.name}' if named else ''}{where}"


def _print_plan(plan: "Plan") -> None:
    from trials.presets import PRESETS

    settings, run = plan.file.settings, plan.file.run
    budget = settings.budget
    limits = {name: value for name, value in settings.limits.model_dump().items() if value is not None}
    space, data, stock = plan.space, plan.data, plan.stock
    told = {
        "space": f"{space.at_scale}: {len(space.slots)} slots, {space.size:.3g} architectures",
        "stock": f"{stock.gflops:.2f} GFLOPs at {budget.deploy_size} px, {stock.params / 1e6:.3f} M parameters",
        "reach": f"{plan.cheapest.gflops:.2f} to {plan.costliest.gflops:.2f} GFLOPs",
        "data": f"{data.name}: {data.train_images} + {data.val_images} images, {len(data.classes)} classes",
        "budget": f"{run.trials} trials of {budget.epochs} epochs at {budget.image_size} px, batch {budget.batch}",
        "rungs": _judged(settings),
        "seeds": f"{settings.seeds} for the stock model and the front" if settings.seeds > 1 else "",
        "weights": _begun(settings),
        "aim": f"reward {settings.reward}, {settings.targets}" if settings.reward else ", ".join(settings.objectives),
        "sampler": settings.sampler,
        "latency": f"predicted for {settings.latency}" if settings.latency else "",
        "limits": ", ".join(f"{name} {value:g}" for name, value in limits.items()) or "none",
        "workers": f"{run.workers} on {run.device}",
    }
    show.lines(f"{name:<9} {text}" for name, text in told.items() if text)
    if budget.recipe.pgi:
        led = ", lead-guided" if budget.recipe.pgi is not True else ""
        show.lines([f"{'pgi':<9} trained with YOLOv9's auxiliary branch{led}, costed and deployed without"])
    if space.start:
        first = " | ".join(architecture.summary() for architecture in space.start)
        show.lines([f"{'start':<9} after the stock model: {first}"])
    show.lines([f"{'preset':<9} {settings.preset}: {PRESETS[settings.preset].says}"])
    if plan.data.note:
        show.lines([f"{'note':<9} {plan.data.note}"])
