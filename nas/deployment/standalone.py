"""Write a model for an Ultralytics without this package: `modules.py`, `model.yaml` and `weights.pt` in one folder."""

import ast
import importlib.util
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from ultralytics import __version__ as ultralytics_version

from nas._version import __version__
from nas.deployment import plain_process, users_files
from nas.deployment.bundle import Definition, bundle
from nas.deployment.source_file import SourceFile
from search_spaces import build, model_file, rows, user_rows
from search_spaces.errors import SpecError, StudyError
from search_spaces.files import write_atomically
from search_spaces.operators import Operator, SiteKind
from search_spaces.operators.class_operator import ClassOperator
from search_spaces.operators.record import Source
from search_spaces.operators.user_classes import UserClass
from search_spaces.placed import PLACED, Placed
from search_spaces.rows import Lowered
from search_spaces.stored_model import StoredModel
from trials.contracts.probing import REORDERED, relative_difference

MODULES, MODEL, WEIGHTS = "modules.py", "model.yaml", "weights.pt"
LINES = """\
import modules                     # the operators: registers them with Ultralytics
from ultralytics import YOLO
model = YOLO("weights.pt")"""
"""With which any program uses the model: in the folder of these files."""
LINES_WITHOUT_WEIGHTS = LINES.replace(WEIGHTS, MODEL)

_HEADER = '''\
"""Operators of {model}, for Ultralytics without the package from which they come.

    {lines}

Then train, validate, predict and export as any model of Ultralytics ({ultralytics} was tested). Checkpoints name the
classes in this file: keep it beside them, under this name.

{origin}
"""

# SPDX-License-Identifier: AGPL-3.0-only
'''
_OURS = {
    "Row": "nas.deployment.registration",
    "register": "nas.deployment.registration",
    "SiteKind": "search_spaces.operators.record",
}
"""Names that the last statement of `modules.py` uses, and the modules that define them."""
_OF_CLASSES = {"arguments_at": "search_spaces.operators.taken_settings"}
"""The same, where an operator is a class of a user's file."""
_USUAL = {"numpy", "torch", "torchvision", "ultralytics"}
"""Libraries that come with Ultralytics."""
_SECONDS = 300
_IMAGE_SIZE = 96
"""Side in pixels of the image with which the outputs of both models are compared."""


def write(
    folder: Path, *, name: str, model_text: str, document: Mapping[str, Any], stored: StoredModel | None
) -> tuple[str, ...]:
    """Write `modules.py`, `model.yaml` and `weights.pt`, and check them in a process without this package.

    Args:
        folder: to write to; created if missing.
        name: of the model, for a reader.
        model_text: of the exported `model.yaml`.
        document: the same as a mapping.
        stored: the trained model; None writes no weights.

    Returns:
        Libraries that `modules.py` imports, besides PyTorch and Ultralytics.

    Raises:
        SpecError: an operator's source cannot become part of a file.
        StudyError: the files do not work without this package.
    """
    layers = placed_layers(document)
    text, libraries = modules_text(lowered_rows(document), name=name, classes=row_classes(document, layers))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).unlink(missing_ok=True)
    write_atomically(folder / MODULES, text)
    write_atomically(folder / MODEL, plain_model(model_text, document, layers))
    _check(folder, document, stored)
    return libraries


