"""Choose whose verdict a search shows, where it has several confirmations, and name the others: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.records.record import Record
from nas.report.other_images import change_in_words
from nas.settings import Settings
from nas.words import with_unit


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """A confirmation of a search.

    Attributes:
        name: of the study.
        settings: of the study.
        records: all of the study.
    """

    name: str
    settings: Settings
    records: Sequence[Record]

    @property
    def left(self) -> int:
        """Number of trainings that have not ended."""
        return sum(record.is_unfinished for record in self.records)

    @property
    def has_ended(self) -> bool:
        """Whether all its trainings have ended."""
        return bool(self.records) and not self.left

    @property
    def is_on_unseen_images(self) -> bool:
        """Whether it judges by images that no search has read."""
        return self.settings.judging is not None and self.settings.judging.is_unseen

    def describe(self, search: Settings) -> str:
        """Return its name, and how its trainings differ from those of other confirmations of the search."""
        budget, left = self.settings.budget, self.left
        scratch = ["from random weights"] if is_from_scratch(self.settings, search) else []
        images = [text for text in [change_in_words(search.subset, self.settings.subset)] if text]
        rest = [f"{with_unit(left, 'training')} left"] if left else []
        return f"{self.name} ({', '.join([with_unit(budget.epochs, 'epoch'), *scratch, *images, *rest])})"


def shown(confirmations: Sequence[Confirmation]) -> Confirmation:
    """Return the confirmation whose verdict a search shows.

    Of those whose trainings have ended, if there are such: the last one that judges by images that no search has read,
    or else the last one.

    Args:
        confirmations: first begun first; one or more.
    """
    ranked = [(each.has_ended, each.is_on_unseen_images, number) for number, each in enumerate(confirmations)]
    return confirmations[max(ranked)[2]]


def is_from_scratch(confirmation: Settings, search: Settings) -> bool:
    """Return whether a confirmation trains from random weights, unlike its search."""
    return search.inherits and not confirmation.inherits
