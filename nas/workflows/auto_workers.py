"""Choose how many trials train on a GPU at once: as long as more of them train more images a second, and fit.

The costliest architecture is trained for some steps by 1, 2, 4 and 8 processes at once, so that running out of memory
leaves nothing behind. The number is found once, before the study is created, and stored in its run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from nas.workflows import timing
from nas.workflows.check_cache import CheckCache
from nas.workflows.measured_choice import MARGIN, Chosen, if_it_fits, once
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.timing_process import ProcessTimes
from search_spaces import Space
from search_spaces.errors import EnvironmentProblem
from trials import machine
from trials.devices import CPU

NUMBERS = (1, 2, 4, 8)
LEAST_GAIN = 1.1
"""Images a second with a number of trials at once, over those with the number before it, below which it is not worth
its memory."""

Trying = Callable[[str], None]
"""Called with what is tried next, in words."""


@dataclass(frozen=True, kw_only=True)
class AtOnce:
    """Speed and memory of several trainings at once.

    Attributes:
        rate: images a second of all of them together.
        occupied: bytes of the GPU that one of them occupies.
        free: bytes of the GPU that were free before the first of them.
    """

    rate: float
    occupied: int
    free: int


Measure = Callable[[int], AtOnce | None]
"""Train so many times at once; None if they do not fit into memory."""


def worthwhile(measure: Measure) -> Chosen:
    """Return the largest number of trials at once before the first that gains too little or does not fit.

    A number is not tried if so many times the memory of one training is more than what was free, less a margin.

    Raises:
        EnvironmentProblem: not even one training fits.
    """
    alone = measure(1)
    if alone is None:
        raise EnvironmentProblem(
            "workers-per-device: the costliest architecture does not fit into memory, even alone (try a smaller "
            "--batch, --image-size or --scale, or --max-gflops)"
        )
    number, best, after = 1, alone, "more are not tried"
    for more in NUMBERS[1:]:
        fits = more * alone.occupied <= MARGIN * alone.free
        found = measure(more) if fits else None
        if found is None:
            after = f"{more} at once do not fit into memory"
            break
        if found.rate / best.rate < LEAST_GAIN:
            after = f"{more} at once train {found.rate / best.rate:.3g} times as many images a second as {number}"
            break
        number, best = more, found
    gain = f"together {best.rate / alone.rate:.2g} times the images a second of one; " if number > 1 else ""
    return Chosen(number=number, reason=f"{gain}{after}")


def chosen(
    space: Space,
    search: PlannedSearch,
    cache: CheckCache,
    *,
    memory: int | None = None,
    measure: Callable[[Space, PlannedSearch], ProcessTimes] = timing.of_costliest,
    trying: Trying = lambda _: None,
) -> Chosen:
    """Return how many trials of a search train on each GPU at once; found again from the cache if nothing has changed.

    Args:
        search: with one worker for each GPU, and the batch of its trials.
        memory: bytes of main memory that a worker's trials may allocate; None for a share of what is free.
        measure: trains the costliest architecture in as many processes at once as workers share the first GPU.

    Raises:
        EnvironmentProblem: not even one training fits.
        EstimateError: a training failed for another reason than memory.
    """
    if search.measures_latency:
        return Chosen(number=1, reason="trials measure their latency, which others beside them would disturb")

    def at_once(number: int) -> AtOnce | None:
        trying(f"timing trainings: {number} at once")
        beside = replace(search, workers=search.workers * number)
        times = if_it_fits(lambda: measure(space, beside))
        limit = memory or machine.memory_share(beside.workers)
        if times is None or (limit is not None and times.memory > limit):
            return None
        rate = number * search.budget.batch / times.stock.step
        if search.device == CPU:
            return AtOnce(rate=rate, occupied=times.memory, free=machine.free_memory() or 0)
        return AtOnce(rate=rate, occupied=times.gpu_memory, free=times.free_gpu_memory)

    key = f"workers {timing.key_of_costliest(space, search)} {memory} {search.workers}"
    return once(cache, key, lambda: worthwhile(at_once))
