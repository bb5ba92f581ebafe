"""Build models from documents, with operators in their layers, and name the row in every error."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from traceback import extract_tb, walk_tb
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks

from search_spaces import layers, model_file, pgi, user_rows
from search_spaces.errors import LayerError, SpecError, in_one_line, shortened
from search_spaces.hosts import WHOLE, Channels, Host
from search_spaces.model_checks import is_detection_head, require_detection, require_trainable
from search_spaces.operators import Operator, Parameters, Site
from search_spaces.trace import Traced, trace

_MOST_PARAMS = 2**31
"""The most parameters of one layer: no detector has as many, and no machine has the memory to train it."""

CONSTRUCTOR_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""Errors that a constructor raises for wrong arguments."""

BUILD_ERRORS = (*CONSTRUCTOR_ERRORS, MemoryError, RuntimeError)
"""Errors of wrong arguments on the meta device, where memory runs out only for arguments that cannot be right."""


def graft(
    layer: nn.Module,
    host: Host,
    operator: Operator,
    parameters: Parameters,
    *,
    c_in: Channels,
    reduction: int | None = None,
) -> nn.Module:
    """Put an operator into every site that it takes in a built layer, or into the place of the layer.

    Args:
        layer: of the host's type; it is changed if the operator stands inside it.
        parameters: all of the operator's.
        c_in: input channels of the layer; of each map where it reads several.
        reduction: image pixels per pixel of the layer's input map; None if it is unknown.

    Returns:
        The layer, or the operator that replaces it.

    Raises:
        SpecError: the layer has no site for the operator, or the operator cannot stand there with these parameters.
    """
    sites = host.sites_for(operator, layer, c_in, reduction)
    if not sites:
        raise SpecError(f"{host.name} has no site for {operator.name}")

    def build_at(site: Site) -> nn.Module:
        reason = operator.incompatibility(site, parameters)
        if reason:
            raise SpecError(f"{operator.name} cannot stand in {host.name} here: {reason}")
        return operator.build(site, **parameters)

    return put(layer, sites, build_at)


def put(layer: nn.Module, sites: Sequence[Site], build_at: Callable[[Site], nn.Module]) -> nn.Module:
    """Put a module at each site of a built layer, in place; return the layer, or the module that replaces it.

    Args:
        sites: in the layer; one that is the whole layer is the only one.
        build_at: returns the module for a site.
    """
    for site in sites:
        module = build_at(site)
        if site.path == WHOLE:
            return replace_layer(layer, module)
        layer.set_submodule(site.path, module)
    _set_param_count(layer)
    return layer


def model(document: Mapping[str, Any], classes: int) -> tasks.DetectionModel:
    """Build the detection model of a document, with or without operators, for a number of classes.

    A model with a one-to-one head (YOLOv10, YOLO26) predicts with that head, as in deployment; Ultralytics 8.4 uses
    the one-to-many head and non-maximum suppression, unless `nms=False` is given.

    Raises:
        SpecError: the document has no detection head, or a row that cannot be built.
    """
    require_detection(document)
    require_trainable(document)
    require_raw_predictions(document)
    with torch.no_grad():  # the constructor passes an image of 256 px through the model, to find its strides
        built = tasks.DetectionModel(deepcopy(dict(document)), nc=classes, verbose=False)
    if is_end_to_end(document):
        built.end2end = True
    return built


def is_end_to_end(document: Mapping[str, Any]) -> bool:
    """Return whether a model has a one-to-one head, which needs no non-maximum suppression."""
    return bool(document.get("end2end")) or document["head"][-1][2] == "v10Detect"


def skeleton(document: Mapping[str, Any], classes: int) -> nn.Sequential:
    """Build the layers of a document on the meta device: shapes without weights, in eval mode.

    Raises:
        SpecError: the document has no head of a detection model, or of one that is only counted; or a row that cannot
            be built.
    """
    require_detection(document, or_counted=True)
    with torch.device("meta"), errors_with_address(document, BUILD_ERRORS):
        copied = {**_with_scale(document), "nc": classes}
        built, _ = tasks.parse_model(copied, ch=model_file.image_channels(document), verbose=False)
    for (place, row), layer in zip(model_file.addressed(document), built, strict=True):
        if layer.np > _MOST_PARAMS:
            raise SpecError(f"{place}: {row[2]} would have {layer.np:.1e} parameters; see its arguments, {row[3]}")
    return pgi.unwrap_auxiliary(built).eval()


