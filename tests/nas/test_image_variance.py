"""Variance of differences over samples of images, apart from that over seeds, on simulated accuracies."""

import numpy as np
import pytest

from nas.algorithms.arrays import FloatArray
from nas.algorithms.image_variance import ImageVariances, image_variances
from nas.algorithms.paired_comparison import Finding, compare, level_of_look
from trials.accuracy.resampling import image_weights

IMAGES, SEEDS = 60, 5


def resampled(rng: np.random.Generator, *, common: float, own: float) -> FloatArray:
    """Return accuracies on resamples, `(2, seeds, resamples)`; deviations are of a difference on one image."""
    each = 20 * rng.standard_normal(IMAGES) + common / np.sqrt(2) * rng.standard_normal((2, 1, IMAGES))
    each = each + own / np.sqrt(2) * rng.standard_normal((2, SEEDS, IMAGES))
    return np.asarray(each @ image_weights(IMAGES)[:300].T / IMAGES)


@pytest.mark.parametrize(("common", "own"), [(2.0, 0.0), (2.0, 4.0), (4.0, 2.0)])
def test_common_part_is_found_whatever_the_seeds_add(common: float, own: float) -> None:
    rng = np.random.default_rng(0)
    found = [image_variances(resampled(rng, common=common, own=own), IMAGES).common[0] for _ in range(100)]
    assert np.mean(found) == pytest.approx(common**2 / IMAGES, rel=0.12)


def test_what_only_seeds_differ_by_is_not_counted_twice() -> None:
    rng = np.random.default_rng(1)
    samples = [resampled(rng, common=0.0, own=4.0) for _ in range(100)]
    found = np.mean([image_variances(sample, IMAGES).common[0] for sample in samples])
    of_mean = np.mean([(sample[1] - sample[0]).mean(axis=0).var(ddof=1) for sample in samples])
    assert found < of_mean / 3


def test_equal_models_have_none() -> None:
    sample = resampled(np.random.default_rng(2), common=1.0, own=1.0)
    assert image_variances(np.stack([sample[0], sample[0], sample[1]]), IMAGES).common[0] == 0


@pytest.mark.parametrize(("shape", "images"), [((2, 1, 10), 5), ((2, 5, 1), 5), ((2, 5, 10), 1), ((2, 5), 5)])
def test_too_few_are_refused(shape: tuple[int, ...], images: int) -> None:
    with pytest.raises(ValueError, match="two seeds, resamples and images or more"):
        image_variances(np.zeros(shape), images)


@pytest.mark.parametrize(("common", "own"), [(2.0, 0.0), (2.0, 4.0), (0.0, 4.0)])
def test_interaction_is_found_whatever_the_seeds_have_in_common(common: float, own: float) -> None:
    rng = np.random.default_rng(3)
    found = [image_variances(resampled(rng, common=common, own=own), IMAGES).interaction[0] for _ in range(100)]
    assert np.mean(found) == pytest.approx(own**2 / IMAGES, rel=0.12, abs=1e-9)


def sampled(common: float, *, interaction: float = 0.0, images: int = 72) -> ImageVariances:
    return ImageVariances(common=np.array([common]), interaction=np.array([interaction]), images=images)


def test_few_images_have_few_degrees_of_freedom() -> None:
    accuracies = np.array([[50.0, 50.1, 49.9], [50.5, 50.7, 50.4]])
    many, few = (compare(accuracies, margin=0.5, sampled=sampled(1.0, images=n))[0] for n in (10_000, 10))
    assert many.image_error == few.image_error == 1
    assert few.degrees_of_freedom == pytest.approx(9, rel=0.1)
    assert many.degrees_of_freedom > 1000
    assert few.high > many.high


def test_seeds_that_agree_by_accident_count_as_what_images_make_of_a_seed() -> None:
    accuracies = np.array([[50.0, 50.1], [50.5, 50.6]])
    (found,) = compare(accuracies, margin=0.5, sampled=sampled(0.01, interaction=0.08))
    assert found.seed_error == pytest.approx(np.sqrt(0.08 / 2))
    assert found.standard_error == pytest.approx(np.sqrt(0.08 / 2 + 0.01))
    assert found.degrees_of_freedom == pytest.approx(71)


def test_seeds_that_differ_by_more_count_as_they_are() -> None:
    accuracies = np.array([[50.0, 50.1], [50.5, 51.6]])
    (found,) = compare(accuracies, margin=0.5, sampled=sampled(0.01, interaction=0.08))
    (alone,) = compare(accuracies, margin=0.5)
    assert found.seed_error == alone.seed_error


@pytest.mark.parametrize("training", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("interaction", [0.1, 3.0])
def test_two_seeds_claim_a_gain_in_at_most_a_twentieth_of_studies_without_one(
    training: float, interaction: float
) -> None:
    """Deviations of one training and of one image's difference; an image's common part deviates by 2."""
    rng, claims, images = np.random.default_rng(4), 0, 72
    for _ in range(1000):
        each = 2 * rng.standard_normal((1, images)) + interaction * rng.standard_normal((2, images))
        each += training * rng.standard_normal((2, 1))
        of_mean, of_single = each.mean(axis=0).var() / images, each.var(axis=1).mean() / images
        common = max(2 * of_mean - of_single, 0.0)
        values = np.stack([np.zeros(2), each.mean(axis=1)])
        variances = sampled(common, interaction=of_single - common)
        (found,) = compare(values, margin=0.5, sampled=variances, level=level_of_look(1))
        claims += found.finding is Finding.BETTER
    assert claims <= 62  # of 1,000, 50 are expected at most; more than 62 in 4 % of such runs
