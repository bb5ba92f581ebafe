"""Load operators and layers from users' files and folders, installed packages and checkpoints.

A file is imported under a module name that is a hash of its content, and every `nn.Module` class of it is pickled
together with the text of the file. So a checkpoint with such an operator, also one that Ultralytics saves, loads in
any process where this package is installed, even if the file is deleted. A folder is loaded as one text
(`search_spaces.operators.packages`).

An `Operator` in a file is added to `OPERATORS`. Every `nn.Module` class that a file defines can be named by a row of a
model file, as it stands (`find_class`).

Importing this module adds the operators of installed packages to `OPERATORS`.
"""

import copyreg
import hashlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from ultralytics.nn import tasks

from search_spaces import cache_folder
from search_spaces.errors import SpecError, in_one_line
from search_spaces.operators import OPERATORS, missing_imports, packages, user_classes
from search_spaces.operators.class_operator import ClassOperator, of_class
from search_spaces.operators.record import OWN_ROWS, Operator, Source

ENTRY_POINT = "nas.operators"
"""Entry point group in which installed packages list their records: `MyOp = "my_package.my_op:MY_OP_RECORD"`."""


def load(path: Path) -> tuple[Operator, ...]:
    """Load a Python file, or a folder of them, that the user has named, and add its operators to `OPERATORS`.

    Nothing changes if they are in it already. From now on its text is trusted (`is_trusted`).

    Raises:
        SpecError: the file is missing or no Python, defines neither operator nor layer, or an operator whose name is in
            use.
    """
    source = read(path)
    found = _load(source, path)
    trust(source)
    return found


def read(path: Path) -> Source:
    """Read a Python file, or a folder of them as one text; nothing is run.

    Raises:
        SpecError: it cannot be read.
    """
    text = packages.bundled(path) if path.is_dir() else packages.read_python(path)
    return Source(path=path.absolute(), text=text)


def _load(source: Source, path: Path) -> tuple[Operator, ...]:
    try:
        module = _module(source)
    except ImportError as error:
        raise SpecError(f"{path}: cannot be imported: {_explained(error)}") from error
    except Exception as error:
        raise SpecError(f"{path}: cannot be imported: {type(error).__name__}: {in_one_line(error)}") from error
    found = _records(module)
    if not found and not user_classes.has_layers(source):
        raise SpecError(
            f"{path}: neither an nn.Module class, nor a function that may return one, nor an Operator in it"
            + "".join(f"; {file}: {reason}" for file, reason in user_classes.failed(source).items())
        )
    if mistakes := [f"{path}: {mistake}" for record in found if (mistake := _misnamed(record))]:
        raise SpecError(mistakes)
    refused = [record for record in found if OPERATORS.setdefault(record.name, record) is not record]
    if refused:
        raise SpecError([f"{path}: {_name_in_use(record)}" for record in refused])
    return found


def _explained(error: ImportError) -> str:
    """Return why a file cannot be imported; where it reads files beside it, that its folder is expected."""
    reason = f"{type(error).__name__}: {in_one_line(error)}"
    missing = error.name or ""
    if missing.startswith(packages.SIBLINGS) or missing.partition(".")[0] in {"models", "utils"}:
        return f"{reason} (it needs files beside it: name their folder, --modules FOLDER)"
    return reason


def load_all(paths: Iterable[str], folder: Path | None) -> None:
    """Load the operators of several files; relative paths begin at `folder`.

    Raises:
        SpecError: lists every file that cannot be loaded.
    """
    mistakes: list[str] = []
    for index, path in enumerate(paths):
        try:
            load((folder or Path()) / path)
        except SpecError as error:
            mistakes.extend(error.within(f"modules[{index}]").mistakes)
    if mistakes:
        raise SpecError(mistakes)


def load_trusted(paths: Iterable[str], folder: Path | None) -> list[str]:
    """Load the files that a model file names, if this user trusts them.

    A model file is data and may come from anyone. So the code that it names is run only if the user named a file with
    exactly this text (on the command line, in a space file), if it came with a checkpoint, or if this package wrote
    it.

    Args:
        folder: of the YAML that names them; without it only absolute paths are found.

    Returns:
        The files that do not exist.

    Raises:
        SpecError: lists every file that cannot be loaded or is not trusted.
    """
    mistakes: list[str] = []
    named = _resolved(paths, folder)
    for index, path in enumerate(named):
        if not _is_there(path):
            continue
        try:
            source = read(Path(path))
            _require_trusted(source)
            _load(source, Path(path))
        except SpecError as error:
            mistakes.extend(error.within(f"modules[{index}]").mistakes)
    if mistakes:
        raise SpecError(mistakes)
    return [path for path in named if not _is_there(path)]


