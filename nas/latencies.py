"""What a study knows of latency: its own copy of a device's table, and measurements of its front."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nas.records import stock_of
from search_spaces import SearchSpace
from search_spaces.errors import SpecError, nearest
from trials import datasets, latency_error, runtimes, timings
from trials.backends import BACKENDS
from trials.devices import slug
from trials.latency_error import Checked
from trials.latency_table import LatencyTable
from trials.timings import Timings

if TYPE_CHECKING:
    from nas.study import Study

FILE = "latency.csv"
"""A study's copy of the table."""
MEASURED = "measured.json"
"""What was measured of trials' models after they had ended."""


def path_of(name: str) -> Path:
    """Where the table of a device lies."""
    return timings.path_of(datasets.cache_folder() / "latency", slug(name))


def read(name: str) -> Timings:
    """The table of a device.

    Raises:
        SpecError: there is none of that name.
    """
    path = path_of(name)
    if not path.is_file():
        there = timings.known(path.parent)
        hint = f"; {nearest(name, there)}" if there else ""
        raise SpecError(f"no latency table of {name!r} (nas latency record makes one{hint})")
    return timings.read(path)


def table_of(space: SearchSpace, classes: int, deploy_size: int, name: str) -> LatencyTable:
    """A device's table, which has everything that a search in the space can ask.

    Raises:
        SpecError: there is none, or it lacks something.
    """
    table = LatencyTable(space, classes, deploy_size, read(name))
    needed = table.parts()
    lacking = [part for key, part in needed.items() if key not in table.recorded.entries]
    if lacking:
        raise SpecError(
            f"latency: the table {name} lacks {len(lacking)} of the {len(needed)} entries of this space, such as "
            f"{lacking[0].what} for {lacking[0].received} (add them with: nas latency record --space {space.name} "
            f"--scale {space.scale} --classes {classes} --deploy-size {deploy_size})"
        )
    return table


def measure_front(study: "Study") -> Iterator[tuple[int, Checked]]:
    """Measure the front's members and the stock model, in turns with it, on this idle host; by their trials' numbers.

    What was measured before is not measured again.

    Raises:
        LatencyError: this host is not the device of the study's table, or a model does not run.
        SpecError: the study has no table.
    """
    table = study.latency_table
    if table is None:
        raise SpecError(f"{study.name}: the search had no latency table (nas search --latency NAME)")
    records = study.records()
    stock = stock_of(records)
    shown = [*study.front(records), *([stock] if stock else [])]
    wanted = {record.trial: record for record in shown if record.measured_ms is None}
    profile = table.recorded.profile
    with runtimes.open_runtime(profile.runtime, threads=profile.threads, device_name=profile.name) as here:
        profile.require(here.profile, f"the table {profile.name}")
        for trial, record in wanted.items():
            (checked,) = latency_error.check(table, here, [study.architecture(record)])
            study.note_latency(trial, checked.measured_ms)
            yield trial, checked


def is_device(study: "Study") -> bool:
    """Whether this host is the device of the study's table, as far as it can be told without measuring."""
    if study.latency_table is None:
        return False
    profile = study.latency_table.recorded.profile
    if profile.runtime not in BACKENDS:
        return False
    with runtimes.open_runtime(profile.runtime, threads=profile.threads, device_name=profile.name) as here:
        return here.profile == profile
