"""Build the layers of users' classes in a model: read their arguments, try them, and measure what they return.

Ultralytics' parser has to know the channels behind each layer before it builds the next. So the rows up to the last
class of a user are built on the meta device, an image is passed through them, and each class is built by the first
reading of its arguments with which it takes the maps that arrive. What it returns says the channels.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from ultralytics.nn import tasks
from ultralytics.utils.ops import make_divisible

from search_spaces import constructors, fork_rules, model_file, named_values, one_by_one, user_rows
from search_spaces import placed as placed_layers
from search_spaces.constructors import Place, Reading
from search_spaces.errors import LayerError, SpecError, in_one_line, shortened
from search_spaces.meta_device import passed
from search_spaces.operators import constructor_names
from search_spaces.operators.user_classes import UserClass
from search_spaces.placed import STAND_IN, Placed, as_raw_head, build
from search_spaces.trace import Feature, run, skip_batch_norms

_IMAGE_SIZE = 256
"""Size in pixels of the image: a multiple of every stride, and that with which Ultralytics finds the strides."""

_USUAL_SIZE = 640
"""Size in pixels of the images that forks train on, for which some of their layers alone are made."""

_OF_HEADS = ("reg_max", "end2end")
"""Settings of a file that Ultralytics' parser gives to heads."""

_SETTINGS = (*_OF_HEADS, "kpt_shape", "scale")
"""Settings of a file that its rows may name."""

_SHOWN = 3
"""Most readings that a message lists."""

