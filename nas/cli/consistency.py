"""`nas fsck`: check that a study's storage, files and runs in MLflow agree, and repair what can be repaired."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options, show
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.workflows.fsck import StudyCheck

_PROBLEMS = 1
"""Exit status if something is wrong, as `nas check` has it."""

Repair = Annotated[
    bool, typer.Option("--repair", help="Repair what can be repaired without loss. Refused while the study runs.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fsck)


@show.reports_errors
def fsck(
    study: options.Name,
    repair: Repair = False,
    runs: options.Runs = RUNS,
    shown: options.TextFormat = "text",
) -> None:
    """Check that Optuna's trials, the files and MLflow's runs of a study agree; with --repair, make them agree.

    Studies beside it that train its models again (nas confirm, nas ablate,
    nas trust --measure) are checked, too; of a study on several machines, also
    the files in their database. Each line says where something is
    wrong, what it is, and what --repair does about it. --repair deletes no
    result: it ends trials and runs on which no process works, takes over
    outcomes that the storage lacks, writes files anew from the storage, sends
    to MLflow what is missing there, and deletes leftover temporary files.

      nas fsck v9t-digits             only reads; also while the study runs
      nas fsck v9t-digits --repair

    Exit status: 0 nothing is wrong (any more), 1 something is, 2 refused.
    """
    from nas.study.folders import STUDY, studies, study_folder
    from nas.workflows.fsck import check
    from search_spaces.errors import SpecError, nearest

    folder = study_folder(study, runs)
    if not folder.is_dir():
        names = studies(runs)
        hint = nearest(study, names) if names else "there are none yet; nas search makes one"
        raise SpecError(f"study: no study {study!r} in {runs} ({hint})")
    if not (folder / STUDY).is_file() and not (folder / "study.db").is_file() and not (folder / "trials").is_dir():
        raise SpecError(f"study: {folder} is no study")
    with show.err.status(f"checking {study}") as status:
        before = after = check(folder, status.update)
        if repair and any(finding.repair for each in before for finding in each.findings):
            from nas.workflows.fsck_repair import repair as repaired

            after = repaired(folder, before, status.update)
    rows = list(_rows(before, after))
    if shown == "json":
        notes = [note for each in after for note in each.notes]
        print(json.dumps({"study": study, "clean": _is_clean(after), "findings": rows, "notes": notes}, indent=1))  # noqa: T201 - this is the output
    else:
        _print(rows, after, command=f"{options.typed_command()} --repair")
    raise typer.Exit(0 if _is_clean(after) else _PROBLEMS)


def _is_clean(checks: Sequence["StudyCheck"]) -> bool:
    return not any(each.findings for each in checks)


def _rows(before: Sequence["StudyCheck"], after: Sequence["StudyCheck"]) -> Iterator[dict[str, object]]:
    """Yield the findings of both checks, with whether each was repaired."""
    left = {(finding.address, finding.problem): finding for each in after for finding in each.findings}
    first = {(finding.address, finding.problem): finding for each in before for finding in each.findings}
    for key, finding in {**first, **left}.items():
        yield {
            "address": finding.address,
            "problem": finding.problem,
            "repair": str(finding.repair) or None,
            "advice": finding.advice or None,
            "repaired": key not in left,
            "line": finding.describe(),
        }


def _print(rows: Sequence[dict[str, object]], checks: Sequence["StudyCheck"], *, command: str) -> None:
    """Print a line for each finding on stdout, then what follows from them on stderr."""
    for row in rows:
        print(f"repaired: {row['address']}: {row['problem']}" if row["repaired"] else row["line"])  # noqa: T201 - this is the output
    show.lines(note for each in checks for note in each.notes)
    left = [row for row in rows if not row["repaired"]]
    if not left:
        show.lines(f"{each.summary}: they and the files agree" for each in checks)
    elif repairable := sum(row["repair"] is not None for row in left):
        show.lines([f"{len(left)} found; {repairable} of them are repaired by: {command}"])
