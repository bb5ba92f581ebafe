"""The base model of a search space: an Ultralytics detection model with final numbers in every row."""

import hashlib
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics import cfg
from ultralytics.nn.tasks import guess_model_scale, yaml_model_load

from search_spaces import build
from search_spaces.errors import SpecError, nearest
from search_spaces.trace import Traced, first, trace

TRACE_SIZE = 256
"""Pixels of the image that a base model is traced with: a multiple of every stride."""

_SCALING = ("scales", "scale", "depth_multiple", "width_multiple")
_WHERE_FROM = ("yaml_file", "channels", "nas")


@dataclass(frozen=True, eq=False, kw_only=True)
class Base:
    """A base model at one scale.

    Attributes:
        identity: what a fingerprint knows it by: an Ultralytics name, or a file's name and content.
        document: a model YAML with final channels and repeats, no `scales`.
        traced: every layer on the meta device, with what flows in and out for one image of `TRACE_SIZE` pixels.
    """

    identity: str
    scale: str
    document: Mapping[str, Any]
    traced: tuple[Traced, ...]

    @property
    def rows(self) -> list[list[Any]]:
        """Backbone and head, one after the other, as layer indices count."""
        return [*self.document["backbone"], *self.document["head"]]

    def section(self, layer: int) -> str:
        """`backbone` or `head`."""
        return "backbone" if layer < len(self.document["backbone"]) else "head"

    def reduction(self, layer: int) -> int:
        """Image pixels per pixel of the map that enters a layer."""
        entered = first(self.traced[layer].received)
        return TRACE_SIZE // entered.shape[-1]


def load(name: str, scale: str) -> Base:
    """Load a base model.

    Args:
        name: an Ultralytics model (`yolov9{scale}.yaml`, `yolov8{scale}.yaml`) or a path; `{scale}` is filled in.
        scale: one of the model's, or empty for a model without scales.

    Raises:
        SpecError: no such model or scale, or not a detection model.
    """
    return _load(_resolve(name, scale), scale)


def model_document(model: str) -> dict[str, Any]:
    """A detection model's YAML as a mapping: a file, ours or not, or an Ultralytics name such as `yolov9c.yaml`.

    Raises:
        SpecError: no such model, or not a detection model.
    """
    try:
        path = _resolve(model, "")
    except SpecError:
        raise SpecError(f"{model}: no such file or model ({nearest(model, _ultralytics_models())})") from None
    # A user's file is read by us: Ultralytics would look for `yolov8.yaml` where the user says `my/yolov8n.yaml`.
    document = read_yaml(path) if path.is_file() else yaml_model_load(path)
    try:
        build.require_detection(document)
    except SpecError as error:
        raise error.within(path.name) from None
    return {**document, "scale": guess_model_scale(path)}


@cache
def identity(name: str, scale: str) -> str:
    """What a fingerprint knows a base model by, wherever the file lies: a name, with its content if it is a user's."""
    path = _resolve(name, scale)
    if path.is_file():
        return f"{path.name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return path.name


@cache
def _load(path: Path, scale: str) -> Base:
    try:
        document = model_document(str(path))
    except SpecError as error:
        raise error.within("base") from None
    scales = document.get("scales") or {}
    scale = scale or document["scale"]
    if scales and scale not in scales:
        raise SpecError(f"scale: {path.name} has no scale {scale!r} (one of {', '.join(scales)})")
    document["scale"] = scale
    layers = build.skeleton(document, document["nc"])
    layers[-1].training = True  # raw outputs: decoding needs strides, which the head does not have yet
    traced = trace(layers, torch.zeros(1, 3, TRACE_SIZE, TRACE_SIZE, device="meta"))
    explicit = _explicit(document, traced)
    if repr(build.skeleton(explicit, document["nc"])) != repr(layers):  # yolo11m: `C3k2` and others read the scale
        raise SpecError(f"base: {path.name} at scale {scale!r} has rules that a YAML without scales cannot say")
    return Base(
        identity=identity(str(path), scale),
        scale=scale,
        document=explicit,
        traced=tuple(traced),
    )


def _resolve(name: str, scale: str) -> Path:
    """A user's file as a path that exists, or the file name of one of Ultralytics' models."""
    filled = name.replace("{scale}", scale)
    if Path(filled).is_file():
        return Path(filled)
    ours = _ultralytics_models()
    if filled in ours or _without_scale(filled) in ours:
        return Path(filled)
    if "{scale}" in name:
        start, _, end = name.partition("{scale}")
        length = len(start) + 1 + len(end)
        files = [model for model in ours if model.startswith(start) and model.endswith(end) and len(model) == length]
        scales = sorted(model[len(start) : -len(end)] for model in files)
        if f"{start}{end}" in ours:  # one file with a table of scales
            scales = list(yaml_model_load(f"{start}{end}")["scales"])
        if scales:
            raise SpecError(f"scale: {name} has no scale {scale!r} (one of {', '.join(scales)})")
    if "/" in filled or not filled.startswith("yolo"):
        raise SpecError(
            f"base: no such file, got {filled!r} (a path, or an Ultralytics model such as yolov9{{scale}}.yaml)"
        )
    raise SpecError(f"base: unknown model {filled!r} ({nearest(filled, ours)})")


def _without_scale(name: str) -> str:
    """`yolov8n.yaml` is `yolov8.yaml`, a file with a table of scales, as Ultralytics reads file names."""
    return re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)


@cache
def _ultralytics_models() -> tuple[str, ...]:
    folder = Path(cfg.__file__).parent / "models"
    return tuple(sorted(path.name for path in folder.rglob("yolo*.yaml")))


def _explicit(document: Mapping[str, Any], traced: list[Traced]) -> dict[str, Any]:
    """The document with every scaled number written out, so that a file of it means the same under any name."""
    depth = document.get("depth_multiple", 1.0)
    if document.get("scales"):
        depth = document["scales"][document["scale"]][0]
    explicit = {key: deepcopy(value) for key, value in document.items() if key not in _SCALING + _WHERE_FROM}
    explicit["backbone"], explicit["head"] = [], []
    layers = iter(traced)
    for section in ("backbone", "head"):
        for source, repeats, module, arguments in document[section]:
            final = max(round(repeats * depth), 1) if repeats > 1 else repeats  # as parse_model rounds
            explicit[section].append([source, final, module, _widened(module, arguments, next(layers))])
    return explicit


def _widened(module: str, arguments: list[Any], step: Traced) -> list[Any]:
    """Arguments with the output channels that the built layer has, where the first of them is that number."""
    is_plain_torch = module.startswith("nn.") and module != "nn.ConvTranspose2d"  # `nn.MaxPool2d, [2, 2, 0]`
    if not arguments or type(arguments[0]) is not int or is_plain_torch or module in {"Concat", "Detect"}:
        return list(arguments)
    return [step.c_out, *arguments[1:]]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises:
        SpecError: not there, not YAML, a key twice, or not a mapping.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not a text file") from None
    except SpecError as error:
        raise error.within(str(path)) from None


def parse_yaml(text: str) -> dict[str, Any]:
    """YAML text as a mapping.

    Raises:
        SpecError: not YAML, a key twice, or not a mapping.
    """
    try:
        document = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SpecError(f"not YAML: {line}{error.problem}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise SpecError(f"a mapping is expected, got {type(document).__name__}")
    return document


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping with the same key twice, where YAML would let the second win."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node
