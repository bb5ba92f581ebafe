"""`nas status`, `nas pareto`, `nas trials`, `nas base` and `nas clean`: look at studies and use them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import fronts, opening, show
from nas.cli.options import Name, Runs, Shown, TextFormat
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study.stock_training import StockTraining
    from nas.study.stored_study import StoredStudy


_STATUS_COLUMNS = {
    "study": "study",
    "running": "running",
    "done": "trials",
    "map50_95": "mAP50-95",
    "stock_map50_95": "stock",
    "front": "front",
    "left": "left",
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
    "per_hour",
    "seconds_left",
    "stock_trainings",
    "at_work",
    "problem",
)
"""Keys of a row of `nas status`; of a study that cannot be opened only name, folder and problem are filled."""

_BASE_COLUMNS = {
    "study": "study",
    "member": "member",
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
    for command in (status, pareto, trials, base, clean):
        app.command()(command)


@show.reports_errors
def status(
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="Name of a study. Without it, all studies are listed.")
    ] = None,
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """Show how many trials of a study are done, its best scores, its pace, and what runs where.

    left: time until all trials are done, by the mean duration of those that
    have ended. waiting: architectures in the queue. nas resume STUDY trains
    them where nothing runs; nas watch STUDY follows a search that runs.

      nas status               all studies
      nas status v9t-digits    one, with what runs where
    """
    from nas.study.folders import studies
    from nas.study.full_trainings import full_trainings
    from nas.words import duration

    names = [study] if study else studies(runs)
    if not names:
        show.lines([f"no studies in {runs} yet; start one with: nas search"])
    found = [_status(_stored(study, runs))] if study else [_status_or_problem(name, runs) for name in names]
    rows: list[dict[str, Any]] = [dict(row) for row, _ in found]
    problems = {row["study"]: row["problem"] for row in rows if row["problem"]}
    if shown == "json":
        for row in rows:
            row["full_trainings"] = [one.as_document() for one in full_trainings(Path(row["folder"]))]
    if shown == "table":
        rows = [
            row
            | {
                "done": None if row["problem"] else f"{row['trials']}/{row['of']}",
                "left": duration(row["seconds_left"]) if row["seconds_left"] and row["running"] else None,
            }
            for row in rows
        ]
    if names or shown != "table":
        show.rows(rows, shown, title="Studies", columns=_STATUS_COLUMNS, narrow=("space", "waiting", "front", "left"))
    if shown == "table" and study:
        show.lines(_at_work(rows[0]))
    if shown == "table" and any(row["waiting"] and not row["running"] for row in rows):
        show.details(["waiting: architectures in the queue of a study that does not run; nas resume STUDY trains them"])
    show.lines(f"{name} cannot be opened: {problem}" for name, problem in problems.items())
    show.lines(f"{row['study']}: {line}" for row, warning in found for line in warning[:1])
    if study and shown == "table":
        show.lines(one.sentence for one in full_trainings(Path(rows[0]["folder"])))


@show.reports_errors
def pareto(
    study: Name,
    expected: Annotated[
        bool,
        typer.Option(
            "--expected",
            help="Rank models by the score that they are expected to get if they are trained again, estimated from all "
            "trials. It corrects scores that were high by chance.",
        ),
    ] = False,
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """Show the Pareto front: the finished trials that no other trial beats in all objectives.

    nas pareto v9t-digits
    nas pareto v9t-digits --expected    by what another training would score
    """
    if not expected:
        fronts.print_front(_stored(study, runs, fetches=True), shown)
        return
    opened = opening.opened(study, runs)
    from nas.algorithms.proposer import STARTUP_TRIALS
    from nas.study.expected_front import expected_front

    title = f"Front of {study} by expected mAP50-95: {', '.join(opened.settings.objectives)}"
    records = opened.records()
    front = expected_front(opened, records)
    fronts.print_trials(opened, front, shown, title=title, among=records)
    if not front:
        scored = sum(record.finished for record in records)
        show.lines(
            [f"expected scores are estimated from at least {STARTUP_TRIALS} finished trials; {study} has {scored}"]
        )
    show.lines(fronts.nothing_learned(opened, records))


@show.reports_errors
def trials(study: Name, runs: Runs = RUNS, shown: Shown = "table") -> None:
    """Show every trial of a study.

    nas trials v9t-digits
    nas trials v9t-digits --format csv > trials.csv
    """
    opened = _stored(study, runs, fetches=True)
    records = opened.records()
    fronts.print_trials(opened, records, shown, title=f"Trials of {study}", among=records)
    show.lines(fronts.nothing_learned(opened, records))


@show.reports_errors
def base(study: Name, runs: Runs = RUNS, shown: Shown = "table") -> None:
    """Show the stock model, from whose weights every trial starts; train it first if that is not done.

    Of several members each has one.

      nas base v9t-digits
    """
    opened = opening.opened(study, runs)
    with show.err.status("training the stock model") as status:
        from nas.workflows.running import train_stock_models

        trainings = train_stock_models(
            opened, lambda training, epoch: status.update(f"training {training.title}: epoch {epoch} is done")
        )
    rows = [_base_row(study, training) for training in trainings]
    columns = {name: heading for name, heading in _BASE_COLUMNS.items() if name != "member" or len(trainings) > 1}
    title = f"The stock model of {study}" if len(trainings) == 1 else f"The stock models of {study}"
    show.rows(rows, shown, title=title, columns=columns, narrow=("seconds", "map50", "params"))
    show.lines(f"its weights: {training.weights}" for training in trainings)
    show.lines(fronts.nothing_learned(opened))


def _base_row(study: str, training: "StockTraining") -> dict[str, Any]:
    """Return the row of a stock model's training: its outcome, and where its weights are."""
    outcome = training.outcome() or {}
    member = {"member": training.member} if training.member else {}
    shown = {name: outcome[name] for name in _BASE_COLUMNS if name in outcome}
    return {"study": study, **member, **shown, "weights": str(training.weights)}


