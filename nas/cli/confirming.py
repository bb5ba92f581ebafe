"""`nas confirm`: judge the finalists of a study by fresh seeds, or train its front longer."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import estimating, measured_files, opening, options, show
from nas.cli.estimating import Yes
from nas.cli.fronts import exporting, nothing_learned
from nas.cli.images_of_plan import images_of, lines_on_images, opening_images
from nas.cli.longer import ETA, ROUNDS, train_longer
from nas.cli.measured_files import CalibrationImages, CalibrationSeed, Threads
from nas.cli.searching import train
from nas.defaults import MOST_FINALISTS, SEEDS
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.report.verdict import Verdict
    from nas.study.study import Study
    from nas.workflows.confirm import ConfirmationPlan
    from nas.workflows.trainings_plan import TrainingsPlan

_LONGER = "Longer trainings instead (--longer)"
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        help=f"Train every model with N fresh seeds, at least 2. More than before adds seeds. "
        f"\\[default: {SEEDS}, or as before]",
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help=f"Train only the K most accurate of the front. \\[default: all, at most {MOST_FINALISTS}, or as before]",
    ),
]
Longer = Annotated[
    bool,
    typer.Option(
        "--longer",
        rich_help_panel=_LONGER,
        help="Train the front and the stock model longer, with one other seed, and once more while that changes their "
        "order. Without a verdict.",
    ),
]
Eta = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_LONGER,
        help=f"Train the front for N times as many epochs as the search did. \\[default: {ETA}]",
    ),
]
Rounds = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_LONGER,
        help=f"Number of rounds at most; each trains --eta times as many epochs as the one before. "
        f"\\[default: {ROUNDS}]",
    ),
]


_OF_TRAININGS = ("epochs", "fraction", "from_scratch")
"""Options that set how the models are trained; other ones than before begin another confirmation."""
_FILES = "Files of the models (--formats)"
Formats = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        rich_help_panel=_FILES,
        help="After the verdict, write the finalists and the stock model as files of these formats (onnx, openvino, "
        "engine), and measure mAP50-95, latency and size of each beside PyTorch's.",
    ),
]
Precisions = Annotated[
    str, typer.Option(metavar="NAME,...", rich_help_panel=_FILES, help="Precisions of these files: fp32, fp16, int8.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(confirm)


@show.reports_errors
@options.takes(
    *("epochs", "fraction", "from_scratch", "workers", "device", "timeout", "trial_memory"),
    panels={"from_scratch": "Training"},
    unset=dict.fromkeys(("epochs", "fraction", "workers", "device", "trial_memory"), "as the search"),
    meaning={
        "epochs": "Epochs of each training.",
        "fraction": "Train on this share of the training images, 1 for all: where the search has read a part of them. "
        "The stock model, whose weights all start from, is trained on the same images first.",
        "from_scratch": "Train every model from random weights, instead of from the weights that the search used.",
    },
)
def confirm(
    study: options.Name,
    typed: options.Typed,
    fresh_seeds: Seeds = None,
    top: Top = None,
    margin: options.Margin = None,
    formats: Formats = "",
    precision: Precisions = "fp32",
    calibration: CalibrationImages = 64,
    calibration_seed: CalibrationSeed = 0,
    threads: Threads = 1,
    longer: Longer = False,
    eta: Eta = None,
    rounds: Rounds = None,
    dry_run: options.DryRun = False,
    yes: Yes = False,
    trust: options.Trust = False,
    runs: options.Runs = RUNS,
    shown: options.Shown = "table",
) -> None:
    """Judge the finalists of a search by fresh seeds: which are better than the stock model?

    The best of many scores is in part luck. This command trains the Pareto
    front (by expected scores) and the stock model with seeds that the search
    has not used, in a new study (STUDY-confirm), and says of each finalist
    whether it is better, worse, as accurate, or not told apart. It judges by
    the test split of the data.yaml or by sealed images (nas search --holdout),
    where there are some. Stock models alone (nas search --stock-only) are
    judged beside the cheaper ones. The same command goes on with what was
    stopped. Other --epochs, --fraction or --from-scratch begin another
    confirmation beside the first one.

      nas confirm STUDY                 five seeds
      nas confirm STUDY --seeds 10      five more
      nas confirm STUDY --dry-run       how many trainings, how long
      nas confirm STUDY --epochs 60     another confirmation, of longer trainings
      nas confirm STUDY --fraction 1    another one, on all training images
      nas confirm STUDY --longer        three times longer trainings instead
      nas confirm STUDY --formats onnx --precision fp32,int8
                                        with mAP and latency of the models' files

    Exit status: 0 with a verdict, 1 without one (trainings are left, or no
    finalist can be compared), 2 refused.
    """
    from search_spaces.errors import StudyError

    asked = {"eta": eta, "rounds": rounds, "seeds": fresh_seeds, "top": top}
    _require_together(**asked, longer=longer, formats=formats, typed=typed, dry_run=dry_run)
    files = None
    if formats:
        settings = {"threads": threads, "images": calibration, "seed": calibration_seed}
        files = measured_files.wanted(formats, precision, {}, check=True, **settings)
    before = opening.opened(study, runs, trust=trust)
    if longer:
        of_run = {name: value for name, value in typed.items() if name not in _OF_TRAININGS}
        train_longer(before, of_run, eta=eta or ETA, rounds=rounds or ROUNDS, shown=shown)
        return
    given = {**typed, "seeds": fresh_seeds, "top": top, "margin": margin}
    plan, trainings = _plan(before, given)
    if dry_run:
        if shown == "json":
            print(json.dumps(_plan_document(plan, trainings), indent=1))  # noqa: T201 - this is the output
        return
    estimating.require_yes_to_trainings(trainings.seconds, yes=yes)
    after, is_warned = _trained(plan, given)
    verdict = after.verdict()
    if verdict is None:
        raise StudyError(f"{after.name}: no verdict: its search {before.name} is not beside it any more")
    _print(verdict, shown)
    if files is not None and verdict.is_final:
        measured_files.of_confirmation(after, files)
    show.lines([] if is_warned else nothing_learned(after))
    show.lines(_next_steps(before, after, verdict))
    if not verdict.is_final:
        raise typer.Exit(show.NEGATIVE)


def _require_together(
    *, longer: bool, dry_run: bool, formats: str, typed: options.Typed, **numbers: int | None
) -> None:
    """Refuse options that the other kind of confirmation has.

    Raises:
        SpecError: with every such option.
    """
    from search_spaces.errors import SpecError

    if longer:
        wrong = {
            **numbers,
            "epochs": typed["epochs"],
            "fraction": typed["fraction"],
            "from-scratch": typed["from_scratch"] or None,
            "dry-run": dry_run,
            "formats": formats,
        }
        never = ("seeds", "top", "epochs", "fraction", "from-scratch", "dry-run", "formats")
        mistakes = [f"{name}: not with --longer" for name in never if wrong[name]]
    else:
        mistakes = [f"{name}: only with --longer" for name in ("eta", "rounds") if numbers[name]]
    if mistakes:
        raise SpecError(mistakes)


def _plan(before: "Study", typed: options.Typed) -> "tuple[ConfirmationPlan, TrainingsPlan]":
    """Plan the confirmation, and print what is trained, on which images it is judged, and about how long it takes."""
    from nas.report.few_images import few_images_in_words
    from nas.report.judging import images_in_words
    from nas.words import more_seeds_than_asked, with_unit
    from nas.workflows.confirm import ConfirmationPlan

    of_plan = {name: typed[name] for name in ("seeds", "top", *_OF_TRAININGS)}
    with opening_images() as progress:
        plan = ConfirmationPlan.of(before, **of_plan, progress=progress)
    trainings, judging = plan.of_trainings(typed["workers"]), plan.settings.judging
    which = f"{plan.seeds} fresh seeds ({trainings.seeds[0]} to {trainings.seeds[-1]})"
    trained = f"{which}, {with_unit(trainings.epochs, 'epoch')}: {trainings.left}"
    show.lines(
        [
            f"confirm   {_models_in_words(plan)}: {trained}",
            *([f"study     {plan.study}, beside {plan.others}"] if plan.beside else []),
            *lines_on_images(plan),
            *more_seeds_than_asked(typed["seeds"], plan.seeds),
            f"judging   {images_in_words(judging)}",
            *(f"few       {text}" for text in [few_images_in_words(judging.images if judging else 0)] if text),
        ]
    )
    return plan, trainings


def _models_in_words(plan: "ConfirmationPlan") -> str:
    """Return how many models are trained, and of which kind."""
    from nas.words import with_unit

    if not plan.stocks:
        return f"{len(plan.models)} stock models of {plan.search.name}"
    beside = f"{plan.stocks} stock models" if plan.stocks > 1 else "the stock model"
    return f"{with_unit(len(plan.finalists), 'finalist')} of {plan.search.name} and {beside}"


def _plan_document(plan: "ConfirmationPlan", trainings: "TrainingsPlan") -> dict[str, Any]:
    """Return what is trained, as values for JSON."""
    from nas.records.record import MEMBER
    from nas.report.judging import images_in_words

    def of_member(name: str) -> dict[str, str]:
        return {MEMBER: name} if name else {}

    space = plan.search.space
    finalists = [
        {"fingerprint": one.fingerprint, "summary": one.summary(), **of_member(space.member_name(one))}
        for one in plan.finalists
    ]
    judging = {"judging": images_in_words(plan.settings.judging), "images": images_of(plan)}
    return {"confirms": plan.search.name, "finalists": finalists, **judging, **trainings.as_document()}


def _trained(plan: "ConfirmationPlan", typed: options.Typed) -> "tuple[Study, bool]":
    """Create or resume the confirmation, and run the trainings that are not finished yet.

    Returns:
        The confirmation, and whether it was printed that the stock model has learned nothing.
    """
    of_run = {name: value for name, value in typed.items() if name not in {"seeds", "top", *_OF_TRAININGS}}
    after = plan.begin(**of_run)
    return after, train(after) if after.unfinished_trials(after.records()) else False


def _print(verdict: "Verdict", shown: str) -> None:
    """Print the verdict on stdout: its words, or values for programs."""
    if shown == "json":
        print(json.dumps(verdict.as_document(), indent=1))  # noqa: T201 - this is the output
    elif shown == "csv":
        rows: list[dict[str, Any]] = verdict.as_document()["finalists"]
        show.rows(rows, "csv", title="", columns={})
    else:
        show.prose(verdict.lines())


def _next_steps(before: "Study", after: "Study", verdict: "Verdict") -> list[str]:
    from nas.study.confirmation import options_of
    from nas.words import with_unit

    which = options_of(after.settings, before.settings) if verdict.others else ""
    again, left = f"{options.command_for('confirm', before)}{which}", after.unfinished_trials(after.records())
    steps = [f"No verdict yet: {with_unit(left, 'training')} left; continue with: {again}"] if left else []
    if verdict.reason and not left:
        steps.append(f"No verdict: {verdict.reason}")
    if verdict.best_trial is not None and not left:
        steps.append(exporting(verdict, before, verdict.best_trial))
    return steps
