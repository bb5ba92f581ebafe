"""Size and costs of a search space: what `nas check` prints of it."""

import random
from dataclasses import dataclass

from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import require_reachable
from search_spaces import SearchSpace
from trials.costing import cost
from trials.costing.cost import CostTable, gflops
from trials.costing.slot_costs import SlotCosts, slot_costs

SAMPLES = 200
"""Random architectures on which shares of a space are estimated."""


@dataclass(frozen=True, kw_only=True)
class SpaceSummary:
    """Size and costs of a search space; the fields are keys of `nas check --format json`.

    Attributes:
        gflops: least and greatest value of any architecture, deployed.
        params: least and greatest value of any architecture.
        buildable: share of random architectures that can be built.
        within: share of the buildable ones that are within the limits; None without limits.
    """

    size: int
    slots: tuple[SlotCosts, ...]
    stock_gflops: float
    stock_params: int
    gflops: tuple[float, float]
    params: tuple[int, int]
    buildable: float
    within: float | None


def summarize(space: SearchSpace, search: PlannedSearch) -> SpaceSummary:
    """Return size and deployed costs of a space; nothing is measured.

    Raises:
        SpecError: a limit that no architecture meets, or that all do.
        CostError: a layer cannot be counted.
    """
    limits = search.limits
    table = cost.table(space, len(search.data.classes), search.budget.deploy_size)
    stock = table.cost(space.stock)
    macs_range = table.reach(lambda layer: layer.macs)
    params_range = table.reach(lambda layer: layer.params)
    gflops_range = gflops(macs_range[0]), gflops(macs_range[1])
    require_reachable(
        (("max-gflops", limits.gflops, lambda: gflops_range), ("max-params", limits.params, lambda: params_range)),
        search.budget.deploy_size,
    )
    buildable, within = _shares(space, table, search)
    return SpaceSummary(
        size=space.size,
        slots=tuple(slot_costs(table, slot) for slot in space.slots),
        stock_gflops=stock.gflops,
        stock_params=stock.params,
        gflops=gflops_range,
        params=params_range,
        buildable=buildable,
        within=within if limits.gflops or limits.params else None,
    )


def _shares(space: SearchSpace, table: CostTable, search: PlannedSearch) -> tuple[float, float]:
    """Return which share of random architectures can be built, and which share of those is within the limits.

    The random architectures are always the same.
    """
    rng = random.Random(0)  # noqa: S311 - no secret
    drawn = [space.sample(rng) for _ in range(SAMPLES)]
    # One scaling factor alone was tried when the space file was read.
    buildable = [one for one in drawn if len(one.shape) < 2 or space.incompatibility(one) is None]
    costs = [table.cost(one) for one in buildable]
    within = sum(search.allows(one) for one in costs)
    return len(buildable) / len(drawn), within / max(1, len(buildable))
