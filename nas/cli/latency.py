"""`nas latency`: record, show, export and import the table of a device's latencies."""

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import device_tables, measured, options, prediction, show
from nas.cli.device_tables import TableOptions
from nas.cli.show import Format

if TYPE_CHECKING:
    from trials.devices import DeviceProfile
    from trials.latency.latency_table import LatencyTable

_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="""Predict how long models take on a device, from a table of its layers.

  nas latency record --space v9     time every layer of a space, once
  nas latency show --space v9       latency of each choice of each slot
  nas latency error --space v9      how wrong predictions are
  nas latency predict model.yaml    predict an exported model
  nas latency front STUDY           measure a Pareto front that was predicted
  nas latency export jetson.csv     write a table to a file, to import elsewhere
""",
    )
    for command in (record, show_table, prediction.predict, prediction.error, measured.front, export):
        group.command(name=command.__name__.partition("_")[0])(command)
    group.command(name="import")(take_in)
    app.add_typer(group, name="latency")


@show.reports_errors
@options.takes(of=TableOptions)
def record(typed: options.Typed, shown: options.TextFormat = "text") -> None:
    """Time every distinct layer that architectures of a space may have, on the device; print the path of the table.

    Each layer is timed alone, alternating with one stock layer, whose drift
    is subtracted. Layers that are in the table already are not timed again: an
    interrupted recording continues where it stopped, and spaces share the
    layers that they have in common (several at once: --space v8n,v9t). Run
    nothing else on the device meanwhile. With --precision int8 each layer is
    quantised as the model will be.

      nas latency record --space v9 --device-name mine
      nas search --space v9 --latency mine --objectives map50_95,latency_ms
    """
    chosen = TableOptions(**typed)
    with show.err.status("loading the runtime"):
        from nas.study import latency_tables
        from trials.latency import latency_table
        from trials.latency.timings import Timings

        runtime = chosen.open_runtime()
    with runtime as opened:
        path = device_tables.path_of(opened.profile.name)
        with show.err.status("reading the space"):
            tables = chosen.latencies_of_members(Timings(profile=opened.profile, entries={}))
        problems, unsteady = [], 0
        stopped = "Stopped; the same command continues from there."
        with latency_tables.recording_lock(path), show.progress("timing layers", stopped) as show_progress:
            for step in chain.from_iterable(latency_table.record(table, opened, path) for table in tables):
                show_progress(step.done, step.total)
                problems += [step.problem] if step.problem else []
                unsteady += step.timing is not None and not step.timing.steady
    document = _document(path, opened.profile, len(tables[-1].recorded.entries))
    show.result(str(path), document | {"unsteady": unsteady, "problems": problems}, shown)
    show.lines([f"{document['entries']} entries; {opened.profile.name}"])
    show.lines([opened.caveat] if opened.caveat else [])
    if unsteady:
        show.lines([f"{unsteady} were timed while the device was not steady (was something else running?)"])
    show.lines(problems)
    if problems:
        show.lines([f"{len(problems)} layers cannot be timed alone; architectures with them are not predicted"])
    if len(tables) == 1:
        show.lines([f"measure its error with: {chosen.command('error')}"])
    if problems:
        raise typer.Exit(_FAILED)


@show.reports_errors
@options.takes(
    of=TableOptions, defaults={"space": None}, unset={"space": "all tables are listed, without their latencies"}
)
def show_table(typed: options.Typed, shown: options.Shown = "table") -> None:
    """Show the latency of every choice of every slot, and the difference to the stock layer.

    nas latency show                 all tables
    nas latency show --space v9      the layers of a space
    """
    if typed["space"] is None:
        _print_tables(shown)
        return
    chosen = TableOptions(**typed)
    with show.err.status("reading space and table"):
        recorded = chosen.recorded()
        table = chosen.latencies(chosen.load_space(), recorded)
        rows = _latency_rows(table)
    columns = {
        "slot": "slot",
        "host": "host",
        "choice": "choice",
        "ms": "ms",
        "delta": "more than stock, ms",
        "share": "% of the model",
    }
    cells = [row | _rounded(row) for row in rows] if shown == "table" else rows
    show.rows(cells, shown, title=f"{table.space.at_scale} on {recorded.profile.name}", columns=columns)
    start = f"{1000 * table.overhead_ms:.0f} µs"
    alone = f"its layers one by one {table.stock_sum_ms:.2f} ms, less {start} each for a graph's start"
    show.lines([f"stock model {table.stock_ms:.2f} ms; {alone}"])


def _latency_rows(table: "LatencyTable") -> list[dict[str, Any]]:
    """Return a row for every choice of every slot."""
    rows = []
    for slot in table.space.slots:
        stock_ms = table.slot_ms(slot, slot.choices[0])
        for choice in slot.choices:
            latency_ms = table.slot_ms(slot, choice)
            rows.append(
                {
                    "slot": slot.name,
                    "host": slot.host,
                    "choice": str(choice),
                    "latency_ms": latency_ms,
                    "delta_ms": latency_ms - stock_ms,
                    "delta_percent": 100 * (latency_ms - stock_ms) / table.stock_ms,
                }
            )
    return rows


@show.reports_errors
@options.takes(
    *("runtime", "threads", "device", "precision", "calibration_images", "calibration_seed", "device_name"),
    of=TableOptions,
)
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="File to write, such as jetson.csv.")],
    typed: options.Typed,
    shown: options.TextFormat = "text",
) -> None:
    """Write the table of a device to a CSV file that begins with the profile of the device.

    nas latency export jetson.csv --device-name jetson
    """
    from search_spaces.files import require_place

    require_place(file, "file")
    recorded = TableOptions(**typed).recorded()
    recorded.write(file.absolute())
    show.result(str(file), _document(file, recorded.profile, len(recorded.entries)), shown)


@show.reports_errors
def take_in(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.csv", help="File that nas latency export wrote, here or on another machine.")
    ],
    shown: options.TextFormat = "text",
) -> None:
    """Import a table; entries that exist already for this device stay, unless the file replaces them.

    nas latency import jetson.csv
    """
    from trials.latency import timings

    read = timings.read(file)
    path = device_tables.path_of(read.profile.name)
    if path.is_file():
        read = timings.read(path).merged(read)
    read.write(path)
    show.result(str(path), _document(path, read.profile, len(read.entries)), shown)
    show.lines([f"{len(read.entries)} entries; ask it with --device-name {read.profile.name}"])


def _document(file: Path, profile: "DeviceProfile", entries: int) -> dict[str, Any]:
    """Return what was written of a device, as values for JSON."""
    return {"file": str(file), "entries": entries, "device": asdict(profile)}


def _print_tables(shown: Format) -> None:
    """Print the recorded tables."""
    from trials.latency import timings

    folder = device_tables.path_of("any").parent
    rows = []
    for name in timings.device_names(folder):
        read = timings.read(device_tables.path_of(name))
        rows.append({**asdict(read.profile), "entries": len(read.entries)})
    columns = dict.fromkeys(("name", "processor", "runtime", "version", "threads", "torch", "precision", "entries"), "")
    if not rows:
        show.lines([f"no tables in {folder} yet; record one with: nas latency record"])
    if rows or shown != "table":
        show.rows(rows, shown, title="Latency tables", columns={name: name for name in columns})


def _rounded(row: dict[str, Any]) -> dict[str, str]:
    """Format the milliseconds of a layer, which need more digits than those of a model."""
    return {
        "ms": f"{row['latency_ms']:.3f}",
        "delta": f"{row['delta_ms']:+.3f}",
        "share": f"{row['delta_percent']:+.1f}",
    }
