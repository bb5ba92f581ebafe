"""Parse a Python file into its top-level statements: the names that each binds, and those that it uses."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_CHECKS = re.compile(r" *# (?:noqa|type: ignore).*$", re.MULTILINE)
"""Remarks for linters and type checkers."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Name that an import binds.

    Attributes:
        module: of the imported object, absolute.
        name: of the object in its module; None for the module itself.
    """

    module: str
    name: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Statement:
    """Top-level statement.

    Attributes:
        node: as it was parsed.
        first: line number of the comment above it, or of its first line.
        last: line number of its last line, or of the docstring below an assignment.
        binds: names that it binds at the top level.
        uses: names that it reads, at any depth.
    """

    node: ast.stmt
    first: int
    last: int
    binds: frozenset[str]
    uses: frozenset[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceFile:
    """Python file.

    Attributes:
        module: name under which it is imported.
        label: of the file, for a reader.
        text: without remarks for linters.
        package: whether it is the `__init__.py` of a package.
    """

    module: str
    label: str
    text: str
    package: bool = False

    @classmethod
    def of(cls, module: str, label: str, text: str, *, package: bool = False) -> "SourceFile":
        """Return the file without remarks for linters."""
        return cls(module=module, label=label, text=_CHECKS.sub("", text), package=package)

    @cached_property
    def tree(self) -> ast.Module:
        """Parsed text."""
        return ast.parse(self.text)

    @cached_property
    def title(self) -> str:
        """First line of its docstring; empty if there is none."""
        return (ast.get_docstring(self.tree) or "").partition("\n")[0]

    @cached_property
    def lines(self) -> list[str]:
        """Lines of its text."""
        return self.text.splitlines()

    @cached_property
    def imports(self) -> dict[str, Imported]:
        """Imported objects by the name that is bound at the top level, without those of `import *`."""
        found: dict[str, Imported] = {}
        for node in _flat(self.tree.body):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    found[bound] = Imported(module=alias.name if alias.asname else bound, name=None)
            elif isinstance(node, ast.ImportFrom):
                named = [alias for alias in node.names if alias.name != "*"]
                found |= {
                    alias.asname or alias.name: Imported(module=self._absolute(node), name=alias.name)
                    for alias in named
                }
        return found

    @cached_property
    def starred(self) -> tuple[str, ...]:
        """Modules all of whose names are imported (`from module import *`), the last one first."""
        froms = [node for node in _flat(self.tree.body) if isinstance(node, ast.ImportFrom)]
        return tuple(self._absolute(node) for node in reversed(froms) if node.names[0].name == "*")

    @property
    def postpones_annotations(self) -> bool:
        """Whether annotations are not evaluated (`from __future__ import annotations`)."""
        return any(one.module == "__future__" for one in self.imports.values())

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """Top-level statements without imports and the file's docstring, in order."""
        found: list[Statement] = []
        before = 0
        for index, node in enumerate(self.tree.body):
            last = node.end_lineno or node.lineno
            if _is_text(node):
                if found and index and isinstance(self.tree.body[index - 1], ast.Assign | ast.AnnAssign):
                    found[-1] = _extended(found[-1], last)
            elif not isinstance(node, ast.Import | ast.ImportFrom) and not _is_for_types(node) and not _is_main(node):
                found.append(
                    Statement(
                        node=node,
                        first=self._first_line(node, before),
                        last=last,
                        binds=frozenset(_bound(node)),
                        uses=frozenset(each.id for each in ast.walk(node) if isinstance(each, ast.Name)),
                    )
                )
            before = last
        return tuple(found)

    def binding(self, name: str) -> tuple[Statement, ...]:
        """Return the statements that bind a name; empty if none does."""
        return tuple(statement for statement in self.statements if name in statement.binds)

    def _absolute(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module that a `from` names."""
        if not node.level:
            return str(node.module)
        parts = self.module.split(".")
        above = parts[: len(parts) - node.level + self.package]
        return ".".join([*above, *([node.module] if node.module else [])])

    def _first_line(self, node: ast.stmt, before: int) -> int:
        """Return the number of the first line, with decorators and the comment directly above."""
        decorators: Sequence[Any] = getattr(node, "decorator_list", ())
        first = min([node.lineno, *(each.lineno for each in decorators)])
        while first - 1 > before and self.lines[first - 2].startswith("#"):
            first -= 1
        return first


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, and those of blocks for type checkers."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and _is_for_types(node):
            yield from node.body


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _is_main(node: ast.stmt) -> bool:
    """Return whether a statement runs only where its file is run as a program."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"__name__ == '__main__'", "'__main__' == __name__"}


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _extended(statement: Statement, last: int) -> Statement:
    return Statement(node=statement.node, first=statement.first, last=last, binds=statement.binds, uses=statement.uses)


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds in its scope."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if isinstance(node, ast.alias):
        yield node.asname or node.name.partition(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from _bound(child)
