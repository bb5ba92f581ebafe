"""Write functions and classes of several Python files, with all that they need, as one file.

What a definition uses is followed through the files' imports; imports of other libraries are copied. Definitions keep
their text and comments. A name that stands for different things in different files gets the file's name in front.
"""

import ast
import builtins
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from types import ModuleType

from nas.deployment.source_file import Imported, SourceFile, Statement
from search_spaces.errors import SpecError
from search_spaces.operators.missing_imports import moved

_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Name that a file defines at its top level."""

    file: SourceFile
    name: str


Symbol = Definition | Imported


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One file in place of several.

    Attributes:
        imports: its import statements.
        body: everything below them.
        names: the name in it of each definition.
        libraries: top-level modules of other libraries that it imports.
    """

    imports: str
    body: str
    names: dict[Definition, str]
    libraries: tuple[str, ...]


def bundle(roots: Sequence[Definition], find: Callable[[str], SourceFile | None]) -> Bundle:
    """Return definitions of several files, with all that they use, as one file.

    Args:
        roots: what the result must contain.
        find: returns the file of a module to be copied; None for a module of another library, which is imported.

    Raises:
        SpecError: lists what cannot be copied, with its file.
    """
    needed = _Needed(find=find)
    for root in roots:
        needed.add(root)
    needed.add_statements_on_them()
    names = _names(needed)
    files = needed.ordered()
    titled = {root.file for root in roots}
    body = "\n\n\n".join(_section(file, needed, names, is_titled=file in titled) for file in files) + "\n"
    external = {symbol: name for symbol, name in names.items() if isinstance(symbol, Imported)}
    if "torch.ops.torchvision" in body:  # importing torchvision registers it, whatever else the file imports
        external[Imported(module="torchvision", name=None)] = "torchvision"
    imports = _import_lines(external)
    if any(file.postpones_annotations for file in files):
        imports = f"from __future__ import annotations\n\n{imports}"
    return Bundle(
        imports=imports,
        body=body,
        names={symbol: name for symbol, name in names.items() if isinstance(symbol, Definition)},
        libraries=tuple(sorted({one.module.partition(".")[0] for one in external} - sys.stdlib_module_names)),
    )


@dataclass(kw_only=True)
class _Needed:
    """Everything that the result must contain.

    Attributes:
        statements: by file.
        local: for each file, what each name in its statements stands for.
        before: for each file, the files that must come before it.
    """

    find: Callable[[str], SourceFile | None]
    statements: dict[SourceFile, set[Statement]] = field(default_factory=lambda: defaultdict(set))
    local: dict[SourceFile, dict[str, Symbol]] = field(default_factory=lambda: defaultdict(dict))
    before: dict[SourceFile, set[SourceFile]] = field(default_factory=lambda: defaultdict(set))

    def add(self, definition: Definition) -> None:
        """Add the statements that bind a name, and all that they use."""
        for statement in definition.file.binding(definition.name):
            self._add_statement(definition.file, statement)

    def add_statements_on_them(self) -> None:
        """Add statements that bind no name but use what was added, such as `Block.forward = fast`."""
        is_complete = False
        while not is_complete:
            left = [
                (file, statement)
                for file, statements in list(self.statements.items())
                for statement in file.statements
                if not statement.binds and statement not in statements
                if any(isinstance(self.local[file].get(name), Definition) for name in statement.uses)
            ]
            for file, statement in left:
                self._add_statement(file, statement)
            is_complete = not left

    def ordered(self) -> list[SourceFile]:
        """Return the files so that each comes after those that it uses.

        Raises:
            SpecError: files use each other.
        """
        try:
            return list(TopologicalSorter({file: self.before[file] for file in self.statements}).static_order())
        except CycleError as error:
            listed = ", ".join(file.label for file in error.args[1])
            raise SpecError(f"files that import each other cannot become one: {listed}") from None

    def _add_statement(self, file: SourceFile, statement: Statement) -> None:
        if statement in self.statements[file]:
            return
        _require_copyable(file, statement, self.find)
        self.statements[file].add(statement)
        for name in sorted(statement.uses | statement.binds):
            symbol = self._resolve(file, name)
            if symbol is None:
                continue
            self.local[file][name] = symbol
            if isinstance(symbol, Definition):
                if symbol.file is not file:
                    self.before[file].add(symbol.file)
                self.add(symbol)

    def _resolve(self, file: SourceFile, name: str, *, through: tuple[SourceFile, ...] = ()) -> Symbol | None:
        """Return what a name at the top level of a file stands for; None for a builtin or a local name.

        Args:
            through: files whose `import *` have led to this one.

        Raises:
            SpecError: it stands for a whole module of those that are copied, or for nothing.
        """
        if file.binding(name):
            return Definition(file=file, name=name)
        imported = file.imports.get(name)
        if imported is None:
            return self._resolve_starred(file, name, (*through, file))
        source = self.find(imported.module)
        if source is None:
            return _where_it_is(imported)
        found = None if imported.name is None else self._resolve(source, imported.name)
        if found is None:
            raise SpecError(
                f"{file.label}: {name} is imported from {imported.module}, where it is no function, class or constant; "
                "only such can be copied (from module import name)"
            )
        return found

    def _resolve_starred(self, file: SourceFile, name: str, through: tuple[SourceFile, ...]) -> Symbol | None:
        """Return what a name stands for that `from module import *` may have brought; None if none did."""
        if name.startswith("_"):
            return None
        found: Symbol | None
        for module in file.starred:
            source, found = self.find(module), None
            if source is None:
                found = _of_library(module, name)
            elif source not in through:
                found = self._resolve(source, name, through=through)
            if found is not None:
                return found
        return None


