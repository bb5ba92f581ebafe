"""`nas status`, `nas pareto`, `nas trials`, `nas base`, `nas export`, `nas clean`: studies that are there."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas import RUNS
from nas.cli import show
from nas.cli.options import Name, Runs, Shown, typed
from nas.cli.show import Format

if TYPE_CHECKING:
    from nas.records import Record
    from nas.study import Study


_TRIAL_COLUMNS = {
    "trial": "trial",
    "state": "state",
    "ending": "ending",
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "expected": "expected",
    "gflops": "GFLOPs",
    "params": "params",
    "latency_ms": "ms",
    "measured_ms": "measured",
    "epochs": "epochs",
    "seconds": "s",
    "repeat": "repeat",
    "seeds": "seeds",
    "summary": "architecture",
}

_SELDOM = {"expected": None, "latency_ms": None, "measured_ms": None, "repeat": 0, "seeds": 1}
"""Columns of a table that are there if any trial has something else in them."""

_SEEDS_THAT_TELL = 3
"""Two that agree are as likely as not, where nothing is gained."""

_BASE_COLUMNS = {
    "ending": "ending",
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "gflops": "GFLOPs",
    "params": "params",
    "epochs": "epochs",
    "seconds": "s",
    "weights": "weights",
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
    from nas.config import studies

    names = [study] if study else studies(runs)
    if not names:
        show.lines([f"no studies in {runs} yet; begin one with: nas search"])
    columns = {
        "study": "study",
        "running": "running",
        "trials": "trials",
        "of": "of",
        "front": "front",
        "map50_95": "best mAP50-95",
        "stock_map50_95": "stock mAP50-95",
        "data": "data",
        "waiting": "waiting",
    }
    if names or shown != "table":
        show.rows([_status(_open(name, runs)) for name in names], shown, title="Studies", columns=columns)


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
    opened = _open(study, runs)
    if not expected:
        print_front(opened, shown)
        return
    title = f"Front of {study} by expected mAP50-95: {', '.join(opened.settings.objectives)}"
    _print_records(opened.expected_front(opened.records()), shown, title=title)


@show.told
def trials(study: Name, runs: Runs = RUNS, shown: Shown = "table") -> None:
    """Every trial of a study."""
    _print_records(_open(study, runs).records(), shown, title=f"Trials of {study}")


@show.told
def base(study: Name, runs: Runs = RUNS, shown: Shown = "table") -> None:
    """The stock model that every trial starts from; trained now, if it is not yet."""
    from nas.plan import lay_base

    opened = _open(study, runs)
    with show.err.status("training the stock model") as status:

        def tell(epoch: int) -> None:
            status.update(f"training the stock model: epoch {epoch} is done")

        training = lay_base(opened, tell)
    outcome = training.outcome() or {}
    row = {"study": study, **{name: outcome[name] for name in _BASE_COLUMNS if name in outcome}}
    row["weights"] = str(training.weights)
    show.rows([row], shown, title=f"The stock model of {study}", columns={"study": "study", **_BASE_COLUMNS})


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
    exported = _open(study, runs).export(trial=trial, best=best, folder=out)
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
    show.lines(told)


@show.told
def clean(
    study: Name,
    everything: Annotated[bool, typer.Option("--all", help="Delete the whole study.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    runs: Runs = RUNS,
) -> None:
    """Delete what can be made again: scratch files, and weights that `nas export` does not need; or all of it."""
    from search_spaces.errors import StudyError

    opened = _open(study, runs)
    supervision = opened.supervision
    if not supervision.take(wait=False):
        raise StudyError(f"{study} is running; stop it first")
    try:
        doomed = [opened.folder] if everything else list(_scratch(opened))
        size = sum(file.stat().st_size for path in doomed for file in _files(path))
        for path in doomed:
            print(path)  # noqa: T201 - the result, for a pipe
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        verb = "would go" if dry_run else "gone"
        show.lines([f"{len(doomed)} files and folders, {size / 1e6:.1f} MB, {verb}"])
    finally:
        supervision.release()


def print_front(study: "Study", shown: Format) -> None:
    """The front as a table, with the stock model beside it and what the difference is worth."""
    from nas.racing import gains
    from nas.records import as_accurate, stock_of

    records = study.records()
    front = study.front(records)
    _print_records(front, shown, title=f"Pareto front of {study.name}: {', '.join(study.settings.objectives)}")
    stock = stock_of(records)
    if shown != "table" or stock is None or stock.map50_95 is None or not front:
        return
    best = max(front, key=lambda record: record.map50_95 or 0.0)
    remarks = [f"stock: mAP50-95 {stock.map50_95:.3f} at {stock.gflops:.2f} GFLOPs"]
    if best.trial == stock.trial:
        remarks.append("No evidence of gain: nothing that was tried is more accurate than the stock model.")
    else:
        remarks.append(_gain(study, gains(records, best, stock)))
    bargain = as_accurate(front, stock)
    if bargain is not None:
        lost = max(0.0, stock.map50_95 - (bargain.map50_95 or 0.0))
        saved = 1 - (bargain.gflops or 0.0) / (stock.gflops or 1.0)
        remarks.append(
            f"trial {bargain.trial}: as accurate as stock within {100 * lost:.1f} points, with {saved:.1%} fewer GFLOPs"
        )
    new = [str(record.trial) for record in front if record.is_mostly_new]
    if new:
        remarks.append(
            f"trial {', '.join(new)}: less than half of the weights could be taken over; such a score is in part one "
            "from scratch, and too low beside the others."
        )
    if not study.settings.confirms and any(record.trial != stock.trial for record in front):
        remarks.append(f"train the front longer, to see whether its order stays: {typed('confirm', study)}")
    remarks.append(f"export the most accurate with: {typed('export', study)} --best map")
    show.lines(remarks)


def _gain(study: "Study", by_seed: "list[float]") -> str:
    """What the most accurate of the front has over the stock model, and what that is worth."""
    over = f"{fmean(by_seed):+.3f} over stock"
    if len(by_seed) == 1:
        moved = "0.005" if study.base is not None else "0.02"
        return (
            f"No evidence of gain yet: {over} is one short training each with one seed; "
            f"the seed alone moves such a score by {moved} and more."
        )
    each = ", ".join(f"{gain:+.3f}" for gain in by_seed)
    verdict = "Some evidence" if len(by_seed) >= _SEEDS_THAT_TELL and min(by_seed) > 0 else "No evidence"
    return f"{verdict} of gain: {over}, the mean of {len(by_seed)} seeds ({each})."


def _print_records(records: "list[Record]", shown: Format, *, title: str) -> None:
    rows = [record.as_row() for record in records]
    if shown == "table":
        for row, record in zip(rows, records, strict=True):
            row["summary"] = record.summary
    if not rows and shown == "table":
        show.lines([f"{title}: nothing yet"])
        return
    silent = {name for name, usual in _SELDOM.items() if all(row[name] == usual for row in rows)}
    columns = {name: heading for name, heading in _TRIAL_COLUMNS.items() if name not in silent}
    show.rows(rows, shown, title=title, columns=columns)


def _status(study: "Study") -> dict[str, str | int | float | None]:
    from nas.locks import is_held
    from nas.records import stock_of

    records = study.records()
    front = study.front(records)
    stock = stock_of(records)
    return {
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
    }


def _open(name: str, runs: Path) -> "Study":
    from nas.config import existing
    from nas.study import Study

    return Study.open(existing(name, runs))


def _scratch(study: "Study") -> Iterator[Path]:
    """Ultralytics' scratch folders, workers' logs, and weights beside those of the front and the stock model."""
    records = study.records()
    kept = {record.trial for record in study.front(records)} | {r.trial for r in records if r.role == "stock"}
    for record in records:
        files = study.files(record.trial)
        if (files.folder / "ultralytics").is_dir():
            yield files.folder / "ultralytics"
        if record.trial not in kept and files.weights.is_file():
            yield files.weights
    yield from sorted((study.folder / "workers").glob("*.log"))


def _files(path: Path) -> Iterator[Path]:
    return (file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