def _with_scale(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a document with the scale that the parser would assume, with a warning, where it says none."""
    copied, scales = deepcopy(dict(document)), document.get("scales")
    return copied | ({"scale": next(iter(scales))} if scales and not document.get("scale") else {})


@contextmanager
def addressed(document: Mapping[str, Any]) -> Iterator[None]:
    """Raise a `LayerError` as a `SpecError` with the address of the row that the layer was built from."""
    try:
        yield
    except LayerError as error:
        if error.index is None:
            raise
        place, row = model_file.addressed(document)[error.index]
        raise SpecError(f"{place}: {row[2]} {error.reason}") from error


@contextmanager
def errors_with_address(document: Mapping[str, Any], errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise an error of Ultralytics as it builds a row as a `SpecError` in one line, with the address of the row."""
    try:
        yield
    except errors as error:
        variables = _parser_variables(error)
        index = variables.get("i")
        if not isinstance(index, int):
            raise SpecError(f"the model cannot be built: {in_one_line(error)}") from error
        rows = model_file.addressed(document)
        place, row = rows[index]
        reason = in_one_line(error)
        several = _several_maps(index, [row for _, row in rows], variables.get("ch"))
        if several is not None:
            source, (first, *_) = several
            reason = (
                f"layer {source}, {rows[source][1][2]}, returns several maps (a row behind it takes one of them: "
                f"[-1, 1, Index, [{first}, 0]])"
            )
        elif type(error) is IndexError:
            reason = "not enough arguments, or not enough of one"
        elif isinstance(error, AssertionError) and not str(error):
            reason = f"{extract_tb(error.__traceback__)[-1].line}; a fork's own {row[2]}: {layers.BRING}"
        raise SpecError(f"{place}: {row[2]} cannot be built of {shortened(row[3])}: {reason}") from error


def _parser_variables(error: Exception) -> Mapping[str, Any]:
    """Return the variables of Ultralytics' `parse_model` where it raised an error; none if it did not."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_filename == tasks.__file__]
    found = [frame.f_locals for frame in frames if frame.f_code.co_name == "parse_model"]
    return found[-1] if found else {}


def _several_maps(index: int, rows: Sequence[Sequence[Any]], channels: Any) -> tuple[int, Sequence[int]] | None:
    """Return the layer of several maps that a row names as an input, with their channels; None if there is none.

    Args:
        index: of the row.
        rows: of the model.
        channels: the parser's variable: behind each layer so far; of several maps a list.
    """
    named = rows[index][0]
    for one in named if isinstance(named, list) else [named]:
        if not isinstance(one, int) or not isinstance(channels, list) or not -index <= one < index:
            continue
        source, before = one % index, rows[one % index][0]
        if not isinstance(channels[source], list | tuple):
            continue
        if isinstance(before, int) and (origin := _several_maps(source, rows, channels)):  # such as pooling
            return origin
        return source, channels[source]
    return None


def require_raw_predictions(document: Mapping[str, Any]) -> None:
    """Check that a head of a user returns in training what Ultralytics' loss reads; other heads do.

    Raises:
        SpecError: it returns something else.
    """
    place, row = model_file.addressed(document)[-1]
    found = user_rows.user_class(row)
    if found is None:
        return
    with addressed(document):
        channels = model_file.image_channels(document)
        returned = pass_through(skeleton(document, document["nc"]), channels=channels)[-1].returned
    raw: Any = returned.get("one2many", returned) if isinstance(returned, Mapping) else {}
    if not {"boxes", "scores", "feats"} <= {*raw}:
        raise SpecError(
            f"{place}: {found.name} of {found.file} returns a {type(returned).__name__} in training, where the loss of "
            "Ultralytics reads a mapping of boxes, scores and feats, as Detect.forward_head returns it: nas cost "
            "counts it, and it cannot be trained"
        )


def require_passable(document: Mapping[str, Any]) -> None:
    """Check that an image can pass through a detection model; models for other tasks are not checked.

    Raises:
        SpecError: a layer does not take its input; the text has the address of its row.
    """
    head = model_file.head(document)
    if head is not None and (is_detection_head(head[2]) or user_rows.user_class(head) is not None):
        with addressed(document):
            built = skeleton({"nc": 80, **document}, document.get("nc", 80))
            pass_through(built, channels=model_file.image_channels(document))


def pass_through(
    built: nn.Sequential, image_size: int = 256, *, channels: int = model_file.IMAGE_CHANNELS
) -> tuple[Traced, ...]:
    """Pass an image through layers on the meta device.

    Raises:
        LayerError: a layer does not take what it is given.
    """
    built[-1].training = True  # raw outputs: decoding needs strides, which the head does not have yet
    return tuple(trace(built, torch.zeros(1, channels, image_size, image_size, device="meta")))


def replace_layer(layer: nn.Module, module: nn.Module) -> nn.Module:
    """Give `module` the attributes of `layer` by which Ultralytics routes it (`i`, `f`), and return it."""
    for mark in ("i", "f"):
        if mark in vars(layer):
            setattr(module, mark, getattr(layer, mark))
    module.type = f"{type(module).__module__}.{type(module).__qualname__}"  # type: ignore[assignment]
    _set_param_count(module)
    return module


def _set_param_count(layer: nn.Module) -> None:
    """Set Ultralytics' attribute `np`, the number of parameters, as `parse_model` does."""
    layer.np = sum(parameter.numel() for parameter in layer.parameters())  # type: ignore[assignment]
