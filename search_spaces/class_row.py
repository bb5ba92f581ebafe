"""A user's class in its row: build it by one reading, pass the maps through it, and measure what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from search_spaces import fork_rules, named_values
from search_spaces.constructors import Place, Reading
from search_spaces.errors import LayerError, SpecError, shortened
from search_spaces.meta_device import passed
from search_spaces.operators import constructor_names
from search_spaces.operators.user_classes import UserClass
from search_spaces.placed import Placed, as_raw_head, build
from search_spaces.trace import Feature


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Row of a user's class in a model, and the maps that arrive there.

    Attributes:
        arguments: with the values that words in them stand for, as the parser of the class's fork would have them.
        told: what the class wants, by `arguments:` of the model file; None if that does not say.
        received: maps that the row reads, on the meta device.
        is_head: whether the row is the last.
        classes: `nc` of the file.
        scale: of the file.
        may_compute: whether the layer may compute with numbers (`meta_device.passed`).
    """

    found: UserClass
    place: Place
    arguments: Sequence[Any]
    told: Sequence[Any] | None
    received: Sequence[Feature]
    is_head: bool
    classes: Any
    scale: Any
    may_compute: bool


def built(row: ClassRow, reading: Reading, *, single: bool) -> tuple[Placed, Feature]:
    """Build a layer by one reading and pass the maps through it.

    Args:
        single: whether it gets its maps one by one, in place of a list.

    Returns:
        The layer, and what it returns, on the meta device.

    Raises:
        Exception: whatever the class raises; LayerError where what it builds or returns is no layer or no map.
    """
    module = row.found.module
    repeats = 1 if reading.takes_repeats else row.place.repeats
    given = reading.given(row.classes)
    names = constructor_names.names_of(module, given)
    with torch.device("meta"):
        layer = build(module, given, repeats, names=names, one_by_one=single)
    _require_layer(layer)
    x = list(row.received) if row.place.reads_list else row.received[0]
    tried = as_raw_head(layer, len(row.received)) if row.is_head else layer
    returned = passed(tried, x, may_compute=row.may_compute)
    channels = 0 if row.is_head else _returned_channels(returned)
    if reading.is_guess and channels != reading.written[0]:
        raise LayerError(f"it returns {channels} channels, and not {reading.written[0]}")
    made = "predictions" if row.is_head else _shown([returned])
    placed = Placed(
        found=row.found,
        reading=reading,
        given=given,
        repeats=repeats,
        channels=channels,
        summary=f"{call(row, reading, single=single)}: {_shown(row.received)} to {made}",
        names=names,
        one_by_one=single,
        remarks=fork_rules.remarks(row.found, reading.block, row.scale) if row.told is None else (),
    )
    return placed, returned


def _require_layer(built: Any) -> None:
    """Check that a class or function has built a layer of known channels; bring it into eval mode.

    Raises:
        LayerError: it is no layer.
        SpecError: its channels are not known before a first pass.
    """
    if not isinstance(built, nn.Module):
        raise LayerError(f"it returns {shortened(type(built).__name__)}, where a layer is expected")
    built.eval()
    if any(isinstance(one, UninitializedParameter) for one in built.parameters()):
        raise SpecError(
            "it has lazy layers, whose channels show after a first pass only (nn.Conv2d, not nn.LazyConv2d)"
        )


def _returned_channels(returned: Any) -> int | tuple[int, ...]:
    """Return the channels of one map or of several.

    Raises:
        LayerError: it is something else.
    """
    maps = [returned] if isinstance(returned, Tensor) else returned
    if isinstance(maps, list | tuple) and any(isinstance(one, Tensor) and not one.numel() for one in maps):
        raise LayerError("it returns an empty map")
    if isinstance(returned, Tensor):
        if returned.dim() != 4:
            raise LayerError(f"it returns a tensor of {returned.dim()} dimensions, where a map is expected")
        return returned.shape[1]
    if isinstance(returned, list | tuple) and returned and all(isinstance(one, Tensor) for one in returned):
        return tuple(one.shape[1] for one in returned)
    raise LayerError(f"it returns {shortened(type(returned).__name__)}, where a map or a list of maps is expected")


def call(row: ClassRow, reading: Reading, *, single: bool) -> str:
    """Return how a layer is built: `Block(64, 64), 2 times`."""
    arguments = ", ".join(map(named_values.shown, reading.given(row.classes)))
    copies = "" if reading.takes_repeats or row.place.repeats == 1 else f", {row.place.repeats} times"
    return f"{row.found.name}({arguments}){copies}{', its maps one by one' if single else ''}"


def _shown(features: Sequence[Feature]) -> str:
    """Return channels, height and width of maps: `64x32x32`."""
    flat = [one for feature in features for one in ([feature] if isinstance(feature, Tensor) else feature)]
    return " and ".join("x".join(map(str, one.shape[1:])) for one in flat)