def _of_library(module: str, name: str) -> Imported | None:
    library = _imported(module)
    offered = getattr(library, "__all__", vars(library)) if library else ()
    return Imported(module=module, name=name) if name in offered else _of_ultralytics(module, name)


def _where_it_is(imported: Imported) -> Imported:
    """Return an import of the file that has the name, if it is one of Ultralytics that a fork has elsewhere."""
    if imported.name is None or hasattr(_imported(imported.module), imported.name):
        return imported
    return _of_ultralytics(imported.module, imported.name) or imported


def _of_ultralytics(module: str, name: str) -> Imported | None:
    """Return the import by which a name was found that a file of Ultralytics does not have, as the fork's has."""
    found = moved(module, name)
    return None if found is None else Imported(module=found.__module__, name=name)


def _imported(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError:  # the file has run without it
        return None


def _require_copyable(file: SourceFile, statement: Statement, find: Callable[[str], SourceFile | None]) -> None:
    """Refuse what would mean something else in another file.

    Raises:
        SpecError: an import of a copied module inside a function, or a use of the file's own path.
    """
    for node in ast.walk(statement.node):
        modules = (
            [node.module or "."] if isinstance(node, ast.ImportFrom) else
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )  # fmt: skip
        if any(module == "." or find(module) is not None for module in modules):
            raise SpecError(
                f"{file.label}, line {getattr(node, 'lineno', 0)}: {', '.join(modules)} is imported inside "
                f"{', '.join(sorted(statement.binds)) or 'a statement'}; import it at the top of the file"
            )
        if isinstance(node, ast.Name) and node.id == "__file__":
            raise SpecError(f"{file.label}, line {node.lineno}: __file__ is another file in an export")


def _names(needed: _Needed) -> dict[Symbol, str]:
    """Return a name for each symbol: its own, or with its file's in front where another symbol has it, too."""
    wanted: dict[str, set[Symbol]] = defaultdict(set)
    for local in needed.local.values():
        for name, symbol in local.items():
            wanted[symbol.name if isinstance(symbol, Definition) else name].add(symbol)
    names: dict[Symbol, str] = {}
    taken = {*wanted, *dir(builtins)}
    for name, symbols in wanted.items():
        imported = [symbol for symbol in symbols if isinstance(symbol, Imported)]
        is_used = len(imported) == 1 or hasattr(builtins, name)  # then it keeps that meaning
        for symbol in sorted(symbols, key=_origin):
            is_alone = len(symbols) == 1 and not (is_used and isinstance(symbol, Definition))
            keeps = is_alone or (len(imported) == 1 and symbol in imported)
            names.setdefault(symbol, name if keeps else _free_name(name, symbol, taken))
    return names


def _origin(symbol: Symbol) -> str:
    return symbol.module if isinstance(symbol, Imported) else symbol.file.label.removesuffix(".py")


def _free_name(name: str, symbol: Symbol, taken: set[str]) -> str:
    """Return the name with that of the symbol's file in front: `_uib_build` for `_build`."""
    stem = re.sub(r"\W+", "_", re.split(r"[./\\]", _origin(symbol))[-1])
    bare, hidden = name.lstrip("_"), name.startswith("_")
    free = f"_{stem}_{bare}" if hidden or stem[:1].isdigit() else f"{stem}_{bare}"
    number = 2
    while free in taken:
        free, number = f"{free.rstrip('0123456789')}{number}", number + 1
    taken.add(free)
    return free


def _section(file: SourceFile, needed: _Needed, names: dict[Symbol, str], *, is_titled: bool) -> str:
    """Return the needed statements of a file, under its name and perhaps its title."""
    renamed = {name: names[symbol] for name, symbol in needed.local[file].items() if names[symbol] != name}
    title = [f"# {file.title}"] if file.title and is_titled else []
    heading = "\n".join([f"# {'-' * 10} {file.label} {'-' * 10}", *title])
    text, before = heading, None
    for statement in file.statements:
        if statement not in needed.statements[file]:
            continue
        is_block = any(isinstance(one.node, _BLOCKS) for one in (statement, before) if one is not None)
        is_next = before is not None and statement.first == before.last + 1
        text += ("\n\n\n" if is_block else "\n" if is_next else "\n\n") + _text(file, statement, renamed)
        before = statement
    return text


_BLOCKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _text(file: SourceFile, statement: Statement, renamed: dict[str, str]) -> str:
    """Return the text of a statement with other names in it.

    Raises:
        SpecError: a name that must change is also a local variable.
    """
    lines = [line.encode() for line in file.lines[statement.first - 1 : statement.last]]
    places = sorted(_places(file, statement, renamed), reverse=True)
    for line, column, name in places:
        row = lines[line - statement.first]
        lines[line - statement.first] = row[:column] + renamed[name].encode() + row[column + len(name.encode()) :]
    return b"\n".join(lines).decode()


def _places(file: SourceFile, statement: Statement, renamed: dict[str, str]) -> Iterator[tuple[int, int, str]]:
    """Yield line, column in bytes and name of each place where a name must change."""
    for node in ast.walk(statement.node):
        if isinstance(node, ast.arg) and node.arg in renamed:
            raise SpecError(
                f"{file.label}, line {node.lineno}: the argument {node.arg} has a name of the file's top level, which "
                "another file has, too (rename one of the two)"
            )
        if isinstance(node, ast.Name) and node.id in renamed:
            yield node.lineno, node.col_offset, node.id
        if isinstance(node, _BLOCKS) and node is statement.node and node.name in renamed:
            row = file.lines[node.lineno - 1]
            found = re.search(rf"\b(?:def|class)\s+{node.name}\b", row)
            if found is not None:
                yield node.lineno, len(row[: found.end()].encode()) - len(node.name.encode()), node.name


def _import_lines(imported: dict[Imported, str]) -> str:
    """Return import statements: the standard library first, then others."""
    plain = [
        (one.module, f"import {one.module}" if one.module == name else f"import {one.module} as {name}")
        for one, name in imported.items()
        if one.name is None
    ]
    by_module: dict[str, list[str]] = defaultdict(list)
    for one, name in imported.items():
        if one.name is not None:
            by_module[one.module].append(one.name if one.name == name else f"{one.name} as {name}")
    named = [(module, _from(module, sorted(found))) for module, found in by_module.items()]
    blocks = []
    for is_standard in (True, False):
        chosen = [
            (text.startswith("from"), text)
            for module, text in [*plain, *named]
            if (module.partition(".")[0] in sys.stdlib_module_names) is is_standard
        ]
        blocks.append("\n".join(text for _, text in sorted(chosen)))
    return "\n\n".join(block for block in blocks if block)


def _from(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    return line if len(line) <= _WIDTH else f"from {module} import (\n    " + ",\n    ".join(names) + ",\n)"
