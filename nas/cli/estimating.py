"""Time, memory and disk space of a planned search, in lines, and the question before one that takes days."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import show

if TYPE_CHECKING:
    from nas.workflows.estimate import Estimate
    from nas.workflows.outlook import Outlook
    from nas.workflows.plan import Plan

Yes = Annotated[bool, typer.Option("--yes", help="Begin trainings that take over a day without being asked.")]
_GIB, _DAY = 2**30, 24 * 3600.0
_LEAST_GB, _TWO_DIGITS = 0.1, 10


@contextmanager
def timing() -> Iterator[Callable[[int, int], None]]:
    """Show that trainings are timed; yield what to call with how many of how many architectures are done."""
    with show.err.status("estimating time, memory and disk space") as status:
        yield lambda done, total: status.update(f"timing trainings: {done} of {total} architectures are timed")


def outlook_of(plan: "Plan", *, always: bool, elsewhere: bool) -> "Outlook":
    """Return how long a planned search takes, and show what is timed for that."""
    from nas.workflows.check_cache import CheckCache
    from nas.workflows.outlook import outlook

    with timing() as report:
        return outlook(plan, CheckCache.of_user(), always=always, elsewhere=elsewhere, report=report)


def lines(found: "Outlook", runs: Path) -> dict[str, str]:
    """Return the lines of a plan on time, memory and disk space, by their names."""
    estimate = found.estimate
    measured = {} if estimate is None else {"memory": _memory(estimate), "disk": _disk(estimate, runs)}
    return {"time": _time(found), **measured}


def document(found: "Outlook") -> dict[str, Any]:
    """Return what is known as numbers: seconds and bytes."""
    numbers = {} if found.estimate is None else asdict(found.estimate)
    return {"seconds": found.seconds, "range": found.range, **numbers}


def require_yes(found: "Outlook", *, yes: bool) -> None:
    """Ask before a search that takes over a day, in a terminal; elsewhere nobody would answer, and it begins.

    Raises:
        Exit: it shall not begin; with status 2.
    """
    _ask("This search takes", found.seconds, "--hours 8 makes one that fits", yes=yes)


def require_yes_to_trainings(seconds: float | None, *, yes: bool) -> None:
    """Ask before trainings of models of a search that take over a day, as before such a search.

    Raises:
        Exit: they shall not begin; with status 2.
    """
    _ask("These trainings take", seconds, "--dry-run only prints the plan", yes=yes)


def _ask(take: str, seconds: float | None, instead: str, *, yes: bool) -> None:
    from nas.words import span

    is_asked = show.err.is_terminal and sys.stdin.isatty() and not show.err.is_quiet
    if yes or not is_asked or seconds is None or seconds <= _DAY:
        return
    if not typer.confirm(f"{take} about {span(seconds)} ({instead}; --yes asks nothing). Begin?", err=True):
        raise typer.Exit(show.MISTAKE)


def _time(found: "Outlook") -> str:
    from nas.words import span, spans

    if found.seconds is None:
        return found.how
    ends = f" ({spans(*found.range)})" if found.range else ""
    return f"about {span(found.seconds)}{ends}, {found.how}"


def _memory(estimate: "Estimate") -> str:
    needs = estimate.needs
    if needs is None:
        return ""
    workers = "1 worker" if estimate.workers == 1 else f"{estimate.workers} workers, each"
    images = f", and {_gb(needs.images)} of decoded images" if needs.images else ""
    text = f"{_gb(needs.memory)} of RAM: {workers} with {_gb(needs.worker_memory)}{images}"
    if needs.free_memory is not None:
        more = needs.memory > needs.free_memory
        text += (
            f"; only {_gb(needs.free_memory)} are free: fewer --workers"
            if more
            else f"; {_gb(needs.free_memory)} are free"
        )
    if needs.images < needs.all_images:
        text += f"; {_gb(needs.all_images - needs.images)} of images do not fit, and are decoded at every step"
    if needs.gpu_memory:
        text += f"; {_gb(needs.gpu_memory)} of the GPU's {_gb(needs.whole_gpu_memory)}"
    return text


def _disk(estimate: "Estimate", runs: Path) -> str:
    from nas.workflows.needs import free_disk

    needs, free = estimate.needs, free_disk(runs)
    if needs is None:
        return ""
    text = f"at most {_gb(needs.disk)}: weights {_gb(needs.weights)}, decoded images {_gb(needs.images)}"
    return f"{text}; only {_gb(free)} are free" if needs.disk > free else f"{text}; {_gb(free)} are free"


def _gb(size: int) -> str:
    gigabytes = size / _GIB
    return (
        f"{gigabytes:.0f} GB"
        if gigabytes >= 10
        else f"{gigabytes:.1f} GB"
        if gigabytes >= 0.1
        else f"{size / 2**20:.0f} MB"
    )