@show.reports_errors
def clean(
    study: Name,
    everything: Annotated[bool, typer.Option("--all", help="Delete the whole study.")] = False,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere", help="With --all: delete its trials in the database, too, if other machines share them."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted, and delete nothing.")] = False,
    runs: Runs = RUNS,
    shown: TextFormat = "text",
) -> None:
    """Delete scratch files, checkpoints of trials that have ended, and weights that nas export does not need.

    nas clean v9t-digits
    nas clean v9t-digits --dry-run    how much that would free
    """
    from nas.study.cleaning import delete, lies_within, removable, size
    from nas.study.database_rows import rows_of
    from search_spaces.errors import StudyError

    opened = _opened(study, runs) if everything else _stored(study, runs)  # what is deleted whole may be damaged
    rows = rows_of(opened, everywhere=everywhere) if everything else None
    supervision = opened.supervision_lock
    if not supervision.take(wait=False):
        raise StudyError(f"{study} is running; stop it first")
    try:
        linked = opened.folder.is_symlink()
        objectives = opened.settings.objectives
        found = [opened.folder] if everything else list(removable(opened.folder, opened.records(), objectives))
        inside = [path for path in found if everything or lies_within(path, opened.folder)]
        freed, target = sum(map(size, inside)), opened.folder.resolve()
        if everything:
            trials = f"all {len(list((opened.folder / 'trials').glob('*')))} trials, weights, and Optuna's database"
            show.lines([f"{'would delete' if dry_run else 'deleting'} the whole study: {trials}, {freed / 1e6:.1f} MB"])
        if rows is not None:
            show.lines([rows.sentence(dry_run=dry_run)])
            if not dry_run:
                rows.delete()
        for path in inside:
            if shown == "text":
                print(path)  # noqa: T201 - the result, for a pipe
            if not dry_run:
                delete(path)
        if shown == "json":
            deleted = {"paths": [str(path) for path in inside], "bytes": freed, "deleted": not dry_run}
            print(json.dumps(deleted, indent=1))  # noqa: T201 - this is the output
        verb = "would be deleted" if dry_run else "deleted"
        show.lines([f"{len(inside)} files and folders, {freed / 1e6:.1f} MB, {verb}"])
        show.lines(
            f"{path} is not deleted: it leads through a link out of the study's folder"
            for path in found
            if path not in inside
        )
        if everything and linked:
            show.lines([f"{opened.folder} is a link: what it leads to, {target}, is not deleted"])
    finally:
        supervision.release()


def _status(study: "StoredStudy") -> "tuple[dict[str, Any], list[str]]":
    """Return the row of a study, and a warning if its stock model has learned nothing."""
    from nas.locks import is_held
    from nas.records.record import stock_of
    from nas.study.running_trials import running_trials, stock_trainings

    records = study.records()
    front = study.front(records)
    stock = stock_of(records)
    pace, is_running = study.pace(records), is_held(study.supervision_lock.path)
    row: dict[str, Any] = {
        "study": study.name,
        "running": is_running,
        "trials": sum(record.ending is not None for record in records),
        "of": study.file.run.trials,
        "front": len(front),
        "map50_95": max((record.map50_95 or 0.0 for record in front), default=None),
        "stock_map50_95": stock.map50_95 if stock else None,
        "waiting": sum(record.state == "waiting" for record in records),
        "space": f"{study.settings.space} {study.settings.scale}".rstrip(),
        "data": study.settings.data,
        "folder": str(study.folder),
        "per_hour": None if pace is None else round(pace.trials_per_hour, 1),
        "seconds_left": None if pace is None else round(pace.seconds_left),
        "stock_trainings": [asdict(one) | {"sentence": one.sentence} for one in stock_trainings(study)]
        if is_running
        else [],
        "at_work": [asdict(one) | {"sentence": one.sentence} for one in running_trials(study, records)],
        "problem": None,
    }
    return row, fronts.nothing_learned(study, records)


def _at_work(row: "dict[str, Any]") -> list[str]:
    """Return the pace of a study, and the trainings that run, in words."""
    pace = f"{row['per_hour']:g} trials an hour with all workers" if row["per_hour"] else ""
    return [
        *filter(None, [pace]),
        *(str(one["sentence"]) for key in ("stock_trainings", "at_work") for one in row[key] or ()),
    ]


def _status_or_problem(name: str, runs: Path) -> "tuple[dict[str, Any], list[str]]":
    """Return the row of a study; if it cannot be opened, the row holds the reason."""
    from search_spaces.errors import NasError, unwrapped

    try:
        return _status(_stored(name, runs))
    except NasError as error:
        rest = dict.fromkeys(_STATUS)
        problem = unwrapped(error)
        return {**rest, "study": name, "folder": str(runs.absolute() / name), "problem": problem}, []


def _opened(name: str, runs: Path) -> "StoredStudy":
    """Open a study to look at it, without PyTorch."""
    from nas.study.folders import existing
    from nas.study.stored_study import StoredStudy

    return StoredStudy.open(existing(name, runs))


def _stored(name: str, runs: Path, *, fetches: bool = False) -> "StoredStudy":
    """Open a study, and read its trials, which may take seconds.

    Args:
        fetches: whether other machines' files are fetched, if there are any.
    """
    from nas.study.fetching import fetched

    opened = fetched(_opened(name, runs)) if fetches else _opened(name, runs)
    with show.err.status(f"reading the trials of {name}"):
        opened.records()  # what follows reads those alone that have changed since
    return opened