_ONE_BY_ONE = ", its maps one by one"
_TEXT_FOR_CHANNELS = "nothing, since a text stands where its constructor takes channels"


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
        source, repeats, _, arguments = self._rows[index]
        sources = source if isinstance(source, list) else [source]
        received = [self._image() if index == 0 else self._features[one] for one in sources]
        place = Place(
            channels=tuple(channel for one in received for channel in _flat_channels(one)),
            reads_list=isinstance(source, list),
            repeats=self._repeats(repeats),
            scaled=self._scaled,
            settings={name: self._document[name] for name in _OF_HEADS if self._document.get(name) is not None},
            further=tuple((self._document.get(user_rows.FURTHER) or {}).get(self._scale().get("scale"), ())),
        )
        is_head = index == len(self._rows) - 1
        if is_head:
            placed_layers.set_branches(found.module, self._document, self._placed)
        try:
            with warnings.catch_warnings(action="ignore"):  # of readings that are tried and not taken
                placed, returned = self._first_that_works(
                    found, place, self._evaluated(arguments, is_head=is_head), received, is_head=is_head
                )
        except SpecError as error:
            reason = _of_one_size(found) if self._works_at_the_usual_size(index, found) else error
            raise reason.within(self._addresses[index]) from None
        self._placed[index] = placed
        self._features.append(returned)

    def _works_at_the_usual_size(self, index: int, found: UserClass) -> bool:
        """Return whether a class that cannot be placed can be in a larger image."""
        if self._size == _USUAL_SIZE:
            return False
        before = {layer: one.found for layer, one in self._placed.items()}
        with suppress(SpecError):
            _Placing(self._parser, self._document, self._channels, size=_USUAL_SIZE).all(before | {index: found})
            return True
        return False

    def _first_that_works(
        self,
        found: UserClass,
        place: Place,
        arguments: Sequence[Any],
        received: Sequence[Feature],
        *,
        is_head: bool,
    ) -> tuple[Placed, Feature]:
        told = (self._document.get("arguments") or {}).get(found.name)
        tried: list[str] = []
        if told is not None:
            options = [constructors.as_told(told, arguments, place)]
        else:
            read = constructors.head_readings if is_head else constructors.readings
            arguments = fork_rules.as_yolov13(found, arguments, self._scale().get("scale"))
            blocks = self._as_block(found, arguments, place)
            others = read(found.module, arguments, place)
            options = [*blocks, *(one for one in others if one.arguments not in [each.arguments for each in blocks])]
        options = [constructors.with_named_values(one, found.module) for one in options]
        if found.source is None:  # what our layers take is known: another reading would only hide a wrong argument
            options = options[:1]
        several = len(received) if place.reads_list and not is_head else 1
        for single, reading in product(one_by_one.ways(found.module, several), options):
            try:
                works = self._tried(found, place, reading, received, is_head=is_head, single=single)
            except Exception as error:
                if isinstance(error, ImportError | SpecError) or type(error) is NameError:  # no other reading helps
                    raise SpecError(f"{found.name} of {found.file}: {in_one_line(error)}") from error
                call = f"{self._call(found, reading)}{self._copies(reading, place)}{_ONE_BY_ONE * single}"
                tried.append(f"as {call}: {in_one_line(error)}")
                continue
            scaled = constructors.with_scaled_output(reading, works[0].channels, arguments, place)
            if scaled is not None and told is None:
                with suppress(Exception):  # the one without scaling works
                    works = self._tried(found, place, scaled, received, is_head=is_head, single=single)
            return works
        raise SpecError(
            self._untold(
                found, place, arguments, received, tried or [_TEXT_FOR_CHANNELS], is_told=told is not None or is_head
            )
        )

    def _as_block(self, found: UserClass, arguments: Sequence[Any], place: Place) -> list[Reading]:
        """Return the reading of a class that forks' parsers take as a block of Ultralytics."""
        block = fork_rules.block_of(found)
        changed = fork_rules.as_block(found, block, arguments, self._scale().get("scale")) if block else arguments
        return constructors.as_block(block, found.module, changed, place)

    def _untold(
        self,
        found: UserClass,
        place: Place,
        arguments: Sequence[Any],
        received: Sequence[Feature],
        tried: Sequence[str],
        *,
        is_told: bool,
    ) -> str:
        """Return the message for a class of which no reading works, with the line that would say what it wants."""
        if found.source is None:
            return f"{found.name} cannot be built of {shortened(list(arguments))}: {tried[0]}"
        more = f"; and {len(tried) - _SHOWN} more" if len(tried) > _SHOWN else ""
        hint = _hint(found, place) or self._line(found, place, arguments, () if is_told else received)
        return (
            f"{found.name} of {found.file} cannot be built of {shortened(list(arguments))}: tried "
            f"{'; '.join(tried[:_SHOWN])}{more} ({hint})"
        )

    def _line(self, found: UserClass, place: Place, arguments: Sequence[Any], received: Sequence[Feature]) -> str:
        """Return the line of a model file that would say what a class wants, with an example where one works."""
        for words in _forms(found, arguments, place) if received else ():
            with suppress(Exception):  # the next may work
                reading = constructors.as_told(words, arguments, place)
                self._tried(found, place, reading, received, is_head=False, single=False)
                shown = ", ".join(str(one).lower() if isinstance(one, bool) else one for one in words)
                return f"`arguments: {{{found.name}: [{shown}]}}` in the model file works, if it is what is meant"
        return (
            f"say what its constructor wants in the model file, `arguments: {{{found.name}: [...]}}`, of values and "
            f"{', '.join(constructors.WORDS)}: no line was found by trying; docs/operators.md"
        )

    def _tried(
        self,
        found: UserClass,
        place: Place,
        reading: Reading,
        received: Sequence[Feature],
        *,
        is_head: bool,
        single: bool,
    ) -> tuple[Placed, Feature]:
        """Build a layer by one reading and pass the maps through it, as a list or single."""
        repeats = 1 if reading.takes_repeats else place.repeats
        given = reading.given(self._document.get("nc"))
        names = constructor_names.names_of(found.module, given)
        with torch.device("meta"):
            layer = build(found.module, given, repeats, names=names, one_by_one=single)
        _require_layer(layer)
        x = list(received) if place.reads_list else received[0]
        tried = as_raw_head(layer, len(received)) if is_head else layer
        returned = passed(tried, x, may_compute=self._size == _IMAGE_SIZE)  # at the larger one it would take long
        channels = 0 if is_head else _returned_channels(returned)
        if reading.is_guess and channels != reading.written[0]:
            raise LayerError(f"it returns {channels} channels, and not {reading.written[0]}")
        made = "predictions" if is_head else _shown([returned])
        call = f"{self._call(found, reading)}{self._copies(reading, place)}{_ONE_BY_ONE * single}"
        placed = Placed(
            found=found,
            reading=reading,
            given=given,
            repeats=repeats,
            channels=channels,
            summary=f"{call}: {_shown(received)} to {made}",
            names=names,
            one_by_one=single,
            remarks=self._remarks(found, reading),
        )
        return placed, returned

    def _remarks(self, found: UserClass, reading: Reading) -> tuple[str, ...]:
        """Return what the parser of the class's fork may do besides, unless the file says what it wants."""
        if found.source is None or found.name in (self._document.get("arguments") or {}):
            return ()
        scale = self._scale().get("scale")
        block = fork_rules.of_block(found, reading.block, scale) if reading.block else ""
        remarks = (fork_rules.of_yolov13(found, scale), block, fork_rules.of_older_parent(found.module))
        return tuple(one for one in remarks if one)

    def _copies(self, reading: Reading, place: Place) -> str:
        return "" if reading.takes_repeats or place.repeats == 1 else f", {place.repeats} times"

    def _call(self, found: UserClass, reading: Reading) -> str:
        return f"{found.name}({', '.join(map(named_values.shown, reading.given(self._document.get('nc'))))})"

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


