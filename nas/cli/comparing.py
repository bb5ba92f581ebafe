"""`nas compare`: two studies beside each other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import show
from nas.cli.options import Runs, Shown
from nas.paths import RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.report.comparison import SettingDifference

_COLUMNS = {
    "study": "study",
    "trial": "trial",
    "map50_95": "mAP50-95",
    "cost": "cost",
    "other": "best at this cost or less",
    "difference_gain": "points",
    "summary": "architecture",
}
_SETTINGS_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


@show.reports_errors
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a study.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of another study.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write the comparison also as one HTML page that needs no network."),
    ] = None,
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """Compare two studies: what differs, and which members of their fronts score higher at equal cost.

    Accuracies are compared only where both were trained for as long, in the
    same way, on the same images; otherwise it says what keeps them apart.
    "the other" is the most accurate model of the other study that costs no more.

      nas compare v9t-digits v9t-digits-2
      nas compare A B --out compared.html
      nas compare A B --format json
    """
    from nas.report.comparing import compare as compared
    from nas.study.fetching import fetched
    from nas.study.folders import existing
    from nas.study.stored_study import StoredStudy
    from search_spaces.errors import SpecError
    from search_spaces.files import require_place, write_atomically

    if out is not None:
        require_place(out, "out")
    if first == second:
        raise SpecError(f"nas compare: {first} twice; name two studies")
    with show.err.status(f"comparing {first} and {second}"):
        studies = [fetched(StoredStudy.open(existing(name, runs))) for name in (first, second)]
        comparison = compared(*studies)
    if out is not None:
        from nas.report.page.page import render_comparison

        write_atomically(out, render_comparison(comparison))
    if shown == "json":
        print(json.dumps(comparison.as_document(), indent=1))  # noqa: T201 - this is the output
        return
    columns = dict(_COLUMNS) if comparison.is_accuracy_comparable else _without_difference()
    keys = ("study", "trial", "map50_95", "cost", "other", "difference_gain", "summary")
    rows = [dict(zip(keys, cells, strict=True)) for cells in comparison.cells()[1]]
    show.rows(rows, shown, title=f"{first} and {second}", columns=columns, narrow=("other",))
    if shown == "table":
        show.lines([*comparison.lines(), *_what_differs(comparison.differences)])
        show.lines([str(out.absolute())] if out is not None else [])


def _without_difference() -> dict[str, str]:
    return {key: heading for key, heading in _COLUMNS.items() if key not in {"other", "difference_gain"}}


def _what_differs(differences: "Sequence[SettingDifference]") -> list[str]:
    """Return the settings that differ, one a line; where there are many, the first ones."""
    if not differences:
        return ["settings, space and data are equal"]
    shown = [f"{one.setting}: {one.values[0]} | {one.values[1]}" for one in differences[:_SETTINGS_SHOWN]]
    more = len(differences) - len(shown)
    return [
        "what differs:",
        *(f"  {line}" for line in shown),
        *([f"  and {more} more (--format json)"] if more else []),
    ]
