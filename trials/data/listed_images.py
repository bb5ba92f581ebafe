"""Lists of images in the cache folder, for Ultralytics to read a part of a user's folders; named by their content."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from search_spaces.errors import DataError
from search_spaces.files import write_atomically


def write(images: Sequence[str], cache: Path) -> Path:
    """Write a list of images unless it is there; return its path.

    Args:
        images: absolute paths.

    Raises:
        DataError: an image whose name cannot stand in a list.
        EnvironmentProblem: the cache folder cannot be written to.
    """
    require_listable(images)
    text = "".join(f"{image}\n" for image in images).encode()
    file = cache / "lists" / f"{hashlib.sha256(text).hexdigest()[:24]}.txt"
    if not file.is_file() or file.read_bytes() != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    return file


def require_listable(images: Sequence[str]) -> None:
    """Refuse images that a list cannot name.

    Raises:
        DataError: names the first.
    """
    for image in images:
        if image != image.strip() or len(image.splitlines()) != 1 or not _is_text(image):
            raise DataError(f"{image!r}: no list of images can have this name, so that none can be sealed (rename it)")


def _is_text(name: str) -> bool:
    """Return whether a name is Unicode; the bytes of any other are read as something else."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
