"""Three documented amounts of training, from a demonstration to a thorough search.

What a score of each is worth was measured: docs/recipes.md. Nothing heavy is imported here: `nas search --help` shows
these numbers.
"""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Amount of training.

    Attributes:
        base_epochs: epochs of the stock model, which is trained once per study and from which every candidate starts.
        epochs: epochs of each candidate that starts so.
        scratch_epochs: epochs of each candidate that starts from random weights instead.
        image_size: training image size of all of them, in pixels.
        most_images: that are trained on, unless a fraction is given: of a larger set, a subset chosen by class.
        purpose: what the preset is good for, in a few words.
    """

    base_epochs: int
    epochs: int
    scratch_epochs: int
    image_size: int
    most_images: int
    purpose: str


PRESETS = MappingProxyType(
    {
        "quick": Preset(
            base_epochs=6,
            epochs=3,
            scratch_epochs=3,
            image_size=128,
            most_images=2400,
            purpose="a demonstration: its ranking is noise",
        ),
        "standard": Preset(
            base_epochs=60,
            epochs=20,
            scratch_epochs=40,
            image_size=320,
            most_images=4000,
            purpose="finds what is cheaper and as accurate",
        ),
        "thorough": Preset(
            base_epochs=60,
            epochs=20,
            scratch_epochs=40,
            image_size=640,
            most_images=4000,
            purpose="the same, at the size of deployment",
        ),
    }
)
DEMONSTRATION, USUAL = "quick", "standard"
"""Presets of the built-in digits and of all other data, where none is named."""
FEW_IMAGES, LEAST_EPOCHS = 2400, 6
"""Images up to which a preset's epochs hold, and the fewest epochs to which more images reduce them.

Bounds, not measured: a trial of `standard` reads at most 48,000 images, of up to 8000. The learning rate falls from
epoch to epoch, and warm-up and averages of weights are counted in epochs, so that a few are needed.
"""
MOST_VALIDATION_IMAGES = 5000
"""Most images that a trial is validated on: a bound, not measured; all of COCO's."""


def epochs_for(epochs: int, images: int) -> int:
    """Return in how many epochs so many images are read as often, in all, as few images in a preset's epochs."""
    return epochs if images <= FEW_IMAGES else max(min(epochs, LEAST_EPOCHS), round(epochs * FEW_IMAGES / images))
