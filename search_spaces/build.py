"""From rows to a model, and the hooks that let Ultralytics read our rows.

Ultralytics' `parse_model` is wrapped, never re-implemented: a row of ours is lowered to its stock row, Ultralytics
builds that with its own channel, width and repeat logic, and the operator is grafted into what was built. The
constructor of its `DetectionModel` is wrapped to read the YOLOv5 and YOLOv9 repositories' files, and to become a
`PGIModel` where the head has an auxiliary half.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from traceback import walk_tb
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks

from search_spaces import model_file, pgi
from search_spaces.errors import LayerError, SpecError, in_one_line, shortened
from search_spaces.hosts import WHOLE, Host
from search_spaces.model_checks import is_detection_head, require_detection
from search_spaces.operators import Operator, Parameters
from search_spaces.trace import Traced, trace

_MOST_PARAMS = 2**31
"""The most parameters of one layer: no detector has as many, and no machine has the memory to train it."""

CONSTRUCTOR_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""Errors that a constructor raises for wrong arguments."""

BUILD_ERRORS = (*CONSTRUCTOR_ERRORS, MemoryError, RuntimeError)
"""Those on the meta device, where memory runs out only for arguments that cannot be right."""


def graft(
    layer: nn.Module,
    host: Host,
    operator: Operator,
    parameters: Parameters,
    *,
    c_in: int,
    reduction: int | None = None,
) -> nn.Module:
    """Put an operator into every site that it takes in a built layer, or into the layer's own place.

    Args:
        layer: of the host's type; changed where the operator stands inside it.
        parameters: complete.
        c_in: channels that enter the layer.
        reduction: image pixels per pixel of the map that enters the layer, where that is known.

    Returns:
        The layer, or what took its place.

    Raises:
        SpecError: the layer has no site for the operator, or a site refuses these parameters.
    """
    sites = host.sites_for(operator, layer, c_in, reduction)
    if not sites:
        raise SpecError(f"{host.name} has no site for {operator.name}")
    for site in sites:
        obstacle = operator.incompatibility(site, parameters)
        if obstacle:
            raise SpecError(f"{operator.name} cannot stand in {host.name} here: {obstacle}")
        module = operator.build(site, **parameters)
        if site.path == WHOLE:
            return replace_layer(layer, module)
        layer.set_submodule(site.path, module)
    _mark_size(layer)
    return layer


def model(document: Mapping[str, Any], classes: int) -> tasks.DetectionModel:
    """The detection model of a YAML document, ours or Ultralytics', for so many classes.

    One with a one-to-one head (YOLOv10, YOLO26) predicts with that head, as it is meant to be deployed; Ultralytics
    8.4 takes the other one and non-maximum suppression unless `nms=False` is asked for.

    Raises:
        SpecError: the document has no detection head, or a row that cannot be built.
    """
    require_detection(document)
    with torch.no_grad():  # it passes an image of 256 px through the model, to find its strides
        built = tasks.DetectionModel(deepcopy(dict(document)), nc=classes, verbose=False)
    if is_end_to_end(document):
        built.end2end = True
    return built


def is_end_to_end(document: Mapping[str, Any]) -> bool:
    """Whether a model has a one-to-one head, which needs no non-maximum suppression."""
    return bool(document.get("end2end")) or document["head"][-1][2] == "v10Detect"


def skeleton(document: Mapping[str, Any], classes: int) -> nn.Sequential:
    """The layers of a YAML document on the meta device: shapes without weights, in eval mode.

    Raises:
        SpecError: the document has no detection head, or a row that cannot be built.
    """
    require_detection(document)
    with torch.device("meta"), errors_with_address(document, BUILD_ERRORS):
        built, _ = tasks.parse_model({**deepcopy(dict(document)), "nc": classes}, ch=3, verbose=False)
    for (place, row), layer in zip(model_file.addressed(document), built, strict=True):
        if layer.np > _MOST_PARAMS:
            raise SpecError(f"{place}: {row[2]} would have {layer.np:.1e} parameters; see its arguments, {row[3]}")
    return pgi.unwrap_auxiliary(built).eval()


@contextmanager
def addressed(document: Mapping[str, Any]) -> Iterator[None]:
    """Tell which row of a document built the layer that fails when an image is passed through it."""
    try:
        yield
    except LayerError as error:
        if error.index is None:
            raise
        place, row = model_file.addressed(document)[error.index]
        raise SpecError(f"{place}: {row[2]} {error.reason}") from error


@contextmanager
def errors_with_address(document: Mapping[str, Any], errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn what Ultralytics raises while it builds a row into one line with the row's address."""
    try:
        yield
    except errors as error:
        index = _row_in_work(error)
        if index is None:
            raise SpecError(f"the model cannot be built: {in_one_line(error)}") from error
        place, row = model_file.addressed(document)[index]
        reason = in_one_line(error)
        if type(error) is IndexError:
            reason = "not enough arguments, or not enough of one"
        raise SpecError(f"{place}: {row[2]} cannot be built of {shortened(row[3])}: {reason}") from error


def _row_in_work(error: Exception) -> int | None:
    """The row that Ultralytics' `parse_model` was at when an error was raised: its variable `i`."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_filename == tasks.__file__]
    found = [frame.f_locals.get("i") for frame in frames if frame.f_code.co_name == "parse_model"]
    return found[-1] if found and isinstance(found[-1], int) else None


def require_passable(document: Mapping[str, Any]) -> None:
    """Refuse a detection model whose layers do not fit each other; what else fails is not the file's fault.

    Models for other tasks are left to Ultralytics.

    Raises:
        SpecError: with the address of the row whose layer takes no image.
    """
    head: Any = document["head"][-1] if model_file.has_rows(document) else None
    if model_file.is_row(head) and is_detection_head(head[2]):
        with addressed(document):
            pass_through(skeleton({"nc": 80, **document}, document.get("nc", 80)))


def pass_through(built: nn.Sequential, image_size: int = 256) -> tuple[Traced, ...]:
    """Pass an image through layers on the meta device.

    Raises:
        LayerError: a layer does not take what it is given.
    """
    built[-1].training = True  # raw outputs: decoding needs strides, which the head does not have yet
    return tuple(trace(built, torch.zeros(1, 3, image_size, image_size, device="meta")))


def replace_layer(layer: nn.Module, module: nn.Module) -> nn.Module:
    """Give `module` the marks by which Ultralytics routes a layer, where `layer` has them."""
    for mark in ("i", "f"):
        if mark in vars(layer):
            setattr(module, mark, getattr(layer, mark))
    module.type = f"{type(module).__module__}.{type(module).__qualname__}"  # type: ignore[assignment]
    _mark_size(module)
    return module


def _mark_size(layer: nn.Module) -> None:
    """Ultralytics' `np`, the number of parameters, as `parse_model` sets it."""
    layer.np = sum(parameter.numel() for parameter in layer.parameters())  # type: ignore[assignment]
