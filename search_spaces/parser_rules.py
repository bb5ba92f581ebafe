"""Rules of Ultralytics' parser that the rows of some blocks do not show (`parse_model` in `nn/tasks.py`)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from ultralytics.nn.modules import A2C2f, C2fCIB, C3k2

OF_YOLO11_ON: Mapping[str, type[nn.Module]] = {"C3k2": C3k2, "A2C2f": A2C2f, "C2fCIB": C2fCIB}
"""Blocks of which one in a model makes the branches of its head those of YOLO11: depthwise convolutions for classes."""


def has_plain_branches(blocks: Iterable[str]) -> bool:
    """Return the attribute `legacy` of a head, as the parser sets it for a model with these blocks."""
    return not OF_YOLO11_ON.keys() & set(blocks)


def at_scale(block: str, arguments: Sequence[Any], scale: Any) -> list[Any]:
    """Return the arguments of a block's row as the parser changes them at some scales of YOLO11, 12 and 26."""
    changed = list(arguments)
    if block == "C3k2" and scale in {"m", "l", "x"}:
        changed[1:2] = [True]
    if block == "A2C2f" and scale in {"l", "x"}:
        changed.extend((True, 1.2))
    return changed
