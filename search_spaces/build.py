"""From rows to a model, and the hooks that let Ultralytics read our rows.

Ultralytics' `parse_model` is wrapped, never re-implemented: a row of ours is lowered to its stock row, Ultralytics
builds that with its own channel, width and repeat logic, and the operator is grafted into what was built. The
constructor of its `DetectionModel` is wrapped to read the YOLOv5 and YOLOv9 repositories' files, and to become a
`PGIModel` where the head has an auxiliary half.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import wraps
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER

from search_spaces import auxiliary, foreign_files, layers, model_file, pgi, printed, rows
from search_spaces.errors import LayerError, SpecError, in_one_line, shortened
from search_spaces.hosts import WHOLE, Host
from search_spaces.operators import Operator, Parameters
from search_spaces.operators import modules as user_modules
from search_spaces.rows import Lowered
from search_spaces.trace import Traced, trace

DETECTION_HEADS = ("Detect", "v10Detect")
"""Of models that are deployed."""

_HEADS: dict[str, Callable[..., nn.Module]] = {"DualDetect": pgi.DualDetect, **printed.HEADS}
"""Heads of ours: `(classes, *arguments, reg_max=, ch=)`; each stands for an Ultralytics `Detect` of the same maps."""

_MOST_PARAMS = 2**31
"""The most parameters of one layer: no detector has as many, and no machine has the memory to train it."""

_STRUCTURAL = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""Errors that a constructor raises for wrong arguments."""

_BUILDING = (*_STRUCTURAL, MemoryError, RuntimeError)
"""Those on the meta device, where memory runs out only for arguments that cannot be right."""

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
        obstacle = operator.incompatibility(site, parameters)
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
    with torch.device("meta"), _rows_told(document, _BUILDING):
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
def _rows_told(document: Mapping[str, Any], errors: tuple[type[Exception], ...]) -> Iterator[None]:
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


def require_detection(document: Mapping[str, Any]) -> None:
    """Refuse what is not a detection model, with all mistakes at once, a line each.

    Raises:
        SpecError: no backbone and head, a row or a setting of the wrong form, a module that is no layer, or a head for
            another task.
    """
    mistakes = list(model_file.mistakes(document))
    if model_file.has_rows(document):
        strangers = _of_names(document)
        foreign = tuple(f"{mistake.partition(':')[0]}: arguments" for mistake in strangers)
        mistakes = [mistake for mistake in mistakes if not mistake.startswith(foreign)]  # of a layer that is none
        mistakes += [*strangers, *_of_head(document)]
    if not auxiliary.is_pgi(document.get("pgi", False)):
        mistakes.append(f"pgi: true, false or {auxiliary.LEAD_GUIDED} is expected, got {document['pgi']!r}")
    if mistakes:
        raise SpecError(mistakes)


def _of_names(document: Mapping[str, Any]) -> list[str]:
    """Return the mistakes in the modules that rows name, and in operators' parameters."""
    mistakes: list[str] = []
    missing = _missing_modules(document)
    for place, row in model_file.addressed(document):
        if not model_file.is_row(row):
            continue
        try:
            lowered = None if row[2] in _HEADS else _lowered(row, missing)
        except SpecError as error:
            told = error.within(place).mistakes
            several = isinstance(row[0], list)
            mistakes += [one.replace(layers.UNKNOWN, layers.UNKNOWN_OF_SEVERAL) if several else one for one in told]
            continue
        if lowered is not None:
            mistakes += [f"{place}: {one}" for one in model_file.of_channels(*lowered.row[2:])]
            if isinstance(row[0], list):
                mistakes.append(f"{place}: {row[2]} reads one layer, got {row[0]}: {_ONE_LAYER}")
    return mistakes


_ONE_LAYER = "an operator cannot take the place of a layer that reads several (docs/operators.md)"


def is_detection_head(module: str) -> bool:
    """Whether a name is that of a detection head that can be built, or of one of another repository."""
    return module in DETECTION_HEADS or module in _HEADS or module in foreign_files.FOREIGN_MODULES


def _of_head(document: Mapping[str, Any]) -> list[str]:
    """Return the mistakes of the last row as the head of a detection model."""
    row, place = document["head"][-1], f"head[{len(document['head']) - 1}]"
    if not model_file.is_row(row):
        return []
    source, _, head, _ = row
    if head not in DETECTION_HEADS and head not in _HEADS:
        if not layers.is_layer(head, [*rows.names(), *_HEADS]):
            return []  # which has a line already
        return [f"{place}: only detection models can be searched, got {head} ({' or '.join(DETECTION_HEADS)})"]
    if head in _HEADS and not isinstance(source, list):
        return [f"{place}: {head} reads a list of layers, got {source!r}"]
    if head in auxiliary.DUAL_HEADS and len(source) % 2:
        return [f"{place}: {head} reads as many auxiliary maps as main ones, got {source}"]
    return []


def install() -> None:
    """Let Ultralytics read our rows. Idempotent; a side effect of importing `search_spaces`."""
    if getattr(tasks.parse_model, "reads_operators", False):
        return
    tasks.parse_model = _reading_operators(tasks.parse_model)
    tasks.DetectionModel.__init__ = _reading_dialects(tasks.DetectionModel.__init__)


