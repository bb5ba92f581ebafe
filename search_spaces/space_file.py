"""Load and save space files.

All mistakes of a file are reported at once, one a line, with their addresses: `slots[1].choices.UIB.expansion: ...`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from search_spaces import auxiliary, grammar
from search_spaces import base as bases
from search_spaces.base import Base
from search_spaces.errors import SpecError
from search_spaces.files import write_atomically
from search_spaces.grammar import Heading
from search_spaces.operators import modules as user_modules
from search_spaces.space import SearchSpace
from search_spaces.space_names import require_file
from search_spaces.space_reader import Reader
from search_spaces.yaml_text import parse_yaml, read_yaml


def load(space: str | Path, *, scale: str | None = None, modules: Sequence[str] = ()) -> SearchSpace:
    """Read a space file.

    Args:
        space: a name in the catalog, or a path.
        scale: replaces the scale in the file.
        modules: Python files or folders besides those that the file names.

    Raises:
        SpecError: lists every mistake of the file.
    """
    path, document = _document(space, scale, modules)
    try:
        return parse(document)
    except SpecError as error:
        raise error.within(path.name) from None


def text(space: str | Path, *, scale: str | None = None, modules: Sequence[str] = ()) -> str:
    """Return the text of a space file with absolute paths, so that it has the same meaning in any folder.

    Arguments and errors as for `load`, but only the file's form as YAML is checked.
    """
    _, document = _document(space, scale, modules)
    return _dump(document)


def _document(space: str | Path, scale: str | None, others: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    path = require_file(space)
    document = read_yaml(path)
    if scale is not None:
        document["scale"] = scale
    base = document.get("base")
    if isinstance(base, str) and (path.parent / base).is_file():
        document["base"] = str((path.parent / base).resolve())
    modules = document.get("modules")
    if isinstance(modules, list):
        document["modules"] = [str((path.parent / str(module)).resolve()) for module in modules]
    if others:
        listed = [document["modules"]] if isinstance(modules, str) else document.get("modules") or []
        document["modules"] = list(dict.fromkeys([*listed, *(str(Path(one).resolve()) for one in others)]))
    return path, document


def save(text: str, path: Path) -> None:
    """Write the text of a space to a file, and copies of the users' operator files to `modules/` beside it."""
    document = parse_yaml(text)
    copied: dict[str, str] = {}
    for module in map(Path, document.get("modules", ())):
        source = user_modules.read(module)
        name = source.file_name if source.file_name not in copied else f"{module.stem}_{len(copied)}.py"
        copied[name] = source.text
        user_modules.trust(source)
    for name, content in copied.items():
        (path.parent / "modules").mkdir(exist_ok=True)
        write_atomically(path.parent / "modules" / name, content)
    if copied:
        document["modules"] = [f"modules/{name}" for name in copied]
    write_atomically(path, _dump(document))


def _dump(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=None, width=120)


def parse(document: Mapping[str, Any]) -> SearchSpace:
    """Return the space of a parsed file.

    Raises:
        SpecError: lists every mistake of the file.
    """
    mistakes: list[str] = []
    heading = grammar.read(Heading, dict(document), "", mistakes)
    base = _load_parts(document if heading is None else heading.model_dump(), mistakes)
    reader = Reader(base, mistakes)
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


def _load_parts(document: Mapping[str, Any], mistakes: list[str]) -> Base | None:
    """Load the users' operators and the base model that a file names, even if other keys have mistakes."""
    modules, name, scale = document.get("modules") or (), document.get("base"), document.get("scale", "")
    try:
        listed = (modules,) if isinstance(modules, str) else modules
        if isinstance(listed, list | tuple) and all(isinstance(one, str) for one in listed):
            user_modules.load_all(listed, None)
    except SpecError as error:
        mistakes.extend(error.mistakes)
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
