"""Layers of users' classes in a built model: where they stand, what they were built of, and what they return."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from ultralytics.nn.modules import Conv, Detect

from search_spaces import model_file, parser_rules
from search_spaces.build import replace_layer
from search_spaces.constructors import Reading
from search_spaces.errors import SpecError
from search_spaces.one_by_one import OneByOne
from search_spaces.operators import user_classes
from search_spaces.operators.user_classes import UserClass
from search_spaces.without_cuda import named_cuda_as

STAND_IN = "Index"
"""Ultralytics' layer whose row says the channels behind it, whatever they are: the place of a user's class."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Layer of a user's class.

    Attributes:
        given: arguments of the constructor for this document's classes.
        names: of the last arguments, if the constructor takes them by name alone.
        repeats: copies in a row, where the class does not take them as an argument.
        channels: of the map that it returns; a tuple of those of several maps.
        summary: of what was built, and what it makes of which maps.
        one_by_one: whether it takes its maps as several arguments, in place of a list.
        remarks: on what the fork's own parser may do besides.
    """

    found: UserClass
    reading: Reading
    given: tuple[Any, ...]
    repeats: int
    channels: int | tuple[int, ...]
    summary: str
    names: tuple[str, ...] = ()
    one_by_one: bool = False
    remarks: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """Build the layer on the device of the context."""
        return build(self.found.module, self.given, self.repeats, names=self.names, one_by_one=self.one_by_one)


PLACED: WeakKeyDictionary[nn.Module, Placed] = WeakKeyDictionary()
"""Of the layers that this process has built of users' classes."""


def with_stand_ins(document: Mapping[str, Any], placed: Mapping[int, Placed]) -> dict[str, Any]:
    """Return a document with a row of Ultralytics for each layer of a user's class, which says the channels behind it.

    The row reads one layer, since Ultralytics' reads no others; `put` restores what the layer reads. The other rows are
    copies, since the parser changes arguments in place.
    """
    changed = {**document, **{section: deepcopy(document[section]) for section in model_file.SECTIONS}}
    split = len(document["backbone"])
    for index, one in placed.items():
        section, position = ("backbone", index) if index < split else ("head", index - split)
        channels = list(one.channels) if isinstance(one.channels, tuple) else one.channels
        changed[section][position] = [-1, 1, STAND_IN, [channels, 0]]
    return changed


def put(placed: Mapping[int, Placed], document: Mapping[str, Any], built: nn.Sequential, save: list[int]) -> list[int]:
    """Put the layers of users' classes into the places of their stand-ins; return the layers whose maps are saved."""
    rows = [row for _, row in model_file.addressed(document)]
    for index, one in placed.items():
        source = rows[index][0]
        if index == len(rows) - 1:
            set_branches(one.found.module, document, placed)
        built[index].f = source
        layer = one.build()
        PLACED[layer] = one
        try:
            built[index] = replaced(built[index], layer, one)
        except SpecError as error:
            raise error.within(model_file.addressed(document)[index][0]) from None
        save = save + [read % index for read in ([source] if isinstance(source, int) else source) if read != -1]
    return sorted(save)


def as_raw_head(layer: nn.Module, maps: int) -> nn.Module:
    """Let a head of a user return what it computes of each map, without decoding, which needs strides."""
    head: Any = layer
    head.training = True
    if not isinstance(getattr(head, "nl", None), int):  # it may predict on fewer maps than it reads
        head.nl = maps
    head.stride = torch.full((max(head.nl, maps),), 32.0)
    return layer


def replaced(stand_in: nn.Module, layer: nn.Module, placed: Placed) -> nn.Module:
    """Give a layer of a user's class the attributes by which Ultralytics routes it.

    Raises:
        SpecError: the class uses their names for something else.
    """
    taken = user_classes.marks_in(layer)
    if taken:
        raise SpecError(
            f"{placed.found.name} of {placed.found.file}: Ultralytics sets {', '.join(user_classes.MARKS)} on every "
            f"layer, and the class has {', '.join(taken)} of its own (give it another name)"
        )
    return replace_layer(stand_in, layer)


