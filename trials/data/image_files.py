"""The image files of a data set: where they are, and which of them can be trained on.

Images are opened as Ultralytics' scan opens them (ultralytics/data/utils.py: `check_image`), but no file is ever
written to: where Ultralytics re-encodes a JPEG that does not end in FFD9, the file is only decoded, to see whether it
is cut off. What was found is stored in the cache folder for each file, by its size and modification time.
"""

import hashlib
import importlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from search_spaces.errors import DataError, EnvironmentProblem
from search_spaces.files import read_json, write_atomically
from trials import machine

FORMATS = ("avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp")
"""Endings of an image's name (ultralytics/data/utils.py, `IMG_FORMATS`)."""

Progress = Callable[[int, int], None]
"""Called with how many of how many files are done."""

_SMALLEST = 10  # pixels; Ultralytics leaves out what is smaller
_RULES = 1  # raise it with every change of what is found, or its wording
_SILENT_SECONDS = 2.0
_MOST_OTHERS = 100_000  # files that are no images in a folder of images, unless it is mostly images
_WHOLLY_VERIFIED = ("JPEG", "PNG", "WEBP", "MPO")
"""Formats that OpenCV decodes whenever Pillow opens them; all others are decoded once, to be sure."""


@dataclass(frozen=True, kw_only=True)
class ImageCheck:
    """Result of opening one image.

    Attributes:
        shape: height and width in pixels, turned as its EXIF says.
        problem: why it cannot be trained on; empty if it can.
    """

    shape: tuple[int, int] = (0, 0)
    problem: str = ""


# Where they are.


def image_paths(sources: Iterable[str | Path], root: Path) -> list[str]:
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
    """Whether a file is there; False, and no error, for a name that no file can have."""
    return os.path.isfile(path)


def _is_image(path: str) -> bool:
    return path.rpartition(".")[-1].lower() in FORMATS


def _images_in(folder: str) -> list[str]:
    """As `glob("**/*.*", recursive=True)`: without hidden files, through links to folders."""
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
    """The images that a list names.

    A line is absolute, or starts with ./ and from the list's folder on. Ultralytics takes any other from the working
    directory; where nothing is there, it is taken from the data set's root, as CVAT writes it.
    """
    with source.open("rb") as file:
        if b"\0" in file.read(4096):
            raise DataError(f"{source} is no text (a folder of images, or a .txt with one image a line, is expected)")
    lines = source.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()
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


# Which can be trained on.


def check(paths: Sequence[str], cache: Path, progress: Progress | None = None) -> dict[str, ImageCheck]:
    """Open every image, unless it is the same as when it was last opened.

    Args:
        paths: of files that exist.
        cache: the cache folder; if it cannot be written, every image is opened again next time.
        progress: called once this has taken two seconds.
    """
    tell = delayed(progress)
    folders: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[os.path.dirname(path)].append(path)
    found: dict[str, ImageCheck] = {}
    with ThreadPoolExecutor(max(4, machine.cores())) as pool:
        for folder, files in folders.items():
            memory = _Memory(cache, folder)
            stats = {path: _stat(path) for path in dict.fromkeys(files)}
            for path, stat in stats.items():
                remembered = memory.read(path, stat)
                if remembered:
                    found[path] = remembered
            new = [path for path in stats if path not in found]
            try:
                for path, checked in zip(new, pool.map(_check, new), strict=True):
                    found[path] = memory.entries[os.path.basename(path)] = checked
                    memory.stats[os.path.basename(path)] = stats[path]
                    tell(len(found), len(paths))
            finally:
                if new:
                    memory.write()  # what was opened before an interruption need not be opened again
    return found


def delayed(progress: Progress | None) -> Progress:
    """Return a progress that is silent at first, and then speaks ten times a second at most."""
    spoken = time.monotonic() + _SILENT_SECONDS - 0.1

    def tell(done: int, total: int) -> None:
        nonlocal spoken
        now = time.monotonic()
        if progress is not None and now > spoken + 0.1:
            spoken = now
            progress(done, total)

    return tell


