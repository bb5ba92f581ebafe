"""Read from a built layer of Ultralytics the settings that its constructor got, by their names there."""

from collections.abc import Mapping
from inspect import signature
from math import nextafter
from typing import Any

from torch import nn
from ultralytics.nn.modules import C2PSA, C3, PSA, SPPELAN, SPPF, A2C2f, Bottleneck, C2f, C3k2, Conv, RepNCSPELAN4
from ultralytics.nn.modules.block import CIB, ABlock, C3k, PSABlock, RepVGGDW

from search_spaces.operators import Value

_UNWRITTEN = {"e", "g", "n", "shortcut", "attn", "lk", "residual", "mlp_ratio"}
"""Settings that the rows of Ultralytics' model files have only where they are not the default."""


def settings_of(layer: nn.Module, c_out: int) -> dict[str, Value]:
    """Return the settings of a block or a spatial pyramid; empty for other layers.

    Args:
        layer: as Ultralytics built it.
        c_out: its output channels.
    """
    match layer:
        case SPPF(m=pool):
            return {"k": int(pool.kernel_size), "n": layer.n, "shortcut": layer.add}
        case SPPELAN(cv2=pool):
            return {"c3": layer.c, "k": int(pool.kernel_size)}
        case RepNCSPELAN4(cv1=Conv(conv=conv), cv4=Conv(conv=last)):  # so is an ELAN1
            return {"c3": conv.out_channels, "c4": (last.in_channels - conv.out_channels) // 2}
        case C2f(c=hidden) | C2PSA(c=hidden) | PSA(c=hidden):
            return {"e": _expansion(hidden, c_out), **_of_inner_blocks(layer)}
        case C3(cv1=Conv(conv=conv)) | A2C2f(cv1=Conv(conv=conv)):
            return {"e": _expansion(conv.out_channels, c_out), **_of_inner_blocks(layer)}
        case _:
            return {}


def unwritten_of(layer: nn.Module, settings: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the names of those settings of a layer that its row leaves to the default of the constructor."""
    defaults = signature(type(layer).__init__).parameters
    return tuple(name for name, value in settings.items() if name in _UNWRITTEN and value == defaults[name].default)


def _expansion(hidden: int, c_out: int) -> float:
    """Return a number with which a constructor has so many hidden channels, `int(c_out * e)`."""
    expansion = hidden / c_out
    return expansion if int(c_out * expansion) == hidden else nextafter(expansion, 1.0)


def _of_inner_blocks(layer: nn.Module) -> Mapping[str, Value]:
    """Return the settings of a block that show in what it repeats."""
    found: dict[str, Value] = {}
    inner: dict[type, Any] = {type(one): one for one in reversed([*layer.modules()])}  # the first of each
    if isinstance(layer, C3k2):
        found |= {"c3k": C3k in inner or PSABlock in inner, "attn": PSABlock in inner}  # YOLO26's row has both
    if isinstance(layer, A2C2f):
        found |= {"a2": ABlock in inner, "residual": layer.gamma is not None}
    if ABlock in inner:
        first, _ = inner[ABlock].mlp
        found |= {
            "area": inner[ABlock].attn.area,
            "mlp_ratio": _expansion(first.conv.out_channels, first.conv.in_channels),
        }
    if Bottleneck in inner:
        found |= {"shortcut": inner[Bottleneck].add, "g": inner[Bottleneck].cv2.conv.groups}
    elif CIB in inner:
        found |= {"shortcut": inner[CIB].add, "lk": RepVGGDW in inner}
    return found
