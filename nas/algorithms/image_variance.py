"""Sampling variance of differences in accuracy over images, apart from the variance over seeds.

Model: on a sample of images, `difference[seed] = mean + image_part + seed_part[seed] + interaction[seed]`. The image
part is what all seeds have in common because of the sample; more seeds do not reduce it. The interaction, which images
a seed happens to find, is in the variance between the seeds' differences already.

With `n` seeds, the bootstrap over images of the mean difference estimates `image + interaction / n`, and that of a
single seed's difference, averaged over the seeds, `image + interaction`. So
`image = (n * of_mean - of_single) / (n - 1)`, at least 0, and `interaction = of_single - image`. To add the bootstrap
variance of the mean itself would count the interaction twice (`benchmarks/verdict.py`).

The variance between seeds is the interaction and that of the seed parts, so it is at least the interaction, which
hundreds of images estimate better than few seeds.

The decomposition is that of studies with several readers and several cases (Dorfman, Berbaum and Metz 1992).
"""

from dataclasses import dataclass

import numpy as np

from nas.algorithms.arrays import FloatArray


@dataclass(frozen=True, kw_only=True)
class ImageVariances:
    """Variances of candidates' differences to the reference over samples of images; `(candidates,)` each.

    Attributes:
        common: of the part that all seeds have in common.
        interaction: of the part that each seed has for itself.
        images: number of images from which both are estimated.
    """

    common: FloatArray
    interaction: FloatArray
    images: int


def image_variances(resampled: FloatArray, images: int) -> ImageVariances:
    """Estimate the variances of each candidate's difference to the reference over samples of images.

    Args:
        resampled: accuracies on the same resamples of the images, `(1 + candidates, seeds, resamples)`, the reference
            first.
        images: number of images.

    Raises:
        ValueError: fewer than two seeds, resamples or images.
    """
    values = np.asarray(resampled, dtype=np.float64)
    if values.ndim != 3 or min(values.shape[1:]) < 2 or images < 2:
        raise ValueError(f"two seeds, resamples and images or more: got {values.shape} and {images} images")
    seeds = values.shape[1]
    differences = values[1:] - values[0]
    # A bootstrap sample varies by the variance with divisor n: too small by (n - 1) / n (Efron and Tibshirani 1993).
    of_mean = differences.mean(axis=1).var(axis=1, ddof=1) * images / (images - 1)
    of_single = differences.var(axis=2, ddof=1).mean(axis=1) * images / (images - 1)
    common = np.maximum((seeds * of_mean - of_single) / (seeds - 1), 0.0)
    return ImageVariances(common=common, interaction=np.maximum(of_single - common, 0.0), images=images)
