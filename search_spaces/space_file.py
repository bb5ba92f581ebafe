"""The format of a space file, and its only reader.

Every mistake of a file is reported at once, one a line, with its address: `slots[1].choices.UIB.expansion: ...`.
"""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError

from search_spaces import base as bases
from search_spaces.architecture import STOCK, Choice
from search_spaces.base import Base
from search_spaces.errors import SpecError, nearest
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, Operator, Value
from search_spaces.space import SearchSpace, Slot

_RESERVED = {"insert", "macro"}
_RESERVED_IN_ENTRY = {"name", "tie"}

Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class At(_Strict):
    """Which layers an entry is about; what is given must all hold."""

    section: Literal["backbone", "head"] | None = None
    host: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)] | None = None
    layers: Annotated[tuple[StrictInt, ...], Field(min_length=1)] | None = None


class Entry(_Strict):
    """What may stand in some layers: for each operator its parameters, a value or a list of values each."""

    at: At
    choices: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


class Heading(_Strict):
    """The file as a whole; its slots are read one by one, so that one bad entry hides no other's mistakes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    base: str
    scale: str = ""
    slots: Any = None


def catalog() -> dict[str, Path]:
    """The space files that come with this package, by name."""
    folder = Path(str(files("search_spaces") / "catalog"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=_family)}


def _family(path: Path) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, path.stem))
    return int(digits or 0), path.stem


def load(space: str | Path, *, scale: str | None = None) -> SearchSpace:
    """Read a space file.

    Args:
        space: a name from the catalog, or a path.
        scale: instead of the file's own.

    Raises:
        SpecError: with every mistake of the file.
    """
    path, document = _document(space, scale)
    try:
        return parse(document)
    except SpecError as error:
        raise error.within(path.name) from None


def text(space: str | Path, *, scale: str | None = None) -> str:
    """A space file's text at a scale, in a form that means the same in any folder."""
    _, document = _document(space, scale)
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)


def _document(space: str | Path, scale: str | None) -> tuple[Path, dict[str, Any]]:
    known = catalog()
    path = known.get(str(space), Path(space))
    if not path.is_file():
        raise SpecError(f"space: no such space or file, got {str(space)!r} ({nearest(space, known)}, or a path)")
    document = bases.read_yaml(path)
    if scale is not None:
        document["scale"] = scale
    base = document.get("base")
    if isinstance(base, str) and (path.parent / base).is_file():
        document["base"] = str((path.parent / base).resolve())
    return path, document


def parse(document: Mapping[str, Any]) -> SearchSpace:
    """A space from a parsed file.

    Raises:
        SpecError: with every mistake of the file.
    """
    mistakes: list[str] = [f"{key}: not yet; this key is reserved" for key in sorted(_RESERVED & set(document))]
    heading = _read(Heading, {k: v for k, v in document.items() if k not in _RESERVED}, "", mistakes)
    base = None
    if heading is not None:
        try:
            base = bases.load(heading.base, heading.scale)
        except SpecError as error:
            mistakes.extend(error.mistakes)
    slots: dict[int, Slot] = {}
    origins: dict[tuple[int, str], str] = {}
    matched: dict[int, str] = {}
    for address, entry in _entries(document.get("slots"), mistakes):
        before = len(mistakes)
        offered = _offered(entry, address, mistakes)
        if base is not None:
            layers = _place(entry, offered, base, address, slots=slots, origins=origins, mistakes=mistakes)
            if len(mistakes) == before:  # else the cause has a line already
                matched = dict.fromkeys(layers, address) | matched
    for layer, address in matched.items():
        if len(slots[layer].choices) == 1:
            mistakes.append(f"{address}: layer {layer} is left with nothing but stock")
    if mistakes or heading is None:
        raise SpecError(mistakes)
    return SearchSpace(
        name=heading.name,
        base=heading.base,
        scale=heading.scale,
        slots=tuple(slots[layer] for layer in sorted(slots)),
    )


def _entries(slots: Any, mistakes: list[str]) -> Iterable[tuple[str, Entry]]:
    """The entries that have the right form, with their addresses."""
    if not isinstance(slots, list) or not slots:
        mistakes.append(f"slots: a list of entries is expected, got {slots!r} (- at: ...\\n  choices: ...)")
        return
    for index, raw in enumerate(slots):
        address = f"slots[{index}]"
        if isinstance(raw, dict):
            reserved = _RESERVED_IN_ENTRY & set(raw)
            mistakes.extend(f"{address}.{key}: not yet; this key is reserved" for key in sorted(reserved))
            raw = {key: value for key, value in raw.items() if key not in reserved}  # noqa: PLW2901
        entry = _read(Entry, raw, address, mistakes)
        if entry is not None:
            yield address, entry


