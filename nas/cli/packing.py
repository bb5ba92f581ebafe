"""`nas pack` and `nas unpack`: a study as one file, to be copied to another machine or put away."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options, show
from nas.paths import RUNS

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Archive to write. \\[default: STUDY.tar.gz in this folder]"),
]
Archive = Annotated[Path, typer.Argument(metavar="FILE", help="Archive that [b]nas pack[/b] has written.")]
NewName = Annotated[
    str | None, typer.Option("--study", metavar="NAME", help="Name of the study here. \\[default: as it was packed]")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pack)
    app.command()(unpack)


@show.reports_errors
def pack(study: options.Name, out: Out = None, runs: options.Runs = RUNS, shown: options.TextFormat = "text") -> None:
    """Write a study into one archive, without caches, which nas unpack opens on another machine.

    The studies beside it (nas confirm, nas ablate, nas trust --measure) come
    along; trials on a PostgreSQL server are copied into the archive. Left out
    are images, exports, logs of MLflow, and the checkpoint given by --weights.

      nas pack v9t-digits                  writes v9t-digits.tar.gz
      nas unpack v9t-digits.tar.gz         there
      nas resume v9t-digits --data ~/data/data.yaml
    """
    from nas.study.folders import existing
    from nas.workflows.pack import pack as packed

    folder = existing(study, runs)
    target = Path(f"{study}.tar.gz") if out is None else out
    with show.progress(f"packing {study}", "Stopped; no archive was written.") as show_progress:
        written = packed(folder, target, show_progress)
    left_out = [str(path) for path in written.left_out]
    document = {"file": str(written.file), "studies": list(written.studies), "left_out": left_out}
    show.result(str(written.file), document, shown)
    names = ", ".join(written.studies)
    show.lines([f"{written.file.stat().st_size / 1e6:.1f} MB: {names}"])
    show.lines(f"left out: {path} (no file that a study writes)" for path in written.left_out)


@show.reports_errors
def unpack(
    archive: Archive, study: NewName = None, runs: options.Runs = RUNS, shown: options.TextFormat = "text"
) -> None:
    """Open an archive of nas pack as a study of this machine.

    The whole archive is verified before anything is written: the checksum of
    each file, no file outside of the study, no links, nothing that is no file
    of a study, and weights that are tensors without pickled objects. The
    study gets an id of its own, and its own runs in MLflow.

      nas unpack v9t-digits.tar.gz
      nas unpack v9t-digits.tar.gz --study theirs    under another name
    """
    from nas.study.folders import runs_option
    from nas.workflows.unpack import unpack as unpacked

    with show.progress(f"unpacking {archive.name}", "Stopped; nothing was unpacked.") as show_progress:
        found = unpacked(archive, runs, study, show_progress)
    where = runs_option(runs)
    folder = str(runs / found.study)
    show.result(
        folder, {"folder": folder, "studies": list(found.studies), "code": [str(one) for one in found.code]}, shown
    )
    show.lines([f"unpacked: {', '.join(found.studies)}"])
    if found.code:
        listed = " ".join(shlex.quote(str(path)) for path in found.code)
        when = "runs only with --trust" if found.is_foreign else "a search runs"
        show.lines([f"it brings operators as Python code, which {when}: read {listed}"])
    if found.missing_data:
        show.lines([f"its data set is not here: {found.missing_data}"])
    if found.missing_weights:
        checkpoints, are = ("checkpoints", "are") if found.has_members else ("checkpoint", "is")
        listed = ", ".join(found.missing_weights)
        show.lines([f"the {checkpoints} that it started from {are} not here: {listed}"])
    data = " --data PATH/data.yaml" if found.missing_data else ""
    where_now = "FOLDER" if found.has_members else "FILE.pt"
    weights = f" --weights {where_now}" if found.missing_weights else ""
    trust = " --trust" if found.is_foreign else ""
    show.lines([f"go on with it: nas resume {found.study}{data}{weights}{trust}{where}"])
