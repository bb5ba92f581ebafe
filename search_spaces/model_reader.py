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

from search_spaces import foreign_files, model_checks, model_file, whole_backbone
from search_spaces.errors import SpecError, nearest
from search_spaces.foreign_files import Translation
from search_spaces.operators import modules as user_modules
from search_spaces.yaml_text import read_yaml


def base_and_scale(model: str, scale: str | None) -> tuple[str, str]:
    """Return the `base` and `scale` with which a space file names a model.

    `yolov8s.yaml` is `yolov8{scale}.yaml` at scale `s`; a user's file is named by its absolute path.

    Args:
        scale: None for the scale in the model's name, or else the first of its table, if it has one.

    Raises:
        SpecError: there is no such model, or it is no detection model.
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
    """Return the YAML of a detection model as a mapping.

    Args:
        model: as for `read_model`.

    Raises:
        SpecError: there is no such model, or it is no detection model.
    """
    return read_model(model).document


def built_scale(document: Mapping[str, Any]) -> str:
    """Return the scale at which `parse_model` builds a document: its `scale`, else the first of its table, else ''."""
    return str(document.get("scale") or next(iter(document.get("scales") or {}), ""))


def read_model(
    model: str, *, as_printed: bool = False, scale: str | None = None, or_counted: bool = False
) -> Translation:
    """Read the YAML of a detection model, translate other repositories' rows, and collect notes for the user.

    Args:
        model: a file for Ultralytics, YOLOv5 or YOLOv9, or the name of a model of Ultralytics or of the catalog.
        as_printed: keep the structure that articles print, to count it.
        scale: a scale of the model's table; None for the scale in its name, or else the first of the table.
        or_counted: read a model that is counted and not searched, too: of another task, RT-DETR, YOLO-World or YOLOE.

    Raises:
        SpecError: there is no such model or scale, or it is no detection model.
    """
    try:
        path = resolve(model, "")
    except SpecError:  # its message is on `base` of a space file
        raise SpecError(f"{model}: no such file or model ({_instead_of(model)})") from None
    # Ultralytics does not read users' files: for `my/yolov8n.yaml` it would look for `yolov8.yaml`.
    document = read_yaml(path) if path.is_file() else yaml_model_load(path)
    try:
        origin = {"scale": _scale_of(document, path, scale), "yaml_file": str(path.absolute())}
        return _read(document | origin, as_printed=as_printed, or_counted=or_counted)
    except SpecError as error:
        raise error.within(path.name) from None


def _scale_of(document: Mapping[str, Any], path: Path, scale: str | None) -> str:
    """Return the given scale, or else the one in the file's name; empty if there is neither.

    Raises:
        SpecError: the model has no such scale.
    """
    if isinstance(document.get("scale"), Mapping):
        raise SpecError("scale: a table of scales is called `scales`")
    in_name = guess_model_scale(path)
    scales = document.get("scales") or {}
    if scale and not scales and scale != in_name:
        raise SpecError(f"scale: the model has no table of scales, got {scale!r}")
    if not isinstance(scales, Mapping):  # reported where the model is built
        return in_name
    if scale and scales and scale not in scales:
        raise SpecError(f"scale: the model has no scale {scale!r} (one of {', '.join(map(str, scales))})")
    return scale or (in_name if in_name in scales or not scales else "")


def _read(document: Mapping[str, Any], *, as_printed: bool, or_counted: bool) -> Translation:
    """Load the operators that a parsed model file names, then translate and check the file.

    Raises:
        SpecError: lists all mistakes.
    """
    named = model_file.modules(document)
    try:
        missing = user_modules.load_trusted(named, Path(document["yaml_file"]).parent)
    except SpecError as error:
        raise SpecError([*error.mistakes, *model_file.mistakes(document)]) from None
    expanded, notes = whole_backbone.expanded(document)
    try:
        reading = foreign_files.translate(expanded, as_printed=as_printed)
    except SpecError as error:
        raise SpecError([*error.mistakes, *_other_mistakes(expanded, or_counted=or_counted)]) from None
    model_checks.require_detection(reading.document, or_counted=or_counted)
    run = [] if missing or not named else [f"modules: {', '.join(named)} is run, as you named it or as nas wrote it"]
    ours = (*model_file.ignored(document), *model_file.notes(reading.document))
    return replace(reading, notes=(*run, *notes, *reading.notes, *ours))


def _other_mistakes(document: Mapping[str, Any], *, or_counted: bool) -> list[str]:
    """Return the mistakes of a file that are not in rows of other repositories."""
    rows_there = model_file.addressed(document) if model_file.has_rows(document) else []
    foreign = {place for place, row in rows_there if model_file.is_row(row) and row[2] in foreign_files.FOREIGN_MODULES}
    try:
        model_checks.require_detection(document, or_counted=or_counted)
    except SpecError as error:
        return [mistake for mistake in error.mistakes if mistake.partition(":")[0] not in foreign]
    return []


def resolve(name: str, scale: str) -> Path:
    """Return the path of a user's or the catalog's file, or the file name of a model of Ultralytics.

    Raises:
        SpecError: there is no such file, model or scale.
    """
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
    if "/" in filled or not filled.startswith(("rtdetr", "yolo")):
        raise SpecError(
            f"base: no such file, got {filled!r} (a path, or an Ultralytics model such as yolov9{{scale}}.yaml)"
        )
    raise SpecError(f"base: unknown model {filled!r} ({nearest(filled, ours)})")


@cache
def catalog() -> dict[str, Path]:
    """Return the model files of this package, by name."""
    folder = Path(str(files("search_spaces") / "catalog" / "models"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _without_scale(name: str) -> str:
    """Remove the scale from a file name, as Ultralytics does: `yolov8n.yaml` is `yolov8.yaml` at scale n."""
    return re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)


def _instead_of(model: str) -> str:
    """Return the hint for a model that does not exist; for the checkpoint `yolov8n.pt` the file `yolov8n.yaml`."""
    if model.endswith(".pt"):
        architecture = Path(model).with_suffix(".yaml").name
        try:
            resolve(architecture, "")
        except SpecError:  # not there, either: the nearest names follow
            pass
        else:
            return f"did you mean {architecture!r}?"
    return nearest(model, [*catalog(), *_ultralytics_models()])


@cache
def _ultralytics_models() -> tuple[str, ...]:
    folder = Path(cfg.__file__).parent / "models"
    return tuple(sorted(path.name for family in ("rtdetr", "yolo") for path in folder.rglob(f"{family}*.yaml")))
