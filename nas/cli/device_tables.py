"""What the commands of `nas latency` share: how a space and a device are named, and where the device's table lies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from search_spaces import SearchSpace
    from trials.latency.latency_table import LatencyTable
    from trials.latency.runtimes import Runtime
    from trials.latency.timings import Timings

COCO_CLASSES, DEPLOYED_SIZE = 80, 640
_WHAT, _DEVICE = "What", "The device"

SpaceName = Annotated[str, typer.Option(help="A name (see [b]nas spaces[/b]), or a file.", rich_help_panel=_WHAT)]
Scale = Annotated[str | None, typer.Option(help="Instead of the space's own.", rich_help_panel=_WHAT)]
DeploySize = Annotated[int, typer.Option(min=32, help="Pixels of the deployed model's image.", rich_help_panel=_WHAT)]
Classes = Annotated[int, typer.Option(min=1, help="That the head tells apart.", rich_help_panel=_WHAT)]
Data = Annotated[
    str | None, typer.Option(help="digits, or a data.yaml: as many classes as it has.", rich_help_panel=_WHAT)
]
RuntimeName = Annotated[
    str,
    typer.Option(
        "--runtime", help="torch, onnxruntime, openvino, tensorrt, or ssh://HOST/RUNTIME.", rich_help_panel=_DEVICE
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Of the runtime, on a CPU.", rich_help_panel=_DEVICE)]
Device = Annotated[str, typer.Option(help="cpu, or the number of a GPU.", rich_help_panel=_DEVICE)]
DeviceName = Annotated[
    str | None,
    typer.Option(
        help="Of the device's profile. \\[default: made of host, processor, runtime and threads]",
        rich_help_panel=_DEVICE,
    ),
]


def open_runtime(runtime: str, threads: int, device: str, device_name: str | None) -> "Runtime":
    """The runtime that the flags name."""
    from trials.latency import runtimes

    return runtimes.open_runtime(runtime, threads=threads, device=device, device_name=device_name)


def read_space(name: str, scale: str | None) -> "SearchSpace":
    """The space that the flags name."""
    from search_spaces import space_file

    return space_file.load(name, scale=scale)


def of_space(
    space: "SearchSpace", recorded: "Timings", *, deploy_size: int, classes: int, data: str | None
) -> "LatencyTable":
    """What a device's table says of a space."""
    from trials.data import datasets
    from trials.latency.latency_table import LatencyTable

    count = len(datasets.load(data).classes) if data else classes
    return LatencyTable(space, count, deploy_size, recorded)


def of_device(runtime: str, threads: int, device: str, device_name: str | None) -> "Timings":
    """The table of a device by its name, which needs no such device here; else of this host.

    Raises:
        SpecError: there is none.
    """
    from trials.devices import slug

    if device_name:
        return read(slug(device_name))
    with open_runtime(runtime, threads, device, None) as opened:
        return read(opened.profile.name)


def read(name: str) -> "Timings":
    """The table of a device.

    Raises:
        SpecError: there is none of that name.
    """
    from nas.study import latency_tables

    return latency_tables.read(name)


def path_of(name: str) -> Path:
    """Where the table of a device lies."""
    from nas.study import latency_tables

    return latency_tables.path_of(name)
