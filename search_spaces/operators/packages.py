"""Folders of Python files as one text, so that they are hashed, copied and stored in checkpoints as a single file is.

The text of a folder holds the texts of its files, and runs them as a package below `ultralytics.nn`: forks keep their
modules there, and import what stands beside them (`from .conv import Conv`, `from ..modules.conv import autopad`).
"""

import ast
import os
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, find_spec
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

from search_spaces.errors import SpecError, in_one_line
from search_spaces.files import YAML_BYTES, read_plain
from search_spaces.operators import missing_imports

SIBLINGS = "ultralytics.nn.modules"
"""Package in which a single file's relative imports are looked up: those of Ultralytics' own files."""

PARENT = "ultralytics.nn"
"""Package below which a folder is run."""
_MOST_FILES, _MOST_FOLDERS = 500, 500
INIT = "__init__"
"""Name of a package's own file."""

_TEXT = '''\
"""The Python files of the folder `{folder}`, as one file; `search_spaces.operators.packages` runs them."""

from search_spaces.operators.packages import run

FILES = {{
{files}}}

PARTS, FAILED = run(__name__, {folder!r}, FILES)
'''


def bundled(folder: Path) -> str:
    """Return the Python files of a folder, at any depth, as one text.

    Of a file that cannot be read, a text stands there which says so when it is run (`unreadable`).

    Raises:
        SpecError: there are none, or too many.
    """
    folder = _with_modules(folder)
    files = list(_python_files(folder))
    if not files:
        raise SpecError(f"{folder}: no Python file in this folder")
    texts = {_dotted(one.relative_to(folder)): _text_or_reason(one) for one in files}
    lines = "".join(f"    {name!r}: {text!r},\n" for name, text in texts.items())
    return _TEXT.format(folder=folder.resolve().name, files=lines)


def read_python(path: Path) -> str:
    """Read the text of a Python file as Python does: in UTF-8, with or without a mark, or as its first lines say.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return _text(read_plain(path, most=YAML_BYTES))
    except OSError as error:
        meant = next((one for one in _places_of(path) if one.exists()), None)
        hint = "" if meant is None else f"; a file or a folder is expected: {meant}"
        raise SpecError(f"{path}: cannot be read ({error.strerror}{hint})") from None
    except SpecError as error:
        raise error.within(str(path)) from None


def _places_of(path: Path) -> Iterator[Path]:
    """Yield the files and folders that are meant where a package is named as in an import: `models.common`."""
    names = path.name.split(".")
    if not all(map(str.isidentifier, names)):
        return
    places = [path.parent.joinpath(*names)]
    with suppress(ImportError, ValueError):  # a module without a spec
        found = find_spec(names[0])
        if found is not None and found.submodule_search_locations:
            places += [Path(one).joinpath(*names[1:]) for one in found.submodule_search_locations]
    for place in places:
        yield place
        yield place.with_suffix(".py")


def _text(content: bytes) -> str:
    """Return the text of a Python file.

    Raises:
        SpecError: it is none.
    """
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
        text = decode_source(content)
    except (SyntaxError, ValueError, LookupError):  # LookupError: `coding: hex` is no encoding of texts
        raise SpecError(
            "not a text file (UTF-8 is expected, or a first line that names another encoding: # -*- coding: gbk -*-)"
        ) from None
    return text if encoding in {"utf-8", "utf-8-sig"} else _ENCODING.sub(r"\1utf-8", text, count=1)  # as copies are


def _text_or_reason(path: Path) -> str:
    """Return the text of a file of a folder, or one that raises the reason why it cannot be read.

    The names of the classes in it follow, so that who wants one of them is told (`user_classes.require_whole`).
    """
    try:
        return read_python(path)
    except SpecError as error:
        reason = str(error).removeprefix(f"{path}: ")
    names: list[bytes] = []
    with suppress(OSError):
        names = _CLASS.findall(read_plain(path, most=YAML_BYTES))
    return "\n".join([f"{_RAISE}({reason!r})", *(f"class {name.decode()}: ..." for name in names), ""])


_CLASS = re.compile(rb"^class[ \t]+([A-Za-z_]\w*)", re.MULTILINE)
_RAISE = "raise OSError"


def unreadable(files: Mapping[str, str]) -> tuple[str, ...]:
    """Return those files of a folder, by dotted name, in whose place the reason stands why they cannot be read."""
    return tuple(name for name, text in files.items() if text.startswith(_RAISE))


_ENCODING = re.compile(r"(coding[:=][ \t]*)[-\w.]+")


def _with_modules(folder: Path) -> Path:
    """Return the folder with a fork's modules, if a whole fork is named: the rest of it are scripts."""
    of_ultralytics = ("ultralytics/nn", *(("nn",) if folder.resolve().name == "ultralytics" else ()))
    inner = [folder / one for one in of_ultralytics if (folder / one / "modules").is_dir()]
    inner += [folder / one for one in ("models",) if (folder / one / "common.py").is_file()]  # of YOLOv5, 7 and 9
    return inner[0] if inner else folder


