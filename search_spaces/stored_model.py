"""Store a model in a file without pickled classes: the YAML that it is built from and its tensors, no code.

`torch.load(path, weights_only=True)` opens such a file; `YOLO(path)` loads it if `search_spaces` is imported. The file
may also hold a refusal: an object in the place of the model, which raises an error in an Ultralytics without this
package.
"""

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor, nn
from torch.serialization import safe_globals
from ultralytics import __version__ as ultralytics_version
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from search_spaces import build, files
from search_spaces.errors import DataError, EnvironmentProblem, unwrapped
from search_spaces.operators import OPERATORS, Source, user_classes
from search_spaces.operators import modules as user_modules

KEY = "nas_stored_model"
_MARKS = (KEY.encode(), b"trials.weights\nrebuilt")
"""Bytes that identify the pickle of a stored model; the second is in files of the first version."""

_PICKLE_BYTES = 64 * 2**20

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16,
           torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)}  # fmt: skip

Size = tuple[str, torch.dtype, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """Model as data: the YAML that it is built from, and its weights and buffers.

    Attributes:
        document: the model YAML as a mapping.
        names: of the classes, by number.
        sources: of the users' operators in the model; their files need not exist any more.
        sizes: name, dtype and shape of every weight and buffer.
        rows: their values, flattened and concatenated: one tensor for each dtype.
        checkpoint: other entries of an Ultralytics checkpoint, such as `train_args`.
    """

    document: Mapping[str, Any]
    names: Mapping[int, str]
    sources: Sequence[Source]
    sizes: Sequence[Size]
    rows: Sequence[Tensor]
    checkpoint: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: tasks.DetectionModel, checkpoint: Mapping[str, Any]) -> "StoredModel":
        """Describe a built model; `checkpoint` holds the other entries to write."""
        values = model.state_dict()
        rows = [
            torch.cat([value.flatten() for value in values.values() if value.dtype is dtype]).cpu()
            for dtype in dict.fromkeys(value.dtype for value in values.values())
        ]
        sizes = [(name, value.dtype, tuple(value.shape)) for name, value in values.items()]
        sources = _sources(model)
        document = model.yaml
        if sources:  # their texts are in the file
            named: dict[str, Any] = {"modules": []} if "modules" in document else {}
            document = {**document, **named, "nas": {**document.get("nas", {}), "modules": []}}
        return cls(document=document, names=model.names, sources=sources, sizes=sizes, rows=rows, checkpoint=checkpoint)

    def write(self, path: Path, *, refusal: str = "") -> None:
        """Write the file under another name, then rename it.

        Args:
            refusal: text of the error that Ultralytics raises where this package is not imported. Such a file holds a
                callable, so that only `read` opens it with `weights_only=True`.
        """
        stored = {
            "document": _plain(self.document),
            "names": {int(number): str(name) for number, name in self.names.items()},
            "sources": [[str(source.path), source.text] for source in self.sources],
            "sizes": [[name, str(dtype).removeprefix("torch."), list(shape)] for name, dtype, shape in self.sizes],
            "rows": list(self.rows),
        }
        others = {"version": ultralytics_version, "epoch": -1, **_plain(self.checkpoint)}
        refusing = {"model": _Refusing(refusal)} if refusal else {}
        write_checkpoint({KEY: stored, **refusing, **others}, path)

    def require_operators(self, file: Path) -> None:
        """Check that the operators of users' files are loaded already; their text is not run.

        Raises:
            DataError: lists the files of those that are not.
        """
        missing = [source.file_name for source in self.sources if source.digest not in user_classes.LOADED]
        if missing:
            raise DataError(
                f"{file}: its model has operators of {', '.join(missing)}, whose code is not run from a weights file "
                "(name that file under `modules` in the space)"
            )

    def build(self) -> tasks.DetectionModel:
        """Build the model in eval mode; the text of users' operators that are not loaded yet is run.

        Raises:
            RuntimeError: this version of Ultralytics builds another model from the document.
        """
        for source in self.sources:
            user_modules.register(source)
        with torch.random.fork_rng(devices=[]), user_classes.preferred(self.sources):
            model = build.model(self.document, len(self.names))
        left = {row.dtype: row for row in self.rows}
        values: dict[str, Tensor] = {}
        for name, dtype, shape in self.sizes:
            row = left[dtype]
            values[name], left[dtype] = row[: math.prod(shape)].view(shape), row[math.prod(shape) :]
        model.load_state_dict(values)
        model.names = dict(self.names)
        _unshare_activations(model)
        return model.eval().requires_grad_(requires_grad=False)


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint under another name, then rename it.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    with files.atomic_path(path) as beside:
        try:
            torch.save(dict(checkpoint), beside)
        except RuntimeError as error:
            if "inline_container" not in str(error):  # where PyTorch 2.14 writes: it does not pass on what failed
                raise
            raise EnvironmentProblem(
                f"{path}: cannot be written: {error} (is the disk full? Make room there; a search then goes on where "
                "it stopped, with nas resume)"
            ) from error


