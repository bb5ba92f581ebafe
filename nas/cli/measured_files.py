"""Files of models in several precisions, as one table: what `nas export --precision` and `nas confirm` show."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import show

if TYPE_CHECKING:
    from nas.deployment.artefacts import Artefact
    from nas.study.export import Exported
    from nas.study.study import Study
    from nas.workflows.artefacts import Wanted

CalibrationImages = Annotated[
    int,
    typer.Option(
        "--calibration-images",
        min=1,
        metavar="N",
        help="Number of training images from which the ranges of an int8 model are taken.",
    ),
]
CalibrationSeed = Annotated[
    int, typer.Option("--calibration-seed", min=0, metavar="N", help="Seed by which these images are chosen.")
]
Threads = Annotated[int, typer.Option(min=1, metavar="N", help="Of these files: threads of the runtimes on a CPU.")]
COLUMNS = {
    "format": "format",
    "precision": "precision",
    "accuracy": "mAP50-95",
    "difference": "less torch",
    "predicted": "predicted ms",
    "measured": "measured ms",
    "size": "MB",
}


def wanted(
    formats: str, precision: str, arguments: Mapping[str, Any], *, check: bool, threads: int, images: int, seed: int
) -> "Wanted":
    """Return the wanted files.

    Raises:
        SpecError: lists every wrong format, precision and argument.
    """
    from nas.workflows.artefacts import Wanted
    from search_spaces.errors import SpecError
    from trials.latency.precision import Calibration

    others = [name for name in arguments if name not in {"imgsz", "device"}]
    if others:
        raise SpecError([f"{name}: not with --precision (only imgsz and device)" for name in others])
    return Wanted.of(
        formats,
        precision,
        check=check,
        size=arguments.get("imgsz"),
        device=str(arguments.get("device", "cpu")),
        threads=threads,
        calibration=Calibration(images=images, seed=seed),
    )


def measure(study: "Study", exported: "Exported", files: "Wanted") -> "list[Artefact]":
    """Write and measure the files of an exported model, showing what is done."""
    from nas.workflows import artefacts

    with show.err.status("preparing the model") as status:
        return list(artefacts.measure(study, exported, replace(files, on_step=status.update)))


def of_confirmation(study: "Study", files: "Wanted") -> None:
    """Measure the files of a confirmation's models, the stock model's first, and print a table for each."""
    from nas.workflows import artefacts

    records = sorted(study.records(), key=lambda one: one.role != "stock")
    fingerprints = dict.fromkeys(one.fingerprint for one in records)
    for fingerprint in fingerprints:
        record = artefacts.best_trained(study, fingerprint)
        if record is None:
            show.lines([f"{fingerprint}: no file, the weights of its trainings were not saved"])
            continue
        exported = study.export(trial=record.trial)
        show_table(measure(study, exported, files), title=f"\ntrial {record.trial}: {record.summary}")


def document(files: "Sequence[Artefact]") -> dict[str, Any]:
    """Return the files for JSON; nothing where none were wanted."""
    return {"files": [one.as_row() for one in files]} if files else {}


def show_table(files: "Sequence[Artefact]", *, title: str = "") -> None:
    """Print the table, on stderr beside a result on stdout, and the notes below it."""
    if not files:
        return
    rows = [_cells(one.as_row()) for one in files]
    show.lines([title] if title else [])
    show.lines(show.table_lines(rows, COLUMNS, (), width=160))
    notes = dict.fromkeys(f"{one.format} {one.precision}: {one.note}" for one in files if one.note)
    show.lines([*notes, *_unsteady(files)])


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    forms = {
        "accuracy": ("map50_95", "{:.4f}"),
        "difference": ("difference", "{:+.4f}"),
        "predicted": ("predicted_ms", "{:.2f}"),
        "measured": ("measured_ms", "{:.2f}"),
        "size": ("megabytes", "{:.1f}"),
    }
    numbers = {key: "-" if row[name] is None else form.format(row[name]) for key, (name, form) in forms.items()}
    return {"format": str(row["format"]), "precision": str(row["precision"]), **numbers}


def _unsteady(files: "Sequence[Artefact]") -> list[str]:
    names = [f"{one.format} {one.precision}" for one in files if one.steady is False]
    return [f"the device was not steady during {', '.join(names)} (was something else running?)"] if names else []
