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
        purpose: what the preset is good for, in a few words.
    """

    base_epochs: int
    epochs: int
    scratch_epochs: int
    image_size: int
    purpose: str


PRESETS = MappingProxyType(
    {
        "quick": Preset(
            base_epochs=6, epochs=3, scratch_epochs=3, image_size=128, purpose="a demonstration: its ranking is noise"
        ),
        "standard": Preset(
            base_epochs=60,
            epochs=20,
            scratch_epochs=40,
            image_size=320,
            purpose="finds what is cheaper and as accurate",
        ),
        "thorough": Preset(
            base_epochs=60,
            epochs=20,
            scratch_epochs=40,
            image_size=640,
            purpose="the same, at the size of deployment",
        ),
    }
)
DEMONSTRATION, USUAL = "quick", "standard"
"""Presets of the built-in digits and of all other data, where none is named."""
