"""No import circle inside a package, and a docstring for every folder."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "trials", "search_spaces")


def modules_of(package: str) -> dict[str, Path]:
    """Return the file of each module of a package by its dotted name; of a folder, its `__init__.py`."""
    paths = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in paths}


def imported_names(source: str) -> Iterator[str]:
    """Yield the dotted names that a module imports: at its top, in functions, and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(package: str) -> dict[str, set[str]]:
    """Return the modules of a package that each of its modules imports: `from a import b` is a.b if that is one."""
    modules = modules_of(package)
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = imported_names(path.read_text(encoding="utf-8"))
        targets = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = targets & modules.keys()
    return graph


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of one circle, first and last the same; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_have_no_circle(package: str) -> None:
    graph = import_graph(package)
    assert len(graph) > 20
    assert any(graph.values())
    assert circle_in(graph) == []


def test_import_circle_is_found_wherever_the_import_stands() -> None:
    under_type_checking = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import b\n"
    in_a_function = "def f() -> None:\n    import a.c\n"
    graph = {"a.c": set(imported_names(under_type_checking)) & {"a.b"}, "a.b": set(imported_names(in_a_function))}
    assert sorted(set(circle_in(graph))) == ["a.b", "a.c"]


@pytest.mark.parametrize("package", ["nas", "trials"])
def test_every_folder_has_a_docstring(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert len(folders) > 5
    for folder in folders:
        init = folder / "__init__.py"
        assert init.is_file(), folder
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), init