def missing(paths: Iterable[str], folder: Path | None) -> list[str]:
    """Return the files that do not exist; relative paths begin at `folder`."""
    return [path for path in _resolved(paths, folder) if not _is_there(path)]


def _resolved(paths: Iterable[str], folder: Path | None) -> list[str]:
    return [str(path if folder is None else folder / path) for path in map(Path, paths)]


def _is_there(path: str) -> bool:
    try:
        return Path(path).is_absolute() and (Path(path).is_file() or Path(path).is_dir())
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False


def untrusted(paths: Iterable[str]) -> list[Source]:
    """Return the texts of those files that this user has not run; what cannot be read is for loading to refuse."""
    sources = []
    for path in paths:
        with suppress(SpecError):
            sources.append(read(Path(path)))
    return [source for source in sources if not is_trusted(source)]


def _require_trusted(source: Source) -> None:
    if not is_trusted(source):
        reason = "Python code, which a model file is not trusted to run; if you trust it, name it yourself"
        raise SpecError(f"{source.path}: {reason}: --modules {source.path}")


def is_trusted(source: Source) -> bool:
    """Return whether a text has run in this process already, or the user has named it or let it run on this machine."""
    return module_name(source) in sys.modules or _trust_mark(source).is_file()


def trust(source: Source) -> None:
    """Mark a text that the user has named as trusted, so that a model file may name it and a study may bring it.

    The mark is an empty file in the cache folder, named by the text's SHA-256; an archive from elsewhere cannot bring
    it. If the cache folder cannot be written, the user has to name the file again.
    """
    with suppress(OSError):
        _trust_mark(source).parent.mkdir(parents=True, exist_ok=True)
        _trust_mark(source).touch()


def _trust_mark(source: Source) -> Path:
    return cache_folder.path() / "modules" / hashlib.sha256(source.text.encode()).hexdigest()


def register(source: Source) -> ModuleType:
    """Run the text of a user's file from a checkpoint; add its operators to `OPERATORS` if their names are free."""
    module = _module(source)
    for record in _records(module):
        OPERATORS.setdefault(record.name, record)
    return module


def offer(name: str) -> Operator | None:
    """Return the operator of a name; of a class of a user's file one is made, and added to `OPERATORS`.

    A user's class takes the place of an operator of this package with its name, such as `SE`: who names a file means
    what is in it. None if there is neither operator nor class.

    Raises:
        SpecError: the class cannot be an operator, or its file cannot define it.
    """
    found, known = user_classes.find(name), OPERATORS.get(name)
    if found is None and (known is None or known.source is None):
        user_classes.require_whole(name)
    if found is not None and (known is None or known.source is None):
        if name in vars(tasks):
            raise SpecError(f"name: {name} is a module of Ultralytics already; give the class another name")
        OPERATORS[name] = _distinct(of_class(found))
    return OPERATORS.get(name)


def offer_where(is_wanted: Callable[[ClassOperator], bool]) -> None:
    """Make operators of the users' classes without a record that can take the place of a layer and are wanted.

    Names that a file of Ultralytics defines are left out: a fork repeats them.
    """
    recorded = {record.module for record in OPERATORS.values()}
    for name in sorted({*user_classes.names()} - missing_imports.of_ultralytics().keys()):
        made = _replacing(name)
        if made is not None and not made.required and made.module not in recorded and is_wanted(made):
            offer(name)


def may_replace(name: str) -> bool:
    """Return whether a user's class without a record can take the place of a block or a pyramid of Ultralytics."""
    return _replacing(name) is not None


def _replacing(name: str) -> ClassOperator | None:
    with suppress(SpecError):  # several files define it, or the class is none that can be offered
        found = user_classes.find(name)
        made = None if found is None else of_class(found)
        return made if made is not None and made.replaces else None
    return None


