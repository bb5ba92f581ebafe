"""`nas worker`: take part in a study that another machine has begun."""

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options, show

if TYPE_CHECKING:
    from nas.study.study import Study


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


@show.reports_errors
@options.takes(
    *("storage", "data", "workers", "device", "timeout", "trial_memory", "runs"),
    unset={
        "storage": "$NAS_STORAGE, or that of the study's folder here",
        "data": "where the study was begun",
        "device": "cpu, or the first GPU, as the study's trainings",
    },
    meaning={
        "storage": "Address of the PostgreSQL database that holds the study's trials, such as "
        "postgresql://user@machine/name.",
        "data": "Path of the data set on this machine. It must be the same data.",
        "runs": "Folder of all studies on this machine.",
    },
)
def worker(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study, as its search was begun.")],
    typed: options.Typed,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Join although versions of Python, PyTorch or Ultralytics differ.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the Python files with operators that the study has in its database.")
    ] = False,
) -> None:
    """Train trials of a study that another machine has begun; no folder needs to be copied.

    Machines share a study whose trials are in a PostgreSQL database. The
    settings, the space and the stock model's weights come from there, and
    what each trial leaves goes there.

      nas search --data data.yaml --storage postgresql://nas@db/nas --study fruit
      nas worker fruit --storage postgresql://nas@db/nas --data /mnt/data.yaml

    The second line is for any number of other machines, at any time. It ends
    with the study's trials. A machine that is lost costs no trial: the others
    train it again.
    """
    with show.err.status("comparing code, versions and data with the study's"):
        from nas.workflows.join import join

        joined = join(study, anyway=anyway, trust=trust, **typed)
    _work(joined)


def _work(study: "Study") -> None:
    """Run this machine's workers, with a live table."""
    from nas.cli.searching import train

    show.lines([f"machine   {_machine(study)}"])
    train(study, again=options.command_for("worker", study), tracks=False)
    records = study.records()
    done = sum(record.ending is not None for record in records)
    show.lines([f"{study.name}: {done} trials have ended; see them with: {options.command_for('pareto', study)}"])


def _machine(study: "Study") -> str:
    """Return this machine's identity and how many others there are."""
    import socket

    from nas.words import with_unit

    if study.shared is None:
        return socket.gethostname()
    machines = study.shared.machines
    others = [one for one in machines.all() if one.id != machines.id and not one.ended and one.silent < machines.grace]
    return f"{socket.gethostname()} ({machines.id[:8]}), beside {with_unit(len(others), 'other')}"
