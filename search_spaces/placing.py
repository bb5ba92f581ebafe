"""Place users' classes in a model: build the rows before each, so that the maps which arrive there are known.

Ultralytics' parser has to know the channels behind each layer before it builds the next. So the rows up to the last
class of a user are built on the meta device, an image is passed through them, and each class is built by the first
reading of its arguments with which it takes the maps that arrive. What it returns says the channels.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.utils.ops import make_divisible

from search_spaces import fork_rules, model_file, trying, unplaced, user_rows
from search_spaces import placed as placed_layers
from search_spaces.class_row import ClassRow
from search_spaces.constructors import Place
from search_spaces.errors import SpecError
from search_spaces.operators.user_classes import UserClass
from search_spaces.placed import STAND_IN, Placed
from search_spaces.trace import Feature, run, skip_batch_norms

_IMAGE_SIZE = 256
"""Size in pixels of the image: a multiple of every stride, and that with which Ultralytics finds the strides."""

_USUAL_SIZE = 640
"""Size in pixels of the images that forks train on, for which some of their layers alone are made."""

_OF_HEADS = ("reg_max", "end2end")
"""Settings of a file that Ultralytics' parser gives to heads."""

_SETTINGS = (*_OF_HEADS, "kpt_shape", "scale")
"""Settings of a file that its rows may name."""

_cache: dict[str, dict[int, Placed]] = {}

Parser = Callable[[dict[str, Any], int, bool], tuple[nn.Sequential, list[int]]]


def place(parser: Parser, document: Mapping[str, Any], channels: int) -> dict[int, Placed]:
    """Return the layers of users' classes in a document, by index.

    Args:
        parser: Ultralytics' own.
        document: with rows of Ultralytics and of users' classes only.
        channels: of the image.

    Raises:
        SpecError: a class takes none of the readings of its arguments.
    """
    rows = [row for _, row in model_file.addressed(document)]
    found = {index: one for index, row in enumerate(rows) if (one := user_rows.user_class(row))}
    if not found:
        return {}
    key = _key(document, rows[: max(found) + 1], found, channels)
    if key not in _cache:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _cache[key] = _Placing(parser, document, channels).all(found)
    return _cache[key]


def place_first(document: Mapping[str, Any], found: UserClass) -> Placed:
    """Return the layer of the first row of a document, which is a user's class.

    Raises:
        SpecError: the class takes none of the readings of its arguments.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return _Placing(tasks.parse_model, document, model_file.image_channels(document)).all({0: found})[0]


def _key(document: Mapping[str, Any], rows: Sequence[Any], found: Mapping[int, UserClass], channels: int) -> str:
    """Return what the layers of users' classes depend on, as a text."""
    others = {*model_file.SECTIONS, "nas", "yaml_file"}
    settings = sorted((str(name), repr(value)) for name, value in document.items() if name not in others)
    return repr((settings, rows, [(index, one.source and one.source.digest) for index, one in found.items()], channels))


