"""A space file for any detection model, with every slot that its layers have."""

from collections.abc import Iterator
from textwrap import fill

import yaml

from search_spaces import base as bases
from search_spaces.architecture import STOCK, Choice
from search_spaces.base import Base
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, Operator
from search_spaces.space import Slot, against

_WIDTH = 118


def derive(model: str, *, scale: str | None = None) -> str:
    """The text of a space file, commented, valid as it stands.

    Args:
        model: an Ultralytics name such as `yolov8s.yaml`, or a path.
        scale: one of the model's; by default the one in its name, else the first of its table.

    Raises:
        SpecError: no such model, not a detection model, or one without any slot.
    """
    name, scale = bases.named(model, scale)
    base = bases.load(name, scale)
    entries = list(_entries(base))
    if not entries:
        raise SpecError(f"{model}: no layer of it can carry an operator")
    title = fill(
        f"Every slot of {model}. Nothing here is a recommendation: delete what you do not want to search, and look at "
        "what is left with `nas spaces FILE`.",
        _WIDTH - 2,
    )
    heading = {"name": base.name, "base": name} | ({"scale": scale} if scale else {})
    parts = [_comment(title), _yaml(heading), "slots:\n", *entries, _rest(base), _further(base)]
    return "".join(parts)


def _entries(base: Base) -> Iterator[str]:
    """One entry for all layers of a host in a section which can carry the same operators."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
    for layer, row in enumerate(base.rows):
        fitting = tuple(name for name in OPERATORS if row[2] in HOSTS and _fits(base, layer, OPERATORS[name]))
        if fitting:
            groups.setdefault((base.section(layer), row[2], fitting), []).append(layer)
    for (section, host, fitting), layers in groups.items():
        places = ", ".join(f"{layer} (1/{base.reduction(layer)}, {_flow(base, layer)})" for layer in layers)
        yield _comment(fill(f"{host} in the {section}: {places}.", _WIDTH - 4), indent="  ")
        yield f"  - at: {{layers: {layers}}}\n    choices:\n      stock: {{}}\n"
        for name in fitting:
            yield f"      {name}: {_listed(OPERATORS[name])}\n"


def _flow(base: Base, layer: int) -> str:
    step = base.traced[layer]
    return f"{step.c_in} to {step.c_out} channels" if step.c_in != step.c_out else f"{step.c_in} channels"


def _fits(base: Base, layer: int, operator: Operator) -> bool:
    """Whether any of the choices that would be listed can stand there."""
    slot = Slot(layer=layer, host=base.rows[layer][2], choices=(STOCK,))
    return any(against(base, slot, choice) is None for choice in _choices(operator))


def _choices(operator: Operator) -> Iterator[Choice]:
    """The default, and each value that would be listed."""
    yield Choice.of(operator.name, {})
    for parameter in operator.parameters:
        for value in parameter.worthwhile:
            yield Choice.of(operator.name, {parameter.name: value})


def _listed(operator: Operator) -> str:
    listed = {parameter.name: list(parameter.worthwhile) for parameter in operator.parameters if parameter.worthwhile}
    return _yaml(listed, flow=True).strip()


def _rest(base: Base) -> str:
    """Which layers carry nothing."""
    layers: dict[str, list[int]] = {}
    for layer, row in enumerate(base.rows):
        if row[2] not in HOSTS:
            layers.setdefault(row[2], []).append(layer)
    told = "; ".join(f"{module} {', '.join(map(str, indices))}" for module, indices in layers.items())
    return _comment(fill(f"No slots: {told}.", _WIDTH - 2))


def _further(base: Base) -> str:
    """What else a space can say, as a comment."""
    last = len(base.document["backbone"]) - 1
    return (
        "#\n# What else can be searched (docs/spaces.md):\n"
        f"# insert:\n#   - {{after: {last}, feeds: next, choices: {{DCNv4: {{groups: [4]}}}}}}\n"
        "# macro:\n#   depth: [0.67, 1]\n#   width: {P4: [0.75, 1], P5: [0.75, 1]}\n#   image_size: [480, 640]\n"
    )


def _comment(text: str, *, indent: str = "") -> str:
    return "".join(f"{indent}# {line}\n" for line in text.splitlines())


def _yaml(value: object, *, flow: bool = False) -> str:
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=flow, width=1000)
