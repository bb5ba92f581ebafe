"""What a study knows of latency: its own copy of a device's table, and measurements of its front."""

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
"""A study's copy of the table."""
MEASURED = "measured.json"
"""What was measured of trials' models after they had ended."""


def path_of(name: str) -> Path:
    """Where the table of a device lies."""
    return timings.path_of(cache_folder.path() / "latency", slug(name))


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
    """A device's table, which has everything that a search in the space can ask, or can get it on this host.

    A table is recorded for some number of classes and some image size; a search may have others.

    Raises:
        SpecError: there is none, or it lacks something and this host is not the device.
    """
    table = LatencyTable(space, classes, deploy_size, read(name))
    lacking = lacks(table)
    if lacking and not is_here(table.recorded.profile):
        raise SpecError(
            f"latency: the table {name} lacks {len(lacking)} of the {len(table.parts())} entries of this space, such "
            f"as {lacking[0].what} for {lacking[0].received}, and this host is not that device (there: "
            f"{table.recording_command})"
        )
    return table


def lacks(table: LatencyTable) -> list[Part]:
    """Return the parts that predictions in a space need and a table lacks."""
    return [part for key, part in table.parts().items() if key not in table.recorded.entries]


def complete(table: LatencyTable, show: Callable[[int, int], None] = lambda *_: None) -> Timings:
    """Time what a table lacks, on this host, which is its device; the device's own table gets it, too.

    Args:
        show: told `(done, total)` after each entry.

    Raises:
        LatencyError: this host is not the device, or a layer cannot be timed alone.
        EnvironmentProblem: another process records the table.
    """
    profile = table.recorded.profile
    path = path_of(profile.name)
    problems: list[str] = []
    with (
        runtimes.open_runtime(profile.runtime, threads=profile.threads, device_name=profile.name) as here,
        alone(path),
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
def alone(path: Path) -> Iterator[None]:
    """Record a table while nobody else does.

    Raises:
        EnvironmentProblem: another process does.
    """
    problem = EnvironmentProblem(f"{path}: another process records this table (wait for it to end)")
    with Lock(path.with_name(f".{path.name}.lock")).held_at_once(problem):
        yield


def is_here(profile: DeviceProfile) -> bool:
    """Whether this host is a device, as far as it can be told without measuring."""
    if profile.runtime not in BACKENDS:
        return False
    try:
        with runtimes.open_runtime(profile.runtime, threads=profile.threads, device_name=profile.name) as here:
            return here.profile == profile
    except EnvironmentProblem:  # its runtime is not installed here
        return False