def _python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a folder, sorted, without hidden ones; links to folders are not followed.

    Raises:
        SpecError: it is too large for a fork's modules: any folder may be named.
    """
    count = 0
    for folders, (parent, inner, names) in enumerate(os.walk(folder)):
        inner[:] = sorted(one for one in inner if not one.startswith(".") and one != "__pycache__")
        found = sorted(one for one in names if one.endswith(".py") and not one.startswith("."))
        count += len(found)
        if folders >= _MOST_FOLDERS or count > _MOST_FILES:
            raise SpecError(
                f"{folder}: more than {_MOST_FILES} Python files or {_MOST_FOLDERS} folders (the folder of a fork's "
                "modules is expected)"
            )
        yield from (Path(parent) / one for one in found)


def _dotted(path: Path) -> str:
    """Return the name of a file in its package: `blocks.attention`; of the package's own file `__init__`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == INIT and len(parts) > 1 else parts)


def run(name: str, folder: str, files: Mapping[str, str]) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Run the files of a folder as a package.

    Args:
        name: of the module that holds the texts.
        folder: name of the folder, by which files in it may import each other: `from models.common import Conv`.
        files: texts by dotted name.

    Returns:
        The modules by dotted name, and for each file that cannot be imported the reason: a fork's folder holds files
        that need packages which are not here, beside those that are wanted.
    """
    package = _Package(f"{PARENT}.{name}", folder, files)
    sys.meta_path.insert(0, package)
    try:
        return package.run()
    finally:
        sys.meta_path.remove(package)


class _Package(MetaPathFinder, Loader):
    """Package whose files are texts: it finds them, and runs them."""

    def __init__(self, root: str, folder: str, files: Mapping[str, str]) -> None:
        self._root, self._folder, self._files = root, folder, {INIT: "", **files}

    def run(self) -> tuple[dict[str, ModuleType], dict[str, str]]:
        """Import every file; return the modules and the reasons of those that failed."""
        parts: dict[str, ModuleType] = {}
        failed: dict[str, str] = {}
        absent = unreadable(self._files)
        for file in self._files:
            try:
                __import__(self._name_of(file))
            except Exception as error:  # noqa: BLE001 - a user's code may raise anything; it is reported where it matters
                kind = "" if file in absent else f"{type(error).__name__}: "
                failed[file] = f"{kind}{in_one_line(error)}"
                if file == INIT:  # the other files are modules of this package all the same
                    self._empty_root()
        for file in self._files:
            module = sys.modules.get(self._name_of(file))
            if module is not None and file not in failed:
                parts[file] = module
        return parts, failed

    def _empty_root(self) -> None:
        self._files[INIT] = ""
        for name in [one for one in sys.modules if one == self._root or one.startswith(f"{self._root}.")]:
            del sys.modules[name]
        __import__(self._root)

    def _name_of(self, file: str) -> str:
        return self._root if file == INIT else f"{self._root}.{file}"

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Find a file of the package, or a folder in it that has no file of its own."""
        if fullname != self._root and not fullname.startswith(f"{self._root}."):
            return None
        file = fullname.removeprefix(self._root).removeprefix(".") or INIT
        is_package = file == INIT or any(one.startswith(f"{file}.") for one in self._files)
        if file not in self._files and not is_package:
            return None
        return ModuleSpec(fullname, self, origin=f"{self._folder}/{file}", is_package=is_package)

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Let Python make the module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run a file's text, with imports by the folder's name as imports of this package."""
        file = module.__name__.removeprefix(self._root).removeprefix(".") or INIT
        label = f"{self._folder}/{file.replace('.', '/')}.py"
        module.__file__ = label
        missing_imports.run(self._files.get(file, ""), label, module.__dict__, change=self._redirect)

    def _redirect(self, node: ast.AST) -> None:
        """Change an import that names the folder, such as `models.common`, to one of this package."""
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            node.module = self._redirected(node.module) or node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname and (found := self._redirected(alias.name)):
                    alias.name = found

    def _redirected(self, dotted: str) -> str | None:
        file = file_named(dotted, self._folder, self._files)
        return None if file is None else self._name_of(file)


def file_named(dotted: str, folder: str, files: Mapping[str, str]) -> str | None:
    """Return the file of a folder that an import names by the folder, such as `models.common`; None if it does not."""
    found = (rest or INIT for rest in _after(dotted, folder) if not rest or rest in files)
    return next(found, None)


def _after(dotted: str, folder: str) -> Iterator[str]:
    """Yield what follows each occurrence of a folder in a dotted name, if that is the fork's own: not `a.b.folder`."""
    parts = dotted.split(".")
    for index, part in enumerate(parts):
        if part == folder and ".".join(parts[:index]) in {"", "ultralytics", "ultralytics.nn", SIBLINGS}:
            yield ".".join(parts[index + 1 :])
