"""Candidates compared with a reference over paired seeds: differences, intervals, tests and equivalence.

Every candidate and the reference are trained with the same seeds. A seed moves all of them alike in part (the same
order of images, the same augmentation), and that part leaves their differences.

Model: `accuracy[candidate, seed] = mean[candidate] + effect[seed] + error`. With `n` seeds and `k` candidates, the
variance of a difference is estimated twice: from the candidate's own differences (`n - 1` degrees of freedom), and from
the residuals of the two-way layout of all of them (`k (n - 1)` degrees of freedom). The larger one counts: the pooled
estimate alone claims too much where candidates are unequally noisy or the noise is heavy-tailed, a candidate's own
estimate alone finds half as many gains with five seeds. `benchmarks/verdict.py` measures both.

Where accuracies are measured on a sample of images, the sampling variance of the difference is added
(`nas.algorithms.image_variance`), and the degrees of freedom of the sum follow Welch and Satterthwaite (Satterthwaite
1946). The variance between seeds consists of the interaction of seeds and images, which the bootstrap of images finds
with many degrees of freedom, and of the rest. Estimated from few seeds, that rest may be small by accident, and would
then vanish beside the images, with its few degrees of freedom. So it counts in these as its upper confidence limit.

Tests are one-sided t-tests, corrected for the number of candidates by Holm's step-down procedure (Holm 1979).
Equivalence is shown by two one-sided tests against a margin (Schuirmann 1987).
"""

from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri, stdtr, stdtrit

from nas.algorithms.arrays import FloatArray
from nas.algorithms.image_variance import ImageVariances

LEVEL = 0.05
"""Share of studies in which a difference may be claimed where there is none, however often seeds are added."""
_FIRST_LOOK = 0.04
"""Part of the level that the first look at a study spends."""
_POWER = 0.8
_CONFIDENCE = 0.75
"""Confidence level of the upper limit of the variance between seeds; with less, two seeds claim too much
(docs/verdict.md)."""
_MOST_SEEDS = 1000


class Finding(StrEnum):
    """Result of the tests for a candidate beside the reference."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    PENDING = "pending"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate beside the reference.

    Attributes:
        difference: mean over seeds of the candidate's accuracy less the reference's.
        low: lower end of the 95 % interval of the difference, for this candidate alone.
        high: upper end of it.
        standard_error: of the difference: the root of the squares of `seed_error` and `image_error`.
        seed_error: its part from the noise between seeds.
        image_error: its part from the sample of images; 0 where that is not estimated.
        degrees_of_freedom: of the standard error.
        p_better: of "not better", after Holm's correction.
        p_worse: of "not worse", after Holm's correction.
        p_equivalent: of "further apart than the margin", after Holm's correction.
        finding: at the level of the test; better or worse comes before equivalent.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    seed_error: float
    image_error: float
    degrees_of_freedom: float
    p_better: float
    p_worse: float
    p_equivalent: float
    finding: Finding


def compare(
    accuracies: FloatArray,
    *,
    margin: float,
    sampled: ImageVariances | None = None,
    level: float | None = LEVEL,
) -> list[Comparison]:
    """Compare candidates with a reference.

    Args:
        accuracies: `(1 + candidates, seeds)`, the reference first.
        margin: differences below it do not matter; in the unit of the accuracies.
        sampled: variances of the differences over samples of images; None where these images alone count.
        level: of the tests, `level_of_look`; None where more seeds are on their way: every finding is pending.

    Raises:
        ValueError: no candidate, fewer than two seeds, or accuracies that are no finite numbers.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(f"a reference and candidates, two seeds or more, finite: got an array of shape {values.shape}")
    tests = tests_of(values, margin, sampled)
    return corrected(tests, level, holm(tests.better))


class Tests(NamedTuple):
    """Differences of candidates to a reference, with p-values that are not corrected; each `(candidates,)`."""

    means: FloatArray
    by_seed: FloatArray
    by_image: FloatArray
    freedom: FloatArray
    better: FloatArray
    worse: FloatArray
    apart: FloatArray


def tests_of(values: FloatArray, margin: float, sampled: ImageVariances | None) -> Tests:
    """Test each candidate against the reference, the first row."""
    means = (values[1:] - values[0]).mean(axis=1)
    by_seed, by_image, freedom = _noise(values, sampled)
    errors = np.sqrt(by_seed + by_image)
    return Tests(
        means=means,
        by_seed=by_seed,
        by_image=by_image,
        freedom=freedom,
        better=_survival(means, errors, freedom),
        worse=_survival(-means, errors, freedom),
        apart=np.maximum(_survival(means + margin, errors, freedom), _survival(margin - means, errors, freedom)),
    )


def corrected(tests: Tests, level: float | None, better: FloatArray) -> list[Comparison]:
    """Return the comparisons of all candidates, after correction for their number; `better` is corrected already."""
    errors = np.sqrt(tests.by_seed + tests.by_image)
    worse, equivalent = holm(tests.worse), holm(tests.apart)
    reach = stdtrit(tests.freedom, 1 - LEVEL / 2) * errors
    return [
        Comparison(
            difference=float(tests.means[index]),
            low=float(tests.means[index] - reach[index]),
            high=float(tests.means[index] + reach[index]),
            standard_error=float(errors[index]),
            seed_error=sqrt(tests.by_seed[index]),
            image_error=sqrt(tests.by_image[index]),
            degrees_of_freedom=float(tests.freedom[index]),
            p_better=float(better[index]),
            p_worse=float(worse[index]),
            p_equivalent=float(equivalent[index]),
            finding=_finding(better[index], worse[index], equivalent[index], level),
        )
        for index in range(len(tests.means))
    ]


