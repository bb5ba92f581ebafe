"""Find and read model files: paths, names of Ultralytics models, and the catalog of this package."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ultralytics import cfg
from ultralytics.nn.tasks import guess_model_scale, yaml_model_load

from search_spaces import foreign_files, model_checks, model_file
from search_spaces.errors import SpecError, nearest
from search_spaces.foreign_files import Translation
from search_spaces.operators import modules as user_modules
from search_spaces.yaml_text import read_yaml


def base_and_scale(model: str, scale: str | None) -> tuple[str, str]:
    """A model as a space file names it: `yolov8s.yaml` is `yolov8{scale}.yaml` at scale `s`; a file is its whole path.

    Args:
        scale: None for the one in the name, else the first of the model's table, if it has one.

    Raises:
        SpecError: no such model, or not a detection model.
    """
    document = read_model(model, scale=scale).document
    path = Path(model)
    scale = built_scale(document)
    if path.is_file():
        return str(path.resolve()), scale
    bare = _without_scale(path.name)
    if bare not in _ultralytics_models() or len(document.get("scales") or ()) < 2:
        return path.name, scale
    return re.sub(r"(\d+)", r"\1{scale}", bare, count=1), scale


def model_document(model: str) -> dict[str, Any]:
    """A detection model's YAML as a mapping: a file in any dialect, or a name such as `yolov9c.yaml`.

    Raises:
        SpecError: no such model, or not a detection model.
    """
    return read_model(model).document


def built_scale(document: Mapping[str, Any]) -> str:
    """Return the scale at which a model's document is built: its `scale`, or the first of its table; empty without one.

    As `parse_model` takes it.
    """
    return str(document.get("scale") or next(iter(document.get("scales") or {}), ""))


def read_model(model: str, *, as_printed: bool = False, scale: str | None = None) -> Translation:
    """A detection model's YAML, with what is to be said about it.

    Args:
        model: a file in any dialect, or the name of a model of Ultralytics' or of this package's catalog.
        as_printed: keep the structure of what articles print, for counting.
        scale: one of the model's table; None for the one in its name, else the first of the table.

    Raises:
        SpecError: no such model or scale, or not a detection model.
    """
    try:
        path = resolve(model, "")
    except SpecError:
        raise SpecError(f"{model}: no such file or model ({_instead_of(model)})") from None
    # A user's file is read by us: Ultralytics would look for `yolov8.yaml` where the user says `my/yolov8n.yaml`.
    document = read_yaml(path) if path.is_file() else yaml_model_load(path)
    try:
        found = {"scale": _scale_of(document, path, scale), "yaml_file": str(path.absolute())}
        return _read(document | found, as_printed=as_printed)
    except SpecError as error:
        raise error.within(path.name) from None


def _scale_of(document: Mapping[str, Any], path: Path, scale: str | None) -> str:
    """Return the scale that is asked for, else the one in the file's name; empty if there is neither.

    Raises:
        SpecError: the model has no such scale.
    """
    named = guess_model_scale(path)
    scales = document.get("scales") or {}
    if scale and not scales and scale != named:
        raise SpecError(f"scale: the model has no table of scales, got {scale!r}")
    if not isinstance(scales, Mapping):  # reported where the model is built
        return named
    if scale and scales and scale not in scales:
        raise SpecError(f"scale: the model has no scale {scale!r} (one of {', '.join(map(str, scales))})")
    return scale or (named if named in scales or not scales else "")


def _read(document: dict[str, Any], *, as_printed: bool) -> Translation:
    """Read a parsed model file, its operators' files first, and refuse one with mistakes.

    Raises:
        SpecError: with all of them.
    """
    named = model_file.modules(document)
    try:
        missing = user_modules.load_trusted(named, Path(document["yaml_file"]).parent)
    except SpecError as error:
        raise SpecError([*error.mistakes, *model_file.mistakes(document)]) from None
    try:
        reading = foreign_files.translate(document, as_printed=as_printed)
    except SpecError as error:
        raise SpecError([*error.mistakes, *_other_mistakes(document)]) from None
    model_checks.require_detection(reading.document)
    run = [] if missing or not named else [f"modules: {', '.join(named)} is run, as you named it or as nas wrote it"]
    return replace(reading, notes=(*run, *reading.notes, *model_file.notes(reading.document)))


def _other_mistakes(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with a file beside its rows in other repositories' words."""
    rows_there = model_file.addressed(document) if model_file.has_rows(document) else []
    foreign = {place for place, row in rows_there if model_file.is_row(row) and row[2] in foreign_files.FOREIGN_MODULES}
    try:
        model_checks.require_detection(document)
    except SpecError as error:
        return [mistake for mistake in error.mistakes if mistake.partition(":")[0] not in foreign]
    return []


def resolve(name: str, scale: str) -> Path:
    """A user's file as a path that exists, or the file name of one of Ultralytics' models."""
    filled = name.replace("{scale}", scale)
    if Path(filled).is_file():
        return Path(filled)
    if filled.removesuffix(".yaml") in catalog():
        return catalog()[filled.removesuffix(".yaml")]
    ours = _ultralytics_models()
    if filled in ours or _without_scale(filled) in ours:
        return Path(filled)
    if "{scale}" in name:
        start, _, end = name.partition("{scale}")
        length = len(start) + 1 + len(end)
        files = [model for model in ours if model.startswith(start) and model.endswith(end) and len(model) == length]
        scales = sorted(model[len(start) : -len(end)] for model in files)
        if f"{start}{end}" in ours:  # one file with a table of scales
            scales = list(yaml_model_load(f"{start}{end}")["scales"])
        if scales:
            raise SpecError(f"scale: {name} has no scale {scale!r} (one of {', '.join(map(str, scales))})")
    if "/" in filled or not filled.startswith("yolo"):
        raise SpecError(
            f"base: no such file, got {filled!r} (a path, or an Ultralytics model such as yolov9{{scale}}.yaml)"
        )
    raise SpecError(f"base: unknown model {filled!r} ({nearest(filled, ours)})")


@cache
def catalog() -> dict[str, Path]:
    """The model files that come with this package, by name."""
    folder = Path(str(files("search_spaces") / "catalog" / "models"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _without_scale(name: str) -> str:
    """`yolov8n.yaml` is `yolov8.yaml`, a file with a table of scales, as Ultralytics reads file names."""
    return re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)


def _instead_of(model: str) -> str:
    """Return the hint for a model that is not there; for the checkpoint `yolov8n.pt`, the file `yolov8n.yaml`."""
    if model.endswith(".pt"):
        architecture = Path(model).with_suffix(".yaml").name
        try:
            resolve(architecture, "")
        except SpecError:
            pass
        else:
            return f"did you mean {architecture!r}?"
    return nearest(model, [*catalog(), *_ultralytics_models()])


@cache
def _ultralytics_models() -> tuple[str, ...]:
    folder = Path(cfg.__file__).parent / "models"
    return tuple(sorted(path.name for path in folder.rglob("yolo*.yaml")))
