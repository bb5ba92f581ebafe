"""Derive a space file from any detection model, with every slot that its layers have."""

from collections.abc import Iterable, Iterator
from textwrap import fill
from typing import Any

import yaml
from torch import Tensor

from search_spaces import base as bases
from search_spaces import model_reader
from search_spaces.architecture import Choice
from search_spaces.base import Base
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS, Host
from search_spaces.insertions import behind
from search_spaces.operators import OPERATORS, Operator, SiteKind, modules, user_classes
from search_spaces.operators.class_operator import ClassOperator
from search_spaces.placed import PLACED
from search_spaces.trace import first

_WIDTH = 118


def derive(model: str, *, scale: str | None = None) -> str:
    """Return the text of a valid space file, with comments.

    Args:
        model: an Ultralytics name such as `yolov8s.yaml`, or a path.
        scale: a scale of the model; by default the one in its name, or else the first of its table.

    Raises:
        SpecError: there is no such model, it is no detection model, or no layer of it can carry an operator.
    """
    name, scale = model_reader.base_and_scale(model, scale)
    base = bases.load(name, scale)
    modules.offer_where(lambda made: any(_is_meant_for(made, host) for host in HOSTS.values()))
    entries = list(_entries(base))
    if not entries:
        raise SpecError(f"{model}: no layer of it can carry an operator")
    title = fill(
        f"Every slot of {model}. Nothing here is a recommendation: delete what you do not want to search, and look at "
        "what is left with `nas spaces FILE`.",
        _WIDTH - 2,
    )
    named = (one.source for one in user_classes.LOADED.values())  # also of what stands behind layers alone
    sources = [*(one.source for one in OPERATORS.values() if one.source), *base.sources, *named]
    files = list(dict.fromkeys(str(source.path) for source in sources))
    heading: dict[str, Any] = {"name": base.name, "base": name, **({"scale": scale} if scale else {})}
    heading |= {"modules": files} if files else {}
    parts = [_comment(title), *_notes(base), _yaml(heading), *_pgi(base), *_start(base)]
    return "".join([*parts, "slots:\n", *entries, _rest(base), *_inserting(base), _further(base)])


def _notes(base: Base) -> Iterator[str]:
    """Yield comments on what the model file has beyond the base model."""
    if base.operators or base.inserted:
        inserted = (
            f" and without what was inserted behind layer {_listed_layers(base.inserted)}" if base.inserted else ""
        )
        note = f"The base model, `stock`, is the file's without its operators{inserted}" + (
            "; what the file carries is the architecture that a search tries first, `start`." if _start(base) else "."
        )
        yield _comment(fill(note, _WIDTH - 2))
    if base.left_branch:
        note = (
            "Candidates are trained without the file's auxiliary branch: only YOLOv9's is added to them. "
            "`nas yolo train` of the file itself trains it."
        )
        yield _comment(fill(note, _WIDTH - 2))
    if base.shifted:
        note = (
            "Layers are counted without the file's auxiliary branch and the identity before it: the file's layer "
            f"{base.shifted} is layer 0 here."
        )
        yield _comment(fill(note, _WIDTH - 2))
    if base.inserted:
        then = min(base.inserted) + 1
        note = (
            "Layers are counted without the inserted ones: the file's layer "
            f"{base.index_in_file(then)} is layer {then} here."
        )
        yield _comment(fill(note, _WIDTH - 2))
    for layer, choice in _in_layers(base).items():
        reason = _incompatibility(base, layer, choice)
        if reason:
            note = f"Not offered, though the file has it: {choice} in layer {layer}: {reason}."
            yield _comment(fill(note, _WIDTH - 2))
        elif _may_be_inserted(base, layer):
            note = (
                f"In the place of {choice} in layer {layer}, `stock` has {base.rows[layer][2]}. If that layer took no "
                "other's place but was inserted, take its row out of the file and list the operator under `insert`."
            )
            yield _comment(fill(note, _WIDTH - 2))
    for layer, choice in _inserted(base).items():
        if reason := _incompatibility(base, layer, choice, inserted=True):
            note = f"Not offered, though the file has it: {choice} inserted behind layer {layer}: {reason}."
            yield _comment(fill(note, _WIDTH - 2))


def _listed_layers(layers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(layers)))


