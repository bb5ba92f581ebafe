"""Options that the commands of `nas latency` share, and the tables that these options name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from search_spaces import SearchSpace
    from trials.latency.latency_table import LatencyTable
    from trials.latency.runtimes import Runtime
    from trials.latency.timings import Timings

COCO_CLASSES, DEPLOYED_SIZE = 80, 640
_SPACE, _DEVICE = "Space and deployment", "Device"

SpaceName = Annotated[
    str,
    typer.Option(
        metavar="SPACE", help="Name of a space (see [b]nas spaces[/b]), or a space file.", rich_help_panel=_SPACE
    ),
]
Scale = Annotated[
    str | None, typer.Option(metavar="SCALE", help="Another scale than the space file's.", rich_help_panel=_SPACE)
]
DeploySize = Annotated[
    int, typer.Option(metavar="PX", help="Image size of the deployed model, in pixels.", rich_help_panel=_SPACE)
]
Classes = Annotated[int, typer.Option(metavar="N", help="Number of classes.", rich_help_panel=_SPACE)]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Take the number of classes from this data set: digits, or a data.yaml.",
        rich_help_panel=_SPACE,
    ),
]
RuntimeName = Annotated[
    str,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="torch, onnxruntime, openvino, tensorrt; or ssh://MACHINE/RUNTIME for another machine.",
        rich_help_panel=_DEVICE,
    ),
]
Threads = Annotated[
    int, typer.Option(metavar="N", help="Number of threads of the runtime on a CPU.", rich_help_panel=_DEVICE)
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, or the index of a GPU.", rich_help_panel=_DEVICE)]
DeviceName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of the device's table. \\[default: made of machine, processor, runtime and threads]",
        rich_help_panel=_DEVICE,
    ),
]


def open_runtime(runtime: str, threads: int, device: str, device_name: str | None) -> "Runtime":
    """Open the runtime that the flags name."""
    from trials.latency import runtimes

    return runtimes.open_runtime(runtime, threads=threads, device=device, device_name=device_name)


def read_space(name: str, scale: str | None) -> "SearchSpace":
    """Read the space that the flags name."""
    from search_spaces import space_file

    return space_file.load(name, scale=scale)


def of_space(
    space: "SearchSpace", recorded: "Timings", *, deploy_size: int, classes: int, data: str | None
) -> "LatencyTable":
    """Return the latencies of a space on a device."""
    from trials.data import datasets
    from trials.latency.latency_table import LatencyTable

    count = len(datasets.load(data).classes) if data else classes
    return LatencyTable(space, count, deploy_size, recorded)


def of_device(runtime: str, threads: int, device: str, device_name: str | None) -> "Timings":
    """Return the table of the device of this name, which need not be here; without a name, that of this machine.

    Raises:
        SpecError: there is none.
    """
    from trials.devices import slug

    if device_name:
        return read(slug(device_name))
    with open_runtime(runtime, threads, device, None) as opened:
        return read(opened.profile.name)


def read(name: str) -> "Timings":
    """Read the table of a device.

    Raises:
        SpecError: there is none of that name.
    """
    from nas.study import latency_tables

    return latency_tables.read(name)


def path_of(name: str) -> Path:
    """Return the path of a device's table."""
    from nas.study import latency_tables

    return latency_tables.path_of(name)
