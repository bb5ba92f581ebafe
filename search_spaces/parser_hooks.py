"""Hooks that let Ultralytics read rows with operators, and other repositories' model files.

Ultralytics' `parse_model` is wrapped, never re-implemented: a row with an operator is lowered to its stock row,
Ultralytics builds that with its channel, width and repeat logic, and the operator is grafted into the built layer. The
constructor of its `DetectionModel` is wrapped to translate model files of the YOLOv5 and YOLOv9 repositories, and to
become a `PGIModel` where the head has an auxiliary half.
"""

from collections.abc import Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER

from search_spaces import foreign_files, layers, model_file, pgi
from search_spaces.build import (
    BUILD_ERRORS,
    CONSTRUCTOR_ERRORS,
    errors_with_address,
    graft,
    replace_layer,
    require_passable,
)
from search_spaces.errors import LayerError, SpecError, shortened
from search_spaces.model_checks import (
    DETECTION_HEADS,
    HEADS,
    folder_of,
    lower_row,
)
from search_spaces.operators import modules as user_modules
from search_spaces.rows import Lowered
from search_spaces.trace import trace

_PROBE_SIZE = 64
"""Size of the image with which the channels before an upsampling layer are found: a multiple of every stride."""


def install() -> None:
    """Install the hooks. Idempotent; a side effect of importing `search_spaces`."""
    if getattr(tasks.parse_model, "reads_operators", False):
        return
    tasks.parse_model = _reading_operators(tasks.parse_model)
    tasks.DetectionModel.__init__ = _translating(tasks.DetectionModel.__init__)


def _translating(stock_init: Any) -> Any:
    @wraps(stock_init)
    def __init__(self: tasks.DetectionModel, cfg: Any = "yolo26n.yaml", *arguments: Any, **options: Any) -> None:  # noqa: N807 - it becomes that method
        reading = foreign_files.translate(cfg if isinstance(cfg, Mapping) else tasks.yaml_model_load(cfg))
        for note in reading.notes:
            LOGGER.info(note)
        try:
            stock_init(self, reading.document, *arguments, **options)
        except BUILD_ERRORS as error:
            try:
                require_passable(reading.document)
            except SpecError as wrong:  # may be the fault of an operator: the search goes on with the next candidate
                raise LayerError(str(wrong)) from error
            raise
        if isinstance(self.model[-1], pgi.DualDetect):
            self.__class__ = pgi.PGIModel

    return __init__


def refuse_downloads() -> None:
    """Refuse `TorchVision` rows, which download weights, in models of every task for the rest of this process.

    For commands that build any file they are given. In a user's program Ultralytics' classifiers load their backbones
    as they do without this package; detection models never do.
    """
    tasks.parse_model.downloads = False


def _reading_operators(stock_parse_model: Any) -> Any:
    @wraps(stock_parse_model)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:  # noqa: FBT001, FBT002 - Ultralytics' signature
        missing = _load_modules(d)
        stock, lowered = _lower(d, missing)
        if stock.get("activation"):
            stock["activation"] = _activation(stock["activation"])
        with errors_with_address(d, CONSTRUCTOR_ERRORS):
            built, save = stock_parse_model(stock, ch, verbose)
        channels = _channels_before(built, ch, lowered)
        for index, row in lowered.items():
            place, _ = model_file.addressed(d)[index]
            built[index] = _graft_row(built[index], row, channels[index], place=place)
        if (head := d["head"][-1])[2] in HEADS:
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
    """Return a head of this package in the place of Ultralytics' head with the same inputs."""
    _, _, module, (_, *arguments) = row
    channels = tuple(branch[0].conv.in_channels for branch in stock.cv2)
    head = HEADS[module](stock.nc, *arguments, reg_max=stock.reg_max, ch=channels)
    for layer in head.modules():
        if isinstance(layer, Conv):
            layer.act = stock.cv2[0][0].act  # the YAML's `activation:`; by now the default is reset
    return replace_layer(stock, head)


def _load_modules(document: Mapping[str, Any]) -> list[str]:
    """Load the operators' files that a document names; return those that do not exist.

    The operators of a missing file may have been loaded from a checkpoint.
    """
    return user_modules.load_trusted(model_file.modules(document), folder_of(document))


def _lower(document: dict[str, Any], missing: Sequence[str]) -> tuple[dict[str, Any], dict[int, Lowered]]:
    """Return the document with stock rows only, and the lowered rows by their index."""
    lowered: dict[int, Lowered] = {}
    mistakes: list[str] = []
    stock: dict[str, Any] = {**document, "backbone": [], "head": []}
    head = document["head"][-1]
    for index, (place, row) in enumerate(model_file.addressed(document)):
        section = place.partition("[")[0]
        if not model_file.is_row(row) or not isinstance(row[3], list):
            mistakes.append(f"{place}: not a row, got {shortened(row)} ([from, repeats, module, arguments])")
            continue
        if row[2] in HEADS:
            stock[section].append([*row[:2], "Detect", row[3][:1]])
            continue
        is_plain = row[2] == layers.DOWNLOADING and head[2] not in DETECTION_HEADS and tasks.parse_model.downloads
        try:
            separated = None if is_plain else lower_row(row, missing)
            if separated is not None:
                lowered[index] = separated
            stock[section].append(row if separated is None else separated.row)
        except SpecError as error:
            mistakes.extend(error.within(place).mistakes)
    if mistakes:
        raise SpecError(mistakes)
    return stock, lowered


def _channels_before(built: nn.Sequential, ch: int, lowered: dict[int, Lowered]) -> dict[int, int]:
    """Return the input channels of each lowered layer: traced for `nn.Upsample`, which does not have them, else 0."""
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
