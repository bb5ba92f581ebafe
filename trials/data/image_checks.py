"""Images of a data set: opened once, to find out which can be trained on.

Images are opened as Ultralytics' scan opens them (ultralytics/data/utils.py: `check_image`), but no file is ever
written to: where Ultralytics re-encodes a JPEG that does not end in FFD9, the file is only decoded, to see whether it
is cut off. Results are stored in the cache folder for each file, by its size and modification time.
"""

import hashlib
import importlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from search_spaces.errors import EnvironmentProblem, unwrapped
from search_spaces.files import SPECIAL, is_special, read_json, write_atomically
from trials import machine
from trials.data.image_files import FORMATS
from trials.data.progress import Progress, delayed

_SMALLEST = 10  # pixels; Ultralytics leaves out what is smaller
_RULES = 1  # raise it with every change of what is found, or its wording
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


def check(paths: Sequence[str], cache: Path, progress: Progress | None = None) -> dict[str, ImageCheck]:
    """Open every image, unless it is the same as when it was last opened.

    Args:
        paths: of files that exist.
        cache: the cache folder; if it cannot be written, every image is opened again next time.
        progress: called once this has taken two seconds.
    """
    report = delayed(progress)
    folders: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[os.path.dirname(path)].append(path)
    found: dict[str, ImageCheck] = {}
    with ThreadPoolExecutor(max(4, machine.cores())) as pool:
        for folder, files in folders.items():
            stored = _Stored(cache, folder)
            stats = {path: _stat(path) for path in dict.fromkeys(files)}
            for path, stat in stats.items():
                if (earlier := stored.read(path, stat)) is not None:
                    found[path] = earlier
            new = [path for path in stats if path not in found]
            try:
                for path, checked in zip(new, pool.map(_check, new), strict=True):
                    found[path] = stored.checks[os.path.basename(path)] = checked
                    stored.stats[os.path.basename(path)] = stats[path]
                    report(len(found), len(paths))
            finally:
                if new:
                    stored.write()  # what was opened before an interruption need not be opened again
    return found


def _stat(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (-1, -1)
    return stat.st_size, stat.st_mtime_ns


class _Stored:
    """Results of earlier checks of a folder's images, in a file of the cache folder."""

    def __init__(self, cache: Path, folder: str) -> None:
        name = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:24]
        self.file = cache / "image_checks" / f"{name}.json"
        self.checks: dict[str, ImageCheck] = {}
        self.stats: dict[str, tuple[int, int]] = {}
        with suppress(OSError, ValueError, TypeError, KeyError):  # not there, torn, or of other rules: opened again
            document = read_json(self.file)
            if document["rules"] == _RULES:
                for name, (size, changed, height, width, problem) in document["files"].items():
                    self.checks[name] = ImageCheck(shape=(height, width), problem=problem)
                    self.stats[name] = (size, changed)

    def read(self, path: str, stat: tuple[int, int]) -> ImageCheck | None:
        name = os.path.basename(path)
        return self.checks[name] if self.stats.get(name) == stat else None

    def write(self) -> None:
        files = {
            name: (*self.stats[name], *check.shape, check.problem)
            for name, check in self.checks.items()
            if name in self.stats
        }
        with suppress(OSError, EnvironmentProblem):  # without a cache the results are the same
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps({"rules": _RULES, "files": files}))


def _check(path: str) -> ImageCheck:
    if is_special(Path(path)):
        return ImageCheck(problem=SPECIAL)
    try:
        return _open_and_check(path)
    except UnidentifiedImageError:
        return ImageCheck(problem=_kind(path))
    except Exception as error:  # noqa: BLE001 - whatever Pillow raises of a broken file, which is of a dozen classes
        return ImageCheck(problem=f"cut off or damaged: {unwrapped(error)[:200] or type(error).__name__}")


def _open_and_check(path: str) -> ImageCheck:
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
    """Return height and width after verifying, turned as Ultralytics turns it (data/utils.py, `exif_size`)."""
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
    """Decode an image as a training does."""
    from ultralytics.utils.patches import imread  # noqa: PLC0415 - seconds, which common formats need not cost

    return imread(path)


def _kind(path: str) -> str:
    """Describe a file that Pillow cannot identify."""
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
