"""`nas confirm`: judge the finalists of a study by fresh seeds, or train its front longer."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options, show
from nas.cli.fronts import nothing_learned
from nas.cli.longer import ETA, ROUNDS, train_longer
from nas.cli.searching import train
from nas.defaults import MARGIN, MOST_FINALISTS, SEEDS
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.report.verdict import Verdict
    from nas.study.study import Study

_LONGER = "Longer trainings instead (--longer)"
Seeds = Annotated[
    int | None,
    typer.Option(
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


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(confirm)


@show.reports_errors
@options.takes(
    *("epochs", "from_scratch", "workers", "device", "timeout", "trial_memory"),
    panels={"from_scratch": "Training"},
    unset=dict.fromkeys(("epochs", "workers", "device", "trial_memory"), "as the search"),
    meaning={
        "epochs": "Epochs of each training.",
        "from_scratch": "Train every model from random weights, instead of from the weights that the search used.",
    },
)
def confirm(
    study: options.Name,
    typed: options.Typed,
    seeds: Seeds = None,
    top: Top = None,
    margin: options.Margin = MARGIN,
    longer: Longer = False,
    eta: Eta = None,
    rounds: Rounds = None,
    runs: options.Runs = RUNS,
    shown: options.Shown = "table",
) -> None:
    """Judge the finalists of a search by fresh seeds: which are better than the stock model?

    The best of many scores is in part luck. This command trains the Pareto
    front (by expected scores) and the stock model with seeds that the search
    has not used, in a new study (STUDY-confirm), and says of each finalist
    whether it is better, worse, as accurate, or not told apart. It judges by
    the test split of the data.yaml or by sealed images (nas search --holdout),
    where there are some. The same command goes on with what was stopped.

      nas confirm STUDY                 five seeds
      nas confirm STUDY --seeds 10      five more
      nas confirm STUDY --longer        three times longer trainings instead
    """
    from nas.study.fetching import fetched
    from nas.study.folders import existing
    from nas.study.study import Study

    _require_together(longer=longer, eta=eta, rounds=rounds, seeds=seeds, top=top, typed=typed)
    before = fetched(Study.open(existing(study, runs)))
    if longer:
        of_run = {name: value for name, value in typed.items() if name not in {"epochs", "from_scratch"}}
        train_longer(before, of_run, eta=eta or ETA, rounds=rounds or ROUNDS, shown=shown)
        return
    after, is_warned = _trained(before, {**typed, "seeds": seeds, "top": top})
    verdict = before.verdict(margin=margin)
    if verdict is not None:
        _print(verdict, shown)
        show.lines([] if is_warned else nothing_learned(after))
        show.lines(_next_steps(before, after, verdict))


def _require_together(*, longer: bool, typed: options.Typed, **numbers: int | None) -> None:
    """Refuse options that the other kind of confirmation has.

    Raises:
        SpecError: with every such option.
    """
    from search_spaces.errors import SpecError

    if longer:
        wrong = {**numbers, "epochs": typed["epochs"], "from-scratch": typed["from_scratch"] or None}
        mistakes = [f"{name}: not with --longer" for name in ("seeds", "top", "epochs", "from-scratch") if wrong[name]]
    else:
        mistakes = [f"{name}: only with --longer" for name in ("eta", "rounds") if numbers[name]]
    if mistakes:
        raise SpecError(mistakes)


def _trained(before: "Study", typed: options.Typed) -> "tuple[Study, bool]":
    """Create or resume the confirmation, and run the trainings that are not finished yet.

    Returns:
        The confirmation, and whether it was printed that the stock model has learned nothing.
    """
    from nas.records.paired import planned_seeds
    from nas.report.few_images import few_images_in_words
    from nas.report.judging import images_in_words
    from nas.words import with_unit
    from nas.workflows.confirm import confirm as begin

    after = begin(before, **typed)
    records = after.records()
    models = len({record.fingerprint for record in records})
    seeds = planned_seeds(records)
    first, judging = after.settings.budget.seed, after.settings.judging
    which = f"{seeds} fresh seeds ({first} to {first + seeds - 1})"
    trained = f"{which}, {with_unit(after.settings.budget.epochs, 'epoch')}"
    show.lines(
        [
            f"confirm   {with_unit(models - 1, 'finalist')} of {before.name} and the stock model: {trained}",
            f"judging   {images_in_words(after.settings.judging)}",
            *(f"few       {text}" for text in [few_images_in_words(judging.images if judging else 0)] if text),
        ]
    )
    return after, train(after) if after.remaining_trials(records) else False


def _print(verdict: "Verdict", shown: str) -> None:
    """Print the verdict on stdout: its words, or values for programs."""
    if shown == "json":
        print(json.dumps(verdict.as_document(), indent=1))  # noqa: T201 - this is the output
    elif shown == "csv":
        rows: list[dict[str, Any]] = verdict.as_document()["finalists"]
        show.rows(rows, "csv", title="", columns={})
    else:
        for line in verdict.lines():
            show.text(line)


def _next_steps(before: "Study", after: "Study", verdict: "Verdict") -> list[str]:
    again = options.command_for("confirm", before)
    left = after.remaining_trials(after.records())
    steps = [f"{left} trainings are left; continue with: {again}"] if left else []
    if verdict.best_trial is not None and not left:
        export = f"{options.command_for('export', before)} --trial {verdict.best_trial}"
        steps.append(f"export the most accurate with: {export}")
    return steps
