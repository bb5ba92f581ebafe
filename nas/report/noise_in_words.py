"""Say how noisy trainings are, and which differences a search can tell from noise."""

from collections.abc import Mapping

from nas.algorithms.seed_noise import SeedNoise, least_difference
from nas.report.verdict import CHOSEN_BY
from nas.words import with_unit

SEED_NUMBERS = (1, 2, 3)
"""Numbers of seeds of a search for which the least difference is shown."""


def noise_in_words(noise: SeedNoise) -> str:
    """Return the standard deviation between seeds, with its interval and degrees of freedom."""
    interval = f"95 %: {noise.low:.2f} to {noise.high:.2f}"
    freedom = "1 degree" if noise.degrees_of_freedom == 1 else f"{noise.degrees_of_freedom} degrees"
    return f"{noise.deviation:.2f} points between seeds of one architecture ({interval}, {freedom} of freedom)"


def least_differences(noise: SeedNoise) -> dict[int, float]:
    """Return the true difference of two models that a search detects, by number of its seeds."""
    return {seeds: least_difference(noise, seeds) for seeds in SEED_NUMBERS}


def shown_by_search(differences: Mapping[int, float]) -> str:
    """Return which true differences a search shows, by number of its seeds."""
    each = [f"{points:.1f} with {with_unit(seeds, 'seed')}" for seeds, points in differences.items()]
    return f"true differences of two models that a search shows, in points, on {CHOSEN_BY}: {', '.join(each)}"


def by_number(differences: Mapping[int, float] | None) -> dict[str, float] | None:
    """Return differences by number of seeds as values for JSON."""
    return None if differences is None else {str(seeds): points for seeds, points in differences.items()}
