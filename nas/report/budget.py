"""Epochs and seeds of a search that follow from noise and slope."""

from dataclasses import dataclass

from nas.algorithms.seed_noise import SeedNoise, least_difference
from nas.defaults import MARGIN

MOST_SEEDS = 3
"""Most seeds that are recommended for a search."""
_WANTED = 2 * MARGIN
"""Points of mAP50-95 that one comparison is to detect."""


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Epochs of a search that would be long enough.

    Attributes:
        epochs: of a candidate.
        base_epochs: of the stock model before all trials; None if it is not trained then.
        is_lower_bound: whether fewer are not enough, and these perhaps not either.
    """

    epochs: int
    base_epochs: int | None
    is_lower_bound: bool = False

    @property
    def options(self) -> str:
        """Options of `nas search` that set them."""
        base = "" if self.base_epochs is None else f"--base-epochs {self.base_epochs} "
        return f"{base}--epochs {self.epochs}"


def seeds_that_detect(noise: SeedNoise) -> int:
    """Return the fewest seeds of a search that detect twice the margin in one comparison, at most three."""
    return next((n for n in range(1, MOST_SEEDS) if least_difference(noise, n) <= _WANTED), MOST_SEEDS)
