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
        """Message on the first that failed, if nothing can start from any; else None."""
        if any(one.is_done or one.left_out is None for one in self):
            return None
        return next((failure for one in self if (failure := one.failure)), None)

    @property
    def left_out(self) -> dict[str, str]:
        """Why nothing is proposed of a member, by its name: its stock model was stopped at a rung, or has failed."""
        return {one.member: reason for one in self if (reason := one.left_out)}

    @property
    def pending(self) -> list[StockTraining]:
        """Trainings from which candidates cannot start yet, without those that are left out."""
        return [one for one in self if not one.is_done and not one.left_out]

    def prepare(self) -> None:
        """Prepare each for another run of the study: those that failed are tried again if nothing can start from any.

        Otherwise a member that was left out stays so: the study has gone on without it.
        """
        is_ended = self.failure is not None
        for one in self:
            if is_ended or one.is_done:
                one.prepare()

    def copy_from(self, other: "StockTrainings") -> None:
        """Take the weights of equal trainings of another study that are done."""
        theirs = {one.member: one for one in other}
        for one in self:
            if one.member in theirs:
                one.copy_from(theirs[one.member])
