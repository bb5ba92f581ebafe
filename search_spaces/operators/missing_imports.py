"""Let a fork's file be loaded where a package that it imports is not here, if what is wanted of it does not need that.

A fork's file holds dozens of classes and imports what one of them needs: `from timm.models.layers import DropPath`. An
import at the top level of a file that fails leaves a stand-in, which says what is missing when it is used; so does a
class that cannot be defined for want of it. A fork also has more in Ultralytics' own files, and lists more in their
`__all__`, than the installed version: a name that an import does not find there is looked up in all of them.
"""

import ast
import linecache
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec, resolve_name
from logging import LogRecord
from types import ModuleType
from typing import Any, Never

from torch import nn
from ultralytics.nn import modules as ultralytics_modules
from ultralytics.utils import LOGGER, checks, ops, tal, torch_utils

from search_spaces.errors import in_one_line
from search_spaces.operators.record import Operator

_HELPER = "_nas_missing"
"""Name in a user's file under which the stand-ins are made."""
_ERROR = "_nas_error"
_EVERYTHING = "everything"
"""Name of what `from ... import *` imports."""

ULTRALYTICS = "ultralytics.nn"
"""Beginning of the names of the modules in which names are looked up in all of Ultralytics' files of layers."""
_WITH_UTILITIES = {"ultralytics", "utils"}
"""Packages with functions that Ultralytics has elsewhere now, `make_divisible`: its older releases, and YOLOv5."""


class _Missing(type):
    """Class of the stand-ins: they can be base classes and have attributes; calling one says what is missing."""

    origin: str
    reason: str

    def __getattr__(cls, name: str) -> Any:
        """Return a stand-in for what is in it."""
        if name.startswith("__"):
            raise AttributeError(name)
        return missing(f"{cls.__name__}.{name}", cls.origin)


def missing(name: str, origin: str) -> Any:
    """Return a stand-in for a name of a module that is not here."""
    package = origin.partition(".")[0]
    absent = f"no package {package} is installed; " if package and not _is_installed(package) else ""
    hint = f"{absent}if a file beside it has it, name the folder"
    return _stand_in(name, origin, f"{name} of {origin}, which is not here ({hint})")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a module without a spec is there
        return package in sys.modules


def _stand_in(name: str, origin: str, reason: str) -> Any:
    def __new__(_cls: Any, *_: Any, **__: Any) -> Never:  # noqa: N807 - it becomes that method
        raise ImportError(f"it needs {reason}", name=origin)

    return _Missing(name, (), {"origin": origin, "reason": reason, "__new__": __new__})


def broken(module: ModuleType) -> dict[str, str]:
    """Return the classes that a file could not define, with the reasons."""
    return {
        name: f"it needs {value.reason}"
        for name, value in vars(module).items()
        if isinstance(value, _Missing) and value.__module__ == module.__name__
    }


def tolerant(text: str, file: str) -> ast.Module:
    """Return the syntax tree of a file in which what fails for want of an import leaves a stand-in.

    That are imports at the top level, and in a fork's file classes, decorators and calls there. Imports in a `try` are
    left as they are: the file says itself what to do. In a file with records of operators nothing else may fail.
    """
    tree = ast.parse(text, filename=file)
    is_fork = not any(isinstance(one, ast.ImportFrom) and _is_ours(one.module) for one in ast.walk(tree))
    body: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.Import) or (
            isinstance(statement, ast.ImportFrom) and statement.module != "__future__"
        ):
            body.extend(_guarded(statement))
        elif is_fork:
            body.append(_guarded_use(statement))
        else:
            body.append(statement)
    tree.body = body
    return ast.fix_missing_locations(tree)


def _is_ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] == "search_spaces"


