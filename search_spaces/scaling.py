"""Choices about a model as a whole: its depth, its width, the size of the images it is deployed at.

A dial is one number that a search may turn: `depth` and `width` multiply what the base model has, everywhere or in one
stage (`width.P4`), `image_size` is in pixels. A setting is the dials that are turned, by name.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.errors import SpecError

Scaling = tuple[tuple[str, float], ...]
"""The dials that differ from the base model, sorted by name; `image_size` among them changes no layer."""

MACRO = "macro"
"""The word under which dials are written, in a space file, a sampler's parameters and JSON."""
DEPTH, WIDTH, IMAGE_SIZE = "depth", "width", "image_size"
STAGES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7")
"""A stage is the layers whose maps are 2, 4, 8 ... times smaller than the image, in backbone and neck."""

_REPEATING = ("C3", "C3k2", "C2f", "C2fCIB", "C2PSA", "A2C2f", "C3Ghost", "C3x", "C3TR", "RepC3")
"""Modules that repeat what is inside them; any other row is repeated only where the base model repeats it."""
_OWN_REPEATS = {"RepNCSPELAN4": 3}
"""Modules that count their repeats themselves, and the argument that says how often."""
_CHANNELS = {"RepNCSPELAN4": (0, 1, 2), "ELAN1": (0, 1, 2), "SPPELAN": (0, 1)}
"""The arguments that are channels, where it is not the first alone."""
_UNSCALABLE = ("CBLinear", "CBFuse")
_DIVISOR = {"A2C2f": 64}
"""What channels are a multiple of, where it is not 8: half of an A2C2f's are split into heads of 32."""


def stage(reduction: int) -> str:
    """The stage of a layer whose map is so many times smaller than the image."""
    return f"P{int(math.log2(reduction))}" if reduction > 1 else "P0"


def scale_row(row: Sequence[Any], place: str, setting: Scaling, *, has_channels: bool) -> list[Any]:
    """A row of an explicit base model at a setting.

    Args:
        place: the stage of the layer that the row builds.
        has_channels: whether the first argument is a number of channels.

    Raises:
        SpecError: a row whose channels are tied to other rows' cannot be made wider or narrower.
    """
    source, repeats, module, arguments = row
    depth, width = factor(DEPTH, place, setting), factor(WIDTH, place, setting)
    arguments = list(arguments)
    if module in _OWN_REPEATS:
        arguments[_OWN_REPEATS[module]] = _repeated(arguments[_OWN_REPEATS[module]], depth)
    elif module in _REPEATING or repeats > 1:
        repeats = _repeated(repeats, depth)
    if width != 1 and module in _UNSCALABLE:
        raise SpecError(f"{WIDTH}: the channels of {module} cannot be scaled")
    if width != 1 and has_channels:
        for position in _CHANNELS.get(module, (0,)):
            arguments[position] = _widened(arguments[position], width, _DIVISOR.get(module, 8))
    return [source, repeats, module, arguments]


def factor(dial: str, place: str, setting: Scaling) -> float:
    """What a stage's depth or width is multiplied by."""
    turned_dials: Mapping[str, float] = dict(setting)
    return turned_dials.get(dial, turned_dials.get(f"{dial}.{place}", 1))


def _repeated(repeats: int, depth: float) -> int:
    """At least one, and half a block more rounds up."""
    return max(1, math.floor(repeats * depth + 0.5))


def _widened(channels: int, width: float, divisor: int) -> int:
    """The multiple of `divisor` at or above the product, as Ultralytics scales its own models."""
    return math.ceil(channels * width / divisor) * divisor
