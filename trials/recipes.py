"""Recipes of short trainings, and the noise of their scores; both were measured: docs/recipes.md."""

from trials.budget import Recipe

SCRATCH = Recipe(bn_momentum=0.1, warmup_epochs=1.0, average_epochs=1.0)
"""From random weights: a higher learning rate, with a warm-up of a whole epoch."""
INHERITED = Recipe(bn_momentum=0.1, learning_rate=1e-3, average_epochs=1.0)
"""From a trained stock model: a lower learning rate, which keeps inherited weights and still trains new layers."""
DIGITS_SCRATCH = Recipe(fliplr=0.0, scale=0.1, learning_rate=4e-3)
"""Digits must not be mirrored. They have few images, so weights change much in an epoch, and the EMA is a short one."""
DIGITS_INHERITED = DIGITS_SCRATCH.model_copy(update={"learning_rate": 2e-3, "bn_momentum": 0.1, "average_epochs": 1.0})
"""Averaged over an epoch, so are batch norm's statistics, of which a single batch has moved a model from .54 to .38
(docs/recipes.md).
"""

NOISE_INHERITED, NOISE_SCRATCH = 0.003, 0.02
"""Standard deviation of mAP50-95 between two trainings of one architecture: inherited weights, and from scratch.

Measured after eight epochs at 128 px, the first at 320 px too; after twenty epochs it is 0.002 (docs/recipes.md). They
are the surrogate's initial observation noise, which it then estimates from the data.
"""
NOISE_MEASURED = "that was measured on the built-in digits after 8 epochs at 128 px"
"""Origin of the two, as part of a message."""
