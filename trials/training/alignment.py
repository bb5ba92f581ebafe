"""Which layers of two models of one family have the same role, where one has more of them: heads with P2 or P6.

The layers are aligned as `diff` aligns lines: by the longest runs of equal type and stride, with the method of Ratcliff
and Obershelp ("Pattern Matching: the Gestalt Approach", 1988; `difflib`). Levels of the detection heads are those of
equal stride.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import nn

from search_spaces import OPERATORS, build
from search_spaces.trace import first

Layer = tuple[type[nn.Module], int]
"""Type of a layer, and image pixels per pixel of its output; 0 for the head."""

_IMAGE_SIZE = 256

_LEVEL = re.compile(r"((?:one2one_)?cv[23]\.)(\d+)(\..*)")
"""Tensors of one level in a detection head: boxes in `cv2`, classes in `cv3`."""


def align(layers: Sequence[Layer], others: Sequence[Layer]) -> dict[int, int]:
    """Return the index of the layer of equal role in `layers`, for each of `others` that has one.

    An operator stands in the place of a layer of another type, so a run of unlike layers is aligned one by one, where
    both models have as many and one of the two is an operator.
    """
    operators = {record.module for record in OPERATORS.values()}
    found: dict[int, int] = {}
    for kind, begin, end, start, stop in SequenceMatcher(None, others, layers, autojunk=False).get_opcodes():
        pairs = list(zip(range(begin, end), range(start, stop), strict=False))
        if kind == "equal":
            found.update(pairs)
        elif kind == "replace" and end - begin == stop - start:
            found.update(pair for pair in pairs if {others[pair[0]][0], layers[pair[1]][0]} & operators)
    return found


def layers_of(model: Any) -> list[Layer]:
    """Return type and stride of every layer of a built model."""
    with torch.random.fork_rng(devices=[]):
        traced = build.pass_through(build.skeleton(model.yaml, len(model.names)))
    strides = [_IMAGE_SIZE // first(step.returned).shape[-1] for step in traced[:-1]]
    return [(type(layer), stride) for layer, stride in zip(model.model, [*strides, 0], strict=True)]


def level_of_role(role: str, levels: Mapping[int, int]) -> str | None:
    """Return the role of a head's tensor in another model; None if that has no level of the same stride.

    Args:
        role: the tensor's name in the head.
        levels: the level of equal stride in the other model, for each level of this one that has one.
    """
    found = _LEVEL.fullmatch(role)
    if found is None:
        return role
    before, level, after = found.groups()
    return f"{before}{levels[int(level)]}{after}" if int(level) in levels else None