def _may_be_inserted(base: Base, layer: int) -> bool:
    """Return whether a layer with an operator looks like an inserted one: it keeps the size and channels of its map.

    A block with inner blocks, such as `C2f`, belongs to the base model; for other layers the file does not say so.
    """
    source, repeats, module, _ = base.rows[layer]
    step = base.traced[layer]
    same_size = first(step.received).shape[-1] == first(step.returned).shape[-1]
    return (source, repeats) == (-1, 1) and module in {"Conv", "Bottleneck"} and same_size and step.c_in == step.c_out


def _pgi(base: Base) -> list[str]:
    setting = "true" if base.pgi is True else base.pgi
    return [f"{f'pgi: {setting}':24} # train with the auxiliary branch\n"] if base.pgi else []


def _start(base: Base) -> list[str]:
    """Return the lines of `start`: the operators of the model file that the space can offer."""
    offered = {
        str(layer): choice for layer, choice in _in_layers(base).items() if not _incompatibility(base, layer, choice)
    } | {
        behind(layer): choice
        for layer, choice in _inserted(base).items()
        if not _incompatibility(base, layer, choice, inserted=True)
    }
    if not offered:
        return []
    lines = [f"{place}: {_yaml({choice.operator: choice.effective}, flow=True)}" for place, choice in offered.items()]
    return ["start:\n", *(f"  {'-' if index == 0 else ' '} {line}" for index, line in enumerate(lines))]


def _in_layers(base: Base) -> dict[int, Choice]:
    """Return the operators that the file has in layers of the base model, by layer."""
    return {layer: Choice.of(operator, parameters) for layer, (operator, parameters) in base.operators.items()}


def _inserted(base: Base) -> dict[int, Choice]:
    """Return the operators that the file records as inserted, by the layer that they follow."""
    return {layer: Choice.of(operator, parameters) for layer, (_, operator, parameters) in base.inserted.items()}


def _incompatibility(base: Base, layer: int, choice: Choice, *, inserted: bool = False) -> str | None:
    return base.incompatibility(layer, OPERATORS[choice.operator], dict(choice.parameters), inserted=inserted)


def _entries(base: Base) -> Iterator[str]:
    """Yield the entries of `slots`: one for all layers of a section and host that can carry the same operators."""
    groups: dict[tuple[str, str, tuple[str, ...], Choice | None], list[int]] = {}
    carries = {layer: choice for layer, choice in _in_layers(base).items() if not _incompatibility(base, layer, choice)}
    for layer, row in enumerate(base.rows):
        carried = carries.get(layer)
        offered = map(OPERATORS.__getitem__, _vocabulary() if row[2] in HOSTS else ())
        in_file = carried.operator if carried else ""
        meant = (one for one in offered if one.name == in_file or _is_meant_for(one, HOSTS[row[2]]))
        fitting = tuple(one.name for one in meant if _fits(base, layer, one, carried))
        if fitting:
            groups.setdefault((base.section(layer), row[2], fitting, carried), []).append(layer)
    for (section, host, fitting, carried), layers in groups.items():
        places = ", ".join(f"{layer} (1/{base.reduction(layer)}, {_flow(base, layer)})" for layer in layers)
        note = f"{host} in the {section}: {places}." + (f" The file has {carried} here." if carried else "")
        yield _comment(fill(note, _WIDTH - 4), indent="  ")
        yield f"  - at: {{layers: {layers}}}\n    choices:\n      stock: {{}}\n"
        for name in fitting:
            yield f"      {name}: {_listed(OPERATORS[name], carried)}\n"


def _is_meant_for(operator: Operator, host: Host) -> bool:
    """Return whether a derived space lists an operator for the layers of a host, where it fits.

    Not each place where a user's class could stand: a block is meant for blocks of convolutions, another class for the
    kind of block or pyramid after which it is called, or from which it is derived.
    """
    if not isinstance(operator, ClassOperator):
        return True
    if host.whole is SiteKind.LAYER:
        return not operator.replaces
    if host.whole is SiteKind.STAGE:
        return SiteKind.STAGE in operator.kinds
    return operator.name.startswith(host.name) or issubclass(operator.module, host.module)


def _vocabulary() -> list[str]:
    """Return the operators that a space file with these modules can name: a user's class goes before one of ours."""
    return [name for name, record in OPERATORS.items() if record.source is not None or not user_classes.find(name)]


