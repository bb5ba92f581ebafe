"""Cost of the choices of one slot, in GFLOPs of all its layers."""

import statistics
from dataclasses import dataclass

from search_spaces import Slot
from trials.costing.cost import CostTable, gflops


@dataclass(frozen=True, kw_only=True)
class SlotCosts:
    """Range of what the choices of a slot cost, over all its layers, deployed.

    Attributes:
        slot: name of the slot.
        host: host of its layers; `behind it` where an operator is inserted.
        choices: number of choices, stock among them.
    """

    slot: str
    layers: tuple[int, ...]
    host: str
    choices: int
    stock_gflops: float
    min_gflops: float
    median_gflops: float
    max_gflops: float


def slot_costs(table: CostTable, slot: Slot) -> SlotCosts:
    """Return the costs of a slot's choices at the stock model's scaling factors."""
    costs = [gflops(table.slot(slot, choice).macs) for choice in slot.choices]
    return SlotCosts(
        slot=slot.name,
        layers=slot.layers,
        host="behind it" if slot.feeds else slot.host,
        choices=len(costs),
        stock_gflops=costs[0],
        min_gflops=min(costs),
        median_gflops=statistics.median(costs),
        max_gflops=max(costs),
    )
