"""Check a model file before it is built: its rows, its modules and its head, all mistakes at once."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.modules.head import OBB, Detect, Pose, Segment, WorldDetect, YOLOEDetect

from search_spaces import (
    auxiliary,
    constructors,
    foreign_files,
    foreign_module,
    layers,
    model_file,
    other_heads,
    pgi,
    pgi_setting,
    printed,
    rows,
    user_rows,
)
from search_spaces.errors import SpecError, shortened, typo_of
from search_spaces.operators import modules as user_modules
from search_spaces.operators import user_classes
from search_spaces.rows import Lowered

DETECTION_HEADS = ("Detect", "v10Detect")
"""Ultralytics' heads of detection models."""

COUNTED_HEADS = (
    *("Classify", "Depth", "OBB", "OBB26", "Pose", "Pose26", "RTDETRDecoder", "Segment", "Segment26"),
    *("SemanticSegment", "WorldDetect", "YOLOEDetect", "YOLOESegment", "YOLOESegment26"),
)
"""Ultralytics' heads of models that are counted and not searched: of other tasks, RT-DETR, YOLO-World and YOLOE."""

WHOLE_BACKBONE = 5
"""Layers as which a row that is a whole backbone counts (`search_spaces.whole_backbone`)."""

HEADS: dict[str, Callable[..., nn.Module]] = {"DualDetect": pgi.DualDetect, **printed.HEADS, **other_heads.HEADS}
"""Heads of this package: `(classes, *arguments, reg_max=, ch=)`; each replaces a `Detect` of equal inputs."""


def require_detection(document: Mapping[str, Any], *, or_counted: bool = False) -> None:
    """Check that a document is a detection model.

    Args:
        or_counted: accept a head that is counted and not searched, too.

    Raises:
        SpecError: lists all mistakes: no backbone and head, a row or a setting of the wrong form, a module that is no
            layer, a head for another task.
    """
    wrong_modules = _module_mistakes(document) if model_file.has_rows(document) else []
    is_first_unknown = any(mistake.startswith("backbone[0]:") for mistake in wrong_modules)
    of_first = WHOLE_BACKBONE if is_first_unknown else 1  # as which it may count in its fork
    mistakes = [
        *model_file.mistakes(document, of_first=of_first),
        *constructors.mistakes(document.get("arguments")),
    ]
    if model_file.has_rows(document):
        arguments_of_these = tuple(f"{mistake.partition(':')[0]}: arguments" for mistake in wrong_modules)
        mistakes = [mistake for mistake in mistakes if not mistake.startswith(arguments_of_these)]
        mistakes += [*wrong_modules, *_further_heads(document)]
        if not any(mistake.startswith(f"head[{len(document['head']) - 1}]:") for mistake in wrong_modules):
            mistakes += _head_mistakes(document, or_counted=or_counted)
    if not pgi_setting.is_pgi(document.get("pgi", False)):
        mistakes.append(f"pgi: true, false or {pgi_setting.LEAD_GUIDED} is expected, got {document['pgi']!r}")
    if mistakes:
        raise SpecError(mistakes)


def _module_mistakes(document: Mapping[str, Any]) -> list[str]:
    """Return the mistakes in the modules that rows name, and in the parameters of operators."""
    mistakes: list[str] = []
    missing = missing_modules(document)
    for place, row in model_file.addressed(document):
        if not model_file.is_row(row) or not isinstance(row[3], list):  # `model_file.mistakes` reports it
            continue
        try:
            lowered = None if row[2] in HEADS else lower_row(row, missing)
        except SpecError as error:
            mistakes += error.within(place).mistakes
            continue
        if lowered is not None:
            mistakes += [f"{place}: {one}" for one in model_file.channel_mistakes(*lowered.row[2:])]
            reads_several = lowered.row[2] in layers.SEVERAL_SOURCES
            if reads_several and not isinstance(row[0], list):
                mistakes.append(f"{place}: {row[2]} reads a list of layers, got {row[0]} ([{row[0]}])")
            elif isinstance(row[0], list) and not reads_several:
                mistakes.append(f"{place}: {row[2]} reads one layer, got {row[0]}: {_ONE_LAYER}")
    return mistakes


_ONE_LAYER = "an operator cannot take the place of a layer that reads several (docs/operators.md)"


def is_detection_head(module: str) -> bool:
    """Return whether a name is that of a detection head that can be built, or of one of another repository."""
    return module in DETECTION_HEADS or module in HEADS or module in foreign_files.FOREIGN_MODULES


def is_counted_only(document: Mapping[str, Any]) -> bool:
    """Return whether a document without mistakes is a model that is counted and not searched."""
    head = document["head"][-1][2]
    return head in COUNTED_HEADS or head in other_heads.HEADS


def _further_heads(document: Mapping[str, Any]) -> list[str]:
    """Return a mistake for each head that is not the last row: the model would be one of several tasks."""
    heads = {*DETECTION_HEADS, *COUNTED_HEADS, *HEADS}
    return [
        f"{place}: {row[2]} is a head, which is expected in the last row alone"
        for place, row in model_file.addressed(document)[:-1]
        if model_file.is_row(row) and row[2] in heads
    ]


