"""Base model of a search space: an Ultralytics detection model with final numbers in every row."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import Conv

from search_spaces import auxiliary, build, insertions, model_checks, model_file, parser_rules, rows, scaling, user_rows
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.insertions import Feeds
from search_spaces.model_reader import model_document, read_model, resolve
from search_spaces.operators import OPERATORS, Operator, Parameters, Site, Source, user_classes
from search_spaces.pgi_setting import Pgi
from search_spaces.placed import PLACED
from search_spaces.rows import INSERTED_KERNEL, Row
from search_spaces.scaling import Scaling
from search_spaces.trace import Traced, first
from search_spaces.yaml_text import read_yaml

TRACE_SIZE = 256
"""Size in pixels of the image that a base model is traced with: a multiple of every stride."""

_WITH_CHANNELS = {
    "A2C2f", "AConv", "ADown", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2f", "C2fAttn", "C2fCIB", "C2fPSA", "C2PSA",
    "C3", "C3Ghost", "C3k2", "C3TR", "C3x", "Conv", "ConvTranspose", "DWConv", "DWConvTranspose2d", "ELAN1", "Focus",
    "GhostBottleneck", "GhostConv", "nn.ConvTranspose2d", "PSA", "RepC3", "RepNCSPELAN4", "SCDown", "SPP", "SPPELAN",
    "SPPF",
}  # fmt: skip
"""Modules whose rows begin with output channels, which `parse_model` scales: its `base_modules` of detection models."""
_SCALING_KEYS = ("scales", "scale", "depth_multiple", "width_multiple", user_rows.FURTHER)
_ORIGIN_KEYS = ("yaml_file", "channels", "nas", "pgi")


@dataclass(frozen=True, eq=False, kw_only=True)
class Base:
    """Base model at one scale, as it is deployed: without operators, insertions and auxiliary branch.

    Attributes:
        identity: identifies the base model in a fingerprint: an Ultralytics name, or name and hash of a user's file.
        document: a model YAML with final channels and repeats, without `scales`.
        operators: operators that the file has in layers of the base model, with their parameters, by layer.
        inserted: operators that the file records as inserted: their readers, name and parameters, by the layer that
            they follow.
        pgi: the auxiliary branch that the file has or asks for, if it is YOLOv9's.
        left_branch: whether the file has another auxiliary branch, which no candidate has.
        shifted: number of layers of the file before the base model's first: 1 where an identity was removed.
    """

    identity: str
    scale: str
    document: Mapping[str, Any]
    operators: Mapping[int, tuple[str, Parameters]] = field(default_factory=dict)
    inserted: Mapping[int, tuple[Feeds, str, Parameters]] = field(default_factory=dict)
    pgi: Pgi = False
    left_branch: bool = False
    shifted: int = 0

    @cached_property
    def traced(self) -> tuple[Traced, ...]:
        """Layers on the meta device, with their inputs and outputs for one image of `TRACE_SIZE` pixels.

        Raises:
            SpecError: the model cannot be built.
        """
        return _trace(self.document, self.identity)

    @property
    def name(self) -> str:
        """Short name, without `.yaml`."""
        return re.sub(r"@\w+$", "", self.identity).removesuffix(".yaml")

    @property
    def rows(self) -> list[list[Any]]:
        """Rows of backbone and head, in the order of layer indices."""
        return [*self.document["backbone"], *self.document["head"]]

    def index_in_file(self, layer: int) -> int:
        """Return the index that a layer of the base model has in the file."""
        return layer + self.shifted + sum(after < layer for after in self.inserted)

    def section(self, layer: int) -> str:
        """Return the section of a layer: `backbone` or `head`."""
        return "backbone" if layer < len(self.document["backbone"]) else "head"

    def reduction(self, layer: int) -> int:
        """Return the number of image pixels per pixel of a layer's input map."""
        entered = first(self.traced[layer].received)
        return TRACE_SIZE // entered.shape[-1]

    @property
    def stride(self) -> int:
        """Image pixels per pixel of the smallest map that the head reads: image sizes are multiples of it."""
        entered = self.traced[-1].received
        maps = entered if isinstance(entered, list) else [entered]
        return max(TRACE_SIZE // first(one).shape[-1] for one in maps)

    def stage(self, layer: int) -> str:
        """Return the stage of a layer: `P3` if its output map is 8 times smaller than the image."""
        return scaling.stage(TRACE_SIZE // first(self.traced[layer].returned).shape[-1])

    def sites(self, layer: int, operator: Operator, *, inserted: bool = False) -> tuple[Site, ...]:
        """Return the sites for an operator in a layer, or of one inserted behind it; empty if there are none."""
        return _sites(self, layer, operator.name, operator.source, inserted)

    def incompatibility(
        self, layer: int, operator: Operator, parameters: Parameters, *, inserted: bool = False
    ) -> str | None:
        """Return the first reason why an operator cannot stand in a layer, or behind it; None if it can."""
        sites = self.sites(layer, operator, inserted=inserted)
        if not sites:
            return f"{'Conv' if inserted else self.rows[layer][2]} has no site for {operator.name}"
        return next(filter(None, (operator.incompatibility(site, parameters) for site in sites)), None)

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """Users' files that define layers of the base model, each once."""
        return _sources(self.rows)

    def scaled(self, factors: Scaling) -> "Base":
        """Return the base model with its depth and width scaled.

        Raises:
            SpecError: the channels of a layer cannot be scaled.
        """
        return _scaled(self, factors) if factors else self


def load(name: str, scale: str) -> Base:
    """Load a base model.

    Args:
        name: an Ultralytics model (`yolov9{scale}.yaml`, `yolov8{scale}.yaml`) or a path; `{scale}` is filled in.
        scale: a scale of the model; empty for a model without scales.

    Raises:
        SpecError: there is no such model or scale, or it is no detection model.
    """
    return _load(resolve(name, scale), scale)


def identity(name: str, scale: str) -> str:
    """Return what identifies a base model in a fingerprint: its name; for a user's file also a hash of its content.

    The folder of the file is not part of it; the texts that define layers of it are.
    """
    return _identity(name, scale, tuple(user_classes.LOADED))


@cache
def _identity(name: str, scale: str, _loaded: tuple[str, ...]) -> str:
    path = resolve(name, scale)
    if path.is_file():
        content = path.read_bytes()
        if _is_changed(path):  # an earlier version read another base model from such a file
            content += b"without insertions"
        content += "".join(source.digest for source in _sources(_rows_of(path))).encode()
        return f"{path.name}@{hashlib.sha256(content).hexdigest()[:12]}"
    return path.name


def _rows_of(path: Path) -> list[Any]:
    """Return the rows of a file, of whatever form."""
    document = read_yaml(path)
    return [row for section in ("backbone", "head") for row in document.get(section) or () if model_file.is_row(row)]


def _sources(written: Sequence[Any]) -> tuple[Source, ...]:
    """Return the users' files that define the modules of rows, each once."""
    found = (user_rows.user_class(row) for row in written)
    return tuple(dict.fromkeys(one.source for one in found if one is not None and one.source is not None))


def _is_changed(path: Path) -> bool:
    """Return whether a file records inserted layers, or stock layers that were replaced as a whole."""
    origin = read_yaml(path).get("nas")
    return isinstance(origin, Mapping) and bool(origin.get("insert") or origin.get("stock"))


def _require_rgb(document: Mapping[str, Any]) -> None:
    channels = model_file.image_channels(document)
    if channels != model_file.IMAGE_CHANNELS:
        raise SpecError(f"channels: images of {model_file.IMAGE_CHANNELS} channels are searched on, got {channels}")


@cache
def _load(path: Path, scale: str) -> Base:
    try:
        document = model_document(str(path))
    except SpecError as error:
        raise error.within("base") from None
    try:
        _require_rgb(document)
        model_checks.require_trainable(document)
        build.require_raw_predictions(document)
    except SpecError as error:
        raise error.within(path.name) from None
    scales = document.get("scales") or {}
    scale = scale or document["scale"]
    if scales and scale not in scales:
        raise SpecError(f"scale: {path.name} has no scale {scale!r} (one of {', '.join(map(str, scales))})")
    if scales and scale != document["scale"]:  # a row of another repository may be read differently at another width
        document = read_model(str(path), scale=scale).document
    document["scale"] = scale
    left = auxiliary.without_branch(document)
    if document.get("pgi"):
        auxiliary.with_branch(left)  # raises if the model cannot have one
    has_branch = auxiliary.has_auxiliary(document)
    left_branch = has_branch and not auxiliary.can_have_branch(left)
    traced = _trace(left, path.name)
    base = Base(
        identity=identity(str(path), scale),
        scale=scale,
        document=_explicit(left, traced),
        pgi=document.get("pgi", has_branch and not left_branch),
        left_branch=left_branch,
        shifted=int(left["backbone"][0] != document["backbone"][0]),
    )
    if _described(base.traced) != _described(traced):  # a rule for a scale that `parser_rules` does not have
        raise SpecError(f"base: {path.name} at scale {scale!r} has rules that a YAML without scales cannot express")
    return _without_operators(base, document.get("nas"))


def _without_operators(base: Base, origin: Any) -> Base:
    """Return a base model without the operators of its file, and without the layers recorded there as inserted.

    Args:
        base: with all rows of the file.
        origin: the file's `nas`, which an export writes: its insertions, and the stock layers that were replaced.
    """
    written = base.rows
    lowered = [rows.lower(row) for row in written]
    if not any(lowered):
        return base
    after = _recorded_insertions(origin, written, lowered)
    layers = insertions.labels(len(written) - len(after), after)
    places = {insertions.behind(layer): layer for layer in after}
    operators, inserted = {}, {}
    for label, one in zip(layers, lowered, strict=True):
        if one is not None and label in places:
            inserted[places[label]] = (after[places[label]], one.operator.name, one.parameters)
        elif one is not None:
            operators[int(label)] = (one.operator.name, one.parameters)
    gone = [index for index, label in enumerate(layers) if label in places]
    left = insertions.remove([rows.stock(row) for row in written], gone)
    for layer, replaced in _recorded_stock(origin, operators).items():
        left[layer] = [*left[layer][:2], *replaced]
    split = len(base.document["backbone"]) - sum(index < len(base.document["backbone"]) for index in gone)
    stock = {"backbone": left[:split], "head": left[split:]}
    return replace(base, document={**base.document, **stock}, operators=operators, inserted=inserted)


def _recorded_insertions(
    origin: Any, written: Sequence[Row], lowered: Sequence[rows.Lowered | None]
) -> dict[int, Feeds]:
    """Return the readers of each inserted layer, by the layer that it follows; empty if the rows do not agree."""
    found = origin.get("insert") if isinstance(origin, Mapping) else None
    if not isinstance(found, Mapping) or not all(
        type(layer) is int and 0 <= layer < len(written) - len(found) - 1 and feeds in insertions.FEEDS
        for layer, feeds in found.items()
    ):
        return {}
    for index, label in enumerate(insertions.labels(len(written) - len(found), found)):
        one, row = lowered[index], written[index]
        if not label.isdecimal() and (one is None or row[0] != -1 or row[2] != one.operator.name):
            return {}
    return dict(found)


def _recorded_stock(origin: Any, operators: Mapping[int, Any]) -> dict[int, list[Any]]:
    """Return module and arguments of the stock layers that the file's operators replaced as a whole, by layer."""
    found = origin.get("stock") if isinstance(origin, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {
        layer: deepcopy(replaced)
        for layer, replaced in found.items()
        if layer in operators and isinstance(replaced, list) and len(replaced) == 2 and replaced[0] in HOSTS
    }


@cache
def _sites(base: Base, layer: int, name: str, _source: Source | None, inserted: bool) -> tuple[Site, ...]:  # noqa: FBT001 - private
    step, operator = base.traced[layer], OPERATORS[name]
    if not inserted:
        return HOSTS[base.rows[layer][2]].sites_for(operator, step.layer, step.channels_in, base.reduction(layer))
    host = HOSTS[rows.host_of_inserted(operator)]
    with torch.device("meta"):
        stands_for = nn.Identity() if host.module is nn.Identity else Conv(step.c_out, step.c_out, INSERTED_KERNEL)
    reduction = TRACE_SIZE // first(step.returned).shape[-1]
    return host.sites_for(operator, stands_for, step.c_out, reduction)


@cache
def _scaled(base: Base, factors: Scaling) -> Base:
    document = deepcopy(dict(base.document))
    layer = 0
    for section in ("backbone", "head"):
        for position, row in enumerate(document[section][:]):
            if row[2] not in model_checks.DETECTION_HEADS:
                place = base.stage(layer)
                placed = PLACED.get(base.traced[layer].layer)
                has_channels = _has_channels(row) if placed is None else placed.reading.has_channels
                document[section][position] = scaling.scale_row(row, place, factors, has_channels=has_channels)
            layer += 1
    described = ", ".join(f"{name} {value:g}" for name, value in factors)
    return Base(identity=f"{base.identity} at {described}", scale=base.scale, document=document)


def _trace(document: Mapping[str, Any], name: str) -> tuple[Traced, ...]:
    """Build a model on the meta device and record the input and output of every layer.

    Raises:
        SpecError: the model cannot be built.
    """
    try:
        with build.addressed(document):
            return build.pass_through(build.skeleton(document, document["nc"]), TRACE_SIZE)
    except SpecError as error:
        raise error.within(name) from error


def _described(traced: Sequence[Traced]) -> list[tuple[str, list[tuple[str, torch.Size]]]]:
    """Return modules and parameter shapes, to compare two models: not every parameter shows in a `repr`."""
    return [(repr(step.layer), [(name, p.shape) for name, p in step.layer.named_parameters()]) for step in traced]


def _explicit(document: Mapping[str, Any], traced: Sequence[Traced]) -> dict[str, Any]:
    """Return a document with final numbers, so that a file of it has the same meaning under any name."""
    depth = document.get("depth_multiple", 1.0)
    if document.get("scales"):
        depth = document["scales"][document["scale"]][0]
    explicit = {key: deepcopy(value) for key, value in document.items() if key not in _SCALING_KEYS + _ORIGIN_KEYS}
    explicit["backbone"], explicit["head"] = [], []
    layers = iter(traced)
    for section in ("backbone", "head"):
        for source, repeats, module, arguments in document[section]:
            final = max(round(repeats * depth), 1) if repeats > 1 else repeats  # as parse_model rounds
            row = [source, final, module, parser_rules.at_scale(module, arguments, document["scale"])]
            step = next(layers)
            if placed := PLACED.get(step.layer):
                row[3] = list(placed.reading.written)
            elif _has_channels(row):
                row[3][0] = step.c_out
            explicit[section].append(row)
    return explicit


def _has_channels(row: Sequence[Any]) -> bool:
    """Return whether a row begins with the output channels of its layer, which `parse_model` scales."""
    _, _, module, arguments = rows.stock(list(row))
    return module in _WITH_CHANNELS and bool(arguments) and type(arguments[0]) is int
