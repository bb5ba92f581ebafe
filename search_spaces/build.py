"""From rows to a model, and the hooks that let Ultralytics read our rows.

Ultralytics' `parse_model` is wrapped, never re-implemented: a row of ours is lowered to its stock row, Ultralytics
builds that with its own channel, width and repeat logic, and the operator is grafted into what was built. The
constructor of its `DetectionModel` is wrapped to read the YOLOv5 and YOLOv9 repositories' files, and to become a
`PGIModel` where the head has an auxiliary half.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER

from search_spaces import auxiliary, dialects, pgi, printed, rows
from search_spaces.errors import SpecError, nearest
from search_spaces.hosts import WHOLE, Host
from search_spaces.operators import Operator, Parameters
from search_spaces.operators import modules as user_modules
from search_spaces.rows import Lowered
from search_spaces.trace import trace

DETECTION_HEADS = ("Detect", "v10Detect")
"""Of models that are deployed."""

_HEADS: dict[str, Callable[..., nn.Module]] = {"DualDetect": pgi.DualDetect, **printed.HEADS}
"""Heads of ours: `(classes, *arguments, reg_max=, ch=)`; each stands for an Ultralytics `Detect` of the same maps."""

_PROBE_SIZE = 64
"""Pixels of the image that finds the channels before an upsampling layer: a multiple of every stride."""


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
        obstacle = operator.obstacle(site, parameters)
        if obstacle:
            raise SpecError(f"{operator.name} cannot stand in {host.name} here: {obstacle}")
        module = operator.build(site, **parameters)
        if site.path == WHOLE:
            return _in_place_of(layer, module)
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
    with torch.device("meta"):
        layers, _ = tasks.parse_model({**deepcopy(dict(document)), "nc": classes}, ch=3, verbose=False)
    return pgi.unmarked(layers).eval()


def require_detection(document: Mapping[str, Any]) -> None:
    """Refuse what is not a detection model, in one line.

    Raises:
        SpecError: no backbone and head, or a head for another task.
    """
    if not all(isinstance(document.get(key), list) and document[key] for key in ("backbone", "head")):
        raise SpecError(
            "not a model YAML: `backbone` and `head` must be lists of rows [from, repeats, module, arguments]"
        )
    if type(document.get("nc")) is not int:
        raise SpecError(f"nc: the number of classes is expected, got {document.get('nc')!r}")
    for place, row in _addressed(document):
        if not isinstance(row, list) or len(row) != 4:
            raise SpecError(f"{place}: not a row, got {row!r} ([from, repeats, module, arguments])")
    source, _, head, _ = document["head"][-1]
    place = f"head[{len(document['head']) - 1}]"
    if head not in DETECTION_HEADS and head not in _HEADS:
        raise SpecError(f"{place}: only detection models can be searched, got {head} ({' or '.join(DETECTION_HEADS)})")
    if head in auxiliary.DUAL_HEADS and (isinstance(source, int) or len(source) % 2):
        raise SpecError(f"{place}: {head} reads as many auxiliary maps as main ones, got {source}")
    if not auxiliary.is_wish(document.get("pgi", False)):
        raise SpecError(f"pgi: true, false or {auxiliary.LEAD_GUIDED} is expected, got {document['pgi']!r}")


def install() -> None:
    """Let Ultralytics read our rows. Idempotent; a side effect of importing `search_spaces`."""
    if getattr(tasks.parse_model, "reads_operators", False):
        return
    tasks.parse_model = _reading_operators(tasks.parse_model)
    tasks.DetectionModel.__init__ = _reading_dialects(tasks.DetectionModel.__init__)


def _reading_dialects(stock_init: Any) -> Any:
    @wraps(stock_init)
    def __init__(self: tasks.DetectionModel, cfg: Any = "yolo26n.yaml", *arguments: Any, **options: Any) -> None:  # noqa: N807 - it becomes that method
        reading = dialects.read(cfg if isinstance(cfg, Mapping) else tasks.yaml_model_load(cfg))
        for note in reading.notes:
            LOGGER.info(note)
        stock_init(self, reading.document, *arguments, **options)
        if isinstance(self.model[-1], pgi.DualDetect):
            self.__class__ = pgi.PGIModel

    return __init__


def _reading_operators(stock_parse_model: Any) -> Any:
    @wraps(stock_parse_model)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:  # noqa: FBT001, FBT002 - Ultralytics' signature
        missing = _load_modules(d)
        stock, lowered = _lower(d, missing)
        layers, save = stock_parse_model(stock, ch, verbose)
        channels = _channels_before(layers, ch, lowered)
        for index, row in lowered.items():
            layers[index] = _graft_row(layers[index], row, channels[index], place=f"row {index}")
        if (head := d["head"][-1])[2] in _HEADS:
            layers[-1] = _head(layers[-1], head)
            pgi.mark_auxiliary(layers)
        if verbose and lowered:
            LOGGER.info("operators: " + ", ".join(f"{i} {row.operator.name}" for i, row in lowered.items()))
        return layers, save

    parse_model.reads_operators = True  # type: ignore[attr-defined]  # the mark that install() looks for
    return parse_model


def _head(stock: Any, row: Sequence[Any]) -> nn.Module:
    """A head of ours in the place of Ultralytics' for the same maps."""
    _, _, module, (_, *arguments) = row
    channels = tuple(branch[0].conv.in_channels for branch in stock.cv2)
    head = _HEADS[module](stock.nc, *arguments, reg_max=stock.reg_max, ch=channels)
    for layer in head.modules():
        if isinstance(layer, Conv):
            layer.act = stock.cv2[0][0].act  # the YAML's `activation:`, which is the default no more
    return _in_place_of(stock, head)


