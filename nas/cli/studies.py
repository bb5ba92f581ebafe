"""`nas status`, `nas pareto`, `nas trials`, `nas base`, `nas export`, `nas clean`: studies that are there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli import fronts, show
from nas.cli.options import Name, Runs, Shown
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study.study import Study


_STATUS_COLUMNS = {
    "study": "study",
    "running": "running",
    "done": "trials",
    "map50_95": "mAP50-95",
    "stock_map50_95": "stock",
    "front": "front",
    "waiting": "waiting",
    "space": "space",
    "data": "data",
}

_STATUS = (
    "study",
    "running",
    "trials",
    "of",
    "front",
    "map50_95",
    "stock_map50_95",
    "waiting",
    "space",
    "data",
    "folder",
    "problem",
)
"""Keys of a row of `nas status`; for a study that cannot be opened all but name, folder and problem are empty."""

_BASE_COLUMNS = {
    "ending": "ending",
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "gflops": "GFLOPs",
    "params": "params",
    "epochs": "epochs",
    "seconds": "s",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, pareto, trials, base, export, clean):
        app.command()(command)


@show.told
def status(
    study: Annotated[str | None, typer.Argument(help="The study's name; all of them if left out.")] = None,
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """How far studies are."""
    from nas.study.folders import studies

    names = [study] if study else studies(runs)
    if not names:
        show.lines([f"no studies in {runs} yet; begin one with: nas search"])
    found = [_status(_open(study, runs))] if study else [_status_or_problem(name, runs) for name in names]
    rows = [row for row, _ in found]
    problems = {row["study"]: row["problem"] for row in rows if row["problem"]}
    if shown == "table":
        rows = [row | {"done": None if row["problem"] else f"{row['trials']}/{row['of']}"} for row in rows]
    if names or shown != "table":
        show.rows(rows, shown, title="Studies", columns=_STATUS_COLUMNS, narrow=("space", "waiting", "front"))
    show.lines(f"{name} cannot be opened: {problem}" for name, problem in problems.items())
    show.lines(f"{row['study']}: {line}" for row, warning in found for line in warning[:1])


@show.told
def pareto(
    study: Name,
    expected: Annotated[
        bool,
        typer.Option(
            "--expected",
            help="By what models are expected to score another time, given all trials: scores that noise has raised "
            "come down.",
        ),
    ] = False,
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """The front: the finished trials that no other beats in every objective."""
    from nas.study.expected_front import expected_front

    opened = _open(study, runs)
    if not expected:
        fronts.print_front(opened, shown)
        return
    title = f"Front of {study} by expected mAP50-95: {', '.join(opened.settings.objectives)}"
    records = opened.records()
    fronts.print_trials(opened, expected_front(opened, records), shown, title=title, among=records)
    show.lines(fronts.nothing_learned(opened, records))


@show.told
def trials(study: Name, runs: Runs = RUNS, shown: Shown = "table") -> None:
    """Every trial of a study."""
    opened = _open(study, runs)
    records = opened.records()
    fronts.print_trials(opened, records, shown, title=f"Trials of {study}", among=records)
    show.lines(fronts.nothing_learned(opened, records))


@show.told
def base(study: Name, runs: Runs = RUNS, shown: Shown = "table") -> None:
    """The stock model that every trial starts from; trained now, if it is not yet."""
    from nas.workflows.running import train_stock_model

    opened = _open(study, runs)
    with show.err.status("training the stock model") as status:

        def tell(epoch: int) -> None:
            status.update(f"training the stock model: epoch {epoch} is done")

        training = train_stock_model(opened, tell)
    outcome = training.outcome() or {}
    row = {"study": study, **{name: outcome[name] for name in _BASE_COLUMNS if name in outcome}}
    row["weights"] = str(training.weights)
    columns = {"study": "study", **_BASE_COLUMNS}
    show.rows([row], shown, title=f"The stock model of {study}", columns=columns, narrow=("seconds", "map50", "params"))
    show.lines([f"its weights: {training.weights}"])
    show.lines(fronts.nothing_learned(opened))


@show.told
def export(
    study: Name,
    trial: Annotated[int | None, typer.Option(help="This trial, instead of the best.")] = None,
    best: Annotated[
        Literal["map", "knee", "cheapest"],
        typer.Option(help="Of the front: most accurate, best bargain, cheapest."),
    ] = "map",
    out: Annotated[Path | None, typer.Option(help="The folder. \\[default: inside the study's]")] = None,
    runs: Runs = RUNS,
) -> None:
    """Write a trial's model: model.yaml, weights.pt, data.yaml and summary.json."""
    opened = _open(study, runs)
    exported = opened.export(trial=trial, best=best, folder=out)
    record = exported.record
    print(exported.folder)  # noqa: T201 - the result, for a pipe
    accuracy, gflops = show.figure("map50_95", record.map50_95), show.figure("gflops", record.gflops)
    told = [
        f"trial {record.trial}: mAP50-95 {accuracy}, {gflops} GFLOPs: {record.summary}",
        f"train it in full:   {exported.train}",
    ]
    if exported.weights is None:
        told += ["its weights were not kept (the front's, the stock model's and the last few trials' are)"]
        told += [f"train it as the trial did:   {exported.retrain}"]
    show.lines([*told, *fronts.nothing_learned(opened)])


