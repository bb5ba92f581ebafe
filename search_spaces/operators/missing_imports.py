"""Let a fork's file be loaded where a package that it imports is not here, if what is wanted of it does not need that.

A fork's file holds dozens of classes and imports what one of them needs: `from timm.models.layers import DropPath`. An
import at the top level of a file that fails leaves a stand-in, which says what is missing when it is used.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any, Never

from torch import nn

from search_spaces.operators.record import Operator

_HELPER = "_nas_missing"
"""Name in a user's file under which the stand-ins are made."""
_ERROR = "_nas_error"


class _Missing(type):
    """Class of the stand-ins: they can be base classes and have attributes; calling one says what is missing."""

    def __getattr__(cls, name: str) -> Any:
        """Return a stand-in for what is in it."""
        if name.startswith("__"):
            raise AttributeError(name)
        return missing(f"{cls.__name__}.{name}", vars(cls)["origin"])


def missing(name: str, origin: str) -> Any:
    """Return a stand-in for a name of a module that is not here."""

    def __new__(_cls: Any, *_: Any, **__: Any) -> Never:  # noqa: N807 - it becomes that method
        hint = "if a file beside it has it, name the folder"
        raise ImportError(f"it needs {name} of {origin}, which is not here ({hint})", name=origin)

    return _Missing(name, (), {"origin": origin, "__new__": __new__})


def tolerant(text: str, file: str) -> ast.Module:
    """Return the syntax tree of a file in which each import at the top level leaves a stand-in where it fails.

    Imports in a `try` are left as they are: the file says itself what to do.
    """
    tree = ast.parse(text, filename=file)
    body: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.Import) or (
            isinstance(statement, ast.ImportFrom) and statement.module != "__future__"
        ):
            body.extend(_guarded(statement))
        else:
            body.append(statement)
    tree.body = body
    return ast.fix_missing_locations(tree)


def _guarded(statement: ast.Import | ast.ImportFrom) -> Iterator[ast.stmt]:
    """Yield an import, name by name, each in a `try` that leaves a stand-in."""
    origin = "." * getattr(statement, "level", 0) + (getattr(statement, "module", "") or "")
    for alias in statement.names:
        name = alias.asname or alias.name.partition(".")[0]
        single = ast.copy_location(_alone(statement, alias), statement)
        said = (alias.name, origin or alias.name) if alias.name != "*" else ("everything", origin)
        error = ast.Name(id=_ERROR, ctx=ast.Load())
        maker = ast.Name(id=_HELPER, ctx=ast.Load())
        helper = ast.Call(func=maker, args=[*map(ast.Constant, said), error], keywords=[])
        instead: ast.stmt = ast.Expr(value=helper)
        binds_a_package = isinstance(statement, ast.Import) and "." in alias.name and not alias.asname
        if alias.name != "*" and not binds_a_package:  # the package itself may be here
            instead = ast.Assign(targets=[ast.Name(id=name, ctx=ast.Store())], value=helper)
        handler = ast.ExceptHandler(type=ast.Name(id="ImportError", ctx=ast.Load()), name=_ERROR, body=[instead])
        yield ast.copy_location(ast.Try(body=[single], handlers=[handler], orelse=[], finalbody=[]), statement)


def _alone(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.Import(names=[alias])
    return ast.ImportFrom(module=statement.module, names=[alias], level=statement.level)


class _Helper:
    """Maker of the stand-ins of one file, which remembers why."""

    def __init__(self) -> None:
        self.errors: list[ImportError] = []

    def __call__(self, name: str, origin: str, error: ImportError) -> Any:
        """Return a stand-in."""
        self.errors.append(error)
        return missing(name, origin)


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
    helper = _Helper()
    namespace[_HELPER] = helper
    try:
        tree = tolerant(text, file)
        for node in ast.walk(tree):
            change(node)
        with redirect_stdout(sys.stderr):  # what it prints is no result of a command
            exec(compile(tree, file, "exec"), namespace)  # noqa: S102 - what importing does
    except SystemExit as error:
        raise RuntimeError(f"it ends the process: SystemExit({error.code!r})") from None
    finally:
        del namespace[_HELPER]
    if helper.errors and not _has_layers_alone(namespace):
        raise helper.errors[0]


def _has_layers_alone(namespace: dict[str, Any]) -> bool:
    """Return whether a file defines layers and no operators, whose file is written for this package."""
    values = list(namespace.values())
    classes = [one for one in values if isinstance(one, type) and one.__module__ == namespace["__name__"]]
    operators = [one for one in values if isinstance(one, Operator) and one.module in classes]
    return not operators and any(issubclass(one, nn.Module) for one in classes)