def notes(built: nn.Sequential) -> list[str]:
    """Return how the users' layers of a model were built, one line for each class, and what may be missing."""
    found: dict[str, list[str]] = {}
    remarks: dict[str, None] = {}
    for index, layer in enumerate(built):
        if placed := PLACED.get(layer):
            kind = f"{placed.found.name} of {placed.found.file}"
            found.setdefault(kind, []).append(f"layer {index} as {placed.summary}")
            remarks |= {f"{kind}: {remark}": None for remark in placed.remarks}
    layers = [
        f"{kind}: {lines[0]}" + (f", and {len(lines) - 1} more" if lines[1:] else "") for kind, lines in found.items()
    ]
    return [*layers, *remarks]


def build(
    module: type[nn.Module], given: Sequence[Any], repeats: int, *, names: Sequence[str] = (), one_by_one: bool = False
) -> nn.Module:
    """Build a layer on the device of the context; one whose constructor needs numbers is moved to the meta device."""
    with redirect_stdout(sys.stderr):
        try:
            with named_cuda_as(torch.get_default_device()):
                return repeated(module, given, repeats, names=names, one_by_one=one_by_one)
        except (RuntimeError, NotImplementedError):
            if torch.get_default_device().type != "meta":
                raise
        with torch.device("cpu"), named_cuda_as("cpu"):
            return repeated(module, given, repeats, names=names, one_by_one=one_by_one).to("meta")


def repeated(
    module: Callable[..., nn.Module],
    given: Sequence[Any],
    repeats: int,
    *,
    names: Sequence[str] = (),
    one_by_one: bool = False,
) -> nn.Module:
    """Build a layer, or as many copies of it in a row; one that takes maps one by one becomes one that takes a list.

    Args:
        names: of the last arguments, if the constructor takes them by name alone.
    """
    first = len(given) - len(names)
    built = []
    for _ in range(repeats):
        arguments = deepcopy(list(given))
        layer = module(*arguments[:first], **dict(zip(names, arguments[first:], strict=True)))
        built.append(OneByOne(layer) if one_by_one else layer)
    return nn.Sequential(*built) if repeats > 1 else built[0]


@contextmanager
def activated_as(built: nn.Module) -> Iterator[None]:
    """Let Ultralytics' convolutions that are built meanwhile have the activation of those in a model.

    The parser sets the default that a file's `activation:` asks for, and resets it before it returns.
    """
    default = Conv.default_act
    activations = (one.act for one in built.modules() if isinstance(one, Conv) and not isinstance(one.act, nn.Identity))
    Conv.default_act = next(activations, default)
    try:
        yield
    finally:
        Conv.default_act = default


def has_plain_branches(document: Mapping[str, Any], placed: Mapping[int, Placed]) -> bool:
    """Return the attribute `legacy` of the head of a document with stock rows and these layers of users' classes."""
    written = (row[2] for _, row in model_file.addressed(document))
    return parser_rules.has_plain_branches([*written, *(one.reading.block for one in placed.values())])


def set_branches(module: type[nn.Module], document: Mapping[str, Any], placed: Mapping[int, Placed]) -> None:
    """Set the attribute by which a user's subclass of `Detect` builds its branches, as the parser does for `Detect`."""
    head: Any = module
    if isinstance(module, type) and issubclass(module, Detect):
        head.legacy = has_plain_branches(document, placed)


def with_light_branches(head: nn.Module, document: Mapping[str, Any], parser: Callable[..., Any]) -> nn.Module:
    """Return a head of Ultralytics with YOLO11's branches, in the place of one that its parser built without them.

    The parser decides that by the rows that it knows. So the head's row is built again, behind one of `C3k2`.
    """
    if not isinstance(head, Detect) or not head.legacy:
        return head
    read = [[-1, 1, STAND_IN, [branch[0].conv.in_channels, 0]] for branch in head.cv2]
    row = [list(range(len(read))), *deepcopy(document["head"][-1][1:])]
    built, _ = parser({**document, "backbone": [*read, [-1, 1, "C3k2", [8]]], "head": [row]}, 3, False)
    return replace_layer(head, built[-1])
