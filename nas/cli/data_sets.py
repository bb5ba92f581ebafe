"""`nas data`: count a data set, and report what is left out of training and what looks wrong."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import show
from nas.cli.options import TextFormat, help_of

if TYPE_CHECKING:
    from trials.data.datasets import DataSet

Name = Annotated[str, typer.Argument(metavar="DATA", help=help_of("data"))]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("data")(data)


@show.reports_errors
def data(data: Name = "digits", shown: TextFormat = "text") -> None:
    """Count a data set as a search does, and report what is left out and what looks wrong. The data is not changed.

    nas data my/data.yaml
    """
    with show.err.status("reading labels and opening images") as status:
        from nas.report.few_images import few_images_in_words
        from trials.data import datasets
        from trials.data.unseen_images import images_of_test

        loaded = datasets.load(
            data, progress=lambda done, total: status.update(f"opening images: {done} of {total} are checked")
        )
        judging = len(images_of_test(data))
    if shown == "json":
        print(json.dumps(document(loaded, test=judging), indent=1))  # noqa: T201 - this is the output
        return
    lines = [
        ("data", f"{loaded.name}: {loaded.summary.line(len(loaded.classes))}"),
        *remarks(loaded),
        ("test", _test(judging)),
        *(("few", text) for text in [few_images_in_words(judging)] if text),
    ]
    if loaded.note:
        lines.append(("note", loaded.note))
    for name, text in lines:
        show.text(f"{name:<9} {text}")


def _test(images: int) -> str:
    """Return whether there are images that a search never reads."""
    from nas.words import with_unit

    if images:
        them = "it" if images == 1 else "them"
        return f"{with_unit(images, 'image')} that no search reads: nas confirm judges by {them}"
    return "no labelled images beside train and val; nas search --holdout 15% seals some of those, to judge by"


def remarks(data: "DataSet") -> Iterator[tuple[str, str]]:
    """Yield remarks for a plan: what is left out and what looks wrong, as label and text."""
    yield from (("left out", line) for line in data.summary.left_out())
    yield from (("warning", line) for line in data.summary.warnings())


def document(data: "DataSet", *, test: int) -> dict[str, Any]:
    """Return the counts of a data set, for JSON.

    Args:
        test: number of labelled images that no search reads.
    """
    return {
        "name": data.name,
        "path": str(data.path),
        "classes": list(data.classes),
        **data.summary.as_dict(),
        "test": {"images": test},
        "note": data.note,
    }