def modules_text(
    lowered: Mapping[str, Lowered], *, name: str, classes: Mapping[str, UserClass] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the text of `modules.py`, and the libraries that it needs besides PyTorch and Ultralytics.

    Args:
        lowered: a row of each name that the file shall register.
        name: of the model, for a reader.
        classes: that rows name as they stand, by the name in the row.

    Raises:
        SpecError: lists the operators and classes whose source cannot become part of a file.
    """
    classes = classes or {}
    operators = list({one.operator.name: one.operator for one in lowered.values()}.values())
    named = [*(one.source for one in operators), *(one.source for one in classes.values())]
    sources = list(dict.fromkeys(one for one in named if one))
    find = _finder(operators, sources)
    roots: dict[str, Definition] = {}
    mistakes: list[str] = []
    for operator in operators:
        try:
            roots[operator.name] = _root(operator, find)
        except SpecError as error:
            mistakes += error.mistakes
    for row, one in classes.items():
        try:
            roots[row] = _definition(one.module, find)
        except SpecError as error:
            mistakes += error.mistakes
    if mistakes:
        raise SpecError(mistakes)
    used = _OURS | (_OF_CLASSES if any(isinstance(one, ClassOperator) for one in operators) else {})
    ours = {each: Definition(file=_file(find, module), name=each) for each, module in used.items()}
    bundled = bundle([*roots.values(), *ours.values()], find)
    names = {each: bundled.names[root] for each, root in (roots | ours).items()}
    parts = [
        _header(name, sources, list(roots.values())),
        bundled.imports,
        "",
        bundled.body,
        "",
        _table(lowered, list(classes), names),
    ]
    return "\n".join(parts), tuple(one for one in bundled.libraries if one not in _USUAL)


def lowered_rows(document: Mapping[str, Any]) -> dict[str, Lowered]:
    """Return one row of each name that Ultralytics does not have."""
    found = ((row[2], rows.lower(row)) for _, row in model_file.addressed(document))
    return {name: lowered for name, lowered in found if lowered is not None}


def classes(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the users' classes that rows name as they stand, each with the name of its file."""
    found = (user_rows.user_class(row) for _, row in model_file.addressed(document))
    return {one.name: one.file for one in found if one is not None}


def placed_layers(document: Mapping[str, Any]) -> dict[int, Placed]:
    """Return the layers of classes that rows of a document name as they stand, by index."""
    if not classes(document):
        return {}
    built = build.skeleton(document, int(document["nc"]))
    return {index: one for index, layer in enumerate(built) if (one := PLACED.get(layer)) is not None}


def row_classes(document: Mapping[str, Any], layers: Mapping[int, Placed]) -> dict[str, UserClass]:
    """Return the classes of those layers by the names of their rows in `model.yaml`."""
    written = model_file.addressed(document)
    return {_plain_name(written[index][1]): one.found for index, one in layers.items()}


def _plain_name(row: Sequence[Any]) -> str:
    """Return the name of a class's row for `modules.py`: another than that of a row where the class is an operator."""
    return row[2] if "." in row[2] else f"{user_rows.PREFIX}{row[2]}"


def _definition(module: type[nn.Module], find: Callable[[str], SourceFile | None]) -> Definition:
    """Return the definition of a class.

    Raises:
        SpecError: it does not stand at the top level of its file.
    """
    file, name = find(module.__module__), module.__qualname__
    if file is None or not file.binding(name):
        raise SpecError(
            f"{name}: it cannot be copied, since it is no class at the top level of a file (class {module.__name__}: "
            "...); --formats onnx needs no Python"
        )
    return Definition(file=file, name=name)


def _root(operator: Operator, find: Callable[[str], SourceFile | None]) -> Definition:
    """Return the definition of the function that builds an operator, or of the class that is one.

    Raises:
        SpecError: it has no name at the top level of its file.
    """
    if isinstance(operator, ClassOperator):
        return _definition(operator.module, find)
    function: Any = operator.build
    name, file = getattr(function, "__qualname__", ""), find(str(getattr(function, "__module__", "")))
    name = _name_of_lambda(operator) if name == _LAMBDA else name
    if file is None or not file.binding(name):
        where = operator.source.path.name if operator.source else operator.module.__module__
        raise SpecError(
            f"{where}: build of {operator.name} cannot be copied; write it as a function at the top level of the file "
            "(def build_it(site, *, ...))"
        )
    return Definition(file=file, name=name)


_LAMBDA = "<lambda>"


def _name_of_lambda(operator: Operator) -> str:
    return f"_build_{operator.name}"


def _with_named_lambdas(text: str, operators: Sequence[Operator]) -> str:
    """Return the text of a file with the lambdas that build operators as constants at its end."""
    for operator in operators:
        function: Any = operator.build
        if getattr(function, "__qualname__", "") != _LAMBDA:
            continue
        line = function.__code__.co_firstlineno
        found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda) and node.lineno == line]
        if len(found) == 1:
            text += f"\n\n{_name_of_lambda(operator)} = {_in_lines(ast.get_source_segment(text, found[0]) or '')}\n"
    return text


