"""Comparison of a recorded trial with another training of it, as values."""

from dataclasses import dataclass
from enum import StrEnum

DATA = "data"
"""Name of the condition that is never ignored: trainings on two data sets have nothing to compare."""


class Agreement(StrEnum):
    """Whether two trainings are equal to the bit; refused if nothing was trained."""

    EQUAL = "equal"
    DIFFERENT = "different"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Condition that determines a training.

    Attributes:
        name: such as `seed` or `versions.torch`.
        recorded: its value for the trial; None if it was not recorded.
        here: its value on this machine now; None if there is none, such as the version of a missing package.
    """

    name: str
    recorded: str | None
    here: str | None

    @property
    def is_equal(self) -> bool:
        """Whether the value is the recorded one."""
        return self.recorded == self.here

    def __str__(self) -> str:
        """Return the two values in one line."""
        return f"{self.name}: {self.recorded or 'not recorded'} there, {self.here or 'none'} here"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Loss, accuracy or cost of the recorded training and of this one.

    Attributes:
        name: such as `box_loss`, `map50_95` or `params`.
        recorded: None if only this training has it.
        here: None if only the recorded training has it.
    """

    name: str
    recorded: float | None
    here: float | None

    @property
    def is_equal(self) -> bool:
        """Whether the two are equal to the bit."""
        return self.recorded == self.here

    @property
    def difference(self) -> float | None:
        """This training's value minus the recorded one; None if one is missing."""
        return None if self.recorded is None or self.here is None else self.here - self.recorded


@dataclass(frozen=True, kw_only=True)
class ComparedEpoch:
    """Losses and accuracies of one epoch in both trainings.

    Attributes:
        epoch: its number, from 1.
        of: number of the last epoch that is trained.
    """

    epoch: int
    of: int
    figures: tuple[Figure, ...]

    @property
    def is_equal(self) -> bool:
        """Whether all figures are equal to the bit."""
        return all(figure.is_equal for figure in self.figures)


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Comparison of a recorded trial with a training under the same conditions, or the reasons why there is none.

    Attributes:
        trial: its number in the study.
        recorded_ending: value of an `Ending`, with the detail if it diverged; empty if the trial has not ended.
        origin: folder of the trial from which the score was taken, if it came from the score cache; else empty.
        conditions: of both trainings; empty if the trial is refused before they are determined.
        reasons: why nothing was trained, one line each.
        ending: of this training; empty if nothing was trained.
        epochs: compared, in order.
        figures: final scores and costs.
        remarks: what was not compared, one line each.
    """

    study: str
    trial: int
    fingerprint: str
    summary: str
    recorded_ending: str
    origin: str = ""
    conditions: tuple[Condition, ...] = ()
    reasons: tuple[str, ...] = ()
    ending: str = ""
    epochs: tuple[ComparedEpoch, ...] = ()
    figures: tuple[Figure, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def verdict(self) -> Agreement:
        """Whether the trainings are equal to the bit, or different, or nothing was trained."""
        if self.reasons:
            return Agreement.REFUSED
        is_equal = (
            self.ending == self.recorded_ending
            and all(epoch.is_equal for epoch in self.epochs)
            and all(figure.is_equal for figure in self.figures)
        )
        return Agreement.EQUAL if is_equal else Agreement.DIFFERENT

    @property
    def differing(self) -> tuple[Condition, ...]:
        """Conditions that differ."""
        return tuple(condition for condition in self.conditions if not condition.is_equal)

    @property
    def trains_anyway(self) -> bool:
        """Whether a refused trial can be trained in spite of the conditions that differ."""
        return bool(self.reasons and self.differing) and all(each.name != DATA for each in self.differing)

    @property
    def largest_differences(self) -> dict[str, float]:
        """Largest absolute difference of each figure over all epochs and the final scores; without the equal ones."""
        largest: dict[str, float] = {}
        for figure in [*(each for epoch in self.epochs for each in epoch.figures), *self.figures]:
            if figure.difference:
                largest[figure.name] = max(largest.get(figure.name, 0.0), abs(figure.difference))
        return largest
