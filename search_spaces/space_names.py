"""Names of the spaces that come along, and the files that names and paths stand for; found without PyTorch."""

import os
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
    """Return a space of the catalog and a scale for a name such as `v8n`; any other name or path as it is."""
    by_name, space = catalog(), name[:-1]
    is_scaled = name[-1:].isalpha() and name not in by_name and space in by_name and not Path(name).is_file()
    return (space, name[-1]) if is_scaled else (name, None)


def require_files(space: str | os.PathLike[str]) -> None:
    """Refuse a space, or a list of them, of which one does not exist.

    Raises:
        SpecError: lists every name without a file.
    """
    mistakes: list[str] = []
    names = names_of(space)
    for name in names:
        try:
            require_file(split_scale(name)[0])
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
        hint = f"{nearest(name, by_name)}, or a path"
        if _is_model_of_ultralytics(name):
            model = f"{name.removesuffix('.yaml')}.yaml"
            hint = f"a model of Ultralytics; nas spaces derive {model} > FILE.yaml writes a space around it"
        raise SpecError(f"space: no such space or file, got {name!r} ({hint})")
    return path


def _is_model_of_ultralytics(name: str) -> bool:
    """Return whether Ultralytics has a model file of this name, without importing it."""
    found = find_spec("ultralytics")
    if found is None or found.origin is None or Path(name).name != name:
        return False
    models = Path(found.origin).parent / "cfg" / "models"
    return f"{name.removesuffix('.yaml')}.yaml" in {path.name for path in models.glob("*/*.yaml")}
