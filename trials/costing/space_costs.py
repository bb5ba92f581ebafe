"""Costs of the architectures of a space, whether it is that of one base model or joined of several."""

from collections.abc import Callable
from functools import lru_cache

from search_spaces import Architecture, JoinedSpace, SearchSpace, Space
from trials.costing import cost
from trials.costing.cost import Cost, CostTable, LayerCost
from trials.costing.layers import Number

Figure = Callable[[LayerCost], Number]


class JoinedCosts:
    """Costs of the architectures of a joined space, with the interface of `CostTable`: a table for each member."""

    def __init__(self, space: JoinedSpace, classes: int, image_size: int) -> None:
        self._space = space
        self._tables = {member.short_name: cost.table(member, classes, image_size) for member in space.members}

    def of_member(self, architecture: Architecture) -> CostTable:
        """Return the table of an architecture's member."""
        return self._tables[self._space.member_name(architecture)]

    def cost(self, architecture: Architecture) -> Cost:
        """Return the cost of an architecture, at its `image_size` if it has one.

        Raises:
            CostError: a layer cannot be counted.
        """
        return self.of_member(architecture).cost(architecture)

    def extreme(self, figure: Figure[Number], *, cheapest: bool) -> Architecture:
        """Return the architecture of any open member with the lowest or the highest total of a figure."""
        best = min if cheapest else max
        return best(
            (self._tables[member.short_name].extreme(figure, cheapest=cheapest) for member in self._space.open_members),
            key=lambda architecture: sum(map(figure, self.of_member(architecture).layers(architecture))),
        )

    def reach(self, figure: Figure[Number]) -> tuple[Number, Number]:
        """Return the lowest and the highest total in the space, of a figure that is a sum over layers."""
        ends = [table.reach(figure) for table in self._tables.values()]
        return min(least for least, _ in ends), max(most for _, most in ends)


SpaceCosts = CostTable | JoinedCosts


@lru_cache(maxsize=8)
def table(space: Space, classes: int, image_size: int) -> SpaceCosts:
    """Return the costs of a space; all callers in a process share them."""
    if isinstance(space, SearchSpace):
        return cost.table(space, classes, image_size)
    return JoinedCosts(space, classes, image_size)