def _guarded(statement: ast.Import | ast.ImportFrom) -> Iterator[ast.stmt]:
    """Yield an import, name by name, each in a `try` that leaves a stand-in."""
    origin = "." * getattr(statement, "level", 0) + (getattr(statement, "module", "") or "")
    for alias in statement.names:
        name = alias.asname or alias.name.partition(".")[0]
        single: list[ast.stmt] = [ast.copy_location(_alone(statement, alias), statement)]
        said = (alias.name, origin or alias.name) if alias.name != "*" else (_EVERYTHING, origin)
        helper = _helped(None, *map(ast.Constant, said), ast.Name(id=_ERROR, ctx=ast.Load()))
        instead: ast.stmt = ast.Expr(value=helper)
        binds_a_package = isinstance(statement, ast.Import) and "." in alias.name and not alias.asname
        if alias.name == "*":
            single.append(ast.Expr(value=_helped("everything_of", ast.Constant(origin))))
        elif not binds_a_package:  # the package itself may be here
            instead = ast.Assign(targets=[ast.Name(id=name, ctx=ast.Store())], value=helper)
        yield _tried(single, ["ImportError"], [instead], statement)


def _guarded_use(statement: ast.stmt) -> ast.stmt:
    """Return a class, a function, an assignment or a call in a `try`, where it may need what was not imported.

    A decorator that is not here, such as one of a registry, is left out.
    """
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        statement.decorator_list = [_helped("decorator", _later(one)) for one in statement.decorator_list]
    error = ast.Name(id=_ERROR, ctx=ast.Load())
    if isinstance(statement, ast.ClassDef):
        instead: ast.stmt = _bound(statement.name, _helped("class_of", ast.Constant(statement.name), error))
        return _tried([statement], ["ImportError", "NameError"], [instead], statement)
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        name = statement.targets[0].id
        instead = _bound(name, _helped("class_of", ast.Constant(name), error))
        return _tried([statement], ["ImportError"], [instead], statement)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return _tried([statement], ["ImportError"], [ast.Pass()], statement)
    return statement


def _helped(method: str | None, *arguments: ast.expr) -> ast.Call:
    """Return a call of the helper, or of one of its methods."""
    helper: ast.expr = ast.Name(id=_HELPER, ctx=ast.Load())
    called = helper if method is None else ast.Attribute(value=helper, attr=method, ctx=ast.Load())
    return ast.Call(func=called, args=[*arguments], keywords=[])


def _later(expression: ast.expr) -> ast.expr:
    """Return a function without arguments that evaluates an expression."""
    none = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(args=none, body=expression)


