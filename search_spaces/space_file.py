"""Load and save space files.

All mistakes of a file are reported at once, one a line, with their addresses: `slots[1].choices.UIB.expansion: ...`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from search_spaces import auxiliary, grammar, model_file
from search_spaces import base as bases
from search_spaces.base import Base
from search_spaces.derive import derive
from search_spaces.errors import SpecError
from search_spaces.files import write_atomically
from search_spaces.grammar import MEMBERS, Heading
from search_spaces.operators import modules as user_modules
from search_spaces.space import SearchSpace
from search_spaces.space_names import model_without_space, require_file
from search_spaces.space_reader import Reader
from search_spaces.yaml_text import parse_yaml, read_yaml


def load(space: str | Path, *, scale: str | None = None, modules: Sequence[str] = ()) -> SearchSpace:
    """Read the file of one space; `joined_file.load` also reads several.

    Args:
        space: a name in the catalog, one of a model of Ultralytics that has none there such as `yolov8-p2`, or a path.
        scale: replaces the scale in the file.
        modules: Python files or folders besides those that the file names.

    Raises:
        SpecError: lists every mistake of the file.
    """
    path, document = read(space, scale=scale, modules=modules)
    try:
        return parse(document)
    except SpecError as error:
        raise error.within(path.name) from None


def read(space: str | Path, *, scale: str | None = None, modules: Sequence[str] = ()) -> tuple[Path, dict[str, Any]]:
    """Return the path of a space file and its content, with absolute paths: it has the same meaning in any folder.

    Arguments and errors as for `load`, but only the file's form as YAML is checked.
    """
    path, document = _read(space)
    if scale is not None:
        document["scale"] = scale
    for part in parts(document):
        _make_absolute(part, path.parent)
        _add_modules(part, modules)
    return path, document


def _read(space: str | Path) -> tuple[Path, dict[str, Any]]:
    model = None if Path(space).is_file() else model_without_space(space)
    if model is not None:
        return Path(model), {**parse_yaml(derive(model)), "name": Path(model).stem}
    path = require_file(space)
    return path, read_yaml(path)


def parts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the spaces in a file's content: itself, or those that are written out as its `members`."""
    if MEMBERS not in document:
        return [document] if isinstance(document, dict) else [dict(document)]
    members = document[MEMBERS]
    return [one for one in members if isinstance(one, dict)] if isinstance(members, list) else []


def modules(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the Python files that a space's content names; none if the key is not a list of texts."""
    named = document.get("modules") or ()
    listed = (named,) if isinstance(named, str) else named
    is_list = isinstance(listed, list | tuple) and all(isinstance(one, str) for one in listed)
    return tuple(listed) if is_list else ()


def _make_absolute(document: dict[str, Any], folder: Path) -> None:
    """Replace the paths in a space's content, which are relative to the folder of its file."""
    base, modules = document.get("base"), document.get("modules")
    if isinstance(base, str) and (folder / base).is_file():
        document["base"] = str((folder / base).resolve())
    if isinstance(modules, list):
        document["modules"] = [str((folder / str(module)).resolve()) for module in modules]


def _add_modules(document: dict[str, Any], others: Sequence[str]) -> None:
    """Add Python files to those that a space's content names."""
    if others and "base" in document:
        modules = document.get("modules") or []
        listed = [modules] if isinstance(modules, str) else modules
        document["modules"] = list(dict.fromkeys([*listed, *(str(Path(one).resolve()) for one in others)]))


def save(text: str, path: Path) -> None:
    """Write the text of a space to a file, and copies of the users' operator files to `modules/` beside it."""
    document = parse_yaml(text)
    names: dict[Path, str] = {}
    for part in parts(document):
        modules = [Path(module) for module in part.get("modules", ())]
        for module in modules:
            if module not in names:
                names[module] = _copy(module, path.parent, set(names.values()))
        if modules:
            part["modules"] = [f"modules/{names[module]}" for module in modules]
    write_atomically(path, dump(document))


def _copy(module: Path, folder: Path, taken: Collection[str]) -> str:
    """Copy a user's operator file to `modules/` in a folder; return its name there."""
    source = user_modules.read(module)
    name = source.file_name if source.file_name not in taken else f"{module.stem}_{len(taken)}.py"
    (folder / "modules").mkdir(exist_ok=True)
    write_atomically(folder / "modules" / name, source.text)
    return name


def dump(document: Mapping[str, Any]) -> str:
    """Return the text of a space file with this content."""
    return yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=None, width=120)


def parse(document: Mapping[str, Any]) -> SearchSpace:
    """Return the space of a parsed file.

    Raises:
        SpecError: lists every mistake of the file.
    """
    if model_file.has_rows(document) and "base" not in document:
        raise SpecError("a model file, where a space is expected (nas spaces derive FILE prints the space around it)")
    mistakes: list[str] = []
    heading = grammar.read(Heading, dict(document), "", mistakes)
    named = document if heading is None else heading.model_dump()
    is_vocabulary_whole = _load_operators(named, mistakes)
    base = _load_base(named, mistakes)
    reader = Reader(base, mistakes, is_vocabulary_whole=is_vocabulary_whole)
    scaling_factors = reader.scaling_factors(document["macro"]) if "macro" in document else ()
    if "slots" in document or not {"insert", "macro"} & set(document):
        reader.slots(document.get("slots"))
    if "insert" in document:
        reader.insert(document["insert"])
    slots = reader.result()
    if heading is not None and heading.pgi and base is not None:
        _require_auxiliary(base, mistakes)
    picked = reader.start(document["start"]) if "start" in document else []
    if mistakes or heading is None:
        raise SpecError(mistakes)
    space = SearchSpace(
        name=heading.name,
        base=heading.base,
        scale=heading.scale,
        slots=slots,
        scaling_factors=scaling_factors,
        pgi=heading.pgi,
    )
    return replace(space, start=tuple(space.of(picks, factors) for picks, factors in picked))


def _load_operators(document: Mapping[str, Any], mistakes: list[str]) -> bool:
    """Load the users' operators and classes that a file names; return whether all could be loaded."""
    try:
        user_modules.load_all(modules(document), None)
    except SpecError as error:
        mistakes.extend(error.mistakes)
        return False
    return True


def _load_base(document: Mapping[str, Any], mistakes: list[str]) -> Base | None:
    """Load the base model that a file names, even if other keys have mistakes."""
    name, scale = document.get("base"), document.get("scale", "")
    if not isinstance(name, str) or not isinstance(scale, str):
        return None
    try:
        return bases.load(name, scale)
    except SpecError as error:
        mistakes.extend(error.mistakes)
        return None


def _require_auxiliary(base: Base, mistakes: list[str]) -> None:
    """Add a mistake if the base model cannot have an auxiliary branch."""
    try:
        auxiliary.with_branch(base.document)
    except SpecError as error:
        mistakes.extend(error.mistakes)
