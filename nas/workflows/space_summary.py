"""Size and costs of a search space: what `nas check` prints of it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import require_reachable
from search_spaces import Architecture, Space
from trials.costing import space_costs
from trials.costing.cost import gflops
from trials.costing.slot_costs import SlotCosts, slot_costs
from trials.costing.space_costs import SpaceCosts

SAMPLES = 200
"""Random architectures on which shares of a space are estimated."""


@dataclass(frozen=True, kw_only=True)
class StockCosts:
    """Costs of the stock model of a member.

    Attributes:
        member: its name; empty where the space has one member.
    """

    member: str
    gflops: float
    params: int


@dataclass(frozen=True, kw_only=True)
class SpaceSummary:
    """Size and costs of a search space; the fields are keys of `nas check --format json`.

    Attributes:
        slots: of all members.
        stock_gflops: of the first member's stock model.
        stock_params: of the first member's stock model.
        stocks: stock model of each member.
        gflops: least and greatest value of any architecture, deployed.
        params: least and greatest value of any architecture.
        buildable: share of random architectures that can be built.
        within: share of the buildable ones that are within the limits; None without limits.
    """

    size: int
    slots: tuple[SlotCosts, ...]
    stock_gflops: float
    stock_params: int
    stocks: tuple[StockCosts, ...]
    gflops: tuple[float, float]
    params: tuple[int, int]
    buildable: float
    within: float | None


def summarize(space: Space, search: PlannedSearch) -> SpaceSummary:
    """Return size and deployed costs of a space; nothing is measured.

    Raises:
        SpecError: a limit that no architecture meets, or that all do.
        CostError: a layer cannot be counted.
    """
    limits = search.limits
    table = space_costs.table(space, len(search.data.classes), search.budget.deploy_size)
    stocks = tuple(_stock_costs(space, stock, table) for stock in space.stocks)
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
        slots=tuple(_slots(space, table)),
        stock_gflops=stocks[0].gflops,
        stock_params=stocks[0].params,
        stocks=stocks,
        gflops=gflops_range,
        params=params_range,
        buildable=buildable,
        within=within if limits.gflops or limits.params else None,
    )


def _stock_costs(space: Space, stock: Architecture, table: SpaceCosts) -> StockCosts:
    cost = table.cost(stock)
    return StockCosts(member=space.member_name(stock), gflops=cost.gflops, params=cost.params)


def _slots(space: Space, table: SpaceCosts) -> Iterator[SlotCosts]:
    """Yield the costs of the slots of all members, under their names in the whole space."""
    for member in space.members:
        costs = table.of_member(member.stock)
        for slot in member.slots:
            yield replace(slot_costs(costs, slot), slot=space.name_of(member, slot.name))


def _shares(space: Space, table: SpaceCosts, search: PlannedSearch) -> tuple[float, float]:
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
