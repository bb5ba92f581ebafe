"""Load what a user names as a search's space: one space, or several that are searched together.

Several are written as names, `v8n,v9t`, or as a file with `members`. All mistakes are reported at once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search_spaces import base as bases
from search_spaces import grammar, space_file, space_names
from search_spaces.errors import SpecError
from search_spaces.grammar import MEMBERS, Heading, JoinedHeading, Member
from search_spaces.joined_space import JoinedSpace, Space
from search_spaces.space import SearchSpace

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of members: they are names of folders and parts of Optuna's parameter names."""
_PGI, _IMAGE_SIZE = "pgi", "macro.image_size"
_OF_A_SPACE = Heading.model_fields.keys() - Member.model_fields.keys()
"""Keys of a space, which a member that is named does not have."""


@dataclass(frozen=True, kw_only=True)
class _Written:
    """Content of a space's file.

    Attributes:
        place: of the space in what the user wrote, for messages.
    """

    place: str
    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the space with its scale."""
        return f"{self.document.get('name', '')}{self.document.get('scale', '')}"


@dataclass(frozen=True, kw_only=True)
class _Several:
    """Members that were found, and the mistakes in how they were named.

    Attributes:
        place: of all of them, for messages.
        name: of the joined space; None if the user gave none.
    """

    place: str
    name: str | None
    members: tuple[_Written, ...]
    mistakes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the content of a file in which all members are written out."""
        name = self.name or ",".join(member.name for member in self.members)
        return {"name": name, MEMBERS: [dict(member.document) for member in self.members]}


def load(space: str | Path, *, scale: str | None = None, modules: Sequence[str] = ()) -> Space:
    """Load a space, or several joined.

    Args:
        space: a name in the catalog such as `v8`, one with a scale such as `v8n`, several such as `v8n,v9t`, or a path.
        scale: replaces the scale in the file of one space.
        modules: Python files or folders besides those that the files name.

    Raises:
        SpecError: lists every mistake.
    """
    found = _named(space, scale, modules)
    if isinstance(found, _Several):
        return _joined(found)
    try:
        return space_file.parse(found.document)
    except SpecError as error:
        raise error.within(found.place) from None


def text(space: str | Path, *, scale: str | None = None, modules: Sequence[str] = ()) -> str:
    """Return the text of a file with absolute paths and with all members written out: it needs no other space file.

    Arguments and errors as for `load`, but only the form of the files as YAML is checked.
    """
    return space_file.dump(_document(space, scale, modules))


def modules(space: str | Path) -> tuple[str, ...]:
    """Return the Python files that a space names, or several spaces together: loading it runs them.

    Raises:
        SpecError: as for `text`.
    """
    document = _document(space, None, ())
    return tuple(dict.fromkeys(path for part in space_file.parts(document) for path in space_file.modules(part)))


def _document(space: str | Path, scale: str | None, modules: Sequence[str]) -> Mapping[str, Any]:
    """Return the content of a file in which all members are written out."""
    found = _named(space, scale, modules)
    if not isinstance(found, _Several):
        return found.document
    if found.mistakes:
        raise SpecError(found.mistakes)
    return found.document()


def parse(document: Mapping[str, Any]) -> Space:
    """Return the space of a parsed file whose members, if there are several, are written out.

    Raises:
        SpecError: lists every mistake of the file.
    """
    if MEMBERS not in document:
        return space_file.parse(document)
    return _joined(_listed(document, Path.cwd(), ""))


def _named(space: str | Path, scale: str | None, modules: Sequence[str]) -> "_Several | _Written":
    """Return the content of the one space that a user names, or the members if there are several."""
    names = space_names.names_of(space)
    if len(names) > 1:
        if scale is not None:
            raise SpecError(_with_several(scale, "v8n,v9t"))
        return _by_names(names, modules)
    name, its_scale = space_names.split_scale(names[0])
    if scale is not None and its_scale is not None and scale != its_scale:
        raise SpecError(f"scale: {space} is {name} at scale {its_scale} already, got {scale!r} (leave --scale out)")
    path, document = space_file.read(name, modules=modules)
    if MEMBERS in document:
        if scale is not None:
            raise SpecError(_with_several(scale, f"`scale` of each entry in {path.name}"))
        return _listed(document, path.parent, path.name, modules)
    _require_base(document, path.name)
    chosen = its_scale if scale is None else scale
    if chosen is not None:
        document["scale"] = chosen
    return _Written(place=path.name, document=document)


def _require_base(document: Mapping[str, Any], place: str) -> None:
    """Refuse a file that spells `members` otherwise, before it is read as one space.

    Raises:
        SpecError: it has a key like `member`, and no base model.
    """
    meant = [] if "base" in document else get_close_matches(MEMBERS, map(str, document), n=1)
    if meant:
        raise SpecError(f"{place}: {meant[0]}: unknown key (did you mean {MEMBERS!r}?)")


def _with_several(scale: str, right: str) -> str:
    return f"scale: each of several spaces has its own, got {scale!r} ({right})"