def read(path: Path) -> StoredModel | None:
    """Read a stored model, without running code from the file; None if it is another kind of file.

    Raises:
        DataError: the file is marked as a stored model, but has another content.
    """
    if not _is_marked(path):
        return None
    try:
        with safe_globals(_STAND_INS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return _parsed(checkpoint)
    except Exception as error:
        reason = unwrapped(error)[:200]
        raise DataError(f"{path}: not a model that this package stored: {reason}") from error


def has_operators(model: nn.Module) -> bool:
    """Return whether a model has layers that Ultralytics does not have."""
    operators = {record.module for record in OPERATORS.values()}
    package = f"{__package__}."
    return any(
        type(module) in operators or type(module).__module__.startswith(package) or user_classes.is_of_user(module)
        for module in model.modules()
    )


def load_checkpoint(stock_load: Callable[..., Any], weight: Any, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    """Load a checkpoint as Ultralytics' `torch_safe_load` does; a stored model is built, without unpickling."""
    path = Path(str(weight))
    stored = read(path) if path.is_file() else None
    if stored is None:
        checkpoint, file = stock_load(weight, *arguments, **options)
        return checkpoint, file
    for source in stored.sources:
        LOGGER.info(f"{path.name}: with the layers of {source.file_name}, from the text in it")
    return {**stored.checkpoint, "model": stored.build()}, str(weight)


def _is_marked(path: Path) -> bool:
    with suppress(OSError, RuntimeError, ValueError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                with archive.open(name) as file:
                    content = file.read(_PICKLE_BYTES)  # of an archive that may be compressed without end
                return any(mark in content for mark in _MARKS)
    return False


def _parsed(checkpoint: Mapping[str, Any]) -> StoredModel:
    """Return the stored model in a checkpoint."""
    others = {name: value for name, value in checkpoint.items() if name not in {KEY, "model"}}
    if KEY not in checkpoint:  # files of the first version
        document, names, sources, sizes, rows = checkpoint["model"].content
        return StoredModel(document=document, names=names, sources=sources, sizes=sizes, rows=rows, checkpoint=others)
    stored = checkpoint[KEY]
    return StoredModel(
        document=stored["document"],
        names=stored["names"],
        sources=tuple(Source(path=Path(path), text=text) for path, text in stored["sources"]),
        sizes=[(name, _DTYPES[dtype], tuple(shape)) for name, dtype, shape in stored["sizes"]],
        rows=stored["rows"],
        checkpoint=others,
    )


class _Refusing:
    """Object that is pickled as a module of PyTorch and raises an error when Ultralytics calls `.float()` on it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return nn.Identity, (), {"float": partial(torch._assert, False, self.text)}  # noqa: SLF001 - by name


class _StandIn:
    """Replacement for callables that a file names: it keeps its arguments and does nothing."""

    def __init__(self, *content: Any) -> None:
        self.content = content

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def _path(*parts: str) -> Path:
    return Path(*parts)


_STAND_INS: list[Any] = [
    (_StandIn, "trials.weights.rebuilt"),
    (_StandIn, "torch.nn.modules.linear.Identity"),
    (_StandIn, "functools.partial"),
    (_StandIn, "torch._assert"),
    Source,
    *((_path, f"{module}.{kind}") for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
]


def _sources(model: tasks.DetectionModel) -> tuple[Source, ...]:
    """Return the sources of the users' operators and layers in a model."""
    types = {type(module) for module in model.modules()}
    found = (record.source for record in OPERATORS.values() if record.source and record.module in types)
    return tuple(dict.fromkeys([*found, *user_classes.sources_in(model)]))


def _unshare_activations(model: nn.Module) -> None:
    """Copy the activations of a model: Ultralytics shares one object, and `load_checkpoint` changes it in place."""
    copies: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        for name, child in module._modules.items():  # noqa: SLF001 - `named_children` leaves out what comes twice
            if child is not None and isinstance(getattr(child, "inplace", None), bool) and not list(child.children()):
                module._modules[name] = copies.setdefault(child, deepcopy(child))  # noqa: SLF001


def _plain(value: Any) -> Any:
    """Return a value in types of YAML."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, PurePath) else value
