"""Choose a number by measuring on this machine: once for each key; running out of memory is an answer, no failure."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

from nas.workflows.check_cache import CheckCache
from search_spaces.errors import EstimateError
from trials.gpu_faults import GpuFault, fault_in

Value = TypeVar("Value")

MARGIN = 0.85
"""Share of a GPU's free memory that all its workers may occupy; the rest is for other shapes and fragmentation."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Number that was chosen, and why it is that one, in words; the fields are keys of the check cache."""

    number: int
    reason: str


def once(cache: CheckCache, key: str, choose: Callable[[], Chosen]) -> Chosen:
    """Return what was chosen before under a key; else choose, and remember it."""
    if key in cache and isinstance(cache[key], dict):
        return Chosen(**cache[key])
    found = choose()
    cache.add({key: asdict(found)})
    return found


def if_it_fits(measure: Callable[[], Value]) -> Value | None:
    """Return what a timed training measures; None if it ran out of memory.

    Raises:
        EstimateError: it failed for another reason.
    """
    try:
        return measure()
    except EstimateError as error:
        if ran_out_of_memory(str(error)):
            return None
        raise


def ran_out_of_memory(message: str) -> bool:
    """Return whether the reason why a training failed is memory: the device's, or a kill by the kernel."""
    lower = message.lower()
    return (
        fault_in(message) is GpuFault.OUT_OF_MEMORY
        or any(text in lower for text in ("out of memory", "memoryerror", "can't allocate memory", "bad_alloc"))
        or message.endswith("exit code -9")
    )