def load_installed() -> None:
    """Add the operators of installed packages to `OPERATORS`.

    Raises:
        SpecError: an entry point is no operator, or one whose name is in use.
    """
    for entry_point in entry_points(group=ENTRY_POINT):
        record = entry_point.load()
        if not isinstance(record, Operator):
            raise SpecError(f"{entry_point.value}: not an Operator, got {type(record).__name__} ({ENTRY_POINT})")
        if mistake := _misnamed(record):
            raise SpecError(f"{entry_point.value}: {mistake}")
        if OPERATORS.setdefault(record.name, record) is not record:
            raise SpecError(f"{entry_point.value}: {_name_in_use(record)}")


def _distinct(record: ClassOperator) -> ClassOperator:
    """Return an operator for the places where its rows are not taken for another's: `C2f_UIB` is UIB in a C2f.

    Raises:
        SpecError: there is none.
    """
    host, _, operator = record.name.partition("_")
    if host not in vars(tasks) or not (operator in OPERATORS or operator in user_classes.names()):
        return record
    if kinds := tuple(kind for kind in record.kinds if kind not in OWN_ROWS):
        return replace(record, kinds=kinds)
    raise SpecError(f"name: {record.name} is what {operator} in a {host} is called; give the class another name")


def _misnamed(record: Operator) -> str:
    """Return the mistake in an operator's name; empty for a valid name."""
    if record.name in vars(tasks):
        return f"name: {record.name} is a module of Ultralytics already; give the operator another name"
    return record.misnamed


def _name_in_use(record: Operator) -> str:
    """Return the message for an operator whose name another one has."""
    owner = OPERATORS[record.name].source
    if owner is None:
        return f"{record.name} is an operator already; give this one another name"
    return f"{record.name} is loaded already, with another text, from {owner.path}; one process can load only one"


def module_name(source: Source) -> str:
    """Return the name under which a text is imported; pickles in this process refer to it."""
    return f"nas_user_{source.digest}"


def _module(source: Source) -> ModuleType:
    """Return the module of a text; it is imported once per process."""
    name = module_name(source)
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__, module.__package__ = str(source.path), packages.SIBLINGS
        sys.modules[name] = module
        try:
            missing_imports.run(source.text, str(source.path), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        for part, inside in user_classes.parts_of(module).items():
            for key, value in list(vars(inside).items()):
                if isinstance(value, Operator) and value.module.__module__ == inside.__name__:
                    vars(inside)[key] = value.of(source)
                if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == inside.__name__:
                    setattr(value, "__reduce_ex__", _reduce_with_text(source, part, _name_in(inside, value, key)))  # noqa: B010 - of another type than object's
    user_classes.add(source, sys.modules[name])
    return sys.modules[name]


def _name_in(module: ModuleType, found: type[nn.Module], bound: str) -> str:
    """Return the name by which a class is found in a module: its own, or that to which one made by a call is bound."""
    value: Any = module
    for part in found.__qualname__.split("."):
        value = vars(value).get(part) if isinstance(value, ModuleType | type) else None
    return found.__qualname__ if value is found else bound


def _records(module: ModuleType) -> tuple[Operator, ...]:
    """Return the operators that a module defines, without those that it imports from this package."""
    found = (value for part in user_classes.parts_of(module).values() for value in vars(part).values())
    return tuple(dict.fromkeys(one for one in found if isinstance(one, Operator) and one.source))


def _reduce_with_text(source: Source, part: str, name: str) -> Callable[[nn.Module, Any], Any]:
    """Return a `__reduce_ex__` that pickles a module together with the text that defines its class.

    Args:
        part: the file of a folder; empty for a single file.
        name: of the class in it.
    """
    place = f"{part}{_PART_END}" if part else ""

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:  # noqa: N807 - it becomes that method
        reduced: Any = object.__reduce_ex__(self, max(protocol, 2))
        _, _, state, *rest = reduced
        written = name if "__reduce_ex__" in vars(type(self)) else type(self).__qualname__
        return _blank, (str(source.path), source.text, place + written), state, *rest

    return __reduce_ex__


_PART_END = ":"
"""Ends the name of a folder's file in a pickle: `attention:SimAM`."""


def _blank(path: str, text: str, qualified_name: str) -> nn.Module:
    """Return an empty object of a class that a text defines; pickle fills it. Checkpoints refer to this function."""
    module = register(Source(path=Path(path), text=text))
    part, _, name = qualified_name.rpartition(_PART_END)
    found: Any = reduce(getattr, name.split("."), user_classes.parts_of(module)[part])
    blank: nn.Module = copyreg.__newobj__(found)  # type: ignore[attr-defined]
    return blank


load_installed()
