"""Images of a data set as a training reads them: decoded and resized once for all processes of a machine.

They lie, one after the other, in one file of the cache folder, which every process maps into its memory: the operating
system holds one copy of it, however many workers read. A file that was not used for a month is deleted when the next
one is written.
"""

import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from ultralytics.cfg import get_cfg
from ultralytics.data import YOLODataset

from search_spaces import cache_folder
from search_spaces.errors import DataError, EnvironmentProblem
from search_spaces.files import atomic_path, write_atomically
from trials import machine
from trials.budget import Recipe
from trials.costing.layers import IMAGE_CHANNELS
from trials.data import image_checks, image_files
from trials.data.room import Room

log = logging.getLogger(__name__)

_RULES = "without boxes without area"
"""Version of the rules for reading labels; other rules have other caches."""
FOLDER = "images"
"""Folder of decoded images in the cache folder."""
_UNUSED_SECONDS = 30 * 24 * 3600
_SEED_STRIDE = 1_000_003


class Draw(NamedTuple):
    """Image of an epoch, and the seed of that epoch's augmentation."""

    image: int
    seed: int


class UserImages(YOLODataset):
    """Ultralytics' data set; reads what `trials.data.datasets` has checked, and never writes into the user's folders.

    Ultralytics re-encodes a JPEG that does not end as one, in its place, and puts its caches of labels and of decoded
    images beside the data; a cache of labels that lies there is a pickle, which is not opened. Lists are read from
    `data["path"]` on, too, and boxes without area are left out.
    """

    def get_img_files(self, img_path: Any) -> list[str]:
        """Return the images of folders and lists, without timing the disk as Ultralytics does."""
        sources = img_path if isinstance(img_path, list) else [img_path]
        files = image_files.find(sources, Path(self.data.get("path") or "."))
        if not files:
            raise DataError(f"no images in {', '.join(map(str, sources))}")
        count = self.fraction if isinstance(self.fraction, int) else max(1, round(len(files) * self.fraction))
        return files[:count]

    def get_cache_hash(self) -> str:
        """Return another hash than Ultralytics, whose rules differ."""
        return f"{super().get_cache_hash()} {_RULES}"

    def verify_args(self) -> tuple[Any, Any]:
        """Return Ultralytics' function that reads a label, with the stored check in place of opening the image."""
        checks = image_checks.check(self.im_files, cache_folder.path())

        def check_image(path: str) -> tuple[str, tuple[int, int]]:
            if checks[path].problem:
                raise ValueError(checks[path].problem)
            return "", checks[path].shape

        verify, arguments = super().verify_args()
        return FunctionType(verify.__code__, {**verify.__globals__, "check_image": check_image}), arguments

    def result_to_label(self, result: Any) -> tuple[Any, ...]:
        """Return Ultralytics' label without boxes that have no area."""
        label, *counts = super().result_to_label(result)
        if label is not None:
            right = (label["bboxes"][:, 2:] > 0).all(1)
            if not right.all():
                label["cls"], label["bboxes"] = label["cls"][right], label["bboxes"][right]
                label["segments"] = [one for one, is_right in zip(label["segments"], right, strict=False) if is_right]
        return label, *counts

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> Any:  # noqa: ARG002 - Ultralytics' signature
        """Read the cache in our cache folder; one that lies beside the labels is not opened."""
        name = hashlib.sha256(os.fsencode("\n".join(self.label_files))).hexdigest()[:24]
        return super()._load_or_scan_cache(cache_folder.path() / "labels" / f"{name}.cache", cache_hash)

    def cache_labels(self, path: Path = Path("labels.cache")) -> Any:
        """Read all labels and cache them atomically; where the cache cannot be written, they are read each time."""
        read = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                read = super().cache_labels(temporary)
        except (OSError, EnvironmentProblem) as error:  # also where Ultralytics has written nothing, and only warned
            log.warning("labels cannot be cached in %s: %s", path.parent, error)
        return super().cache_labels(path) if read is None else read

    def load_image(self, i: int, *arguments: Any, **options: Any) -> Any:
        """Return a decoded image as Ultralytics does, but name the file in the error.

        Raises:
            DataError: the image cannot be decoded.
        """
        try:
            return super().load_image(i, *arguments, **options)
        except FileNotFoundError as error:
            raise DataError(f"{self.im_files[i]}: this image cannot be decoded; take it out of the data set") from error

    def check_cache_disk(self, safety_margin: float = 0.1) -> bool:
        """Return whether decoded images have room on the disk of our cache folder."""
        with suppress(OSError):
            self.npy_files[0].parent.mkdir(parents=True, exist_ok=True)
        return self.npy_files[0].parent.is_dir() and bool(super().check_cache_disk(safety_margin))

    @property
    def npy_files(self) -> list[Path]:
        """Files in which Ultralytics stores decoded images: in our cache folder, not beside the user's images."""
        return self._npy_files

    @npy_files.setter
    def npy_files(self, beside: list[Path]) -> None:
        folder = cache_folder.path() / "npy"
        self._npy_files = [folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.npy" for path in beside]


class CachedImages(UserImages):
    """The user's images, read from the machine's cache if they fit into it."""

    def __getitem__(self, index: int | Draw) -> Any:
        """Return an image with its boxes; that of a `Draw` augmented by random numbers of its own."""
        if isinstance(index, Draw):
            seed = index.seed * _SEED_STRIDE + index.image
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - what Ultralytics' augmentation draws from
            index = index.image
        return super().__getitem__(index)

    def check_cache_ram(self, safety_margin: float = 0.0) -> bool:  # noqa: ARG002 - Ultralytics' signature
        """Return whether all resized images fit into memory and on the cache's disk; if not, each is read when needed.

        Ultralytics would draw random images to find out, and so change the training.
        """
        folder = self._file().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("%s: %s; images are read in every epoch", folder, error.strerror)
            return False
        room = Room.of(folder)
        fits = room.in_memory(self.ni, self.imgsz) and (
            self._file().is_file() or (os.access(folder, os.W_OK) and room.on_disk(self.ni, self.imgsz))
        )
        if not fits:
            log.info("%d images of %d px do not fit into memory; they are read in every epoch", self.ni, self.imgsz)
        return fits

    def cache_images(self) -> None:
        """Map the cached images into memory; decode them first if they are not cached."""
        path = self._file()
        shapes = path.with_suffix(".json")
        found = self._shapes(path, shapes)
        if found is None:
            self._decode(path, shapes)
            found = self._shapes(path, shapes)
        if found is None:
            raise EnvironmentProblem(
                f"{path}: decoded images cannot be stored there (set NAS_CACHE to a folder that can be written)"
            )
        with suppress(PermissionError):  # another user's file
            os.utime(path)
        pixels = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
        begin = 0
        for index, (original, resized) in enumerate(found):
            height, width = resized
            end = begin + height * width * self.channels
            self.ims[index] = pixels[begin:end].reshape(height, width, self.channels)
            self.im_hw0[index], self.im_hw[index] = tuple(original), (height, width)
            begin = end

    def _shapes(self, path: Path, shapes: Path) -> list[Any] | None:
        """Return the sizes of the cached images, before and after resizing; None unless both files are complete."""
        try:
            found = json.loads(shapes.read_text(encoding="utf-8"))
            pixels = sum(height * width for _, (height, width) in found)
            complete = len(found) == self.ni and pixels * self.channels == path.stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        return found if complete else None

    def _decode(self, path: Path, shapes: Path) -> None:
        """Decode all images and write the cache atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(path.parent)
        sizes = []
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file, ThreadPool(machine.cores()) as pool:
                for image, original, resized in pool.imap(self._load_alone, range(self.ni)):
                    file.write(np.ascontiguousarray(image).tobytes())
                    sizes.append((original, resized))
            write_atomically(shapes, json.dumps(sizes))

    def _load_alone(self, index: int) -> Any:
        return self.load_image(index)

    def _file(self) -> Path:
        return cache_folder.path() / FOLDER / f"{self._identity()}.bin"

    def _identity(self) -> str:
        """Return a hash that is equal for the same unchanged files at the same size."""
        stats = [(file, Path(file).stat()) for file in self.im_files]
        files = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        return hashlib.sha256(json.dumps([files, self.imgsz, self.channels]).encode()).hexdigest()[:24]


class ReadImages(CachedImages):
    """Images that are read and decoded whenever they are needed, as those are that do not fit into memory."""

    def check_cache_ram(self, safety_margin: float = 0.0) -> bool:  # noqa: ARG002 - Ultralytics' signature
        """Return that they do not fit."""
        return False


class ListedImages(CachedImages):
    """Images that are given one by one, instead of the folders and lists that name them."""

    def get_img_files(self, img_path: Any) -> list[str]:
        """Return the images themselves."""
        return list(img_path)


@lru_cache(maxsize=8)
def load(
    sources: tuple[str, ...],
    classes: tuple[str, ...],
    image_size: int,
    batch: int,
    recipe: Recipe,
    *,
    stride: int,
    training: bool,
    root: str = "",
    key_points: tuple[int, int] | None = None,
    listed: bool = False,
    cached: bool = True,
) -> CachedImages:
    """Return the images of one split of a data set; loaded once per process.

    Args:
        sources: folders and lists of images.
        image_size: of the longer side, in pixels.
        batch: images of similar shape that are validated together; without effect in training.
        recipe: whose augmentation is applied in training.
        stride: of the model, to which validation images are padded.
        root: of the data set, from which the lines of lists may start.
        key_points: in each label row beside the box; left out.
        listed: whether `sources` are the images themselves.
        cached: whether decoded images are held in memory if there is room for them.
    """
    kind = ListedImages if listed else CachedImages if cached else ReadImages
    return kind(
        img_path=list(sources),
        imgsz=image_size,
        batch_size=batch,
        augment=training,
        hyp=get_cfg(overrides={**augmentation(recipe), "deterministic": False}),  # it would warn of `cache`
        rect=not training,
        cache="ram",
        stride=stride,
        pad=0.0 if training else 0.5,
        prefix="train: " if training else "val: ",
        task="detect",
        data=description(classes, root, key_points),
    )


def description(classes: Sequence[str], root: str, key_points: tuple[int, int] | None) -> dict[str, Any]:
    """Return the description that Ultralytics' data set class needs."""
    keys = {"path": root, "names": dict(enumerate(classes)), "channels": IMAGE_CHANNELS}
    return keys if key_points is None else {**keys, "kpt_shape": list(key_points)}


def augmentation(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's augmentation as Ultralytics' settings."""
    return {"mosaic": recipe.mosaic, "close_mosaic": 0, "fliplr": recipe.fliplr, "scale": recipe.scale}


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - _UNUSED_SECONDS
    for path in folder.iterdir():
        if path.suffix == ".json":
            continue
        with suppress(FileNotFoundError):  # of another process, which has just renamed it
            if path.stat().st_mtime < oldest:  # a killed process's, too
                path.unlink()
                # The second: sizes beside a temporary file, left by older versions.
                path.with_suffix(".json" if path.suffix == ".bin" else f"{path.suffix}.json").unlink(missing_ok=True)
