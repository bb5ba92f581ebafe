"""Trainings of the stock models of a study, one for each member of its space."""

from collections.abc import Iterator, Mapping

from nas.study.stock_training import StockTraining
from search_spaces import Architecture, Space


class StockTrainings:
    """Trainings whose weights initialise the candidates of each member; empty if candidates start from others.

    Args:
        space: of the study.
        by_member: training by the member's name; that of a single space has an empty name.
    """

    def __init__(self, space: Space, by_member: Mapping[str, StockTraining]) -> None:
        self._space, self._by_member = space, dict(by_member)

    def __iter__(self) -> Iterator[StockTraining]:
        return iter(self._by_member.values())

    def __len__(self) -> int:
        return len(self._by_member)

    def of(self, architecture: Architecture) -> StockTraining | None:
        """Return the training whose weights an architecture starts from; None if there are none."""
        return self._by_member.get(self._space.member_name(architecture)) if self._by_member else None

    @property
    def failure(self) -> str | None:
        """Message on the first that ended without weights; None if none did."""
        return next((failure for one in self if (failure := one.failure)), None)

    @property
    def pending(self) -> list[StockTraining]:
        """Trainings from which candidates cannot start yet, without those that have failed."""
        return [one for one in self if not one.is_done and not one.failure]

    def prepare(self) -> None:
        """Prepare each for another run of the study, as `StockTraining.prepare` does."""
        for one in self:
            one.prepare()

    def copy_from(self, other: "StockTrainings") -> None:
        """Take the weights of equal trainings of another study that are done."""
        theirs = {one.member: one for one in other}
        for one in self:
            if one.member in theirs:
                one.copy_from(theirs[one.member])