def _in_lines(expression: str) -> str:
    return f"(\n    {expression}\n)" if "\n" in expression else expression


def _file(find: Callable[[str], SourceFile | None], module: str) -> SourceFile:
    file = find(module)
    assert file is not None  # noqa: S101 - a module of this project
    return file


def _finder(operators: Sequence[Operator], sources: Sequence[Source]) -> Callable[[str], SourceFile | None]:
    """Return a function that finds the file of a module of this project, of an operator's package, or of a user."""

    def with_named_lambdas(module: str, text: str) -> str:
        return _with_named_lambdas(text, [one for one in operators if getattr(one.build, "__module__", None) == module])

    find_users = users_files.finder(sources, with_named_lambdas)
    installed = (one.module.__module__ for one in operators if one.source is None)
    packages = {*plain_process.FORBIDDEN, *(module.partition(".")[0] for module in installed)}

    @cache
    def find(module: str) -> SourceFile | None:
        if (file := find_users(module)) is not None:
            return file
        spec = importlib.util.find_spec(module) if module.partition(".")[0] in packages else None
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return None
        path, inside = Path(spec.origin), module.replace(".", "/")
        package = path.name == "__init__.py"
        text = with_named_lambdas(module, path.read_text(encoding="utf-8"))
        return SourceFile.of(module, f"{inside}/__init__.py" if package else f"{inside}.py", text, package=package)

    return find


def _header(name: str, sources: Sequence[Source], roots: Sequence[Definition]) -> str:
    """Return the docstring of `modules.py`, with the origin and the licence of its parts."""
    users = sorted({one.path.name for one in sources})
    files = ", ".join(dict.fromkeys(root.file.label for root in roots))
    theirs = f" What is from {', '.join(users)} has the licence of its author." if users else ""
    origin = (
        f"Written by nas {__version__} (nas export --standalone) from {files}. Licence: AGPL-3.0, as that of "
        f"nas and of Ultralytics.{theirs}"
    )
    return _HEADER.format(
        model=name, lines=LINES.replace("\n", "\n    "), ultralytics=ultralytics_version, origin=_filled(origin)
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)


_LAYERS = (SiteKind.LAYER, SiteKind.INSERTED)
"""Kinds of an operator that replaces convolutions and is inserted, too."""


def _table(lowered: Mapping[str, Lowered], classes: Sequence[str], names: Mapping[str, str]) -> str:
    """Return the statement that registers the rows; `names` of what it uses are those in `modules.py`."""
    lines = [f"{names['register']}(", "    {"]
    for name, one in lowered.items():
        stock, kinds = one.host.name, [kind for kind in one.operator.kinds if kind in {*one.host.inner, one.host.whole}]
        if kinds[0] in _LAYERS and {*_LAYERS} <= {*one.operator.kinds}:  # rows of both have one name
            stock, kinds = "Conv", [*_LAYERS]
        listed = [f"{names['SiteKind']}.{kind.name}" for kind in kinds]
        defaults = {parameter.name: parameter.default for parameter in one.operator.parameters}
        written = ", ".join(f"{_quoted(key)}: {_literal(value)}" for key, value in defaults.items())
        lines += [
            f"        {_quoted(name)}: {names['Row']}(",
            f"            stock={_quoted(stock)},",
            f"            kinds=({', '.join(listed)}{',' * (len(kinds) == 1)}),",
            f"            build={_builder(one.operator, names)},",
            f"            defaults={{{written}}},",
            "        ),",
        ]
    layers = ", ".join(f"{_quoted(row)}: {names[row]}" for row in classes)
    return "\n".join([*lines, "    },", f"    {{{layers}}},", ")"]) + "\n"


def _builder(operator: Operator, names: Mapping[str, str]) -> str:
    """Return the function that builds an operator at a site, as text; `names` are those in `modules.py`."""
    name = names[operator.name]
    if not isinstance(operator, ClassOperator):
        return name
    given = ", ".join(f"({_quoted(argument)}, {_quoted(attribute)})" for argument, attribute in operator.given)
    defaults = ", ".join(f"{_quoted(name)}: {_literal(value)}" for name, value in operator.defaults)
    arguments = f"{names['arguments_at']}(site, [{given}], {{{defaults}}}, others)"
    return f"lambda site, **others: {name}(\n                **{arguments}\n            )"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _literal(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)