class _Placing:
    """The rows of a document, built up to each class of a user in turn."""

    def __init__(self, parser: Parser, document: Mapping[str, Any], channels: int, *, size: int = _IMAGE_SIZE) -> None:
        self._parser, self._document, self._channels, self._size = parser, document, channels, size
        self._rows = [list(row) for _, row in model_file.addressed(document)]
        self._addresses = [place for place, _ in model_file.addressed(document)]
        self._features: list[Feature] = []
        self._placed: dict[int, Placed] = {}

    def all(self, found: Mapping[int, UserClass]) -> dict[int, Placed]:
        """Place every class, in the order of the layers."""
        for index, one in found.items():
            self._run_until(index)
            self._place(index, one)
        return self._placed

    def _run_until(self, index: int) -> None:
        """Build the rows that have not been built yet, up to one, and pass the maps through them."""
        begun = len(self._features)
        if begun == index:
            return
        split = len(self._document["backbone"])
        # layers that have run already only have to say their channels
        before = [[-1, 1, STAND_IN, [_channels_of(one), 0]] for one in self._features]
        rows = [*before, *deepcopy(self._rows[begun:index])]
        document = {**self._document, "backbone": rows[:split], "head": rows[split:], **self._scale()}
        with torch.device("meta"):
            built, _ = self._parser(document, self._channels, False)
        layers = list(built[begun:index].eval())
        with skip_batch_norms(layers):
            self._features += [step.returned for step in run(layers, self._image(), self._features)]

    def _place(self, index: int, found: UserClass) -> None:
        if index == len(self._rows) - 1:
            placed_layers.set_branches(found.module, self._document, self._placed)
        try:
            with warnings.catch_warnings(action="ignore"):  # of readings that are tried and not taken
                placed, returned = trying.first_that_works(self._class_row(index, found))
        except SpecError as error:
            reason = error
            if self._works_at_the_usual_size(index, found):
                reason = SpecError(unplaced.of_one_size(found, works=_USUAL_SIZE, fails=_IMAGE_SIZE))
            raise reason.within(self._addresses[index]) from None
        self._placed[index] = placed
        self._features.append(returned)

    def _class_row(self, index: int, found: UserClass) -> ClassRow:
        """Return the row of a class with the maps that arrive there.

        Raises:
            SpecError: an argument cannot be read.
        """
        source, repeats, _, written = self._rows[index]
        sources = source if isinstance(source, list) else [source]
        received = [self._image() if index == 0 else self._features[one] for one in sources]
        is_head = index == len(self._rows) - 1
        scale = self._scale().get("scale")
        told = (self._document.get("arguments") or {}).get(found.name)
        arguments = self._evaluated(written, is_head=is_head)
        return ClassRow(
            found=found,
            place=Place(
                channels=tuple(channel for one in received for channel in _flat_channels(one)),
                reads_list=isinstance(source, list),
                repeats=self._repeats(repeats),
                scaled=self._scaled,
                settings={name: self._document[name] for name in _OF_HEADS if self._document.get(name) is not None},
                further=tuple((self._document.get(user_rows.FURTHER) or {}).get(scale, ())),
            ),
            arguments=arguments if told is not None else fork_rules.as_yolov13(found, arguments, scale),
            told=told,
            received=received,
            is_head=is_head,
            classes=self._document.get("nc"),
            scale=scale,
            may_compute=self._size == _IMAGE_SIZE,  # at the larger one it would take long
        )

    def _works_at_the_usual_size(self, index: int, found: UserClass) -> bool:
        """Return whether a class that cannot be placed can be in a larger image."""
        if self._size == _USUAL_SIZE:
            return False
        before = {layer: one.found for layer, one in self._placed.items()}
        with suppress(SpecError):
            _Placing(self._parser, self._document, self._channels, size=_USUAL_SIZE).all(before | {index: found})
            return True
        return False

    def _image(self) -> Tensor:
        return torch.zeros(1, self._channels, self._size, self._size, device="meta")

    def _scale(self) -> dict[str, Any]:
        """Return the scale that `parse_model` would assume with a warning."""
        scales = self._document.get("scales")
        return {"scale": self._document.get("scale") or next(iter(scales))} if scales else {}

    def _factors(self) -> tuple[float, float, float]:
        """Return depth, width and most channels, as `parse_model` reads them."""
        if self._document.get("scales"):
            depth, width, most = self._document["scales"][self._scale()["scale"]]
            return depth, width, most
        return self._document.get("depth_multiple", 1.0), self._document.get("width_multiple", 1.0), float("inf")

    def _repeats(self, repeats: int) -> int:
        return max(round(repeats * self._factors()[0]), 1) if repeats > 1 else 1

    def _scaled(self, channels: int) -> int:
        _, width, most = self._factors()
        return channels if channels == self._document.get("nc") else int(make_divisible(min(channels, most) * width, 8))

    def _evaluated(self, arguments: Sequence[Any], *, is_head: bool) -> list[Any]:
        """Evaluate words as `parse_model` does: its variables, and `nc`, which stays open in a head, the classes."""
        depth, width, most = self._factors()
        variables = {
            **{name: self._document[name] for name in _SETTINGS if self._document.get(name) is not None},
            "depth": depth,
            "width": width,
            "max_channels": most,
            "nc": "nc" if is_head else self._document.get("nc"),
        }
        return [variables.get(one, model_file.evaluated(one)) if isinstance(one, str) else one for one in arguments]


def _channels_of(feature: Feature) -> Any:
    return feature.shape[1] if isinstance(feature, Tensor) else [one.shape[1] for one in feature]


def _flat_channels(feature: Feature) -> list[int]:
    return [feature.shape[1]] if isinstance(feature, Tensor) else [one.shape[1] for one in feature]
