"""Which architectures may be trained: those within the limits that are known before anything is built."""

import random
from collections.abc import Callable
from functools import partial

from search_spaces import Architecture, Choice, SearchSpace, Slot
from trials import Limits
from trials.costing.cost import CostTable
from trials.latency.latency_table import LatencyTable

_DRAWS = 100
"""Of architectures within the limits, where the extreme one is not."""


class FeasibilityFilter:
    """Which architectures of a space are within the limits that are known before anything is built.

    Args:
        table: gives the costs; not asked for as long as there are no limits.
        predicted: gives latencies, where a device's table does.
    """

    def __init__(
        self,
        space: SearchSpace,
        table: Callable[[], CostTable],
        limits: Limits,
        predicted: LatencyTable | None = None,
    ) -> None:
        self._space, self._table, self._limits, self._predicted = space, table, limits, predicted

    def excess(self, architecture: Architecture) -> str | None:
        """The figure of a layer, `macs`, `params` or `ms`, whose sum is over its limit; None if none is."""
        most_ms = self._limits.latency_ms
        if self._predicted is not None and most_ms is not None and self._predicted.predict(architecture) > most_ms:
            return "ms"
        if self._limits.gflops is None and self._limits.params is None:
            return None
        cost = self._table().cost(architecture)
        if self._limits.gflops is not None and cost.gflops > self._limits.gflops:
            return "macs"
        if self._limits.params is not None and cost.params > self._limits.params:
            return "params"
        return None

    def figures(self, architecture: Architecture) -> dict[str, float]:
        """What is known of an architecture before it is built, by the names of scores."""
        counted = self._table().cost(architecture)
        figures = {"gflops": counted.gflops, "params": float(counted.params)}
        if self._predicted is not None:
            figures["latency_ms"] = self._predicted.predict(architecture)
        return figures

    def ends(self) -> list[Architecture]:
        """The cheapest and the dearest architecture, whatever the limits are."""
        return [self._table().extreme(lambda layer: layer.macs, cheapest=cheapest) for cheapest in (True, False)]

    def extreme(self, rng: random.Random, *, cheapest: bool) -> Architecture | None:
        """The cheapest or the dearest architecture within the limits, as far as some draws find it."""
        extreme = self._table().extreme(lambda layer: layer.macs, cheapest=cheapest)
        if self.excess(extreme) is None:
            return extreme
        drawn = [self.repair(extreme, rng) for _ in range(_DRAWS)]
        within = [architecture for architecture in drawn if architecture is not None]
        best = min if cheapest else max
        return best(within, key=lambda architecture: self._table().cost(architecture).macs, default=None)

    def allows(self, architecture: Architecture) -> bool:
        """Whether an architecture is within all limits, and can be built."""
        buildable = not self._space.scaling_factors or self._space.incompatibility(architecture) is None
        return buildable and self.excess(architecture) is None

    def repair(self, architecture: Architecture, rng: random.Random) -> Architecture | None:
        """The architecture with cheaper choices in as many random slots as it takes; None if none are left."""
        while (figure := self.excess(architecture)) is not None:
            cheaper = self._cheaper(architecture, figure)
            if not cheaper:
                return None
            architecture = rng.choice(cheaper[rng.choice(sorted(cheaper))])()
        if self._space.scaling_factors and self._space.incompatibility(architecture):
            return None
        return architecture

    def _cheaper(self, architecture: Architecture, figure: str) -> dict[str, list[Callable[[], Architecture]]]:
        """Ways to change one slot or dial so that the architecture costs less, by that slot's or dial's name."""
        space, standing = self._space, self._space.choices(architecture)
        cheaper: dict[str, list[Callable[[], Architecture]]] = {}
        for slot in space.slots:
            now = self._figure(slot, standing[slot.name], architecture, figure)
            for choice in slot.choices:
                if self._figure(slot, choice, architecture, figure) < now:
                    cheaper.setdefault(slot.name, []).append(partial(space.with_choice, architecture, slot, choice))
        turned = space.factor_values(architecture)
        for factor in space.scaling_factors:
            less = [value for value in factor.values if value < turned[factor.name]]
            if less:
                cheaper[factor.name] = [partial(space.with_factor, architecture, factor, value) for value in less]
        return cheaper

    def _figure(self, slot: Slot, choice: Choice, architecture: Architecture, figure: str) -> float:
        """What a choice costs in the layers of its slot."""
        if figure == "ms":
            assert self._predicted is not None  # noqa: S101 - who else said that it is over
            return self._predicted.slot_ms(slot, choice, architecture.macro)
        return float(getattr(self._table().slot(slot, choice, architecture.macro), figure))
