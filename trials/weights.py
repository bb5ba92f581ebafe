"""Trained models in files: what a trial keeps, and what leaves its study.

A trial keeps numbers and the YAML that they belong to (`search_spaces/stored_model.py`): nothing in it is executed, and
writing it takes a fifth of the time in which 900 modules are pickled. An exported model of Ultralytics' layers alone is
a checkpoint of Ultralytics'. One with other layers stays numbers and YAML, together with a refusal in our words: a
pickle of its classes would let a stranger's Ultralytics install packages of their names.
"""

import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics import __version__ as ultralytics_version
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel

from search_spaces import model_checks, pgi, stored_model
from search_spaces.errors import DataError, StudyError
from search_spaces.operators import Source
from search_spaces.operators import modules as user_modules
from search_spaces.stored_model import Size, StoredModel

REFUSAL = (
    "this model has layers that Ultralytics alone does not have. It needs the Python package search_spaces of nas "
    "(nas-for-yolo), from where this file came from: `nas yolo predict model=...`, or `import search_spaces` before "
    "`YOLO(...)`. Do not install a package only because it has that name."
)


def keep(model: DetectionModel, arguments: Mapping[str, Any], path: Path) -> None:
    """Write what a model is built from, and its numbers as they are.

    Args:
        model: not to be trained any more: an auxiliary half is dropped.
        arguments: Ultralytics' settings of its training.
    """
    StoredModel.of(pgi.drop_auxiliary(model), {"train_args": dict(arguments)}).write(path)


def save(model: DetectionModel, arguments: Mapping[str, Any], path: Path) -> None:
    """Write a model of Ultralytics' layers as its checkpoint, in fp32 where its own are fp16; any other as numbers.

    Args:
        model: not to be trained any more: it is put into the form that is written, without an auxiliary half.
        arguments: Ultralytics' settings of its training.
    """
    model = pgi.drop_auxiliary(model).float().eval().requires_grad_(False)
    if stored_model.has_operators(model):
        StoredModel.of(model, {"train_args": dict(arguments)}).write(path, refusal=REFUSAL)
        return
    for value in model.state_dict(keep_vars=True).values():  # each by itself, else safetensors would refuse them
        value.data = value.detach().clone(memory_format=torch.contiguous_format)
    model.criterion = None  # training state, not part of a model
    checkpoint = {"model": model, "train_args": dict(arguments), "version": ultralytics_version, "epoch": -1}
    stored_model.write_checkpoint(checkpoint, path)


def export(kept: Path, path: Path) -> None:
    """Write the model of a trial's weights for whoever has Ultralytics, and the operators in it.

    Raises:
        DataError: operators of a user's file are in it that this process does not know.
        StudyError: the file is a pickle of something else, which is not opened.
    """
    stored = stored_model.read(kept)
    if stored is None:
        raise StudyError(
            f"{kept}: not written by a trial of this package, and not opened, since it could run code "
            "(export where the study was searched, or search again)"
        )
    stored.require_operators(kept)
    save(stored.build(), stored.checkpoint.get("train_args", {}), path)


def rebuilt(
    document: Mapping[str, Any],
    names: Mapping[int, str],
    sources: Sequence[Source],
    sizes: Sequence[Size],
    rows: Sequence[Tensor],
) -> DetectionModel:
    """Build the model of a file of this package's first versions, which name this function."""
    return StoredModel(document=document, names=names, sources=sources, sizes=sizes, rows=rows).build()


def read(path: Path) -> DetectionModel:
    """Load a detection model from a checkpoint, ours or Ultralytics', without running anything that the file may say.

    Raises:
        DataError: it is none, holds no model or one for another task, or classes that are neither's.
    """
    stored = stored_model.read(path)
    if stored is not None:
        stored.require_operators(path)
        return stored.build()
    checkpoint = _read_restricted(path)
    model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, nn.Module):
        raise DataError(f"{path}: not a checkpoint that Ultralytics loads: there is no model in it")
    head = type(list(getattr(model, "model", [model]))[-1]).__name__
    if not isinstance(model, DetectionModel) or head not in HEADS:
        raise DataError(f"{path}: not a checkpoint of a detection model, got a {type(model).__name__} with {head}")
    return model


def require_harmless(path: Path) -> None:
    """Refuse a checkpoint whose loading would run code that it brings; one for another task is as good.

    Raises:
        DataError: it holds classes that are neither Ultralytics' nor ours, or operators of a file that the user has not
            named.
    """
    stored = stored_model.read(path)
    if stored is None:
        _read_restricted(path)
        return
    files = [source.path.name for source in stored.sources if not user_modules.is_trusted(source)]
    if files:
        raise DataError(
            f"{path}: its model has operators of {', '.join(files)}, whose code is not run from a weights file "
            "(name that file: --modules FILE.py)"
        )


def _read_restricted(path: Path) -> Mapping[str, Any]:
    """Load a checkpoint of Ultralytics' with its classes and our layers alone.

    Raises:
        DataError: there is something else in it, or it is none.
    """
    _allow_our_layers(path)
    try:
        checkpoint, _ = tasks.torch_safe_load(path.absolute(), safe_only=True)
    except Exception as error:
        raise DataError(f"{path}: not a checkpoint that Ultralytics loads: {_obstacle(path)}") from error
    return checkpoint


HEADS = (*model_checks.DETECTION_HEADS, "DualDetect")


def _foreign(path: Path) -> list[str]:
    """Return the globals of a checkpoint that PyTorch's restricted loading refuses; none if it is no checkpoint."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001 - a file may hold anything, and loading says that it is no checkpoint
        return []


def _obstacle(path: Path) -> str:
    """Why a file is not loaded."""
    if path.suffix != ".pt":
        return "its name does not end in .pt"
    known = torch.serialization.get_safe_globals()
    allowed = {entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in known}
    others = [name for name in _foreign(path) if name not in allowed]
    if others:
        return f"it holds code or classes that are neither Ultralytics' nor ours ({', '.join(others[:3])})"
    return "it is empty, torn, or a file of another kind"


def _allow_our_layers(path: Path) -> None:
    """Let PyTorch's restricted loading make the layers of this package that a checkpoint names, and no others."""
    for name in _foreign(path):
        module, _, attribute = name.rpartition(".")
        found = getattr(sys.modules.get(module), attribute, None) if module.startswith("search_spaces.") else None
        if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module:
            torch.serialization.add_safe_globals([found])


def lighten(path: Path) -> None:
    """Rewrite a final checkpoint of Ultralytics' with layers of ours as numbers and YAML, if it can be built from them.

    Args:
        path: a file that this process has written: it is unpickled.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return
    model = checkpoint.get("model")
    if not isinstance(model, DetectionModel) or not stored_model.has_operators(model):
        return
    others = {name: value for name, value in checkpoint.items() if name not in {"model", "ema", "optimizer"}}
    stored = StoredModel.of(model, others)
    try:
        stored.build()
    except RuntimeError:  # Ultralytics has built another head than the document says, for weights of more classes
        return
    stored.write(path, refusal=REFUSAL)