def _inserting(base: Base) -> Iterator[str]:
    """Yield the entries of `insert` for the file's inserted layers, with every operator that can stand there."""
    offered = {
        layer: choice
        for layer, choice in _inserted(base).items()
        if not _incompatibility(base, layer, choice, inserted=True)
    }
    if offered:
        yield "insert:\n"
    for layer, carried in offered.items():
        yield _comment(fill(f"Behind layer {layer} the file has {carried}.", _WIDTH - 4), indent="  ")
        yield f"  - after: {layer}\n    feeds: {base.inserted[layer][0]}\n    choices:\n"
        for operator in map(OPERATORS.__getitem__, _vocabulary()):
            if _fits(base, layer, operator, carried, inserted=True):
                yield f"      {operator.name}: {_listed(operator, carried)}\n"


def _flow(base: Base, layer: int) -> str:
    step = base.traced[layer]
    read = step.channels_in
    if isinstance(read, tuple):
        return f"{' and '.join(map(str, read))} to {step.c_out} channels"
    return f"{read} to {step.c_out} channels" if read != step.c_out else f"{read} channels"


def _fits(base: Base, layer: int, operator: Operator, carried: Choice | None, *, inserted: bool = False) -> bool:
    """Return whether any of the choices that would be listed can stand there."""
    return any(
        _incompatibility(base, layer, choice, inserted=inserted) is None for choice in _choices(operator, carried)
    )


def _choices(operator: Operator, carried: Choice | None) -> Iterator[Choice]:
    """Yield the default, if there is one, each value that would be listed, and the file's choice."""
    if not operator.required:
        yield Choice.of(operator.name, {})
    for parameter in operator.parameters:
        for value in parameter.search_values:
            yield Choice.of(operator.name, {parameter.name: value})
    if carried is not None and carried.operator == operator.name:
        yield carried


def _listed(operator: Operator, carried: Choice | None) -> str:
    """Return an operator's parameters with their `search_values` and the file's values, as YAML."""
    in_file = dict(carried.parameters) if carried is not None and carried.operator == operator.name else {}
    listed = {}
    for parameter in operator.parameters:
        values = parameter.search_values or (parameter.default,)
        wanted = {*values, in_file.get(parameter.name, parameter.default)} if in_file else {*values}
        if parameter.search_values or len(wanted) > 1:
            listed[parameter.name] = parameter.in_order(wanted)
    return _yaml(listed, flow=True).strip()


def _rest(base: Base) -> str:
    """Return a comment that lists the layers without slots."""
    layers: dict[str, list[int]] = {}
    for layer, row in enumerate(base.rows):
        if row[2] not in HOSTS:
            layers.setdefault(row[2], []).append(layer)
    listed = "; ".join(f"{module} {', '.join(map(str, indices))}" for module, indices in layers.items())
    note = f"No slots: {listed}."
    taken = (placed for step in base.traced if (placed := PLACED.get(step.layer)) and placed.reading.block)
    if (one := next(taken, None)) is not None:
        note += (
            f" To search which layers get {one.found.name}, write {one.reading.block} into its rows and derive from "
            "that file: it is a choice then."
        )
    return _comment(fill(note, _WIDTH - 2))


def _further(base: Base) -> str:
    """Return a comment with the other keys of a space file."""
    last = len(base.document["backbone"]) - 1
    name = next(iter(_keeping(base)), None)
    own = f"#   - {{after: {last}, feeds: next, choices: {{{name}: {{}}}}}}\n" if name else ""
    return (
        "#\n# What else can be searched (docs/spaces.md):\n"
        f"# insert:\n#   - {{after: {last}, feeds: next, choices: {{DCNv4: {{groups: [4]}}}}}}\n{own}"
        "# macro:\n#   depth: [0.67, 1]\n#   width: {P4: [0.75, 1], P5: [0.75, 1]}\n#   image_size: [480, 640]\n"
    )


def _keeping(base: Base) -> Iterator[str]:
    """Yield the users' classes of the base model that keep channels and size of their map: they can be inserted."""
    for layer in base.traced:
        placed = PLACED.get(layer.layer)
        if placed is None or placed.found.source is None:  # no space offers our layers for another repository's
            continue
        if isinstance(layer.received, Tensor) and isinstance(layer.returned, Tensor):
            name = placed.found.name
            is_taken = name in OPERATORS and OPERATORS[name].source is not None
            if layer.received.shape == layer.returned.shape and not is_taken:
                yield name


def _comment(text: str, *, indent: str = "") -> str:
    return "".join(f"{indent}# {line}\n" for line in text.splitlines())


def _yaml(value: object, *, flow: bool = False) -> str:
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=flow, width=1000)