def _stat(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (-1, -1)
    return stat.st_size, stat.st_mtime_ns


class _Memory:
    """Cached results of a folder's images, a file in the cache folder."""

    def __init__(self, cache: Path, folder: str) -> None:
        name = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:24]
        self.file = cache / "image_checks" / f"{name}.json"
        self.entries: dict[str, ImageCheck] = {}
        self.stats: dict[str, tuple[int, int]] = {}
        with suppress(OSError, ValueError, TypeError, KeyError):  # not there, torn, or of other rules: opened again
            document = read_json(self.file)
            if document["rules"] == _RULES:
                for name, (size, changed, height, width, problem) in document["files"].items():
                    self.entries[name] = ImageCheck(shape=(height, width), problem=problem)
                    self.stats[name] = (size, changed)

    def read(self, path: str, stat: tuple[int, int]) -> ImageCheck | None:
        name = os.path.basename(path)
        return self.entries[name] if self.stats.get(name) == stat else None

    def write(self) -> None:
        files = {
            name: (*self.stats[name], *entry.shape, entry.problem)
            for name, entry in self.entries.items()
            if name in self.stats
        }
        with suppress(OSError, EnvironmentProblem):  # no cache, no memory: what is found is the same
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps({"rules": _RULES, "files": files}))


def _check(path: str) -> ImageCheck:
    try:
        return _opened(path)
    except UnidentifiedImageError:
        return ImageCheck(problem=_what_it_is(path))
    except Exception as error:  # noqa: BLE001 - whatever Pillow raises of a broken file, which is of a dozen classes
        return ImageCheck(problem=f"cut off or damaged: {' '.join(str(error).split())[:200] or type(error).__name__}")


def _opened(path: str) -> ImageCheck:
    image = _open(path)
    with image:
        image.verify()
        shape = _shape(image)
        kind, mode = str(image.format), image.mode
    if min(shape) < _SMALLEST:
        return ImageCheck(problem=f"{shape[1]} x {shape[0]} pixels ({_SMALLEST} x {_SMALLEST} are the least)")
    if kind.lower() not in {*FORMATS, "jpeg2000"}:
        return ImageCheck(problem=f"a {kind} image (it must be one of {', '.join(FORMATS)})")
    if kind == "JPEG" and not _ends_as_jpeg(path):
        with _open(path) as image:
            image.load()  # raises if it is cut off; bytes after the image's end, as phones append, do no harm
    if mode in {"F", "I"} and kind == "TIFF":
        numbers = "floating-point numbers" if mode == "F" else "whole numbers"
        return ImageCheck(problem=f"a {kind} of 32-bit {numbers} (8 or 16 bits a channel can be read)")
    if kind not in _WHOLLY_VERIFIED:
        with _open(path) as image:
            image.load()
        pixels = _decoded(path)
        if pixels is None or pixels.dtype.name != "uint8" or pixels.shape[2:] != (3,):
            return ImageCheck(problem=f"a {kind} image of mode {mode}, which OpenCV cannot decode")
    return ImageCheck(shape=shape)


def _shape(image: Image.Image) -> tuple[int, int]:
    """Height and width after verifying, turned as Ultralytics turns it (data/utils.py, `exif_size`)."""
    width, height = image.size
    with suppress(Exception):  # EXIF data that cannot be read turn nothing
        exif: Any = getattr(image, "tag_v2", None) if image.format == "TIFF" else image.getexif()
        if exif.get(274) in {5, 6, 7, 8}:
            if image.format in {"JPEG", "MPO", "PNG", "AVIF"}:
                return width, height
            pixels = _decoded(str(getattr(image, "filename", "")))
            height, width = pixels.shape[:2]
    return height, width


def _ends_as_jpeg(path: str) -> bool:
    with Path(path).open("rb") as file:
        file.seek(-2, os.SEEK_END)
        return file.read() == b"\xff\xd9"


def _open(path: str) -> Image.Image:
    """Open by Pillow itself: Ultralytics puts a function in its place that installs a package for unknown files."""
    if path.lower().endswith((".heic", ".heif")):
        with suppress(ImportError):
            importlib.import_module("pi_heif").register_heif_opener()
    patches = sys.modules.get("ultralytics.utils.patches")
    opening: Callable[[str], Image.Image] = getattr(patches, "_image_open", Image.open)
    return opening(path)


def _decoded(path: str) -> Any:
    """As a training reads it."""
    from ultralytics.utils.patches import imread  # noqa: PLC0415 - seconds, which common formats need not cost

    return imread(path)


def _what_it_is(path: str) -> str:
    """Describe a file that Pillow does not know."""
    with Path(path).open("rb") as file:
        begins = file.read(24)
    if not begins:
        return "an empty file"
    if path.lower().endswith((".heic", ".heif")) and begins[4:8] == b"ftyp":
        return "a HEIC image, for which the package pi-heif is needed (pip install pi-heif)"
    if begins.isascii() and all(byte >= 32 or byte in b"\r\n\t" for byte in begins):
        return f"no image, but text that begins with {' '.join(begins.decode().split())!r}"
    if begins.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF", b"II*", b"MM\0*", b"BM")) or begins[4:8] == b"ftyp":
        return "cut off: its header cannot be read"
    return "no image that is known"
