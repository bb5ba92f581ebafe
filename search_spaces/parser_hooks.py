"""Build models whose rows hold operators, and those of other repositories' model files, with Ultralytics' parser.

Ultralytics' `parse_model` is wrapped, never re-implemented: a row with an operator is lowered to its stock row,
Ultralytics builds that with its channel, width and repeat logic, and the operator is grafted into the built layer. The
constructor of its `DetectionModel` is wrapped to translate model files of the YOLOv5 and YOLOv9 repositories, and to
become a `PGIModel` where the head has an auxiliary half. `ultralytics_hooks`
puts both in the place of Ultralytics' own.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Concat, Conv
from ultralytics.utils import LOGGER

from search_spaces import foreign_files, layers, model_file, pgi, placing, whole_backbone
from search_spaces import placed as placed_layers
from search_spaces.build import (
    BUILD_ERRORS,
    CONSTRUCTOR_ERRORS,
    addressed,
    errors_with_address,
    graft,
    replace_layer,
    require_passable,
)
from search_spaces.errors import LayerError, SpecError, shortened
from search_spaces.hosts import Channels
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
"""Size of the image with which the channels before some layers are found: a multiple of every stride."""


PERMITTED = {"downloads": True}
"""What the models that this process builds may do.

State of the module, since Ultralytics calls `parse_model` and leaves no way to hand anything on to it. It changes once,
before the first model is built: a process runs one command.
"""


def initialise(stock_init: Any, model: tasks.DetectionModel, cfg: Any, *arguments: Any, **options: Any) -> None:
    """Initialise a `DetectionModel` from a model file of any repository that is known; note what was translated."""
    document = cfg if isinstance(cfg, Mapping) else tasks.yaml_model_load(cfg)
    document, notes = whole_backbone.expanded(document)
    reading = foreign_files.translate(document)
    for note in (*notes, *reading.notes):
        LOGGER.info(note)
    try:
        stock_init(model, reading.document, *arguments, **options)
    except BUILD_ERRORS as error:
        try:
            require_passable(reading.document)
        except SpecError as wrong:  # may be the fault of an operator: the search goes on with the next candidate
            raise LayerError(str(wrong)) from error
        raise
    if isinstance(model.model[-1], pgi.DualDetect):
        model.__class__ = pgi.PGIModel


def refuse_downloads() -> None:
    """Refuse `TorchVision` rows, which download weights, in models of every task for the rest of this process.

    For commands that build any file they are given. In a user's program Ultralytics' classifiers load their backbones
    as they do without this package; detection models never do.
    """
    PERMITTED["downloads"] = False


def parse_model(
    stock_parse_model: Any, document: dict[str, Any], channels: int, *, verbose: bool
) -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a model file, some rows of which may hold operators; the second value as Ultralytics'."""
    missing = _load_modules(document)
    stock, lowered = _lower(document, missing)
    if stock.get("activation"):
        stock["activation"] = _activation(stock["activation"])
    with errors_with_address(document, CONSTRUCTOR_ERRORS):
        placed = placing.place(stock_parse_model, stock, channels)
        built, save = stock_parse_model(placed_layers.with_stand_ins(stock, placed), channels, verbose)
        with placed_layers.activated_as(built) if stock.get("activation") else nullcontext():
            save = placed_layers.put(placed, stock, built, save)
        if len(built) - 1 not in placed and not placed_layers.has_plain_branches(stock, placed):
            built[-1] = placed_layers.with_light_branches(built[-1], stock, stock_parse_model)
    with addressed(document):
        before = _channels_before(built, channels, lowered)
    for index, row in lowered.items():
        place, _ = model_file.addressed(document)[index]
        built[index] = _graft_row(built[index], row, before[index], place=place)
    if (head := document["head"][-1])[2] in HEADS:
        built[-1] = _head(built[-1], head)
        pgi.wrap_auxiliary(built)
    if verbose and placed:
        LOGGER.info("layers of your files: " + "; ".join(f"{i} {one.summary}" for i, one in placed.items()))
    if verbose and lowered:
        LOGGER.info("operators: " + ", ".join(f"{i} {row.operator.name}" for i, row in lowered.items()))
    return built, save


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
        is_plain = row[2] == layers.DOWNLOADING and head[2] not in DETECTION_HEADS and PERMITTED["downloads"]
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


def _channels_before(built: nn.Sequential, ch: int, lowered: dict[int, Lowered]) -> dict[int, Channels]:
    """Return the input channels of each lowered layer: traced for modules that do not have them, else 0."""
    channels: dict[int, Channels] = dict.fromkeys(lowered, 0)
    without = [index for index, row in lowered.items() if row.host.module in {nn.Upsample, nn.Identity, Concat}]
    if without:
        probe = torch.zeros(1, ch, _PROBE_SIZE, _PROBE_SIZE)
        before = built[: max(without) + 1].eval()
        for step in trace(before, probe):
            if step.index in channels:
                channels[step.index] = step.channels_in
        built.train()
    return channels


def _graft_row(layer: nn.Module, row: Lowered, c_in: Channels, *, place: str) -> nn.Module:
    try:
        return graft(layer, row.host, row.operator, row.parameters, c_in=c_in)
    except SpecError as error:
        raise error.within(place) from None