def _reading_dialects(stock_init: Any) -> Any:
    @wraps(stock_init)
    def __init__(self: tasks.DetectionModel, cfg: Any = "yolo26n.yaml", *arguments: Any, **options: Any) -> None:  # noqa: N807 - it becomes that method
        reading = foreign_files.translate(cfg if isinstance(cfg, Mapping) else tasks.yaml_model_load(cfg))
        for note in reading.notes:
            LOGGER.info(note)
        try:
            stock_init(self, reading.document, *arguments, **options)
        except _BUILDING as error:
            try:
                require_passable(reading.document)
            except SpecError as wrong:  # an operator's fault as well may be: a trial goes on to the next candidate
                raise LayerError(str(wrong)) from error
            raise
        if isinstance(self.model[-1], pgi.DualDetect):
            self.__class__ = pgi.PGIModel

    return __init__


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


def refuse_downloads() -> None:
    """Refuse `TorchVision` rows in models of every task from now on, in this process.

    For a command that builds whatever file it is given. In a program of the user's, Ultralytics' classifiers may load
    their backbones as they do without this package; a detection model never does.
    """
    tasks.parse_model.downloads = False


def _reading_operators(stock_parse_model: Any) -> Any:
    @wraps(stock_parse_model)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:  # noqa: FBT001, FBT002 - Ultralytics' signature
        missing = _load_modules(d)
        stock, lowered = _lower(d, missing)
        if stock.get("activation"):
            stock["activation"] = _activation(stock["activation"])
        with _rows_told(d, _STRUCTURAL):
            built, save = stock_parse_model(stock, ch, verbose)
        channels = _channels_before(built, ch, lowered)
        for index, row in lowered.items():
            place, _ = model_file.addressed(d)[index]
            built[index] = _graft_row(built[index], row, channels[index], place=place)
        if (head := d["head"][-1])[2] in _HEADS:
            built[-1] = _head(built[-1], head)
            pgi.wrap_auxiliary(built)
        if verbose and lowered:
            LOGGER.info("operators: " + ", ".join(f"{i} {row.operator.name}" for i, row in lowered.items()))
        return built, save

    parse_model.reads_operators = True  # type: ignore[attr-defined]  # the mark that install() looks for
    parse_model.downloads = True  # type: ignore[attr-defined]  # the mark that refuse_downloads() sets
    return parse_model


def _activation(written: Any) -> str:
    try:
        return layers.activation(written)
    except SpecError as error:
        raise error.within("activation") from None


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
    return user_modules.load_trusted(model_file.modules(document), _lies_in(document))


def _missing_modules(document: Mapping[str, Any]) -> list[str]:
    """The files that the document names and that are not there."""
    return user_modules.missing(model_file.modules(document), _lies_in(document))


def _lies_in(document: Mapping[str, Any]) -> Path | None:
    return Path(document["yaml_file"]).parent if isinstance(document.get("yaml_file"), str) else None


def _lower(document: dict[str, Any], missing: Sequence[str]) -> tuple[dict[str, Any], dict[int, Lowered]]:
    """The document with stock rows only, and what was taken out, by row index."""
    lowered: dict[int, Lowered] = {}
    mistakes: list[str] = []
    stock: dict[str, Any] = {**document, "backbone": [], "head": []}
    head = document["head"][-1]
    for index, (place, row) in enumerate(model_file.addressed(document)):
        section = place.partition("[")[0]
        if not model_file.is_row(row) or not isinstance(row[3], list):
            mistakes.append(f"{place}: not a row, got {shortened(row)} ([from, repeats, module, arguments])")
            continue
        if row[2] in _HEADS:
            stock[section].append([*row[:2], "Detect", row[3][:1]])
            continue
        is_plain = row[2] == layers.DOWNLOADING and head[2] not in DETECTION_HEADS and tasks.parse_model.downloads
        try:
            taken = None if is_plain else _lowered(row, missing)
            if taken is not None:
                lowered[index] = taken
            stock[section].append(row if taken is None else taken.row)
        except SpecError as error:
            mistakes.extend(error.within(place).mistakes)
    if mistakes:
        raise SpecError(mistakes)
    return stock, lowered


def _lowered(row: Sequence[Any], missing: Sequence[str]) -> Lowered | None:
    """A row of ours taken apart; None for one of Ultralytics'.

    Raises:
        SpecError: it names no layer, or an operator that cannot stand so.
    """
    taken = rows.lower(row)
    if taken is None:
        require_known(row[2], missing)
    return taken


def require_known(module: str, missing: Sequence[str] = ()) -> None:
    """Refuse what is no layer that a row may name.

    Args:
        missing: files that the document names, in which its operator may have been.

    Raises:
        SpecError: no such layer.
    """
    try:
        layers.require_layer(module, [*rows.names(), *_HEADS])
    except SpecError:
        if missing:
            where = f"{', '.join(missing)}, which may define it, is not there"
            raise SpecError(f"unknown module {module!r}, and {where}") from None
        raise


def _channels_before(built: nn.Sequential, ch: int, lowered: dict[int, Lowered]) -> dict[int, int]:
    """Channels that enter each lowered layer; traced only for an `nn.Upsample`, which does not know them."""
    channels = dict.fromkeys(lowered, 0)
    upsampled = [index for index, row in lowered.items() if row.host.module is nn.Upsample]
    if upsampled:
        probe = torch.zeros(1, ch, _PROBE_SIZE, _PROBE_SIZE)
        before = built[: max(upsampled) + 1].eval()
        for step in trace(before, probe):
            if step.index in channels:
                channels[step.index] = step.c_in
        built.train()
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