def level_of_look(look: int) -> float:
    """Return the level at which the results of a study are tested for the first, second, ... time, counted from 1.

    Seeds that are added because the result was not clear give chance another chance. The first look spends 4 %, each
    further one half of what is left of 5 %: all together claim a difference where there is none in at most 5 % of
    studies (Bonferroni's inequality; alpha spending, Lan and DeMets 1983).
    """
    return _FIRST_LOOK if look == 1 else (LEVEL - _FIRST_LOOK) / 2 ** (look - 1)


def holm(p_values: FloatArray) -> FloatArray:
    """Correct p-values of several tests by Holm's step-down procedure; `(tests,)`."""
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def detectable(
    deviation: float,
    seeds: int,
    *,
    candidates: int = 1,
    freedom: int | None = None,
    image_error: float = 0.0,
    level: float = _FIRST_LOOK,
) -> float:
    """Return the true gain that is found in 80 % of comparisons of this size.

    Args:
        deviation: standard deviation of a paired difference between seeds.
        seeds: two or more; one where the deviation was estimated from other trainings.
        candidates: the first step of Holm's procedure tests at the level divided by their number.
        freedom: degrees of freedom of the deviation; None where it is estimated from the comparison itself.
        image_error: standard error from the sample of images, which no seed reduces.
        level: of the tests; that of a first look.
    """
    by_seed, sampled = deviation**2 / seeds, image_error**2
    of_deviation = candidates * (seeds - 1) if freedom is None else freedom
    degrees = _freedom(by_seed, sampled, 0.0, of_seeds=of_deviation, of_images=np.inf)
    critical = stdtrit(degrees, 1 - level / candidates)
    # Power of a t-test by its usual approximation: the noncentrality that reaches it.
    return float((critical + stdtrit(degrees, _POWER)) * sqrt(by_seed + sampled))


def seeds_for(
    gain: float, deviation: float, *, candidates: int = 1, image_error: float = 0.0, level: float = _FIRST_LOOK
) -> int | None:
    """Return how many paired seeds find a true gain in 80 % of comparisons; None if a thousand do not."""

    def finds(seeds: int) -> bool:
        return detectable(deviation, seeds, candidates=candidates, image_error=image_error, level=level) <= gain

    if not finds(_MOST_SEEDS):
        return None
    return bisect_left(range(_MOST_SEEDS), True, lo=2, key=finds)


def paired_deviation(accuracies: FloatArray) -> float:
    """Return the standard deviation of a paired difference, pooled over candidates; `(1 + candidates, seeds)`."""
    return sqrt(float(_pooled(np.asarray(accuracies, dtype=np.float64))))


def _noise(values: FloatArray, sampled: ImageVariances | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the variances of the mean differences by seeds and by images, and the degrees of freedom of their sum."""
    seeds = values.shape[1]
    variances, pooled_freedom = _variances(values)
    none = np.zeros(len(variances))
    by_image, interaction = (none, none) if sampled is None else (sampled.common, sampled.interaction / seeds)
    image_freedom = np.inf if sampled is None else sampled.images - 1
    freedom = [
        _freedom(each, common + own, own, of_seeds=pooled_freedom, of_images=image_freedom)
        for each, common, own in zip(variances / seeds, by_image, interaction, strict=True)
    ]
    return np.maximum(variances / seeds, interaction), by_image, np.array(freedom)


def _variances(values: FloatArray) -> tuple[FloatArray, int]:
    """Return the variance of each candidate's differences, `(candidates,)`, and the degrees of freedom."""
    candidates, seeds = values.shape[0] - 1, values.shape[1]
    each = (values[1:] - values[0]).var(axis=1, ddof=1)
    return np.maximum(each, _pooled(values)), candidates * (seeds - 1)


def _pooled(values: FloatArray) -> float:
    """Return the variance of a difference by the residuals of the two-way layout."""
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    return 2 * float((residuals**2).sum()) / freedom


def _freedom(by_seed: float, by_image: float, interaction: float, *, of_seeds: float, of_images: float) -> float:
    """Return Satterthwaite's degrees of freedom of the variance of a mean over seeds, on a sample of images.

    Args:
        by_seed: its part from the noise between seeds.
        by_image: its variance over samples of images, with the same seeds.
        interaction: part that both have in common.
        of_seeds: degrees of freedom of the noise between seeds.
        of_images: of the variance over samples of images; infinite if it is known.
    """
    # The variance is by_image and the rest of by_seed; the rest counts by the upper limit of by_seed.
    limit = by_seed * of_seeds / float(chdtri(of_seeds, _CONFIDENCE))
    rest = max(limit - interaction, 0.0)
    uncertain = rest**2 / of_seeds + by_image**2 / of_images
    return (rest + by_image) ** 2 / uncertain if uncertain > 0 else of_seeds


def _survival(means: FloatArray, errors: FloatArray, freedom: FloatArray) -> FloatArray:
    """Return one-sided p-values; a difference without any noise is certain."""
    certain = errors == 0
    ratio = np.divide(means, errors, out=np.zeros_like(means), where=~certain)
    p_values = stdtr(freedom, -ratio)
    return np.where(certain, np.where(means > 0, 0.0, 1.0), p_values)


def _finding(better: float, worse: float, equivalent: float, level: float | None) -> Finding:
    if level is None:
        return Finding.PENDING
    if better <= level:
        return Finding.BETTER
    if worse <= level:
        return Finding.WORSE
    return Finding.EQUIVALENT if equivalent <= level else Finding.UNDECIDED
