"""Feasibility filter: limits on costs that are known before a model is built."""

import random
from collections.abc import Callable
from functools import partial

from search_spaces import Architecture, Choice, Slot, Space
from trials import Limits
from trials.costing.space_costs import SpaceCosts
from trials.latency.space_latencies import SpaceLatencies

_DRAWS = 100
"""Repairs of the extreme architecture, where it is not within the limits."""


class FeasibilityFilter:
    """Check and repair the architectures of a space against limits on GFLOPs, parameters and predicted latency.

    Args:
        space: of the architectures.
        table: returns the table of costs; not called while there are no limits.
        limits: of the study.
        predicted: latency table of the device, if there is one.
    """

    def __init__(
        self,
        space: Space,
        table: Callable[[], SpaceCosts],
        limits: Limits,
        predicted: SpaceLatencies | None = None,
    ) -> None:
        self._space, self._table, self._limits, self._predicted = space, table, limits, predicted

    def exceeded(self, architecture: Architecture) -> str | None:
        """Return the cost that is over its limit, `macs`, `params` or `ms`; None if none is."""
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
        """Return the costs of an architecture that are known before it is built: `gflops`, `params`, `latency_ms`."""
        counted = self._table().cost(architecture)
        figures = {"gflops": counted.gflops, "params": float(counted.params)}
        if self._predicted is not None:
            figures["latency_ms"] = self._predicted.predict(architecture)
        return figures

    def extremes(self) -> list[Architecture]:
        """Return the architectures with the fewest and the most multiply-adds, whatever the limits are."""
        return [self._table().extreme(lambda layer: layer.macs, cheapest=cheapest) for cheapest in (True, False)]

    def extreme(self, rng: random.Random, *, cheapest: bool) -> Architecture | None:
        """Return the architecture with the fewest or the most multiply-adds within the limits.

        Where the extreme one is over a limit, it is the best of a hundred random repairs; None if all fail.
        """
        extreme = self._table().extreme(lambda layer: layer.macs, cheapest=cheapest)
        if self.exceeded(extreme) is None:
            return extreme
        repaired = [self.repair(extreme, rng) for _ in range(_DRAWS)]
        within = [architecture for architecture in repaired if architecture is not None]
        best = min if cheapest else max
        return best(within, key=lambda architecture: self._table().cost(architecture).macs, default=None)

    def allows(self, architecture: Architecture) -> bool:
        """Return whether an architecture may be proposed: of an open member, within all limits, and can be built."""
        may_be_proposed = self._space.is_open(architecture) and self._is_buildable(architecture)
        return may_be_proposed and self.exceeded(architecture) is None

    def _is_buildable(self, architecture: Architecture) -> bool:
        """Return whether an architecture can be built; without scaling factors every choice of a slot is legal."""
        member = self._space.member_of(architecture)
        return not member.scaling_factors or member.incompatibility(architecture) is None

    def repair(self, architecture: Architecture, rng: random.Random) -> Architecture | None:
        """Take cheaper choices in random slots until the architecture is within limits.

        Returns:
            None if that fails, or the architecture is of a member of which nothing is proposed.
        """
        if not self._space.is_open(architecture):
            return None
        while (cost_name := self.exceeded(architecture)) is not None:
            cheaper = self._cheaper(architecture, cost_name)
            if not cheaper:
                return None
            architecture = rng.choice(cheaper[rng.choice(sorted(cheaper))])()
        return architecture if self._is_buildable(architecture) else None

    def _cheaper(self, architecture: Architecture, cost_name: str) -> dict[str, list[Callable[[], Architecture]]]:
        """Return the changes of one slot or scaling factor that reduce a cost, by the slot's or factor's name."""
        space = self._space.member_of(architecture)
        choices = space.choices(architecture)
        cheaper: dict[str, list[Callable[[], Architecture]]] = {}
        for slot in space.slots:
            now = self._slot_cost(slot, choices[slot.name], architecture, cost_name)
            for choice in slot.choices:
                if self._slot_cost(slot, choice, architecture, cost_name) < now:
                    cheaper.setdefault(slot.name, []).append(partial(space.with_choice, architecture, slot, choice))
        values = space.factor_values(architecture)
        for factor in space.scaling_factors:
            less = [value for value in factor.values if value < values[factor.name]]
            if less:
                cheaper[factor.name] = [partial(space.with_factor, architecture, factor, value) for value in less]
        return cheaper

    def _slot_cost(self, slot: Slot, choice: Choice, architecture: Architecture, cost_name: str) -> float:
        """Return a cost of a choice, summed over the layers of its slot."""
        if cost_name == "ms":
            assert self._predicted is not None  # noqa: S101 - without a table no latency is over its limit
            return self._predicted.of_member(architecture).slot_ms(slot, choice, architecture.macro)
        costs = self._table().of_member(architecture)
        return float(getattr(costs.slot(slot, choice, architecture.macro), cost_name))
