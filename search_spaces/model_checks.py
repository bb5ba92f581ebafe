"""Check a model file before it is built: its rows, its modules and its head, all mistakes at once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from search_spaces import auxiliary, foreign_files, layers, model_file, pgi, printed, rows
from search_spaces.errors import SpecError
from search_spaces.operators import modules as user_modules
from search_spaces.rows import Lowered

DETECTION_HEADS = ("Detect", "v10Detect")
"""Of models that are deployed."""


HEADS: dict[str, Callable[..., nn.Module]] = {"DualDetect": pgi.DualDetect, **printed.HEADS}
"""Heads of ours: `(classes, *arguments, reg_max=, ch=)`; each stands for an Ultralytics `Detect` of the same maps."""


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
    missing = missing_modules(document)
    for place, row in model_file.addressed(document):
        if not model_file.is_row(row):
            continue
        try:
            lowered = None if row[2] in HEADS else lower_row(row, missing)
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
    return module in DETECTION_HEADS or module in HEADS or module in foreign_files.FOREIGN_MODULES


def _of_head(document: Mapping[str, Any]) -> list[str]:
    """Return the mistakes of the last row as the head of a detection model."""
    row, place = document["head"][-1], f"head[{len(document['head']) - 1}]"
    if not model_file.is_row(row):
        return []
    source, _, head, _ = row
    if head not in DETECTION_HEADS and head not in HEADS:
        if not layers.is_layer(head, [*rows.names(), *HEADS]):
            return []  # which has a line already
        return [f"{place}: only detection models can be searched, got {head} ({' or '.join(DETECTION_HEADS)})"]
    if head in HEADS and not isinstance(source, list):
        return [f"{place}: {head} reads a list of layers, got {source!r}"]
    if head in auxiliary.DUAL_HEADS and len(source) % 2:
        return [f"{place}: {head} reads as many auxiliary maps as main ones, got {source}"]
    return []


def missing_modules(document: Mapping[str, Any]) -> list[str]:
    """The files that the document names and that are not there."""
    return user_modules.missing(model_file.modules(document), folder_of(document))


def folder_of(document: Mapping[str, Any]) -> Path | None:
    """Return the folder of the file that a document was read from; None if it does not say."""
    return Path(document["yaml_file"]).parent if isinstance(document.get("yaml_file"), str) else None


def lower_row(row: Sequence[Any], missing: Sequence[str]) -> Lowered | None:
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
        layers.require_layer(module, [*rows.names(), *HEADS])
    except SpecError:
        if missing:
            where = f"{', '.join(missing)}, which may define it, is not there"
            raise SpecError(f"unknown module {module!r}, and {where}") from None
        raise
