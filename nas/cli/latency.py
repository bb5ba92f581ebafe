"""`nas latency`: a device's table of latencies: made, shown, carried elsewhere."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli import device_tables, measured, prediction, show
from nas.cli.options import Shown
from nas.cli.show import Format

_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="""How long models take on a device: a table of layers, from which a search predicts.

  nas latency record --space v9                  time every layer of a space on this host, once
  nas latency show --space v9                    what each choice costs in milliseconds
  nas latency error --space v9                   how wrong predictions are, on real candidates
  nas latency predict --space v9 --sample 10     milliseconds of random architectures
  nas latency front STUDY                        measure a front that a search predicted
  nas latency export jetson.csv                  carry a table to where the search runs
""",
    )
    for command in (record, show_table, prediction.predict, prediction.error, measured.front, export):
        group.command(name=command.__name__.partition("_")[0])(command)
    group.command(name="import")(take_in)
    app.add_typer(group, name="latency")


@show.told
def record(
    space: device_tables.SpaceName = "v9",
    scale: device_tables.Scale = None,
    runtime: device_tables.RuntimeName = "torch",
    deploy_size: device_tables.DeploySize = device_tables.DEPLOYED_SIZE,
    classes: device_tables.Classes = device_tables.COCO_CLASSES,
    data: device_tables.Data = None,
    threads: device_tables.Threads = 1,
    device: device_tables.Device = "cpu",
    device_name: device_tables.DeviceName = None,
) -> None:
    """Time every distinct layer that architectures of a space may have, on the device; prints the table's path.

    Each layer is timed alone, in turns with one stock layer, whose drift is taken out. What is in the table is not
    timed again: an interrupted recording goes on where it was, and two spaces share what they have in common. Let the
    device do nothing else meanwhile.
    """
    from nas.study import latency_tables
    from trials.latency import latency_table
    from trials.latency.timings import Timings

    with device_tables.open_runtime(runtime, threads, device, device_name) as opened:
        path = device_tables.path_of(opened.profile.name)
        nothing = Timings(profile=opened.profile, entries={})
        asked = device_tables.read_space(space, scale)
        table = device_tables.of_space(asked, nothing, deploy_size=deploy_size, classes=classes, data=data)
        problems, unsteady = [], 0
        stopped = "Stopped; the same command goes on from there."
        with latency_tables.recording_lock(path), show.progress("timing layers", stopped) as show_progress:
            for step in latency_table.record(table, opened, path):
                show_progress(step.done, step.total)
                problems += [step.problem] if step.problem else []
                unsteady += step.timing is not None and not step.timing.steady
    print(path)  # noqa: T201 - the result, for a pipe
    told = [f"{len(table.recorded.entries)} entries; {opened.profile.name}"]
    told += [f"{unsteady} were timed while the device was not steady (was something else running?)"] if unsteady else []
    show.lines([*told, "how wrong it is:   nas latency error, with the same options", *problems])
    if problems:
        show.lines([f"{len(problems)} layers cannot be timed alone; architectures with them are not predicted"])
        raise typer.Exit(_FAILED)


@show.told
def show_table(
    space: Annotated[
        str | None, typer.Option(help="A name, or a file; without one, the tables that there are.")
    ] = None,
    scale: device_tables.Scale = None,
    runtime: device_tables.RuntimeName = "torch",
    deploy_size: device_tables.DeploySize = device_tables.DEPLOYED_SIZE,
    classes: device_tables.Classes = device_tables.COCO_CLASSES,
    data: device_tables.Data = None,
    threads: device_tables.Threads = 1,
    device: device_tables.Device = "cpu",
    device_name: device_tables.DeviceName = None,
    shown: Shown = "table",
) -> None:
    """Milliseconds of every choice of every slot, and how much that is more than the stock layer."""
    if space is None:
        _print_tables(shown)
        return
    recorded = device_tables.of_device(runtime, threads, device, device_name)
    asked = device_tables.read_space(space, scale)
    table = device_tables.of_space(asked, recorded, deploy_size=deploy_size, classes=classes, data=data)
    rows = []
    for slot in table.space.slots:
        stock = table.slot_ms(slot, slot.choices[0])
        for choice in slot.choices:
            own = table.slot_ms(slot, choice)
            rows.append(
                {
                    "slot": slot.name,
                    "host": slot.host,
                    "choice": str(choice),
                    "latency_ms": own,
                    "delta_ms": own - stock,
                    "delta_percent": 100 * (own - stock) / table.stock_ms,
                }
            )
    columns = {
        "slot": "slot",
        "host": "host",
        "choice": "choice",
        "ms": "ms",
        "delta": "more than stock, ms",
        "share": "% of the model",
    }
    shown_rows = [row | _rounded(row) for row in rows] if shown == "table" else rows
    show.rows(shown_rows, shown, title=f"{table.space.at_scale} on {recorded.profile.name}", columns=columns)
    start = f"{1000 * table.overhead_ms:.0f} µs"
    alone = f"its layers one by one {table.stock_sum_ms:.2f} ms, less {start} each for a graph's start"
    show.lines([f"stock model {table.stock_ms:.2f} ms; {alone}"])


@show.told
def export(
    file: Annotated[Path, typer.Argument(help="To write, such as jetson.csv.")],
    runtime: device_tables.RuntimeName = "torch",
    threads: device_tables.Threads = 1,
    device: device_tables.Device = "cpu",
    device_name: device_tables.DeviceName = None,
) -> None:
    """Write a device's table to a file: CSV, below the device's profile."""
    device_tables.of_device(runtime, threads, device, device_name).write(file.absolute())
    print(file)  # noqa: T201 - the result, for a pipe


@show.told
def take_in(
    file: Annotated[Path, typer.Argument(help="That `nas latency export` wrote, here or on another host.")],
) -> None:
    """Take a table in; what is known of the same device stays, where the file does not know better."""
    from trials.latency import timings

    read = timings.read(file)
    path = device_tables.path_of(read.profile.name)
    if path.is_file():
        read = timings.read(path).merged(read)
    read.write(path)
    print(path)  # noqa: T201 - the result, for a pipe
    show.lines([f"{len(read.entries)} entries; ask it with --device-name {read.profile.name}"])


def _print_tables(shown: Format) -> None:
    """The tables that there are."""
    from trials.latency import timings

    folder = device_tables.path_of("any").parent
    rows = []
    for name in timings.device_names(folder):
        read = timings.read(device_tables.path_of(name))
        rows.append({**asdict(read.profile), "entries": len(read.entries)})
    columns = dict.fromkeys(("name", "processor", "runtime", "version", "threads", "torch", "entries"), "")
    if not rows:
        show.lines([f"no tables in {folder} yet; make one with: nas latency record"])
    if rows or shown != "table":
        show.rows(rows, shown, title="Latency tables", columns={name: name for name in columns})


def _rounded(row: dict[str, Any]) -> dict[str, str]:
    """Milliseconds of layers need more digits than those of models."""
    return {
        "ms": f"{row['latency_ms']:.3f}",
        "delta": f"{row['delta_ms']:+.3f}",
        "share": f"{row['delta_percent']:+.1f}",
    }