def _of_one_size(found: UserClass) -> SpecError:
    return SpecError(
        f"{found.name} of {found.file} takes maps of one size alone: it works in images of {_USUAL_SIZE} px, and not "
        f"in one of {_IMAGE_SIZE} px, with which Ultralytics finds the strides; let it resize what it adds to a map, "
        "such as an embedding of positions (F.interpolate)"
    )


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


def _channels_of(feature: Feature) -> Any:
    return feature.shape[1] if isinstance(feature, Tensor) else [one.shape[1] for one in feature]


def _flat_channels(feature: Feature) -> list[int]:
    return [feature.shape[1]] if isinstance(feature, Tensor) else [one.shape[1] for one in feature]


def _shown(features: Sequence[Feature]) -> str:
    """Return channels, height and width of maps: `64x32x32`."""
    flat = [one for feature in features for one in ([feature] if isinstance(feature, Tensor) else feature)]
    return " and ".join("x".join(map(str, one.shape[1:])) for one in flat)


def _forms(found: UserClass, arguments: Sequence[Any], place: Place) -> Iterator[list[Any]]:
    """Yield words of `arguments:` that may be meant, alone and with the opposite of the next truth value."""
    parameters = constructor_names.arguments(found.module)
    befores = ["in", "all", "sum", "each"] if place.reads_list else ["in"]
    for behind, before in product((["out", "repeats", "rest"], ["out", "rest"], ["rest"]), befores):
        words = [before, *behind]
        yield words
        with suppress(SpecError):  # no output channels in the row
            count = len(constructors.as_told(words, arguments, place).arguments)
            if count < len(parameters) and isinstance(default := parameters[count].default, bool):
                yield [*words, not default]


def _hint(found: UserClass, place: Place) -> str:
    """Return what stands in the way where another reading of the arguments cannot help; empty if one may."""
    names, maps = one_by_one.names_of_maps(found.module), len(place.channels)
    if len(names) > max(maps, 1):
        return (
            f"its forward takes {len(names)} maps, {', '.join(names)}, and the row reads {maps}: write a list of as "
            "many layers, such as [-1, 6]"
        )
    if constructor_names.hides_its_arguments(found.module):
        return (
            "its constructor takes arguments by name alone, **kwargs, and its source does not say which: write a class "
            "derived from it whose constructor names them, `def __init__(self, c1, c2): super().__init__(...)`"
        )
    return fork_rules.of_older_parent(found.module)
