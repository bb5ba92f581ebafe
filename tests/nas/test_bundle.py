"""Definitions of several files written as one."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from nas.deployment.bundle import Bundle, Definition, bundle
from nas.deployment.source_file import SourceFile
from search_spaces.errors import SpecError


def finder(texts: Mapping[str, str]) -> Callable[[str], SourceFile | None]:
    files = {name: SourceFile.of(name, f"{name.replace('.', '/')}.py", text) for name, text in texts.items()}
    return files.get


def bundled(texts: Mapping[str, str], *roots: str) -> Bundle:
    """Bundle roots such as `a.build`."""
    find = finder(texts)
    found = [(find(root.rpartition(".")[0]), root.rpartition(".")[2]) for root in roots]
    return bundle([Definition(file=file, name=name) for file, name in found if file is not None], find)


def run(made: Bundle) -> dict[str, Any]:
    """Run a bundle as a file of its own."""
    scope: dict[str, Any] = {"__name__": "bundled"}
    exec(compile(f"{made.imports}\n{made.body}", "bundled", "exec"), scope)  # noqa: S102 - the texts of these tests
    return scope


def test_only_what_is_used_is_copied_with_comments_and_docstrings() -> None:
    text = (
        '"""Title of it.\n\nMore.\n"""\nimport math\nimport json\n# Why.\nHALF = 0.5\n"""Share."""\nOTHER = 1\n\n'
        "def build():\n    return math.ceil(HALF)  # noqa: X1 - a remark\n"
    )
    made = bundled({"a": text}, "a.build")
    assert made.imports == "import math"
    assert made.body == (
        "# ---------- a.py ----------\n# Title of it.\n\n# Why.\nHALF = 0.5\n"
        '"""Share."""\n\n\ndef build():\n    return math.ceil(HALF)\n'
    )


def test_imports_between_files_are_followed_and_come_first() -> None:
    texts = {
        "a": "from b import make as produce\ndef build():\n    return produce() + 1\n",
        "b": "from c import base\ndef make():\n    return base\n",
        "c": "base = 40\n",
    }
    made = bundled(texts, "a.build")
    assert (made.imports, made.body.index("base = 40") < made.body.index("def make")) == ("", True)
    assert run(made)["build"]() == 41


def test_names_imported_with_a_star_are_found() -> None:
    texts = {
        "a": "from json import *\nfrom math import *\nfrom gone import *\nfrom b import *\n"
        "def build():\n    return floor(x), _hidden\n_hidden = 1\n",
        "b": "from a import *\nfrom c import *\n_hidden = 2\n",
        "c": "x = 1.5\n",
    }
    made = bundled(texts, "a.build")
    assert made.imports == "from math import floor"
    assert run(made)["build"]() == (1, 1)


@pytest.mark.parametrize(
    "line",
    [
        "from ultralytics.nn.modules import C3k as Made",
        "from ultralytics.nn.modules.conv import C3k as Made",
        "from ultralytics.nn.modules.of_a_fork import C3k as Made",
        "from ultralytics.nn.modules.block import *\nMade = C3k",
    ],
)
def test_name_of_ultralytics_that_a_fork_has_elsewhere_is_imported_from_where_it_is(line: str) -> None:
    made = bundled({"a": f"{line}\ndef build():\n    return Made.__name__\n"}, "a.build")
    assert made.imports.startswith("from ultralytics.nn.modules.block import C3k")
    assert run(made)["build"]() == "C3k"


def test_what_a_file_does_as_a_program_is_left_out() -> None:
    text = "def build(x):\n    return x\nif __name__ == '__main__':\n    x = build(open('data'))\n"
    assert "open" not in bundled({"a": text}, "a.build").body


def test_equal_names_of_different_files_are_told_apart() -> None:
    texts = {
        "one": "from math import sqrt\ndef _build(x):\n    return sqrt(_twice(x))\ndef _twice(x):\n    return 2 * x\n",
        "two": "def sqrt(x):\n    return -x\ndef _build(x):\n    return sqrt(x)\n",
    }
    made = bundled(texts, "one._build", "two._build")
    scope = run(made)
    names = {(root.file.module, root.name): name for root, name in made.names.items()}
    assert names["one", "_build"] == "_one_build"
    assert scope[names["one", "_build"]](8) == 4
    assert scope[names["two", "_build"]](8) == -8
    assert scope["sqrt"](9) == 3  # the import keeps the name


def test_definition_with_the_name_of_a_builtin_does_not_replace_it_elsewhere() -> None:
    texts = {
        "one": "def build(x):\n    return sum(x)\n",
        "two": "def sum(x):\n    return 'mine'\ndef other(x):\n    return sum(x)\n",
    }
    scope = run(bundled(texts, "one.build", "two.other"))
    assert (scope["build"]([1, 2]), scope["other"]([1, 2])) == (3, "mine")


def test_statements_that_change_what_is_copied_are_copied() -> None:
    text = "class A:\n    x = 1\nA.x = 2\nclass B:\n    pass\nB.y = 1\ndef build():\n    return A.x\n"
    made = bundled({"a": text}, "a.build")
    assert run(made)["build"]() == 2
    assert "B" not in made.body


def test_postponed_annotations_stay_postponed() -> None:
    text = "from __future__ import annotations\ndef build(x: Nothing) -> Nowhere:\n    return x\n"
    assert run(bundled({"a": text}, "a.build"))["build"](1) == 1


def test_library_that_registers_operations_is_imported() -> None:
    text = "import torch\nfrom torchvision.ops import nms\ndef build():\n    return torch.ops.torchvision.nms\n"
    made = bundled({"a": text}, "a.build")
    assert made.imports == "import torch\nimport torchvision"
    assert callable(run(made)["build"]())


def test_libraries_are_named() -> None:
    text = "import os\nimport torch.nn as nn\nfrom numpy import pi\ndef build():\n    return nn, pi, os\n"
    made = bundled({"a": text}, "a.build")
    assert made.libraries == ("numpy", "torch")
    assert made.imports == "import os\n\nimport torch.nn as nn\nfrom numpy import pi"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": "import b\ndef build():\n    return b.x\n", "b": "x = 1\n"}, "a.py: b is imported from b, where"),
        ({"a": "def build():\n    from b import x\n    return x\n", "b": "x = 1\n"}, "a.py, line 2: b is imported in"),
        ({"a": "def build():\n    return __file__\n"}, "a.py, line 2: __file__ is another file"),
        (
            {"a": "from b import x\ndef build():\n    return x\ndef y():\n    pass\n", "b": "from a import y\nx = y\n"},
            "files that import each other cannot become one",
        ),
        (
            {
                "a": "from b import f as g\ndef f(g):\n    return g\ndef build():\n    return f(g)\n",
                "b": "def f():\n    pass\n",
            },
            "the argument g has a name of the file's top level",
        ),
    ],
)
def test_what_cannot_be_copied_is_refused_with_its_place(texts: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        bundled(texts, "a.build")
    assert message in str(caught.value)
