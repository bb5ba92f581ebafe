"""Names of the spaces that come along, and the file that a name or path stands for; found without PyTorch."""

import os
from importlib.resources import files
from pathlib import Path

from search_spaces.errors import SpecError, nearest


def catalog() -> dict[str, Path]:
    """Return the space files of this package, by name."""
    folder = Path(str(files("search_spaces") / "catalog"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=_family)}


def _family(path: Path) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, path.stem))
    return int(digits or 0), path.stem


def require_file(space: str | os.PathLike[str]) -> Path:
    """Return the file of a space: one of the catalog by its name, or any other by its path.

    Raises:
        SpecError: there is no such file.
    """
    by_name, name = catalog(), os.fspath(space)
    path = by_name.get(name, Path(name))
    if not path.is_file():
        raise SpecError(f"space: no such space or file, got {name!r} ({nearest(name, by_name)}, or a path)")
    return path