def _read(model: type[Model], raw: Any, address: str, mistakes: list[str]) -> Model | None:
    """Validate, turning pydantic's errors into ours."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        mistakes.extend(_told(problem, model, address) for problem in error.errors() if not _echoes(problem))
        return None


def _echoes(problem: Any) -> bool:
    """Whether pydantic calls a list empty because every item in it is wrong, each of which has its own line."""
    return problem["type"] == "too_short" and bool(problem["input"])


def _told(problem: Any, model: type[BaseModel], address: str) -> str:
    place = address
    for part in problem["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    match problem["type"]:
        case "extra_forbidden":
            inner = At if "at" in problem["loc"][:-1] else model
            return f"{place}: unknown key ({nearest(problem['loc'][-1], inner.model_fields)})"
        case "missing":
            return f"{place}: missing"
        case "too_short":
            return f"{place}: empty"
        case "tuple_type":
            return f"{place}: a list is expected, got {problem['input']!r}"
        case "dict_type" | "model_type":
            return f"{place}: a mapping is expected, got {problem['input']!r}"
        case _:
            return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"


def _offered(entry: Entry, address: str, mistakes: list[str]) -> dict[str, list[Choice]]:
    """Every combination of listed values, by operator; mistakes in names and values are collected."""
    offered: dict[str, list[Choice]] = {}
    for name, given in entry.choices.items():
        place = f"{address}.choices.{name}"
        if name == STOCK.operator:
            if given:
                mistakes.append(f"{place}: stock has no parameters, got {given!r} ({{}})")
            continue
        if name not in OPERATORS:
            mistakes.append(f"{place}: unknown operator ({nearest(name, [STOCK.operator, *OPERATORS])})")
            continue
        values = _values(OPERATORS[name], given, place, mistakes)
        combinations = product(*values.values())
        choices = (Choice.of(name, dict(zip(values, combination, strict=True))) for combination in combinations)
        offered[name] = list(dict.fromkeys(choices))
    return offered


def _values(operator: Operator, given: Mapping[str, Any], place: str, mistakes: list[str]) -> dict[str, list[Value]]:
    values: dict[str, list[Value]] = {}
    for name, listed in given.items():
        options = listed if isinstance(listed, list) else [listed]
        if not options:
            mistakes.append(f"{place}.{name}: an empty list offers nothing (a value or several)")
        for option in options:
            try:
                values.setdefault(name, []).append(operator.parameter(name).check(option))
            except SpecError as error:
                mistakes.extend(error.within(f"{place}.{name}").mistakes)
                if f"no parameter {name!r}" in str(error):
                    break
    return {name: options for name, options in values.items() if options}


def _place(
    entry: Entry,
    offered: Mapping[str, list[Choice]],
    base: Base,
    address: str,
    *,
    slots: dict[int, Slot],
    origins: dict[tuple[int, str], str],
    mistakes: list[str],
) -> list[int]:
    """Add what an entry offers to the slots of the layers it matches, and return these."""
    layers = _matching(entry.at, base, f"{address}.at", mistakes)
    refusals: dict[str, list[str]] = {name: [] for name in offered}
    for layer in layers:
        slot = slots.get(layer, Slot(layer=layer, host=base.rows[layer][2], choices=(STOCK,)))
        for name, choices in offered.items():
            if (layer, name) in origins:
                first = origins[layer, name]
                mistakes.append(f"{address}.choices.{name}: layer {layer} has {name} already, from {first}")
                continue
            origins[layer, name] = address
            legal, obstacle = _legal(choices, base, layer)
            if obstacle and not legal:
                refusals[name].append(f"layer {layer}: {obstacle}")
            slot = Slot(layer=layer, host=slot.host, choices=(*slot.choices, *legal))
        slots[layer] = slot
    for name, told in refusals.items():
        if layers and len(told) == len(layers):
            mistakes.append(f"{address}.choices.{name}: fits no layer of this entry ({told[0]})")
    return layers


def _legal(choices: list[Choice], base: Base, layer: int) -> tuple[list[Choice], str]:
    """The choices that every site of the layer accepts, and the last reason against one."""
    host, operator = HOSTS[base.rows[layer][2]], OPERATORS[choices[0].operator]
    step = base.traced[layer]
    sites = host.sites_for(operator, step.layer, step.c_in, base.reduction(layer))
    if not sites:
        return [], f"{host.name} has no site for {operator.name}"
    legal, told = [], ""
    for choice in choices:
        obstacles = [operator.obstacle(site, dict(choice.parameters)) for site in sites]
        against = next(filter(None, obstacles), None)
        if against is None:
            legal.append(choice)
        else:
            told = against
    return legal, told


def _matching(at: At, base: Base, address: str, mistakes: list[str]) -> list[int]:
    """The layers that an entry is about."""
    rows = base.rows
    strangers = [host for host in at.host or () if host not in HOSTS]
    mistakes.extend(f"{address}.host: no such host, got {host!r} ({nearest(host, HOSTS)})" for host in strangers)
    if strangers:
        return []
    if at == At():
        mistakes.append(f"{address}: says nothing (section, host or layers)")
        return []
    for position, layer in enumerate(at.layers or ()):
        if not 0 <= layer < len(rows):
            mistakes.append(f"{address}.layers[{position}]: no such layer, got {layer} (0 to {len(rows) - 1})")
        elif rows[layer][2] not in HOSTS:
            hosts = ", ".join(HOSTS)
            mistakes.append(f"{address}.layers[{position}]: layer {layer} is {rows[layer][2]}, no host ({hosts})")
    layers = [
        layer
        for layer, row in enumerate(rows)
        if row[2] in HOSTS
        and (at.host is None or row[2] in at.host)
        and at.section in {None, base.section(layer)}
        and (at.layers is None or layer in at.layers)
    ]
    in_range = all(0 <= layer < len(rows) and rows[layer][2] in HOSTS for layer in at.layers or ())
    if not layers and in_range:
        mistakes.append(f"{address}: matches no layer of the base model")
    return layers
