"""Rules by which parsers of forks build a class otherwise than its row says."""

import ast
from collections.abc import Iterator, Sequence
from contextlib import suppress
from inspect import getsource
from itertools import chain
from textwrap import dedent
from typing import Any

from torch import nn
from ultralytics.nn.modules import C3k2, Detect

from search_spaces import parser_rules
from search_spaces.operators import constructor_names
from search_spaces.operators.user_classes import UserClass

_OF_YOLOV13 = {"HyperACE", "DownsampleConv"}
"""Classes of YOLOv13 whose arguments its parser changes by scale."""

_HYPEREDGES = {"n": 0.5, "x": 1.5}
"""Factor of HyperACE's hyperedges."""

_BY_SCALE = {
    "C3k2": ("c3k", "c3k is True at m, l and x"),
    "A2C2f": ("residual", "residual is True and mlp_ratio 1.2 at l and x"),
}
"""The first argument that Ultralytics' parser changes by scale, and how."""

_BEFORE_ATTENTION = 5
"""Arguments of `C3k2` before `attn`, which older releases do not have."""


def as_yolov13(found: UserClass, arguments: Sequence[Any], scale: Any) -> list[Any]:
    """Return the arguments of a row as YOLOv13's parser changes them for two classes of its own, by scale."""
    changed = list(arguments)
    if found.name not in _OF_YOLOV13:
        return changed
    if found.name == "HyperACE" and len(changed) > 1 and type(changed[1]) is int:
        changed[1] = int(changed[1] * _HYPEREDGES.get(scale, 1))
    is_adjusted = _names(found.module)[-1:] == ["channel_adjust"] and scale in {"l", "x"}
    return [*changed, False] if is_adjusted else changed


def block_of(found: UserClass) -> str:
    """Return Ultralytics' block as which parsers of forks take a class; empty if none.

    That is the one after which it is called (`C3k2_UIB`), or from which it is derived.
    """
    if found.source is None:
        return ""
    named = (block for block in parser_rules.OF_YOLO11_ON if block in found.name)
    derived = (block for block, module in parser_rules.OF_YOLO11_ON.items() if _is_subclass(found.module, module))
    return next(chain(named, derived), "")


def as_block(found: UserClass, block: str, arguments: Sequence[Any], scale: Any) -> list[Any]:
    """Return the arguments of a class's row as a fork's parser changes those of a block at a scale."""
    return parser_rules.at_scale(block, arguments, scale) if _changes_by_scale(found, block) else list(arguments)


def remarks(found: UserClass, block: str, scale: Any) -> tuple[str, ...]:
    """Return what the parser of a class's fork may do besides building it.

    Args:
        block: as which the class was read; empty if as none.
    """
    if found.source is None:
        return ()
    every = (_of_yolov13(found, scale), _of_block(found, block, scale) if block else "", of_older_parent(found.module))
    return tuple(one for one in every if one)


def _of_yolov13(found: UserClass, scale: Any) -> str:
    """Return what YOLOv13's parser does for layers of Ultralytics in the file of a class; empty if nothing."""
    if found.name != "HyperACE" or scale not in {"l", "x"}:
        return ""
    return "YOLOv13's parser gives A2C2f mlp_ratio=1.5 at l and x; here those layers have Ultralytics' 1.2"


def _of_block(found: UserClass, block: str, scale: Any) -> str:
    """Return what it means that a class is taken as a block, and how a model file says that it is not."""
    is_changed = _changes_by_scale(found, block) and parser_rules.at_scale(block, [], scale)
    changes = f", and {_BY_SCALE[block][1]}" if is_changed else ""
    return (
        f"taken as {block}, as most forks do: the head has YOLO11's branches{changes}; "
        f"`arguments: {{{found.name}: [in, out, repeats, rest]}}` in the model file builds it without that"
    )


def _changes_by_scale(found: UserClass, block: str) -> bool:
    """Return whether a constructor has, in a block's place, the argument that changes by scale, or takes any."""
    argument, _ = _BY_SCALE.get(block, ("", ""))
    theirs, ours = _names(found.module), _names(parser_rules.OF_YOLO11_ON[block])
    return bool(argument) and (not theirs or (argument in theirs and theirs.index(argument) == ours.index(argument)))


def of_older_parent(module: Any) -> str:
    """Return what is wrong with a class that hands on arguments in the order of an older `C3k2` or `Detect`."""
    if not _is_subclass(module, (C3k2, Detect)):  # else the source of every class would be parsed
        return ""
    for given in _handed_on(module):
        if _is_subclass(module, C3k2) and given[_BEFORE_ATTENTION : _BEFORE_ATTENTION + 1] == ["g"]:
            return (
                "its constructor hands g to C3k2 as the sixth argument, which it was in older releases, and which is "
                "attn now: write `super().__init__(c1, c2, n, c3k, e, g=g, shortcut=shortcut)`"
            )
        if _is_subclass(module, Detect) and len(given) == 2 and given[1] in {"ch", "channels"}:
            return (
                "its constructor hands its channels to Detect as the second argument, which they were in older "
                "releases; Ultralytics' Detect takes (nc, reg_max, end2end, ch): write `super().__init__(nc, ch=ch)`"
            )
    return ""


def _names(module: type[nn.Module]) -> list[str]:
    return [one.name for one in constructor_names.arguments(module)]


def _is_subclass(module: Any, parents: type[nn.Module] | tuple[type[nn.Module], ...]) -> bool:
    return isinstance(module, type) and issubclass(module, parents)


def _handed_on(module: Any) -> Iterator[list[str]]:
    """Yield what a user's constructor gives by position to that of the class it is derived from."""
    if (getattr(module.__init__, "__module__", None) or "").startswith("ultralytics."):
        return
    with suppress(OSError, TypeError, SyntaxError):
        for node in ast.walk(ast.parse(dedent(getsource(module.__init__)))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
                given = [ast.unparse(one) for one in node.args]
                yield given[1:] if given[:1] == ["self"] else given
