"""Derive a finer space from the results of a coarse search, as in the second stage of MobileNetV4's search.

Where the found architectures have an operator, each layer is a slot of its own with all `search_values` of that
operator; all other layers are stock. The found architectures are tried first.

Source: Qin et al. 2024, "MobileNetV4", section 5 (arXiv 2404.10518): first filter sizes with everything else fixed,
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
"""Choices in a layer, by operator."""


def refine(document: Mapping[str, Any], space: SearchSpace, found: Sequence[Architecture]) -> str:
    """Return the text of a space file.

    Args:
        document: of the coarse space; its base, modules and `pgi` are copied.
        space: of that document.
        found: architectures, such as the Pareto front of a search.

    Raises:
        SpecError: all architectures are the stock model.
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
    heading = {key: document[key] for key in ("base", "scale", "modules", "pgi") if key in document}
    written: dict[str, Any] = {"name": f"{space.name}-fine", **heading}
    written["start"] = [_start_entry(architecture) for architecture in changed]
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
    factors = _scaling_factors(space, changed)
    if factors:
        written["macro"] = factors
    text: str = yaml.safe_dump(written, sort_keys=False, default_flow_style=None, width=118)
    return text


def _start_entry(architecture: Architecture) -> dict[Any, Any]:
    """Return an architecture as an entry of `start`, without parameters at their defaults."""
    picks = {layer: {choice.operator: dict(choice.effective)} for layer, choice in architecture.picks}
    new = {each.place: {each.choice.operator: dict(each.choice.effective)} for each in architecture.insertions}
    factors = {scaling.MACRO: dict(architecture.macro)} if architecture.macro else {}
    return {**picks, **new, **factors}


def _choices(used: Used) -> dict[str, dict[str, list[Value]]]:
    return {name: _listed(OPERATORS[name], choices) for name, choices in used.items()}


def _listed(operator: Operator, choices: Sequence[Choice]) -> dict[str, list[Value]]:
    """Return the `search_values` of each parameter together with the values that were found."""
    listed = {}
    for parameter in operator.parameters:
        found = {dict(choice.parameters)[parameter.name] for choice in choices}
        wanted = {*(parameter.search_values or (parameter.default,)), *found}
        if wanted != {parameter.default}:
            listed[parameter.name] = parameter.in_order(wanted)
    return listed


def _scaling_factors(space: SearchSpace, found: Sequence[Architecture]) -> dict[str, Any]:
    """Return the scaling factors that differ from stock in any architecture, with the values found and stock's.

    The image size is listed in any case.
    """
    listed: dict[str, Any] = {}
    for factor in space.scaling_factors:
        wanted = {space.factor_values(architecture)[factor.name] for architecture in found} | {factor.stock}
        values = [value for value in factor.values if value in wanted]
        if factor.name == scaling.IMAGE_SIZE:
            listed[factor.name] = [int(value) for value in values]
        elif wanted != {factor.stock}:
            name, _, stage = factor.name.partition(".")
            if stage:
                listed.setdefault(name, {})[stage] = values
            else:
                listed[name] = values
    return listed
