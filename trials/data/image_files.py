"""Image files of a data set: found in folders and lists as Ultralytics finds them."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from search_spaces.errors import DataError
from search_spaces.files import read_plain

FORMATS = ("avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp")
"""Endings of an image's name (ultralytics/data/utils.py, `IMG_FORMATS`)."""

_MOST_OTHERS = 100_000  # files that are no images in a folder of images, unless it is mostly images


def find(sources: Iterable[str | Path], root: Path) -> list[str]:
    """Return the images of folders and lists, sorted, as Ultralytics would (data/base.py, `get_img_files`).

    Args:
        sources: folders, and text files with one image a line.
        root: of the data set, from which a list's lines start if they do not start from the working directory.

    Raises:
        DataError: a folder is a whole disk, or a list is no text.
    """
    found = []
    for source in map(str, sources):
        if os.path.isdir(source):
            found += _images_in(source)
        elif os.path.isfile(source):
            found += _listed(Path(source), root)
    return sorted(path for path in found if _is_image(path))


def is_file(path: str) -> bool:
    """Return whether a file exists; False, not an error, for a name that no file can have."""
    return os.path.isfile(path)


def _is_image(path: str) -> bool:
    return path.rpartition(".")[-1].lower() in FORMATS


def _images_in(folder: str) -> list[str]:
    """Return images as `glob("**/*.*", recursive=True)` finds them: no hidden files, but through links to folders."""
    if os.path.dirname(folder) == folder:
        raise DataError(f"{folder} is a whole disk (a folder that holds the data set's images is expected)")
    found: list[str] = []
    others, pending = 0, [folder]
    while pending:
        here = pending.pop()
        for entry in _entries(here):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if not (entry.is_symlink() and _is_above(os.path.realpath(entry.path), os.path.realpath(here))):
                    pending.append(entry.path)
            elif _is_image(entry.name):
                found.append(entry.path)
            else:
                others += 1
        if others > max(_MOST_OTHERS, 10 * len(found)):
            raise DataError(
                f"{folder} holds more than {_MOST_OTHERS} files that are no images, and {len(found)} images so far "
                "(a folder that holds the data set's images is expected)"
            )
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:  # a folder of the system's in it, such as lost+found
        return list(entries)
    return []


def _is_above(folder: str, other: str) -> bool:
    return os.path.commonpath((folder, other)) == folder


def _listed(source: Path, root: Path) -> list[str]:
    """Return the images that a list names.

    A line is absolute, or starts with ./ and from the list's folder on. Ultralytics takes any other from the working
    directory; where nothing is there, it is taken from the data set's root, as CVAT writes it.
    """
    try:
        content = read_plain(source)
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror})") from None
    if b"\0" in content[:4096]:
        raise DataError(f"{source} is no text (a folder of images, or a .txt with one image a line, is expected)")
    lines = content.decode("utf-8-sig", errors="replace").strip().splitlines()
    return [_line(line.strip(), source.parent, root) for line in lines if line.strip()]


def _line(line: str, folder: Path, root: Path) -> str:
    if line.startswith("./"):
        return str(folder / line)
    if os.path.isabs(line):
        return line
    if os.path.isfile(line):
        return os.path.abspath(line)  # the label is looked for in the place of a folder /images/
    places = (root / line, folder / line, root / line.removeprefix("data/"))  # CVAT may write data/ before it
    return next((str(place) for place in places if os.path.isfile(place)), line)
