"""Recipes of short trainings, and the noise of their scores; both were measured: docs/recipes.md."""

from trials.budget import Recipe

SCRATCH = Recipe(bn_momentum=0.1, warmup_epochs=1.0, average_epochs=1.0)
"""From random weights: a higher rate, and a whole epoch until it is reached."""
INHERITED = Recipe(bn_momentum=0.1, learning_rate=1e-3, average_epochs=1.0)
"""From a trained stock model: what is there already is to be kept, what is new has to catch up."""
DIGITS_SCRATCH = Recipe(fliplr=0.0, scale=0.1, learning_rate=4e-3)
"""Digits must not be mirrored, and have few images to learn from: the weights of an epoch ago are far from the last."""
DIGITS_INHERITED = DIGITS_SCRATCH.model_copy(update={"learning_rate": 2e-3, "bn_momentum": 0.1})

NOISE_INHERITED, NOISE_SCRATCH = 0.003, 0.02
"""The standard deviation of mAP50-95 between two trainings of one architecture, in each of the two ways: measured
after eight epochs at 128 px, the first at 320 px too; after twenty it is 0.002 (docs/recipes.md). Where a surrogate
begins; how much it is on other data it learns."""
NOISE_MEASURED = "that was measured on the built-in digits after 8 epochs at 128 px"
"""Where the two come from, as a message says it."""
