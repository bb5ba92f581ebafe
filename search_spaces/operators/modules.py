"""Operators from outside: a user's own files, and installed packages.

A file is imported under a name made of its content, and every `nn.Module` of it is pickled together with the file's
text: a checkpoint with such an operator loads in any process where this package is installed, also after the file has
gone, and so does whatever Ultralytics saves of it.
"""

import copyreg
import hashlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import reduce
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from ultralytics.nn import tasks

from search_spaces import cache_folder
from search_spaces.errors import SpecError, in_one_line, shortened
from search_spaces.operators import OPERATORS
from search_spaces.operators.record import Operator, Source

ENTRY_POINT = "nas.operators"
"""The group in which an installed package names its records: `MyOp = "my_package.my_op:MY_OP_RECORD"`."""


def load(path: Path) -> tuple[Operator, ...]:
    """The operators of a Python file, added to the vocabulary.

    Loading the same text again changes nothing.

    Raises:
        SpecError: not there, not Python, no operator in it, or one whose name is taken.
    """
    return _load(_read(path), path)


def _read(path: Path) -> Source:
    try:
        return Source(path=path.absolute(), text=path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise SpecError(f"{shortened(str(path))}: not a text file (UTF-8 is expected)") from None


def _load(source: Source, path: Path) -> tuple[Operator, ...]:
    try:
        module = _module(source)
    except Exception as error:
        raise SpecError(f"{path}: cannot be imported: {type(error).__name__}: {in_one_line(error)}") from error
    found = _records(module)
    if not found:
        raise SpecError(f"{path}: no Operator in it (`MY_OP = Operator(name=..., module=..., ...)`)")
    if wrong := [f"{path}: {told}" for record in found if (told := _misnamed(record))]:
        raise SpecError(wrong)
    taken = [record for record in found if OPERATORS.setdefault(record.name, record) is not record]
    if taken:
        raise SpecError([f"{path}: {_taken(record)}" for record in taken])
    return found


def load_all(paths: Iterable[str], folder: Path | None) -> None:
    """Every file, seen from a folder.

    Raises:
        SpecError: with every file that cannot be loaded.
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
    """Load the files that a model file names, as far as this user has vouched for them.

    A model file is data and may come from anyone, so the code that it names is run only where the very same text was
    named by the user (on the command line, in a space file), came with a checkpoint, or was written by this package.

    Args:
        folder: of the YAML that names them; None knows absolute paths only.

    Returns:
        Those that are not there.

    Raises:
        SpecError: with every file that cannot be loaded, or that nobody has vouched for.
    """
    mistakes: list[str] = []
    named = _resolved(paths, folder)
    for index, path in enumerate(named):
        if not _is_there(path):
            continue
        try:
            source = _read(Path(path))
            _require_trusted(source)
            _load(source, Path(path))
        except SpecError as error:
            mistakes.extend(error.within(f"modules[{index}]").mistakes)
    if mistakes:
        raise SpecError(mistakes)
    return [path for path in named if not _is_there(path)]


def missing(paths: Iterable[str], folder: Path | None) -> list[str]:
    """The files that are not there, seen from a folder."""
    return [path for path in _resolved(paths, folder) if not _is_there(path)]


def _resolved(paths: Iterable[str], folder: Path | None) -> list[str]:
    return [str(path if folder is None else folder / path) for path in map(Path, paths)]


def _is_there(path: str) -> bool:
    try:
        return Path(path).is_absolute() and Path(path).is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False


def _require_trusted(source: Source) -> None:
    if not is_trusted(source):
        told = "Python code, which a model file is not trusted to run; if you trust it, name it yourself"
        raise SpecError(f"{source.path}: {told}: --modules {source.path}")


def is_trusted(source: Source) -> bool:
    """Whether a text has run in this process already, or was written by this package for this user."""
    return f"nas_user_{source.digest}" in sys.modules or _mark(source).is_file()


def trust(source: Source) -> None:
    """Note that this package writes a text into a folder of the user's, so that a model file there may name it.

    The note lies in the cache folder, under the text's SHA-256: what a stranger's archive brings is not there. Without
    a cache folder that can be written, `--modules` is the way.
    """
    with suppress(OSError):
        _mark(source).parent.mkdir(parents=True, exist_ok=True)
        _mark(source).touch()


def _mark(source: Source) -> Path:
    return cache_folder.path() / "modules" / hashlib.sha256(source.text.encode()).hexdigest()


def register(source: Source) -> ModuleType:
    """Add the operators of a text that a checkpoint brought, unless others have their names."""
    module = _module(source)
    for record in _records(module):
        OPERATORS.setdefault(record.name, record)
    return module


def load_installed() -> None:
    """Add what installed packages offer.

    Raises:
        SpecError: a package offers something else than an operator, or one whose name is taken.
    """
    for offered in entry_points(group=ENTRY_POINT):
        record = offered.load()
        if not isinstance(record, Operator):
            raise SpecError(f"{offered.value}: not an Operator, got {type(record).__name__} ({ENTRY_POINT})")
        if told := _misnamed(record):
            raise SpecError(f"{offered.value}: {told}")
        if OPERATORS.setdefault(record.name, record) is not record:
            raise SpecError(f"{offered.value}: {_taken(record)}")


def _misnamed(record: Operator) -> str:
    """Return why no row can have a record's name; empty if one can."""
    if record.name in vars(tasks):
        return f"name: {record.name} is a module of Ultralytics already; give the operator another name"
    return record.misnamed


def _taken(record: Operator) -> str:
    owner = OPERATORS[record.name].source
    if owner is None:
        return f"{record.name} is an operator already; give this one another name"
    return f"{record.name} is known already, with another text, from {owner.path}; one process can know only one"


def _module(source: Source) -> ModuleType:
    """The module of a text, imported once per process."""
    name = f"nas_user_{source.digest}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(source.path)
    sys.modules[name] = module
    try:
        exec(compile(source.text, str(source.path), "exec"), module.__dict__)  # noqa: S102 - what importing does
    except BaseException:
        del sys.modules[name]
        raise
    for key, value in list(vars(module).items()):
        if isinstance(value, Operator) and value.module.__module__ == name:
            vars(module)[key] = value.of(source)
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == name:
            setattr(value, "__reduce_ex__", _carrying(source))  # noqa: B010 - of another type than object's
    return module


def _records(module: ModuleType) -> tuple[Operator, ...]:
    """The module's own operators; one that it imports from here is not its own."""
    return tuple(value for value in vars(module).values() if isinstance(value, Operator) and value.source)


def _carrying(source: Source) -> Callable[[nn.Module, Any], Any]:
    """How a module pickles itself together with the text that defines its class."""

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:  # noqa: N807 - it becomes that method
        reduced: Any = object.__reduce_ex__(self, max(protocol, 2))
        _, _, state, *rest = reduced
        return _blank, (str(source.path), source.text, type(self).__qualname__), state, *rest

    return __reduce_ex__


def _blank(path: str, text: str, qualified_name: str) -> nn.Module:
    """An object of a class that is defined by a text; pickle fills it."""
    module = register(Source(path=Path(path), text=text))
    found: Any = reduce(getattr, qualified_name.split("."), module)
    blank: nn.Module = copyreg.__newobj__(found)  # type: ignore[attr-defined]
    return blank
