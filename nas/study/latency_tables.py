"""Latency tables of devices, and the copy of one that a study predicts with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.locks import Lock
from search_spaces import SearchSpace, cache_folder
from search_spaces.errors import EnvironmentProblem, LatencyError, SpecError, nearest
from trials.devices import DeviceProfile, slug
from trials.latency import latency_table, runtimes, timings
from trials.latency.backends import BACKENDS
from trials.latency.latency_table import LatencyTable, Part
from trials.latency.timings import Timings

FILE = "latency.csv"
"""Name of a study's copy of the table."""
MEASURED = "measured.json"
"""Name of the file of latencies that were measured after the trials had ended."""


def path_of(name: str) -> Path:
    """Return the path of a device's table."""
    return timings.path_of(cache_folder.path() / "latency", slug(name))


def read(name: str) -> Timings:
    """Read the table of a device.

    Raises:
        SpecError: there is none of that name.
    """
    path = path_of(name)
    if not path.is_file():
        names = timings.known(path.parent)
        hint = f"; {nearest(name, names)}" if names else ""
        raise SpecError(f"no latency table of {name!r} (nas latency record makes one{hint})")
    return timings.read(path)


def table_of(space: SearchSpace, classes: int, deploy_size: int, name: str) -> LatencyTable:
    """Return a device's table for a space; it has every entry of it, or this machine is the device and can add them.

    A table is recorded for one number of classes and one image size; a search may have others.

    Raises:
        SpecError: there is none, or it lacks entries and this machine is not the device.
    """
    table = LatencyTable(space, classes, deploy_size, read(name))
    missing = missing_parts(table)
    if missing and not is_here(table.recorded.profile):
        raise SpecError(
            f"latency: the table {name} lacks {len(missing)} of the {len(table.parts())} entries of this space, such "
            f"as {missing[0].what} for {missing[0].received}, and this machine is not that device (there: "
            f"{table.recording_command})"
        )
    return table


def missing_parts(table: LatencyTable) -> list[Part]:
    """Return the parts of the table's space that have no entry in it."""
    return [part for key, part in table.parts().items() if key not in table.recorded.entries]


def complete(table: LatencyTable, show: Callable[[int, int], None] = lambda *_: None) -> Timings:
    """Measure the missing entries of a table on this machine, its device; they are added to the device's file, too.

    Args:
        show: called with `(done, total)` after each entry.

    Raises:
        LatencyError: this machine is not the device, or a layer cannot be timed alone.
        EnvironmentProblem: another process records the table.
    """
    profile = table.recorded.profile
    path = path_of(profile.name)
    problems: list[str] = []
    with (
        runtimes.open_runtime(profile.runtime, threads=profile.threads, device_name=profile.name) as here,
        recording_lock(path),
    ):
        profile.require(here.profile, f"the table {profile.name}")
        for step in latency_table.record(table, here, path):
            problems += [step.problem] if step.problem else []
            show(step.done, step.total)
    if problems:
        raise LatencyError(
            f"latency: {len(problems)} layers of {table.space.name} cannot be timed alone, such as: {problems[0]} "
            "(leave their choices out of the space)"
        )
    return table.recorded


@contextmanager
def recording_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the process that records a table.

    Raises:
        EnvironmentProblem: another process holds it.
    """
    problem = EnvironmentProblem(f"{path}: another process records this table (wait for it to end)")
    with Lock(path.with_name(f".{path.name}.lock")).held_at_once(problem):
        yield


def is_here(profile: DeviceProfile) -> bool:
    """Return whether this machine is a device, as far as it can be determined without measuring."""
    if profile.runtime not in BACKENDS:
        return False
    try:
        with runtimes.open_runtime(profile.runtime, threads=profile.threads, device_name=profile.name) as here:
            return here.profile == profile
    except EnvironmentProblem:  # its runtime is not installed here
        return False