def _by_names(names: Sequence[str], modules: Sequence[str]) -> _Several:
    """Return the members that are listed by their names."""
    members: list[_Written] = []
    mistakes: list[str] = []
    for name in names:
        space, scale = space_names.split_scale(name)
        _append(_Reference(place=f"space {name}", space=space, scale=scale, modules=modules), members, mistakes)
    return _Several(place="", name=None, members=tuple(members), mistakes=tuple(mistakes))


@dataclass(frozen=True, kw_only=True)
class _Reference:
    """Space to read as a member."""

    place: str
    space: str | Path
    scale: str | None
    modules: Sequence[str]


def _append(reference: _Reference, members: list[_Written], mistakes: list[str]) -> None:
    """Add the space of a reference to the members, or a mistake."""
    try:
        _, document = space_file.read(reference.space, scale=reference.scale, modules=reference.modules)
    except SpecError as error:
        mistakes += [f"{reference.place}: {mistake.removeprefix('space: ')}" for mistake in error.mistakes]
        return
    if MEMBERS in document:
        mistakes.append(f"{reference.place}: joins several spaces itself (list its members instead)")
        return
    members.append(_Written(place=reference.place, document=document))


def _listed(document: Mapping[str, Any], folder: Path, place: str, modules: Sequence[str] = ()) -> _Several:
    """Return the members that a file lists: by reference, or written out."""
    members: list[_Written] = []
    mistakes: list[str] = []
    heading = grammar.read(JoinedHeading, dict(document), "", mistakes)
    listed = document[MEMBERS]
    if not isinstance(listed, list) or not listed:
        mistakes.append(f"{MEMBERS}: a list of spaces is expected, got {listed!r} (- {{space: v8, scale: n}})")
        listed = []
    for index, one in enumerate(listed):
        address = f"{MEMBERS}[{index}]"
        if isinstance(one, dict) and "base" in one:
            members.append(_Written(place=address, document=one))
            continue
        for space, scale in _references(one, folder, address, mistakes):
            _append(_Reference(place=address, space=space, scale=scale, modules=modules), members, mistakes)
    name = None if heading is None else heading.name
    return _Several(place=place, name=name, members=tuple(members), mistakes=tuple(mistakes))


def _references(raw: Any, folder: Path, address: str, mistakes: list[str]) -> Iterator[tuple[str | Path, str | None]]:
    """Yield the spaces that an entry of `members` names, one for each of its scales, with the scale."""
    if isinstance(raw, str):
        mistakes.append(f"{address}: a mapping is expected, got {raw!r} ({{space: {raw}}})")
        return
    if isinstance(raw, dict):
        own = [key for key in raw if key in _OF_A_SPACE]
        right = "in a space file that the member names; or `base` instead of `space`"
        mistakes += [f"{address}.{key}: not beside the name of a space ({right})" for key in own]
        raw = {key: value for key, value in raw.items() if key not in own}
    entry = grammar.read(Member, raw, address, mistakes)
    if entry is None:
        return
    name, scale = space_names.split_scale(entry.space)
    beside = folder / name
    space: str | Path = beside if name not in space_names.catalog() and beside.is_file() else name
    yield from ((space, each) for each in entry.scale or (scale,))


def _joined(found: _Several) -> Space:
    """Return the space of the members; a single member is a space itself.

    Raises:
        SpecError: lists the mistakes in how members were named and in their files, and what does not go together.
    """
    mistakes = list(found.mistakes)
    spaces: list[tuple[str, SearchSpace]] = []
    for member in found.members:
        try:
            spaces.append((member.place, space_file.parse(member.document)))
        except SpecError as error:
            mistakes += error.within(member.place).mistakes
    mistakes += _clashes(spaces)
    if mistakes:
        raise SpecError([f"{found.place}: {mistake}" if found.place else mistake for mistake in mistakes])
    members = tuple(space for _, space in spaces)
    if len(members) == 1:
        return members[0]
    return JoinedSpace(name=found.document()["name"], members=members)


def _clashes(spaces: list[tuple[str, SearchSpace]]) -> Iterator[str]:
    """Yield a mistake for each space that cannot be a member beside those before it."""
    names: dict[str, str] = {}
    models: dict[tuple[str, str], str] = {}
    for place, space in spaces:
        name, loaded = space.short_name, bases.load(space.base, space.scale)
        if not _SAFE.fullmatch(name):
            yield f"{place}: letters, digits, dots and dashes are expected in name and scale, got {name!r}"
        if (model := (loaded.identity, loaded.scale)) in models:
            yield f"{place}: {space.at_scale} has the base model and scale of {models[model]} (each once)"
        elif name.casefold() in names:
            yield f"{place}: {names[name.casefold()]} is named {name}, too (another `name` in one of the files)"
        names.setdefault(name.casefold(), place)
        models.setdefault(model, place)
    yield from _differences(_PGI, [(place, str(space.pgi)) for place, space in spaces])
    sizes = [(place, str(space.image_size)) for place, space in spaces if space.image_size is not None]
    yield from _differences(f"the largest {_IMAGE_SIZE}", sizes)


def _differences(what: str, values: list[tuple[str, str]]) -> Iterator[str]:
    """Yield a mistake for each member that differs from the first in what all must have in common."""
    for place, value in values[1:]:
        first_place, first = values[0]
        if value != first:
            yield f"{place}: {what} must be the same in all members, got {value} ({first} in {first_place})"
