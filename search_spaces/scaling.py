"""Scaling factors of a whole model: its depth, its width, and the image size that it is deployed at.

`depth` and `width` multiply the numbers of the base model, in all stages or in one (`width.P4`); `image_size` is in
pixels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.errors import SpecError

Scaling = tuple[tuple[str, float], ...]
"""Scaling factors that differ from the base model, sorted by name; `image_size` changes no layer."""

MACRO = "macro"
"""Key of scaling factors in space files, in Optuna's parameter names and in JSON."""
DEPTH, WIDTH, IMAGE_SIZE = "depth", "width", "image_size"
STAGES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7")
"""Stages: the layers of backbone and neck whose maps are 2, 4, 8 ... times smaller than the image."""

_REPEATING = ("C3", "C3k2", "C2f", "C2fCIB", "C2PSA", "A2C2f", "C3Ghost", "C3x", "C3TR", "RepC3")
"""Modules that repeat an inner block; depth scales any other row only if the base model repeats it."""
_REPEATS_ARGUMENT = {"RepNCSPELAN4": 3}
"""Modules that have their number of repeats as an argument, with its position."""
_CHANNELS = {"RepNCSPELAN4": (0, 1, 2), "ELAN1": (0, 1, 2), "SPPELAN": (0, 1)}
"""Positions of the arguments that are channels, for modules where it is not only the first."""
_UNSCALABLE = ("CBLinear", "CBFuse")
_DIVISOR = {"A2C2f": 64}
"""Divisor of channels, where it is not 8: half of the channels of an A2C2f are split into heads of 32."""


def stage(reduction: int) -> str:
    """Return the stage of a layer whose map is `reduction` times smaller than the image: `P3` for 8."""
    return f"P{int(math.log2(reduction))}" if reduction > 1 else "P0"


def scale_row(row: Sequence[Any], place: str, factors: Scaling, *, has_channels: bool) -> list[Any]:
    """Scale the repeats and channels of a row with final numbers.

    Args:
        place: the stage of the layer that the row builds.
        has_channels: whether the first argument is a number of channels.

    Raises:
        SpecError: the row's channels depend on those of other rows, so its width cannot be scaled.
    """
    source, repeats, module, arguments = row
    depth, width = factor(DEPTH, place, factors), factor(WIDTH, place, factors)
    arguments = list(arguments)
    if module in _REPEATS_ARGUMENT:
        arguments[_REPEATS_ARGUMENT[module]] = _scale_repeats(arguments[_REPEATS_ARGUMENT[module]], depth)
    elif module in _REPEATING or repeats > 1:
        repeats = _scale_repeats(repeats, depth)
    if width != 1 and module in _UNSCALABLE:
        raise SpecError(f"{WIDTH}: the channels of {module} cannot be scaled")
    if width != 1 and has_channels:
        for position in _CHANNELS.get(module, (0,)):
            arguments[position] = _scale_channels(arguments[position], width, _DIVISOR.get(module, 8))
    return [source, repeats, module, arguments]


def factor(name: str, place: str, factors: Scaling) -> float:
    """Return the factor for `depth` or `width` of a stage; 1 if it is not scaled."""
    by_name: Mapping[str, float] = dict(factors)
    return by_name.get(name, by_name.get(f"{name}.{place}", 1))


def _scale_repeats(repeats: int, depth: float) -> int:
    """Round to the nearest whole number, half up, and at least 1."""
    return max(1, math.floor(repeats * depth + 0.5))


def _scale_channels(channels: int, width: float, divisor: int) -> int:
    """Round up to a multiple of `divisor`, as Ultralytics scales its models."""
    return math.ceil(channels * width / divisor) * divisor