def _bound(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign(targets=[ast.Name(id=name, ctx=ast.Store())], value=value)


def _tried(body: list[ast.stmt], errors: list[str], instead: list[ast.stmt], place: ast.stmt) -> ast.stmt:
    kinds = ast.Tuple(elts=[ast.Name(id=one, ctx=ast.Load()) for one in errors], ctx=ast.Load())
    handler = ast.ExceptHandler(type=kinds, name=_ERROR, body=instead)
    return ast.copy_location(ast.Try(body=body, handlers=[handler], orelse=[], finalbody=[]), place)


def _alone(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.Import(names=[alias])
    return ast.ImportFrom(module=statement.module, names=[alias], level=statement.level)


class _Helper:
    """Maker of the stand-ins of one file, which remembers why."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.errors: list[Exception] = []
        self._not_found: list[str] = []
        self._namespace = namespace

    def __call__(self, name: str, origin: str, error: ImportError) -> Any:
        """Return what Ultralytics has elsewhere than the import looked, or else a stand-in."""
        with suppress(ImportError):
            if (found := moved(self._absolute(origin), name)) is not None:
                return found
        self.errors.append(error)
        if name == _EVERYTHING:
            self._not_found.append(origin)
        return missing(name, origin)

    def everything_of(self, origin: str) -> None:
        """Add what `__all__` of a file of Ultralytics leaves out, as forks list more in theirs."""
        absolute = self._absolute(origin)
        if absolute.startswith(ULTRALYTICS) and "nas_user_" not in absolute:
            for name, value in of_ultralytics().items():
                self._namespace.setdefault(name, value)

    def class_of(self, name: str, error: Exception) -> Any:
        """Return a stand-in for what could not be defined."""
        self.errors.append(error)
        reason = f"{name}, which cannot be defined: {in_one_line(error)}"
        if isinstance(error, NameError) and self._not_found:
            absent = " and ".join(self._not_found)
            reason += f" ({absent} is not here: if the fork has it, name its folder, --modules FOLDER)"
        found = _stand_in(name, name, reason)
        found.__module__ = self._namespace["__name__"]
        return found

    def decorator(self, evaluate: Callable[[], Any]) -> Any:
        """Return a decorator, or one that does nothing in the place of one that is not here."""
        try:
            found = evaluate()
        except ImportError as error:
            self.errors.append(error)
            return _unchanged
        return _unchanged if isinstance(found, _Missing) else found

    def _absolute(self, origin: str) -> str:
        return resolve_name(origin, self._namespace.get("__package__") or "")


def _unchanged(decorated: Any) -> Any:
    return decorated


def moved(module: str, name: str) -> Any:
    """Return what stands elsewhere in Ultralytics than in a module of it, or of YOLOv5's `utils`; None if nothing."""
    if module.startswith(ULTRALYTICS):
        return of_ultralytics().get(name)
    parts = (ops, torch_utils, tal) if module.partition(".")[0] in _WITH_UTILITIES else ()
    found = (vars(part)[name] for part in parts if name in vars(part))
    return next((one for one in found if getattr(one, "__module__", "").startswith("ultralytics.utils")), None)


def of_ultralytics() -> dict[str, Any]:
    """Return all that Ultralytics' files of layers define, whether or not they list it."""
    parts = [one for one in vars(ultralytics_modules).values() if isinstance(one, ModuleType)]
    return {
        name: value
        for part in parts
        for name, value in vars(part).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == part.__name__
    }


def run(
    text: str, file: str, namespace: dict[str, Any], *, change: Callable[[ast.AST], None] = lambda _node: None
) -> None:
    """Run a file's text in a namespace that has its `__name__`.

    Args:
        change: changes a node of the syntax tree in place, before the file is run.

    Raises:
        ImportError: something that it imports is missing, and it defines operators, or no layer.
        Exception: whatever the file raises.
    """
    helper = _Helper(namespace)
    namespace[_HELPER] = helper
    try:
        with warnings.catch_warnings(action="ignore"):  # of old names that a fork uses
            tree = tolerant(text, file)
            for node in ast.walk(tree):
                change(node)
            linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # TorchScript reads it
            with redirect_stdout(sys.stderr), _nothing_installed():  # what it prints is no result of a command
                exec(compile(tree, file, "exec"), namespace)  # noqa: S102 - what importing does
    except SystemExit as error:
        raise RuntimeError(f"it ends the process: SystemExit({error.code!r})") from None
    finally:
        del namespace[_HELPER]
    if helper.errors and not _has_layers_alone(namespace):
        raise helper.errors[0]


@contextmanager
def _nothing_installed() -> Iterator[None]:
    """Let Ultralytics install no package, nor warn that it does not, while a fork's file is run.

    Files of a whole fork ask for packages as they are imported, `nn/text_model.py` for CLIP: Ultralytics would run pip,
    or warns where `YOLO_AUTOINSTALL` forbids it. Of a fork's files most are not wanted; what one of them lacks is said
    where a class of it is.
    """
    was, checks.AUTOINSTALL = checks.AUTOINSTALL, False
    LOGGER.addFilter(_is_no_missing_requirement)
    try:
        yield
    finally:
        LOGGER.removeFilter(_is_no_missing_requirement)
        checks.AUTOINSTALL = was


def _is_no_missing_requirement(record: LogRecord) -> bool:
    return "not found, AutoUpdate disabled" not in record.getMessage()


def _has_layers_alone(namespace: dict[str, Any]) -> bool:
    """Return whether a file defines layers and no operators, whose file is written for this package."""
    values = list(namespace.values())
    classes = [one for one in values if isinstance(one, type) and one.__module__ == namespace["__name__"]]
    operators = [one for one in values if isinstance(one, Operator) and one.module in classes]
    return not operators and any(issubclass(one, nn.Module) for one in classes)
