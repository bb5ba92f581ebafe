"""Choose the batch of a search: the largest power of two at which its costliest architecture fits into memory.

The trainings that find it run in processes of their own, as many at once as workers share a device, so that running out
of memory leaves nothing behind. The batch is found once, before the study is created, and stored in its budgets.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from nas.settings import Settings
from nas.workflows import timing
from nas.workflows.check_cache import CheckCache
from nas.workflows.measured_choice import MARGIN, Chosen, if_it_fits, once
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.search_options import BATCH
from search_spaces import Space
from search_spaces.errors import EnvironmentProblem
from trials import Budget, machine
from trials.devices import CPU

MOST = 64
"""Largest batch that is chosen: Ultralytics' nominal one, to which it accumulates the gradients of smaller ones."""
LEAST_STEPS = 520
"""Steps of a trial below which a batch is not enlarged: those of 20 epochs of 205 images, by which the presets were
measured (docs/recipes.md)."""

Measure = Callable[[int], int | None]
"""Return the bytes that a training with this batch occupies on its device; None if they are too many."""


def most_useful(images: int, epochs: int) -> int:
    """Return the largest power of two that leaves a trial enough steps: at least 8, at most 64."""
    steps = max(1, images * epochs // LEAST_STEPS)
    return min(MOST, max(BATCH, 2 ** int(math.log2(steps))))


def largest(measure: Measure, *, limit: int | None, most: int, is_cautious: bool) -> Chosen:
    """Return the largest power of two, up to `most`, at which a training fits.

    Args:
        limit: bytes that a training may occupy; None if only running out of memory tells.
        is_cautious: whether a batch is not tried if twice what half of it occupies is over the limit: where memory that
            runs out may end other processes.

    Raises:
        EnvironmentProblem: a single image does not fit.
    """
    batch, used = min(BATCH, most), None
    while batch and (used := _within(measure(batch), limit)) is None:
        batch //= 2
    if used is None:
        raise EnvironmentProblem(
            "batch: the costliest architecture does not fit into memory, even with a single image (try a smaller "
            "--image-size or --scale, fewer --workers, or --max-gflops)"
        )
    is_reduced = batch < min(BATCH, most)
    while not is_reduced and 2 * batch <= most:
        is_risk = is_cautious and limit is not None and 2 * used > limit
        more = None if is_risk else _within(measure(2 * batch), limit)
        if more is None:
            is_reduced = True
        else:
            batch, used = 2 * batch, more
    occupied = f"in {used / 2**30:.2g} GiB"
    if is_reduced:
        return Chosen(number=batch, reason=f"the costliest architecture fits {occupied}, with twice as many not")
    return Chosen(number=batch, reason=f"the costliest architecture fits {occupied}; a larger one would not help")


def _within(used: int | None, limit: int | None) -> int | None:
    return None if used is None or (limit is not None and used > limit) else used


def with_batch(settings: Settings, batch: int) -> Settings:
    """Return settings with a batch, and learning rates that fit it."""
    return settings.model_copy(
        update={
            name: None if budget is None else scaled(budget, batch)
            for name, budget in (("base", settings.base), ("budget", settings.budget))
        }
    )


def scaled(budget: Budget, batch: int) -> Budget:
    """Return a budget with another batch, and the learning rate times the root of the batch's growth.

    The square root is the rule for adaptive optimizers (Malladi et al. 2022, "On the SDEs and scaling rules for
    adaptive gradient algorithms", arXiv 2205.10287); weight decay, which AdamW multiplies with the rate, stays.
    """
    rate = budget.recipe.learning_rate * math.sqrt(batch / budget.batch)
    recipe = budget.recipe.model_copy(update={"learning_rate": float(f"{rate:.4g}")})
    return budget.model_copy(update={"batch": batch, "recipe": recipe})


def chosen(
    space: Space,
    search: PlannedSearch,
    cache: CheckCache,
    *,
    memory: int | None = None,
    measure: Callable[[Space, PlannedSearch], tuple[int, int | None]] = timing.memory_of_costliest,
    trying: Callable[[str], None] = lambda _: None,
) -> Chosen:
    """Return the batch of a search on this machine; found again from the cache, as long as nothing has changed.

    Args:
        search: with the usual batch.
        memory: bytes that a worker's trials may allocate on the CPU; None for a share of what is free.
        measure: returns the bytes of a training of the costliest architecture, and what was free on the GPU before.
        trying: called with what is tried next, in words.

    Raises:
        EnvironmentProblem: a single image does not fit.
        EstimateError: a training failed for another reason than memory.
    """
    images, epochs = search.data.train_images, search.budget.epochs
    most = most_useful(images, epochs)
    if most == BATCH:
        steps = math.ceil(images / BATCH) * epochs
        return Chosen(number=BATCH, reason=f"a trial has {steps} steps; a larger one would leave it too few")

    def occupied(batch: int) -> int | None:
        trying(f"timing trainings: a batch of {batch}")
        larger = replace(search, budget=search.budget.model_copy(update={"batch": batch}))
        found = if_it_fits(lambda: measure(space, larger))
        if found is None:
            return None
        used, free = found
        return None if free is not None and used * search.sharing > MARGIN * free else used

    on_cpu = search.device == CPU
    limit = memory or machine.memory_share(search.workers) if on_cpu else None
    key = f"largest batch {timing.key_of_costliest(space, search)} {memory} {most}"
    return once(cache, key, lambda: largest(occupied, limit=limit, most=most, is_cautious=on_cpu))
