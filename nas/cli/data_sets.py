"""`nas data`: what a data set holds, what is left out of training, and what looks wrong."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nas.cli import show

if TYPE_CHECKING:
    from trials.data.datasets import DataSet

Name = Annotated[str, typer.Argument(metavar="DATA", help="A data.yaml, digits, or a name that Ultralytics knows.")]
Format = Annotated[Literal["text", "json"], typer.Option("--format", help="How it is shown.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("data")(data)


@show.told
def data(data: Name = "digits", shown: Format = "text") -> None:
    """Count a data set as a search does, and say what is left out and what looks wrong; nothing is written to it."""
    from trials.data import datasets

    with show.err.status("reading labels and opening images") as status:
        loaded = datasets.load(
            data, progress=lambda done, total: status.update(f"opening images: {done} of {total} are checked")
        )
    if shown == "json":
        print(json.dumps(document(loaded), indent=1))  # noqa: T201 - this is the output
        return
    lines = [("data", f"{loaded.name}: {loaded.summary.line(len(loaded.classes))}"), *remarks(loaded)]
    if loaded.note:
        lines.append(("note", loaded.note))
    for name, text in lines:
        print(f"{name:<9} {text}")  # noqa: T201 - this is the output


def remarks(data: "DataSet") -> Iterator[tuple[str, str]]:
    """Yield the lines below the data set's own in a plan: name of the line and text."""
    yield from (("left out", line) for line in data.summary.left_out())
    yield from (("warning", line) for line in data.summary.warnings())


def document(data: "DataSet") -> dict[str, Any]:
    """A data set's summary for JSON."""
    return {
        "name": data.name,
        "path": str(data.path),
        "classes": list(data.classes),
        **data.summary.as_dict(),
        "note": data.note,
    }
