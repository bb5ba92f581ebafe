"""A finer space around what a coarse search has found: MobileNetV4's second stage.

Where the found architectures carry an operator, each layer may carry it by itself, with all its worthwhile parameters;
everything else stays stock. What they are is tried first.

Source: Qin and others 2024, "MobileNetV4", section 5 (arXiv 2404.10518): first filter sizes with everything else fixed,
then kernels, layer by layer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from search_spaces import scaling
from search_spaces.architecture import Architecture, Choice
from search_spaces.errors import SpecError
from search_spaces.operators import OPERATORS, Operator, Value
from search_spaces.space import SearchSpace

Used = dict[str, list[Choice]]
"""The choices of each operator."""


def refine(document: Mapping[str, Any], space: SearchSpace, found: Sequence[Architecture]) -> str:
    """The text of a space file.

    Args:
        document: of the coarse space, whose base, modules and `pgi` it keeps.
        space: what that document says.
        found: such as the front of a search.

    Raises:
        SpecError: nothing that was found differs from the stock model.
    """
    changed = [architecture for architecture in found if architecture.fingerprint != space.stock.fingerprint]
    if not changed:
        raise SpecError("refine: nothing was found but the stock model, around which there is nothing to refine")
    layers: dict[int, Used] = {}
    inserted: dict[int, tuple[str, Used]] = {}
    for architecture in changed:
        for layer, choice in architecture.picks:
            layers.setdefault(layer, {}).setdefault(choice.operator, []).append(choice)
        for new in architecture.insertions:
            _, used = inserted.setdefault(new.after, (str(new.feeds), {}))
            used.setdefault(new.choice.operator, []).append(new.choice)
    kept = {key: document[key] for key in ("base", "scale", "modules", "pgi") if key in document}
    written: dict[str, Any] = {"name": f"{space.name}-fine", **kept}
    written["start"] = [_said(architecture) for architecture in changed]
    if layers:
        written["slots"] = [
            {"at": {"layers": [layer]}, "choices": {"stock": {}, **_choices(used)}}
            for layer, used in sorted(layers.items())
        ]
    if inserted:
        written["insert"] = [
            {"after": after, "feeds": feeds, "choices": _choices(used)}
            for after, (feeds, used) in sorted(inserted.items())
        ]
    dials = _dials(space, changed)
    if dials:
        written["macro"] = dials
    text: str = yaml.safe_dump(written, sort_keys=False, default_flow_style=None, width=118)
    return text


def _said(architecture: Architecture) -> dict[Any, Any]:
    """As `start` says it, without what is at its default."""
    picks = {layer: {choice.operator: dict(choice.effective)} for layer, choice in architecture.picks}
    new = {each.place: {each.choice.operator: dict(each.choice.effective)} for each in architecture.insertions}
    turned = {scaling.MACRO: dict(architecture.macro)} if architecture.macro else {}
    return {**picks, **new, **turned}


def _choices(used: Used) -> dict[str, dict[str, list[Value]]]:
    return {name: _listed(OPERATORS[name], choices) for name, choices in used.items()}


def _listed(operator: Operator, choices: Sequence[Choice]) -> dict[str, list[Value]]:
    """The worthwhile values of each parameter, and those that were found."""
    listed = {}
    for parameter in operator.parameters:
        had = {dict(choice.parameters)[parameter.name] for choice in choices}
        wanted = {*(parameter.search_values or (parameter.default,)), *had}
        if wanted != {parameter.default}:
            listed[parameter.name] = [value for value in parameter.allowed if value in wanted]
    return listed


def _dials(space: SearchSpace, found: Sequence[Architecture]) -> dict[str, Any]:
    """The dials that were found turned, at what they stood at and at stock; image sizes in any case."""
    dials: dict[str, Any] = {}
    for dial in space.scaling_factors:
        values = {space.factor_values(architecture)[dial.name] for architecture in found} | {dial.stock}
        listed = [value for value in dial.values if value in values]
        if dial.name == scaling.IMAGE_SIZE:
            dials[dial.name] = [int(value) for value in listed]
        elif values != {dial.stock}:
            name, _, stage = dial.name.partition(".")
            if stage:
                dials.setdefault(name, {})[stage] = listed
            else:
                dials[name] = listed
    return dials
