"""Variance of differences over samples of images, apart from that over seeds, on simulated accuracies."""

import numpy as np
import pytest

from nas.algorithms.arrays import FloatArray
from nas.algorithms.image_variance import image_variances
from nas.algorithms.paired_comparison import compare
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
    found = [image_variances(resampled(rng, common=common, own=own), IMAGES)[0] for _ in range(100)]
    assert np.mean(found) == pytest.approx(common**2 / IMAGES, rel=0.12)


def test_what_only_seeds_differ_by_is_not_counted_twice() -> None:
    rng = np.random.default_rng(1)
    samples = [resampled(rng, common=0.0, own=4.0) for _ in range(100)]
    found = np.mean([image_variances(sample, IMAGES)[0] for sample in samples])
    of_mean = np.mean([(sample[1] - sample[0]).mean(axis=0).var(ddof=1) for sample in samples])
    assert found < of_mean / 3


def test_equal_models_have_none() -> None:
    sample = resampled(np.random.default_rng(2), common=1.0, own=1.0)
    assert image_variances(np.stack([sample[0], sample[0], sample[1]]), IMAGES)[0] == 0


@pytest.mark.parametrize(("shape", "images"), [((2, 1, 10), 5), ((2, 5, 1), 5), ((2, 5, 10), 1), ((2, 5), 5)])
def test_too_few_are_refused(shape: tuple[int, ...], images: int) -> None:
    with pytest.raises(ValueError, match="two seeds, resamples and images or more"):
        image_variances(np.zeros(shape), images)


def test_few_images_have_few_degrees_of_freedom() -> None:
    accuracies = np.array([[50.0, 50.1, 49.9], [50.5, 50.7, 50.4]])
    known, estimated = (compare(accuracies, margin=0.5, image_variances=[1.0], images=n)[0] for n in (None, 10))
    assert known.image_error == estimated.image_error == 1
    assert estimated.degrees_of_freedom == pytest.approx(9, rel=0.1)
    assert known.degrees_of_freedom > 1000
    assert estimated.high > known.high
