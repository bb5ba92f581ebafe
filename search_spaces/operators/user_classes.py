"""The `nn.Module` classes of users' files, which rows of model files may name as they stand.

State of the process, as `OPERATORS` is: what has been loaded stays loaded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, isfunction, signature
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from search_spaces.errors import SpecError
from search_spaces.operators import missing_imports, packages
from search_spaces.operators.record import Source


@dataclass(frozen=True, kw_only=True)
class UserClass:
    """Class of a user's file.

    Attributes:
        name: as a row of a model file writes it.
        source: None for a layer of this package that stands for another repository's.
    """

    name: str
    module: type[nn.Module]
    source: Source | None

    @property
    def file(self) -> str:
        """Name of the file that defines it, for a message."""
        return self.source.path.name if self.source else "this package"


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    source: Source
    classes: Mapping[str, UserClass]
    functions: Mapping[str, FunctionType]
    failed: Mapping[str, str]
    broken: Mapping[str, str]
    unreadable: Sequence[str]


LOADED: dict[str, _Loaded] = {}
"""Texts that have run, by digest, in the order in which they were loaded."""

_PREFERRED: ContextVar[Sequence[str]] = ContextVar("preferred", default=())


def add(source: Source, module: ModuleType) -> None:
    """Add the classes that a text defines, once."""
    if source.digest in LOADED:
        return
    found: dict[str, UserClass] = {}
    for part in parts_of(module).values():
        for name, value in vars(part).items():
            is_defined_here = isinstance(value, type) and value.__module__ == part.__name__
            if is_defined_here and issubclass(value, nn.Module):
                found.setdefault(name, UserClass(name=name, module=value, source=source))
    functions = {
        name: one
        for part in parts_of(module).values()
        for name, one in vars(part).items()
        if isfunction(one) and one.__module__ == part.__name__
    }
    failed = vars(module).get("FAILED") or {}
    LOADED[source.digest] = _Loaded(
        source=source,
        classes=found,
        functions=functions,
        failed=failed,
        broken=_broken(module, source, failed),
        unreadable=packages.unreadable(vars(module).get("FILES") or {}) if failed else (),
    )


def _broken(module: ModuleType, source: Source, failed: Mapping[str, str]) -> dict[str, str]:
    """Return the classes that a text names and could not define, with the reasons."""
    found = {
        name: f"{_file_of(source, part)}: {reason}"
        for part, inside in parts_of(module).items()
        for name, reason in missing_imports.broken(inside).items()
    }
    for file, reason in failed.items():
        for name in _CLASS.findall(vars(module)["FILES"].get(file, "")):
            found.setdefault(name, f"{_file_of(source, file)}, which cannot be imported: {reason}")
    return found


_CLASS = re.compile(r"^class\s+(\w+)", re.MULTILINE)


def _file_of(source: Source, part: str) -> str:
    """Return the name of a file, or of a part of a folder, for a message."""
    return f"{source.path.name}/{part.replace('.', '/')}.py" if part else source.path.name


def parts_of(module: ModuleType) -> dict[str, ModuleType]:
    """Return the modules of a text: of a folder one for each file, by name; of a file itself, without a name."""
    parts = vars(module).get("PARTS")
    if module.__name__.startswith("nas_user_") and isinstance(parts, dict) and "FAILED" in vars(module):
        return dict(parts)
    return {"": module}


def has_layers(source: Source) -> bool:
    """Return whether a text that has been loaded defines a class, or a function, that a row may name."""
    loaded = LOADED[source.digest]
    return bool(loaded.classes) or any(not name.startswith("_") for name in loaded.functions)


def failed(source: Source) -> Mapping[str, str]:
    """Return the files of a folder that cannot be imported, with the reasons."""
    return LOADED[source.digest].failed


def left_out() -> list[str]:
    """Return the files of folders that cannot be read, with the reasons."""
    return [
        f"{_file_of(one.source, file)} is left out: {reason}"
        for one in LOADED.values()
        for file, reason in one.failed.items()
        if file in one.unreadable
    ]


def find(name: str) -> UserClass | None:
    """Return the class of a name, or a function as one.

    Where several texts define it, that of the text which is preferred at present.

    Of a file that was loaded again after a change, the newest text counts.

    Raises:
        SpecError: several files define it, and the text of none of them is preferred.
    """
    found = every(name) or [one for one in (_of_function(name),) if one is not None]
    if len(found) > 1:
        files = " and ".join(str(one.source.path) for one in found if one.source is not None)
        raise SpecError(f"{name} is defined by {files}, which differ; one process can use only one of them")
    return found[0] if found else None


def every(name: str) -> list[UserClass]:
    """Return the classes of a name, one for each file; that of a text which is preferred at present alone."""
    preferred = [LOADED[digest] for digest in _PREFERRED.get() if digest in LOADED]
    chosen = next((one.classes[name] for one in preferred if name in one.classes), None)
    by_path = {one.source.path: one.classes[name] for one in LOADED.values() if name in one.classes}
    return [*by_path.values()] if chosen is None else [chosen]


def require_whole(name: str) -> None:
    """Check that no file names a class which it could not define.

    Raises:
        SpecError: one does; another class of that name is not what is meant.
    """
    if reason := next((one.broken[name] for one in LOADED.values() if name in one.broken), None):
        raise SpecError(f"{name} of {reason}")


def _of_function(name: str) -> UserClass | None:
    """Return a function of a file as a class: forks have functions that build a backbone, `fasternet_t0()`."""
    found = [(one.source, one.functions[name]) for one in LOADED.values() if name in one.functions]
    return UserClass(name=name, module=_class_of(found[-1][1]), source=found[-1][0]) if found else None


@cache
def _class_of(function: FunctionType) -> type[nn.Module]:
    """Return a class with the arguments of a function, whose objects are what the function returns."""

    def __new__(_cls: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N807 - it becomes that method
        return function(*arguments, **named)

    def __init__(_self: Any, *_: Any, **__: Any) -> None:  # noqa: N807 - it becomes that method, for its signature
        """Do nothing."""

    wanted = signature(function)
    itself = Parameter("self", Parameter.POSITIONAL_ONLY)
    vars(__init__)["__signature__"] = wanted.replace(parameters=[itself, *wanted.parameters.values()])
    members = {"__new__": __new__, "__init__": __init__, "__module__": function.__module__}
    return type(function.__name__, (nn.Module,), members)


def names() -> list[str]:
    """Return the names of all classes."""
    return list(dict.fromkeys(name for one in LOADED.values() for name in one.classes))


def may_define() -> list[str]:
    """Return the files of folders that cannot be imported, with the reasons: any class may be defined there."""
    return [f"{_file_of(one.source, file)}: {why}" for one in LOADED.values() for file, why in one.failed.items()]


@contextmanager
def preferred(sources: Sequence[Source]) -> Iterator[None]:
    """Look classes up in these texts first: those of a checkpoint, where another text has a class of the same name."""
    token = _PREFERRED.set([source.digest for source in sources])
    try:
        yield
    finally:
        _PREFERRED.reset(token)


MARKS = ("i", "f", "type", "np")
"""Attributes that Ultralytics sets on every layer."""


def marks_in(layer: nn.Module) -> list[str]:
    """Return which of these names a class uses for something else."""
    stores: tuple[Mapping[str, Any], ...] = (vars(layer), layer._modules, layer._parameters, layer._buffers)  # noqa: SLF001 - all that a module holds by name
    taken = [name for name in MARKS if any(name in store for store in stores)]
    taken += [name for name in MARKS if hasattr(type(layer), name) and not hasattr(nn.Module, name)]
    return list(dict.fromkeys(taken))


def is_of_user(module: nn.Module) -> bool:
    """Return whether a module's class is one of a user's file."""
    return "nas_user_" in type(module).__module__


def sources_in(model: nn.Module) -> tuple[Source, ...]:
    """Return the texts that define the classes of the modules in a model, each once."""
    names = {type(module).__module__ for module in model.modules() if is_of_user(module)}
    digests = dict.fromkeys(name.partition("nas_user_")[2].partition(".")[0] for name in sorted(names))
    return tuple(LOADED[digest].source for digest in digests if digest in LOADED)
