"""Noise between seeds: the variance that is left of accuracies without architecture and seed.

    accuracy[architecture, seed] = mean[architecture] + effect[seed] + error

A seed moves all architectures alike in part, and that part leaves their differences; what counts for a ranking is the
error. Its variance is the residual of the two-way layout, by least squares, since few architectures have all seeds.
Sums of squares and degrees of freedom of several studies add up. The interval is that of a variance of normal errors:
`df * s^2 / chi^2` (Snedecor and Cochran, "Statistical Methods", 8th edition, 1989, section 5.10).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import chdtri

from nas.algorithms.paired_comparison import LEVEL, detectable, seeds_for

Trainings = Mapping[tuple[str, int], float]
"""Accuracies of one study by architecture and seed."""


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """Standard deviation between seeds, in the unit of the accuracies.

    Attributes:
        deviation: of one training's error, without what a seed does to all architectures.
        low: lower end of the 95 % interval.
        high: upper end of it.
        degrees_of_freedom: of the estimate.
    """

    deviation: float
    low: float
    high: float
    degrees_of_freedom: int


def estimate(studies: Iterable[Trainings]) -> SeedNoise | None:
    """Estimate the noise from the repeats of one or more studies; None if no study leaves a degree of freedom."""
    return _pooled([_residual(trainings) for trainings in studies])


def _pooled(parts: Sequence[tuple[float, int]]) -> SeedNoise | None:
    """Return the noise of sums of squares and their degrees of freedom; None if there are no degrees."""
    freedom = sum(degrees for _, degrees in parts)
    if freedom == 0:
        return None
    squares = sum(part for part, _ in parts)
    low, high = (squares / chdtri(freedom, 1 - share) for share in (1 - LEVEL / 2, LEVEL / 2))
    return SeedNoise(deviation=sqrt(squares / freedom), low=sqrt(low), high=sqrt(high), degrees_of_freedom=freedom)


def estimate_with_seeds(studies: Iterable[Trainings]) -> SeedNoise | None:
    """Estimate the noise of one training, with what a seed does to all architectures; None without repeats.

    It is what a difference has that is not paired: between trainings of other lengths. The variance within
    architectures; its degrees of freedom take their errors as independent.
    """
    parts = [_within(trainings) for trainings in studies]
    return _pooled([part for part in parts if part[1]])


def least_difference(noise: SeedNoise, seeds: int) -> float:
    """Return the true difference that so many seeds of a search detect in 80 % of comparisons of two models.

    The noise is known from all repeats, and one comparison is made.

    Args:
        seeds: of both models.
    """
    freedom = max(noise.degrees_of_freedom, seeds - 1)
    return detectable(sqrt(2) * noise.deviation, seeds, freedom=freedom)


def confirmed_difference(noise: SeedNoise, seeds: int, *, finalists: int, image_error: float = 0.0) -> float:
    """Return the true gain of a finalist that a confirmation with so many fresh seeds finds in 80 % of cases.

    A confirmation estimates the noise anew, from its own seeds, and tests all finalists together.

    Args:
        seeds: two or more.
        finalists: their number.
        image_error: standard error of a difference from the sample of images that judge; 0 where only seeds differ.
    """
    return detectable(sqrt(2) * noise.deviation, seeds, candidates=finalists, image_error=image_error)


def seeds_to_confirm(noise: SeedNoise, gain: float, *, finalists: int, image_error: float = 0.0) -> int | None:
    """Return the fewest seeds with which `confirmed_difference` is at most a gain; None if a thousand are too few."""
    return seeds_for(gain, sqrt(2) * noise.deviation, candidates=finalists, image_error=image_error)


def _residual(trainings: Trainings) -> tuple[float, int]:
    """Return the residual sum of squares of the two-way layout, and its degrees of freedom."""
    repeated = _repeated(trainings)
    if not repeated:
        return 0.0, 0
    names, seeds = sorted({name for name, _ in repeated}), sorted({seed for _, seed in repeated})
    design = np.zeros((len(repeated), len(names) + len(seeds)))
    for row, (name, seed) in enumerate(repeated):
        design[row, names.index(name)] = design[row, len(names) + seeds.index(seed)] = 1
    values = np.array([trainings[key] for key in repeated])
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    return float(((values - design @ solution) ** 2).sum()), len(repeated) - int(rank)


def _within(trainings: Trainings) -> tuple[float, int]:
    """Return the sum of squares within architectures, and its degrees of freedom."""
    values: dict[str, list[float]] = {}
    for key in _repeated(trainings):
        values.setdefault(key[0], []).append(trainings[key])
    squares = sum(float(((np.array(each) - np.mean(each)) ** 2).sum()) for each in values.values())
    return squares, sum(len(each) - 1 for each in values.values())


def _repeated(trainings: Trainings) -> Sequence[tuple[str, int]]:
    """Return the trainings of architectures that have several; a single one says nothing about noise.

    Sorted, so that sums are equal to the last bit in any order of trials.
    """
    numbers = Counter(name for name, _ in trainings)
    return sorted(key for key in trainings if numbers[key[0]] > 1)