def _head_mistakes(document: Mapping[str, Any], *, or_counted: bool) -> list[str]:
    """Return the mistakes of the last row as the head of a detection model, or of one that is only counted."""
    row, place = document["head"][-1], f"head[{len(document['head']) - 1}]"
    if not model_file.is_row(row):
        return []
    source, _, head, arguments = row
    if head in other_heads.HEADS and not or_counted:
        return [f"{place}: only detection models can be searched, got {head}; nas cost counts this one"]
    if head not in DETECTION_HEADS and head not in HEADS:
        if user_rows.user_class(row) is not None:  # it can be counted; `require_trainable` refuses it elsewhere
            return [] if isinstance(source, list) else [f"{place}: {head} reads a list of layers, got {source!r}"]
        if or_counted and head in COUNTED_HEADS:
            return []
        possible = DETECTION_HEADS + COUNTED_HEADS if or_counted else DETECTION_HEADS
        if head not in COUNTED_HEADS:
            return [f"{place}: a head is expected in the last row, got {head} ({', '.join(possible)})"]
        counted = "nas cost counts this one, and nas yolo trains a model for another task as it is"
        return [f"{place}: only detection models can be searched, got {head} ({' or '.join(possible)}); {counted}"]
    if not _takes(head, arguments):
        return [f"{place}: {head}: the number of classes is expected, [nc], got {shortened(arguments)}"]
    if head in HEADS and not isinstance(source, list):
        return [f"{place}: {head} reads a list of layers, got {source!r}"]
    if head in auxiliary.HEADS_OF_PARTS and len(source) % auxiliary.HEADS_OF_PARTS[head][1]:
        return [f"{place}: {head} reads as many auxiliary maps as main ones, got {source}"]
    return []


def _takes(head: str, arguments: Any) -> bool:
    """Return whether a head takes the arguments of its row: the number of classes, and what one of ours has besides."""
    if not foreign_module.begins_with_classes(arguments):
        return False
    try:
        if head in HEADS:
            signature(HEADS[head]).bind(*arguments, reg_max=1, ch=())
    except TypeError:
        return False
    return True


def require_trainable(document: Mapping[str, Any]) -> None:
    """Check that a detection model has a head that this package can train: Ultralytics' or a subclass of it.

    Raises:
        SpecError: the head is another class of a user's file.
    """
    row, place = document["head"][-1], f"head[{len(document['head']) - 1}]"
    found = user_rows.user_class(row)
    if found is None or (issubclass(found.module, Detect) and not issubclass(found.module, _OF_OTHER_TASKS)):
        return
    raise SpecError(
        f"{place}: {found.name} of {found.file} is no subclass of Ultralytics' Detect, whose predictions its loss reads"
        f": nas cost counts it, and it cannot be trained ({' or '.join(DETECTION_HEADS)})"
    )


_OF_OTHER_TASKS = (OBB, Pose, Segment, WorldDetect, YOLOEDetect)
"""Subclasses of `Detect` whose losses read other labels than boxes."""


def missing_modules(document: Mapping[str, Any]) -> list[str]:
    """Return the operators' files that a document names and that do not exist."""
    return user_modules.missing(model_file.modules(document), folder_of(document))


def folder_of(document: Mapping[str, Any]) -> Path | None:
    """Return the folder of the file that a document was read from, as an absolute path; None if it does not say."""
    return Path(document["yaml_file"]).absolute().parent if isinstance(document.get("yaml_file"), str) else None


def lower_row(row: Sequence[Any], missing: Sequence[str]) -> Lowered | None:
    """Separate the operator of a row from its stock row; None for a row without operator, or of a user's class.

    Raises:
        SpecError: the row names no layer, or an operator that cannot stand there.
    """
    if row[2] == layers.DOWNLOADING and not layers.downloads(row[3]):
        return None
    lowered = rows.lower(row)
    if lowered is None and user_rows.user_class(row) is None:
        require_layer(row[2], missing)
    return lowered


def require_layer(module: str, missing: Sequence[str] = ()) -> None:
    """Check that a row may name a module.

    Args:
        missing: operators' files that the document names and that do not exist: the module may be defined there.

    Raises:
        SpecError: there is no such layer.
    """
    try:
        layers.require_layer(module, [*rows.names(), *HEADS])
    except SpecError as error:
        if missing:
            where = f"{', '.join(missing)}, which may define it, is not there"
            raise SpecError(f"unknown module {module!r}, and {where}") from None
        if near := typo_of(module, user_classes.names()):
            raise SpecError(f"unknown module {module!r} (did you mean {near!r}, which your file defines?)") from None
        if failed := user_classes.may_define():
            raise SpecError(f"{error}; not imported: {'; '.join(failed[:_MOST_FAILED])}") from None
        raise


_MOST_FAILED = 3
"""Most files that cannot be imported which a message lists."""
