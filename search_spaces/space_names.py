"""Names of the spaces that come along, and the files that names and paths stand for; found without PyTorch."""

import glob
import os
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from search_spaces.errors import SpecError, nearest


def catalog() -> dict[str, Path]:
    """Return the space files of this package, by name."""
    folder = Path(str(files("search_spaces") / "catalog"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=_family)}


def _family(path: Path) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, path.stem))
    return int(digits or 0), path.stem


def names_of(space: str | os.PathLike[str]) -> list[str]:
    """Return the names in a list such as `v8n,v9t`; of a single name or path only that."""
    name = os.fspath(space)
    return [name] if Path(name).is_file() else [one.strip() for one in name.split(",")]


def split_scale(name: str) -> tuple[str, str | None]:
    """Return a space and a scale for a name such as `v8n` or `yolov8-p2n`; any other name or path as it is."""
    space = name[:-1]
    is_scaled = name[-1:].isalpha() and _is_name(space) and not _is_name(name) and not Path(name).is_file()
    return (space, name[-1]) if is_scaled else (name, None)


def _is_name(name: str) -> bool:
    return name in catalog() or model_without_space(name) is not None


def model_without_space(name: str | os.PathLike[str]) -> str | None:
    """Return the model file of Ultralytics with this name, such as `yolov8-p2.yaml`, if no space comes along for it.

    A space around such a model is derived. It is found without importing Ultralytics.
    """
    stem, found = os.fspath(name).removesuffix(".yaml"), find_spec("ultralytics")
    if found is None or found.origin is None or Path(stem).name != stem or _space_of(stem) is not None:
        return None
    models = Path(found.origin).parent / "cfg" / "models"
    return f"{stem}.yaml" if any(models.glob(f"*/{glob.escape(stem)}.yaml")) else None


def _space_of(model: str) -> str | None:
    """Return the name of the space that comes along for a model, such as `v8n` for `yolov8n`; None if there is none."""
    found = re.fullmatch(r"yolov?(\d+)([a-z]?)", model)
    return f"v{found[1]}{found[2]}" if found and f"v{found[1]}" in catalog() else None


def _with_scale_last(model: str) -> str | None:
    """Return the name here of a model with its scale in the middle: `yolov8-p2n` for Ultralytics' `yolov8n-p2`."""
    found = re.fullmatch(r"(yolov?\d+)([a-z])(-.+)?", model)
    name = f"{found[1]}{found[3] or ''}" if found else ""
    return f"{name}{found[2]}" if found and model_without_space(name) else None


def require_files(space: str | os.PathLike[str]) -> None:
    """Refuse a space, or a list of them, of which one does not exist.

    Raises:
        SpecError: lists every name without a file.
    """
    mistakes: list[str] = []
    names = names_of(space)
    for name in names:
        space = split_scale(name)[0]
        if model_without_space(space) is not None:
            continue
        try:
            require_file(space)
        except SpecError as error:
            mistakes += error.mistakes
    if mistakes:
        raise SpecError(mistakes)


def require_file(space: str | os.PathLike[str]) -> Path:
    """Return the file of a space: one of the catalog by its name, or any other by its path.

    Raises:
        SpecError: there is no such file.
    """
    by_name, name = catalog(), os.fspath(space)
    path = by_name.get(name, Path(name))
    if not path.is_file():
        stem = name.removesuffix(".yaml")
        meant = _space_of(stem) or _with_scale_last(stem)
        hint = nearest(name, by_name) if meant is None else f"did you mean {meant!r}?"
        also = " or a path" if hint.endswith("?") else ", or a path"
        raise SpecError(f"space: no such space or file, got {name!r} ({hint}{also})")
    return path