@show.told
def clean(
    study: Name,
    everything: Annotated[bool, typer.Option("--all", help="Delete the whole study.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and delete nothing.")
    ] = False,
    runs: Runs = RUNS,
) -> None:
    """Delete scratch files, checkpoints of trials that have ended, and weights that `nas export` does not need."""
    from nas.study.cleaning import delete, lies_within, removable, size
    from search_spaces.errors import StudyError

    opened = _open(study, runs)
    supervision = opened.supervision_lock
    if not supervision.take(wait=False):
        raise StudyError(f"{study} is running; stop it first")
    try:
        linked = opened.folder.is_symlink()
        objectives = opened.settings.objectives
        found = [opened.folder] if everything else list(removable(opened.folder, opened.records(), objectives))
        inside = [path for path in found if everything or lies_within(path, opened.folder)]
        freed, target = sum(map(size, inside)), opened.folder.resolve()
        for path in inside:
            print(path)  # noqa: T201 - the result, for a pipe
            if not dry_run:
                delete(path)
        verb = "would go" if dry_run else "gone"
        show.lines([f"{len(inside)} files and folders, {freed / 1e6:.1f} MB, {verb}"])
        show.lines(f"{path} is left: a link leads out of the study's folder" for path in found if path not in inside)
        if everything and linked:
            show.lines([f"{opened.folder} is a link: what it leads to, {target}, is left"])
    finally:
        supervision.release()


def _status(study: "Study") -> "tuple[dict[str, str | int | float | None], list[str]]":
    """Return a study's row, and the warning if its stock model has learned nothing."""
    from nas.locks import is_held
    from nas.records.record import stock_of

    records = study.records()
    front = study.front(records)
    stock = stock_of(records)
    row = {
        "study": study.name,
        "running": "yes" if is_held(study.folder / "supervisor.lock") else "no",
        "trials": sum(record.ending is not None for record in records),
        "of": study.file.run.trials,
        "front": len(front),
        "map50_95": max((record.map50_95 or 0.0 for record in front), default=None),
        "stock_map50_95": stock.map50_95 if stock else None,
        "waiting": sum(record.state == "waiting" for record in records),
        "space": f"{study.settings.space} {study.settings.scale}",
        "data": study.settings.data,
        "folder": str(study.folder),
        "problem": None,
    }
    return row, fronts.nothing_learned(study, records)


def _status_or_problem(name: str, runs: Path) -> "tuple[dict[str, str | int | float | None], list[str]]":
    """A study's row among others: one that cannot be opened says why, and hides nobody."""
    from search_spaces.errors import NasError

    try:
        return _status(_open(name, runs))
    except NasError as error:
        rest = dict.fromkeys(_STATUS)
        problem = " ".join(str(error).split())
        return {**rest, "study": name, "folder": str(runs.absolute() / name), "problem": problem}, []


def _open(name: str, runs: Path) -> "Study":
    from nas.study.folders import existing
    from nas.study.study import Study

    return Study.open(existing(name, runs))