_ROW = "  - ["
"""Beginning of a row in the text of a model file that this package writes."""


def plain_model(text: str, document: Mapping[str, Any], layers: Mapping[int, Placed]) -> str:
    """Return the text of a model file for `modules.py`: with another heading, and without the names of users' files.

    A row of a class has all arguments of its constructor and the channels behind the layer, which are read from it.
    """
    lines = text.splitlines()
    places = [index for index, line in enumerate(lines) if line.startswith(_ROW)]
    for (_, row), place, index in zip(model_file.addressed(document), places, range(len(places)), strict=True):
        if index in layers:
            lines[place] = f"  - {_flow(_plain_row(row, layers[index]))}"
    while lines and lines[0].startswith("#"):
        del lines[0]
    heading = '# A YOLO detector with searched operators, which are in modules.py: import modules; YOLO("model.yaml")'
    kept = [_without_files(line) for line in lines if not line.startswith(("arguments: ", "modules: "))]
    return "\n".join([heading, *kept]) + "\n"


def _plain_row(row: Sequence[Any], layer: Placed) -> list[Any]:
    """Return a row with all arguments of a class's constructor, and the channels behind it.

    Raises:
        SpecError: an argument is a default that a YAML file cannot express.
    """
    channels = list(layer.channels) if isinstance(layer.channels, tuple) else layer.channels
    arguments = [list(one) if isinstance(one, tuple) else one for one in layer.reading.arguments]
    behind: dict[str, Any] = {"channels": channels}
    further = {"names": [*layer.names], "one_by_one": layer.one_by_one, "block": layer.reading.block}
    behind |= {name: value for name, value in further.items() if value}
    written = [row[0], layer.repeats, _plain_name(row), [*arguments, behind]]
    try:
        _flow(written)
    except yaml.YAMLError as error:
        raise SpecError(
            f"{row[2]}: an argument of its constructor cannot be written into a model file: {error}"
        ) from None
    return written


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()


def _without_files(line: str) -> str:
    if not line.startswith("nas: "):
        return line
    origin = yaml.safe_load(line)["nas"]
    origin.pop("modules", None)
    return f"nas: {_flow(origin)}"


def _check(folder: Path, document: Mapping[str, Any], stored: StoredModel | None) -> None:
    """Let another process build, save and load the model; compare it with this package's.

    Raises:
        StudyError: it fails, or computes something else.
    """
    model = stored.build() if stored is not None else build.model(document, int(document["nc"]))
    image = torch.rand(1, 3, _IMAGE_SIZE, _IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    asked = {
        "tensors": model.state_dict() if stored is not None else {},
        "names": dict(model.names),
        "train_args": dict(stored.checkpoint.get("train_args", {})) if stored is not None else {},
        "end2end": build.is_end_to_end(document),
        "image": image,
    }
    found = _answer(folder, asked)
    if found["sizes"] != {name: tuple(value.shape) for name, value in model.state_dict().items()}:
        raise StudyError(f"{folder}: without this package another model is built; please report it with model.yaml")
    if stored is not None and relative_difference(found["output"], _output(model, image)) > REORDERED:
        raise StudyError(f"{folder}: without this package the model computes something else; please report it")


@torch.no_grad()
def _output(model: nn.Module, image: Tensor) -> Tensor:
    value: Any = model.float().eval()(image)
    while isinstance(value, list | tuple):
        value = value[0]
    return value


def _answer(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Run `plain_process.py` and return its answer."""
    with tempfile.TemporaryDirectory() as inside:
        given, answer = Path(inside) / "given.pt", Path(inside) / "answer.pt"
        torch.save(dict(asked), given)
        environment = {**os.environ, "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}
        command = [sys.executable, plain_process.__file__, str(folder), str(given), str(answer)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise StudyError(f"{folder}: loading it without this package took longer than {_SECONDS} s") from None
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise StudyError(f"{folder}: it cannot be used without this package: {reason}")
        return dict(torch.load(answer, weights_only=True))
