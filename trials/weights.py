"""A trained model in a file that `YOLO()` loads.

Two forms. A trial keeps its weights as numbers and the YAML that they belong to, from which loading builds the model:
writing that takes a fifth of the time in which 900 modules are pickled. What leaves the study is the model itself, as
Ultralytics saves one.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics import __version__ as ultralytics_version
from ultralytics.nn.tasks import DetectionModel

from search_spaces import build, pgi
from search_spaces.operators import OPERATORS, Source
from search_spaces.operators import modules as user_modules


def keep(model: DetectionModel, arguments: Mapping[str, Any], path: Path) -> None:
    """Write what a model is built from, and its numbers as they are.

    Args:
        model: not to be trained any more: an auxiliary half is dropped.
        arguments: Ultralytics' settings of its training.
    """
    _write(_Kept(pgi.drop_auxiliary(model)), arguments, path)


def save(model: DetectionModel, arguments: Mapping[str, Any], path: Path) -> None:
    """Write a model, in fp32 where Ultralytics' own checkpoints are fp16.

    Args:
        model: not to be trained any more: it is put into the form that is written, without an auxiliary half.
        arguments: Ultralytics' settings of its training.
    """
    model = pgi.drop_auxiliary(model).float().eval().requires_grad_(False)
    for value in model.state_dict(keep_vars=True).values():  # each by itself, else safetensors would refuse them
        value.data = value.detach().clone(memory_format=torch.contiguous_format)
    model.criterion = None  # training state, not part of a model
    _write(model, arguments, path)


def export(kept: Path, path: Path) -> None:
    """Write the model of a trial's weights so that whoever has Ultralytics, and the operators in it, loads it."""
    checkpoint = torch.load(kept, map_location="cpu", weights_only=False)
    save(checkpoint["model"], checkpoint["train_args"], path)


def _write(model: Any, arguments: Mapping[str, Any], path: Path) -> None:
    """Aside, then renamed."""
    aside = path.with_suffix(".tmp")
    torch.save({"model": model, "train_args": dict(arguments), "version": ultralytics_version, "epoch": -1}, aside)
    aside.replace(path)


class _Kept:
    """Pickles as what a model is built from; what is read is the model."""

    def __init__(self, model: DetectionModel) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Any, ...]:
        model, values = self.model, self.model.state_dict()
        rows = [
            torch.cat([value.flatten() for value in values.values() if value.dtype is dtype]).cpu()
            for dtype in dict.fromkeys(value.dtype for value in values.values())
        ]
        sizes = [(name, value.dtype, tuple(value.shape)) for name, value in values.items()]
        sources = _sources(model)
        document = {**model.yaml, "nas": {**model.yaml["nas"], "modules": []}} if sources else model.yaml
        return rebuilt, (document, model.names, sources, sizes, rows)


def rebuilt(
    document: Mapping[str, Any],
    names: Mapping[int, str],
    sources: Sequence[Source],
    sizes: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
    rows: Sequence[Tensor],
) -> DetectionModel:
    """The model that a trial kept, in eval mode: what unpickling its weights calls.

    Args:
        names: of the classes, by number.
        sources: of the users' operators in it, whose files need not be there any more.
        sizes: name, type of number and shape of every weight and buffer.
        rows: their numbers, one behind the other: a row for each type.

    Raises:
        RuntimeError: this version of Ultralytics builds another model from the document.
    """
    for source in sources:
        user_modules.know(source)
    with torch.random.fork_rng(devices=[]):
        model = build.model(document, len(names))
    left = {row.dtype: row for row in rows}
    values: dict[str, Tensor] = {}
    for name, dtype, shape in sizes:
        row = left[dtype]
        values[name], left[dtype] = row[: math.prod(shape)].view(shape), row[math.prod(shape) :]
    model.load_state_dict(values)
    model.names = dict(names)
    return model.eval().requires_grad_(requires_grad=False)


def _sources(model: DetectionModel) -> tuple[Source, ...]:
    """Of the users' operators in a model."""
    types = {type(module) for module in model.modules()}
    found = (record.source for record in OPERATORS.values() if record.source and record.module in types)
    return tuple(dict.fromkeys(found))
