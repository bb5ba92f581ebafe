"""How much a score costs: three documented amounts of training, and the recipes that go with them.

What each is worth was measured: docs/recipes.md.
"""

from dataclasses import dataclass
from types import MappingProxyType

from trials.budget import Recipe


@dataclass(frozen=True, kw_only=True)
class Preset:
    """An amount of training.

    Attributes:
        base_epochs: of the stock model, once for a study, before every candidate starts from it.
        epochs: of each candidate that starts so.
        scratch_epochs: of each candidate that starts from random weights instead.
        image_size: in pixels, of both.
        says: in a few words what it is good for.
    """

    base_epochs: int
    epochs: int
    scratch_epochs: int
    image_size: int
    says: str


PRESETS = MappingProxyType(
    {
        "quick": Preset(
            base_epochs=6, epochs=3, scratch_epochs=3, image_size=128, says="a demonstration: its ranking is noise"
        ),
        "standard": Preset(
            base_epochs=60, epochs=20, scratch_epochs=40, image_size=320, says="finds what is cheaper and as accurate"
        ),
        "thorough": Preset(
            base_epochs=60, epochs=20, scratch_epochs=40, image_size=640, says="the same, at the size of deployment"
        ),
    }
)

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