def _load_modules(document: Mapping[str, Any]) -> list[str]:
    """Load the users' operators that the document names; those that are not there, a checkpoint may have brought."""
    origin = document.get("nas")
    paths = origin.get("modules", ()) if isinstance(origin, Mapping) else ()
    lies_in = Path(document["yaml_file"]).parent if "yaml_file" in document else None
    return user_modules.load_those_there(paths, lies_in)


def _lower(document: dict[str, Any], missing: Sequence[str]) -> tuple[dict[str, Any], dict[int, Lowered]]:
    """The document with stock rows only, and what was taken out, by row index."""
    lowered: dict[int, Lowered] = {}
    mistakes: list[str] = []
    stock: dict[str, Any] = {**document, "backbone": [], "head": []}
    for index, (place, row) in enumerate(_addressed(document)):
        section = place.partition("[")[0]
        if row[2] in _HEADS:
            stock[section].append([*row[:2], "Detect", row[3][:1]])
            continue
        try:
            taken = rows.lower(row)
            if taken is None:
                require_known(row[2], missing)
            else:
                lowered[index] = taken
            stock[section].append(row if taken is None else taken.row)
        except SpecError as error:
            mistakes.extend(error.within(place).mistakes)
    if mistakes:
        raise SpecError(mistakes)
    return stock, lowered


def _addressed(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(f"{section}[{i}]", row) for section in ("backbone", "head") for i, row in enumerate(document[section])]


def require_known(module: str, missing: Sequence[str] = ()) -> None:
    """Refuse a name that Ultralytics would answer with a bare KeyError.

    Args:
        missing: files that the document names, in which its operator may have been.

    Raises:
        SpecError: no such module.
    """
    if module.startswith(("nn.", "torchvision.ops.")) or module in vars(tasks):
        return
    if missing:
        raise SpecError(f"unknown module {module!r}, and {', '.join(missing)}, which may define it, is not there")
    modules = [name for name, value in vars(tasks).items() if isinstance(value, type) and issubclass(value, nn.Module)]
    raise SpecError(f"unknown module {module!r} ({nearest(module, rows.names() + modules)})")


def _channels_before(layers: nn.Sequential, ch: int, lowered: dict[int, Lowered]) -> dict[int, int]:
    """Channels that enter each lowered layer; traced only for an `nn.Upsample`, which does not know them."""
    channels = dict.fromkeys(lowered, 0)
    upsampled = [index for index, row in lowered.items() if row.host.module is nn.Upsample]
    if upsampled:
        probe = torch.zeros(1, ch, _PROBE_SIZE, _PROBE_SIZE)
        before = layers[: max(upsampled) + 1].eval()
        for step in trace(before, probe):
            if step.index in channels:
                channels[step.index] = step.c_in
        layers.train()
    return channels


def _graft_row(layer: nn.Module, row: Lowered, c_in: int, *, place: str) -> nn.Module:
    try:
        return graft(layer, row.host, row.operator, row.parameters, c_in=c_in)
    except SpecError as error:
        raise error.within(place) from None


def _in_place_of(layer: nn.Module, module: nn.Module) -> nn.Module:
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
