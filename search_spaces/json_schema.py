"""JSON Schema of space files, by which editors complete, explain and check them while one types.

The keys and their limits come from `grammar`, the operators and their parameters from their records. What depends on
the base model (which layers it has, which operator fits where) only `space_file` can check.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from search_spaces.architecture import STOCK
from search_spaces.grammar import MEMBERS, At, Entry, Heading, Insert, JoinedHeading, Macro, Member
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, Operator, Parameter

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
"""Version of JSON Schema that editors support."""

_MEANING = {
    "name": "Name of the space, in studies and in MLflow: letters, digits, dots, dashes.",
    "base": "An Ultralytics detection model by name, such as yolov9{scale}.yaml, or a path from this file's folder.",
    "scale": "Scale of the base model, such as n, s or m. nas search --scale replaces it. A member may have several.",
    "members": "Spaces that are searched together, instead of one: names or files, at one scale or several.",
    "space": "A space from nas spaces such as v8, or a path from this file's folder.",
    "modules": "Python files with operators of your own, from this file's folder.",
    "pgi": "Train YOLOv9 models with their auxiliary branch; cost, score and export are without it.",
    "start": "Architectures that a search tries first, after the stock model: choices by slot.",
    "slots": "Layers of the base model, and what may stand in each.",
    "insert": "New layers behind layers of the base model, and what they may be.",
    "macro": "Scaling factors of the whole model.",
    "at": "Layers of this entry: those that meet all given conditions.",
    "section": "Backbone or head.",
    "host": "Type of the layer, as the model's YAML writes it; one or several.",
    "layers": "Indices in the base model.",
    "choices": "Operators with their parameters. Stock, the layer as it is, is always among them.",
    "tie": "One choice for all layers of this entry.",
    "after": "Layer of the base model behind which a layer is inserted, or a list of them.",
    "feeds": "What reads the inserted layer: the next layer alone, or all that read the layer before it.",
    "depth": "Factors of the number of repeats, everywhere or per stage.",
    "width": "Factors of the number of channels, everywhere or per stage.",
    "image_size": "Image sizes in pixels that the model is deployed at; multiples of 32.",
}
"""What an editor shows of each key."""

_SINGLE = {"modules", "host", "after", "image_size"}
"""Keys whose list may be a single value."""


def space_schema() -> Schema:
    """Return the JSON Schema of space files with all operators that are loaded.

    A file that names `modules` may name operators that are not loaded.
    """
    heading = _object(Heading)
    one, keys = heading.pop("required"), heading["properties"]
    keys["slots"] |= {"type": "array", "minItems": 1, "items": _entry(Entry)}
    keys["insert"] |= {"type": "array", "minItems": 1, "items": _entry(Insert)}
    keys["macro"] |= _macro()
    keys["start"] |= _start(list(keys["macro"]["properties"]))
    keys[MEMBERS] = _members()
    no_members = {"properties": {MEMBERS: False}}
    several = {"required": [MEMBERS], "propertyNames": {"enum": list(JoinedHeading.model_fields)}}
    only_loaded = {"items": {"properties": {"choices": {"propertyNames": {"enum": [STOCK.operator, *OPERATORS]}}}}}
    return {
        "$schema": DRAFT,
        "title": "Search space of nas",
        **heading,
        "anyOf": [*({"required": [*one, key], **no_members} for key in ("slots", "insert", "macro")), several],
        "if": {"not": {"required": ["modules"]}},
        "then": {"properties": {"slots": only_loaded, "insert": only_loaded}},
        "definitions": {"choices": _choices(OPERATORS.values())},
    }


def _object(model: type[BaseModel]) -> Schema:
    """Return pydantic's schema of a mapping, with a description of each key."""
    whole = model.model_json_schema()
    keys = {key: {"description": _MEANING[key]} | _plain(part, key) for key, part in whole["properties"].items()}
    required = {"required": whole["required"]} if "required" in whole else {}
    return {"type": "object", "additionalProperties": False, **required, "properties": keys}


def _members() -> Schema:
    """Return the form of `members`: each a reference to a space, or a space that is written out."""
    reference, written = _object(Member), {"type": "object", "required": ["name", "base"]}
    scale = reference["properties"]["scale"]
    reference["properties"]["scale"] = {"description": scale["description"], "anyOf": [scale["items"], scale]}
    items = {"anyOf": [reference, written]}
    return {"description": _MEANING[MEMBERS], "type": "array", "minItems": 1, "items": items}


def _plain(part: Mapping[str, Any], key: str) -> Schema:
    """Return what pydantic says of a key, without titles and null, in words that editors understand."""
    described = {name: value for name, value in part.items() if name not in {"title", "default"}}
    if "anyOf" in described:
        (described,) = (one for one in described["anyOf"] if one != {"type": "null"})
    described = dict(described)
    if described.get("type") == "array":
        described.pop("minLength", None)
        described |= {} if key == "modules" else {"minItems": 1}
    return {"anyOf": [described["items"], described]} if key in _SINGLE else described


def _entry(model: type[BaseModel]) -> Schema:
    entry = _object(model)
    entry["properties"]["choices"] |= {"$ref": "#/definitions/choices"}
    if "at" in entry["properties"]:
        at = {**_object(At), "minProperties": 1}
        names: Schema = {"enum": list(HOSTS)}
        at["properties"]["host"]["anyOf"] = [names, {"type": "array", "minItems": 1, "items": names}]
        at["properties"]["layers"]["items"]["minimum"] = 0
        entry["properties"]["at"] = {"description": _MEANING["at"], **at}
    return entry


def _macro() -> Schema:
    macro = _object(Macro)
    for key in ("depth", "width"):
        by_stage = macro["properties"][key]
        factor = by_stage["additionalProperties"]["items"]
        factors = {"anyOf": [factor, {"type": "array", "minItems": 1, "items": factor}]}
        stages = [stage for stage in by_stage["propertyNames"]["enum"] if stage]
        per_stage: Schema = {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": dict.fromkeys(stages, factors),
        }
        macro["properties"][key] = {"description": _MEANING[key], "anyOf": [*factors["anyOf"], per_stage]}
    return {**macro, "minProperties": 1}


def _start(factors: Iterable[str]) -> Schema:
    """Return the form of `start`: by slot an operator with its parameters, and scaling factors under `macro`."""
    operator: Schema = {"type": "object", "minProperties": 1, "maxProperties": 1}
    operator["additionalProperties"] = {"type": "object"}
    scaling: Schema = {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {rf"^({'|'.join(factors)})(\.P[1-7])?$": {"type": "number"}},
    }
    architecture: Schema = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {"macro": scaling},
        "patternProperties": {r"^(after-)?\d+$": operator},
    }
    return {"type": "array", "items": architecture}


def _choices(operators: Iterable[Operator]) -> Schema:
    stock = {"description": "The layer as it is.", "type": "object", "maxProperties": 0}
    loaded = {operator.name: _operator(operator) for operator in operators}
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {STOCK.operator: stock, **loaded},
        "additionalProperties": {"type": "object"},
    }


def _operator(operator: Operator) -> Schema:
    return {
        "description": operator.reference,
        "type": "object",
        "additionalProperties": False,
        "properties": {parameter.name: _parameter(parameter) for parameter in operator.parameters},
    }


def _parameter(parameter: Parameter) -> Schema:
    value = {"enum": list(parameter.allowed)}
    return {
        "description": f"A value, or a list of values to search. Default: {parameter.default}",
        "default": parameter.default,
        "anyOf": [value, {"type": "array", "minItems": 1, "items": value}],
    }
