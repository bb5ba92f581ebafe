"""Files of trained models, in a trial's folder and exported.

- A trial's weights file holds numbers and the YAML of their model (`search_spaces/stored_model.py`): nothing in it is
  executed, and writing it takes a fifth of the time of pickling 900 modules.
- An exported model of Ultralytics' layers alone is an Ultralytics checkpoint.
- An exported model with other layers is numbers and YAML, with a text that says what is needed to load it: a pickle of
  its classes would let an Ultralytics without this package install packages of their names.
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
    """Write the YAML and the numbers of a model.

    Args:
        model: is not trained further: an auxiliary branch is dropped.
        arguments: Ultralytics' settings of its training.
    """
    StoredModel.of(pgi.drop_auxiliary(model), {"train_args": dict(arguments)}).write(path)


def save(model: DetectionModel, arguments: Mapping[str, Any], path: Path) -> None:
    """Write a model of Ultralytics' layers as an Ultralytics checkpoint, but in fp32; any other as numbers and YAML.

    Args:
        model: is not trained further: it is put into eval mode, and an auxiliary branch is dropped.
        arguments: Ultralytics' settings of its training.
    """
    model = pgi.drop_auxiliary(model).float().eval().requires_grad_(False)
    if stored_model.has_operators(model):
        StoredModel.of(model, {"train_args": dict(arguments)}).write(path, refusal=REFUSAL)
        return
    for value in model.state_dict(keep_vars=True).values():  # in separate memory, which safetensors requires
        value.data = value.detach().clone(memory_format=torch.contiguous_format)
    model.criterion = None  # training state, not part of a model
    checkpoint = {"model": model, "train_args": dict(arguments), "version": ultralytics_version, "epoch": -1}
    stored_model.write_checkpoint(checkpoint, path)


def export(source: Path, path: Path) -> None:
    """Export the model of a trial's weights file.

    Args:
        source: the weights file.
        path: of the file to write, see `save`.

    Raises:
        DataError: the model has operators of a user's file that this process has not loaded.
        StudyError: the file is a pickle of something else, which is not opened.
    """
    stored = stored_model.read(source)
    if stored is None:
        raise StudyError(
            f"{source}: not written by a trial of this package, and not opened, since it could run code "
            "(export where the study was searched, or search again)"
        )
    stored.require_operators(source)
    save(stored.build(), stored.checkpoint.get("train_args", {}), path)


def rebuilt(
    document: Mapping[str, Any],
    names: Mapping[int, str],
    sources: Sequence[Source],
    sizes: Sequence[Size],
    rows: Sequence[Tensor],
) -> DetectionModel:
    """Build the model of a file that an early version of this package wrote; such files name this function."""
    return StoredModel(document=document, names=names, sources=sources, sizes=sizes, rows=rows).build()


def read(path: Path) -> DetectionModel:
    """Load a detection model from a checkpoint, ours or Ultralytics', without executing code in it.

    Raises:
        DataError: it is no checkpoint, has no model or one for another task, or classes that are neither Ultralytics'
            nor ours.
    """
    return read_with_settings(path)[0]


def read_with_settings(path: Path) -> tuple[DetectionModel, Mapping[str, Any]]:
    """Load a model as `read` does; return it with Ultralytics' settings of its training, empty where it has none."""
    stored = stored_model.read(path)
    if stored is not None:
        stored.require_operators(path)
        return stored.build(), stored.checkpoint.get("train_args") or {}
    checkpoint = _read_restricted(path)
    model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, nn.Module):
        raise DataError(f"{path}: not a checkpoint that Ultralytics loads: there is no model in it")
    head = type(list(getattr(model, "model", [model]))[-1]).__name__
    if not isinstance(model, DetectionModel) or head not in HEADS:
        raise DataError(f"{path}: not a checkpoint of a detection model, got a {type(model).__name__} with {head}")
    settings = checkpoint.get("train_args")
    return model, settings if isinstance(settings, Mapping) else {}


def require_harmless(path: Path) -> None:
    """Refuse a checkpoint whose loading would execute code in it; models for any task pass.

    Raises:
        DataError: it has classes that are neither Ultralytics' nor ours, or operators of a file that the user has not
            named.
    """
    stored = stored_model.read(path)
    if stored is None:
        _read_restricted(path)
        return
    try:
        _require_named(stored.sources)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _require_named(sources: Sequence[Source]) -> None:
    files = [source.file_name for source in sources if not user_modules.is_trusted(source)]
    if files:
        raise DataError(
            f"its model has operators of {', '.join(files)}, whose code is not run from a weights file "
            "(name that file: --modules FILE.py)"
        )


def _read_restricted(path: Path) -> Mapping[str, Any]:
    """Load an Ultralytics checkpoint that has no classes but Ultralytics', our layers, and those of files of the user.

    Raises:
        DataError: it has other classes, or operators of a file that the user has not named, or is no checkpoint.
    """
    _allow_our_layers(path)
    torch.serialization.add_safe_globals([_IN_PLACE_OF_BLANK])
    try:
        checkpoint, _ = tasks.torch_safe_load(path.absolute(), safe_only=True)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:
        raise DataError(f"{path}: not a checkpoint that Ultralytics loads: {_explain_refusal(path)}") from error
    return checkpoint


def _blank_of_named(path: str, text: str, qualified_name: str) -> nn.Module:
    """Return an empty object of a user's class, as unrestricted loading does, if the user has named that text.

    Raises:
        DataError: the user has not.
    """
    _require_named([Source(path=Path(path), text=text)])
    blank = user_modules._blank(path, text, qualified_name)  # noqa: SLF001 - its place is written in checkpoints
    torch.serialization.add_safe_globals([type(blank)])
    return blank


_IN_PLACE_OF_BLANK = (_blank_of_named, f"{user_modules.__name__}._blank")
"""Function that restricted loading calls, and the name in checkpoints that it stands for, which would run a text."""

HEADS = (*model_checks.DETECTION_HEADS, "DualDetect")


def _foreign(path: Path) -> list[str]:
    """Return the globals of a checkpoint that PyTorch's restricted loading refuses; none of any other file."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001 - a file may hold anything, and loading says that it is no checkpoint
        return []


def _explain_refusal(path: Path) -> str:
    """Return why a file is not loaded, in words."""
    if path.suffix != ".pt":
        return "its name does not end in .pt"
    entries = torch.serialization.get_safe_globals()
    allowed = {each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in entries}
    others = [name for name in _foreign(path) if name not in allowed]
    if others:
        return f"it holds code or classes that are neither Ultralytics' nor ours ({', '.join(others[:3])})"
    return "it is empty, torn, or a file of another kind"


def _allow_our_layers(path: Path) -> None:
    """Allow PyTorch's restricted loading the layers of this package that a checkpoint names, and no others."""
    for name in _foreign(path):
        module, _, attribute = name.rpartition(".")
        found = getattr(sys.modules.get(module), attribute, None) if module.startswith("search_spaces.") else None
        if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module:
            torch.serialization.add_safe_globals([found])


def lighten(path: Path) -> None:
    """Rewrite a final Ultralytics checkpoint with our layers as numbers and YAML, if its model can be built from them.

    Args:
        path: a file that this process has written or checked: it is unpickled.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    except (DataError, OSError, EOFError, RuntimeError, pickle.UnpicklingError):  # the first from `nas yolo`'s check
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
