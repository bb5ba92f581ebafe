"""Number of further seeds that would detect a smaller difference."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from nas.algorithms.paired_comparison import Comparison, Finding, detectable, seeds_for
from nas.defaults import MOST_FRESH_SEEDS
from nas.words import decimal, digits_of, duration


@dataclass(frozen=True, kw_only=True)
class FurtherSeeds:
    """Trainings that would find a smaller gain.

    Attributes:
        seeds: in addition to those that are there; None if no sensible number finds the gain.
        points: gain that they find in 80 % of comparisons.
        seconds: duration of their trainings, of all models; None if no duration is recorded.
        images_are_few: whether no number of seeds finds the gain, since the sample of images alone hides it.
    """

    seeds: int | None
    points: float
    seconds: float | None
    images_are_few: bool = False

    @property
    def sentence(self) -> str:
        """Gain that they would find, as the end of a line."""
        points = f"{decimal(self.points, digits_of(self.points))} points"
        if self.images_are_few:
            return f"{points} cannot be told on so few images, with any number of seeds"
        if self.seeds is None:
            return f"{points} cannot be told with a sensible number of seeds (at most {MOST_FRESH_SEEDS})"
        noun = "seed" if self.seeds == 1 else "seeds"
        took = "" if self.seconds is None else f", about {duration(self.seconds)}"
        return f"{self.seeds} more {noun} would tell {points}{took}"


def further_seeds(
    result: Comparison, seeds: int, finalists: int, margin: float, seconds: float | None, *, level: float
) -> FurtherSeeds | None:
    """Return the seeds that would tell the margin, or as many again if those that are there would tell it already.

    Args:
        seconds: duration of one more seed of all models; None if it is not recorded.
        level: of the tests after them.

    Returns:
        None for a finalist that is told apart, or not judged yet.
    """
    if result.finding is not Finding.UNDECIDED:
        return None
    deviation, image_error = result.seed_error * float(np.sqrt(seeds)), result.image_error
    finds = partial(detectable, deviation, candidates=finalists, image_error=image_error, level=level)
    if finds(seeds) <= margin:
        more, points = seeds, finds(2 * seeds)
    else:
        needed = seeds_for(margin, deviation, candidates=finalists, image_error=image_error, level=level)
        if needed is None or needed > max(MOST_FRESH_SEEDS, 2 * seeds):
            on_these = seeds_for(margin, deviation, candidates=finalists, level=level)
            few = needed is None and on_these is not None
            return FurtherSeeds(seeds=None, points=margin, seconds=None, images_are_few=few)
        more, points = needed - seeds, margin
    return FurtherSeeds(seeds=more, points=points, seconds=None if seconds is None else more * seconds)
