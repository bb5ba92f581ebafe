"""Options that the commands of `nas latency` share, and the tables that these options name."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nas.workflows.deployment_options import COCO_CLASSES, DeploymentOptions
from nas.workflows.option import Option, declared

if TYPE_CHECKING:
    from search_spaces import SearchSpace, Space
    from trials.latency.latency_table import LatencyTable
    from trials.latency.runtimes import Runtime
    from trials.latency.timings import Timings

_DEVICE = "Device"


@dataclass(frozen=True, kw_only=True)
class TableOptions(DeploymentOptions):
    """A space as it is deployed, and a device with a table of latencies."""

    runtime: Annotated[
        str,
        Option(
            help="torch, onnxruntime, openvino or tensorrt; ssh://MACHINE/RUNTIME for a runtime on another machine.",
            panel=_DEVICE,
            metavar="NAME",
        ),
    ] = "torch"
    threads: Annotated[int, Option(help="Number of threads of the runtime on a CPU.", panel=_DEVICE, metavar="N")] = 1
    device: Annotated[str, Option(help="cpu, or the index of a GPU.", panel=_DEVICE, metavar="DEVICE")] = "cpu"
    precision: Annotated[
        str,
        Option(
            help="fp32, fp16 or int8: how the deployed model computes. Each precision has a table of its own.",
            panel=_DEVICE,
            metavar="NAME",
        ),
    ] = "fp32"
    calibration_images: Annotated[
        int,
        Option(
            help="Number of training images from which the ranges of an int8 model are taken.",
            panel=_DEVICE,
            metavar="N",
        ),
    ] = 64
    calibration_seed: Annotated[
        int, Option(help="Seed by which these images are chosen.", panel=_DEVICE, metavar="N")
    ] = 0
    device_name: Annotated[
        str | None,
        Option(
            help="Name of the device's table.",
            panel=_DEVICE,
            metavar="NAME",
            unset="made of machine, processor, runtime, threads and precision",
        ),
    ] = None

    def command(self, name: str) -> str:
        """Return a command of `nas latency` with these options, as one types it."""
        values = [(one, getattr(self, one.name)) for one in declared(TableOptions).values()]
        given = [(one, value) for one, value in values if one.name == "space" or value != one.default]
        typed = [f"{one.flag} {shlex.quote(str(value))}" for one, value in given]
        return " ".join(["nas latency", name, *typed])

    def open_runtime(self) -> "Runtime":
        """Open the runtime on the device."""
        from trials.latency import runtimes
        from trials.latency.precision import Calibration

        return runtimes.open_runtime(
            self.runtime,
            threads=self.threads,
            device=self.device,
            device_name=self.device_name,
            precision=self.precision,
            calibration=Calibration(images=self.calibration_images, seed=self.calibration_seed),
        )

    def load_space(self) -> "SearchSpace":
        """Load the space.

        Raises:
            SpecError: there are several.
        """
        from search_spaces.joined_space import require_one

        return require_one(self._load_spaces(), "nas latency")

    def _load_spaces(self) -> "Space":
        from search_spaces import joined_file

        return joined_file.load(os.fspath(self.space), scale=self.scale)

    def latencies(self, space: "SearchSpace", recorded: "Timings") -> "LatencyTable":
        """Return the latencies of a space, deployed in this way, from the timings of a device."""
        from trials.latency.latency_table import LatencyTable

        return LatencyTable(space, self._number_of_classes(), self.deploy_size, recorded)

    def latencies_of_members(self, recorded: "Timings") -> "tuple[LatencyTable, ...]":
        """Return the same of each of several spaces, or of the one."""
        from trials.latency import space_latencies

        spaces, classes = self._load_spaces(), self._number_of_classes()
        return space_latencies.table(spaces, classes, self.deploy_size, recorded).of_members

    def _number_of_classes(self) -> int:
        from trials.data import datasets

        return len(datasets.load(os.fspath(self.data)).classes) if self.data else self.classes or COCO_CLASSES

    def recorded(self) -> "Timings":
        """Read the timings of the device of this name, which need not be here; without a name, of this machine.

        Raises:
            SpecError: there is no table of the device.
        """
        from trials.devices import slug

        if self.device_name:
            return read(slug(self.device_name))
        with self.open_runtime() as opened:
            return read(opened.profile.name)


def read(name: str) -> "Timings":
    """Read the table of a device.

    Raises:
        SpecError: there is no table of that name.
    """
    from nas.study import latency_tables

    return latency_tables.read(name)


def path_of(name: str) -> Path:
    """Return the path of a device's table."""
    from nas.study import latency_tables

    return latency_tables.path_of(name)
