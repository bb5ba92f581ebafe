"""Latency tables for studies: a device's table in the cache, a study's copy of it, and entries that it lacks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from nas.locks import Lock
from search_spaces import Architecture, SearchSpace, Space, cache_folder
from search_spaces.errors import EnvironmentProblem, LatencyError, SpecError, nearest
from trials.devices import DeviceProfile, slug
from trials.latency import latency_table, runtimes, space_latencies, timings
from trials.latency.backends import BACKENDS
from trials.latency.latency_table import LatencyTable, Workload
from trials.latency.space_latencies import SpaceLatencies
from trials.latency.timings import Timings


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
        names = timings.device_names(path.parent)
        hint = f"; {nearest(name, names)}" if names else ""
        raise SpecError(f"no latency table of {name!r} (nas latency record makes one{hint})")
    return timings.read(path)


def table_of(space: Space, classes: int, deploy_size: int, name: str) -> SpaceLatencies:
    """Return a device's table for a search in a space; entries may be missing only if this machine is the device.

    Entries are missing where the table was recorded for another number of classes or another image size.

    Raises:
        SpecError: there is no table, or it lacks entries and this machine is not the device.
    """
    table = space_latencies.table(space, classes, deploy_size, read(name))
    missing = missing_workloads(table)
    if missing and not is_this_machine(table.recorded.profile):
        raise SpecError(
            f"latency: the table {name} lacks {len(missing)} of the {len(table.workloads())} entries of this space, "
            f"such as {missing[0].description} for {missing[0].input_shapes}, and this machine is not that device "
            f"(there: {table.recording_command})"
        )
    return table


def predicting(
    architecture: Architecture, space: SearchSpace, classes: int, deploy_size: int, profile: DeviceProfile
) -> LatencyTable | None:
    """Return a table of this device, whatever its name, that has all layers of an architecture; None without one."""
    folder = path_of("any").parent
    for name in timings.device_names(folder):
        recorded = timings.read(path_of(name))
        if replace(recorded.profile, name=profile.name) != profile:
            continue
        table = LatencyTable(space, classes, deploy_size, recorded)
        with suppress(LatencyError):  # it lacks an entry, so it is of another space, size or number of classes
            table.predict(architecture)
            return table
    return None


def missing_workloads(table: SpaceLatencies) -> list[Workload]:
    """Return the workloads that predictions in a space need and a table lacks."""
    return [workload for key, workload in table.workloads().items() if key not in table.recorded.entries]


def complete(table: SpaceLatencies, show: Callable[[int, int], None] = lambda *_: None) -> Timings:
    """Time what a table lacks on this machine, which is its device; the entries are added to the device's table.

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
        runtimes.open_for(profile) as runtime,
        recording_lock(path),
    ):
        profile.require(runtime.profile, f"the table {profile.name}")
        for member in table.of_members:
            for step in latency_table.record(member, runtime, path):
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
    """Lock a table, so that one process at a time records it.

    Raises:
        EnvironmentProblem: another process holds the lock.
    """
    problem = EnvironmentProblem(f"{path}: another process records this table (wait for it to end)")
    with Lock(path.with_name(f".{path.name}.lock")).held_at_once(problem):
        yield


def is_this_machine(profile: DeviceProfile) -> bool:
    """Return whether a profile is that of this machine and its runtime; nothing is measured."""
    if profile.runtime not in BACKENDS:
        return False
    try:
        with runtimes.open_for(profile) as runtime:
            return runtime.profile == profile
    except EnvironmentProblem:  # its runtime is not installed on this machine
        return False
