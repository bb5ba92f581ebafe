"""Scenes composed of real handwritten digits: a built-in data set, drawn once and stored in the cache folder.

The digits are scikit-learn's `load_digits` (BSD): 1797 of 8x8 pixels, from E. Alpaydin and C. Kaynak, Optical
Recognition of Handwritten Digits, UCI 1998. Everything around them is drawn: colours, a smooth background,
faint discs and rings as distractors. Random numbers, blending and boxes are whole numbers, and OpenCV's
`INTER_LINEAR_EXACT` enlarges to the same bits everywhere, so that one seed means the same pixels.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from search_spaces.errors import EnvironmentProblem

RECIPE = 2  # part of the folder's name: raise it with every change that moves a pixel or a label
NOTE = (
    "The scenes are composed of handwritten digits: a ranking of architectures on them is a demonstration, "
    "not evidence."
)

SIDE = 160
SMALLEST, LARGEST = 13, 64  # a digit's longer side in pixels: 8 and 40 % of SIDE
CLASSES = 10
TRAINING_DIGITS = 1198  # the first two thirds, unshuffled: neighbours in the file are often of one hand

_CONTRAST = 110  # between a digit and what lies under it, in steps of brightness from 0 to 255
_INK = 128  # a pixel at least half covered belongs to the digit

# Unpacked, so that a file's size does not depend on the compressor that OpenCV was built with.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 0)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Digit:
    """A digit placed in a scene; `cover` is its opacity from 0 to 255 and fits its ink tightly."""

    number: int
    left: int
    top: int
    cover: Pixels

    @property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns of the scene that it covers."""
        height, width = self.cover.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def crowds(self, other: "Digit") -> bool:
        """Return whether the two overlap by more than a quarter of the smaller one."""
        (rows, columns), (other_rows, other_columns) = self.area, other.area
        height = min(rows.stop, other_rows.stop) - max(rows.start, other_rows.start)
        width = min(columns.stop, other_columns.stop) - max(columns.start, other_columns.start)
        return 4 * max(height, 0) * max(width, 0) > min(self.cover.size, other.cover.size)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image `(SIDE, SIDE, 3)` and its label: rows `class x_center y_center width height`, as fractions."""

    image: Pixels
    label: str


def draw(cache: Path, *, seed: int = 0, train: int = 192, val: int = 96) -> Path:
    """Return the data.yaml of the scenes in `cache`; draw them if they are missing or damaged.

    They are written to a temporary folder that is renamed: a killed process leaves no half data set, and of two
    processes that draw at once the first one's stays.

    Args:
        cache: an absolute path; created if missing.
        seed: one seed, one data set. Fewer scenes are the first ones of more.
        train: number of scenes to train on.
        val: number of scenes to validate on, composed of digits that no training scene shows.

    Raises:
        EnvironmentProblem: `cache` cannot be written.
    """
    folder = cache / f"digit_scenes-v{RECIPE}-seed{seed}-{train}+{val}"
    if not _is_complete(folder, {"train": train, "val": val}):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=".drawing-") as temporary:
                with suppress(FileNotFoundError):
                    folder.rename(Path(temporary) / "damaged")
                _publish(_write(Path(temporary) / folder.name, seed, {"train": train, "val": val}), folder)
        except OSError as error:
            raise EnvironmentProblem(
                f"{cache}: the digit scenes cannot be written there: {error.strerror or error} "
                "(set NAS_CACHE to a folder that can be written)"
            ) from error
    return folder / "data.yaml"


def scenes(split: str, seed: int) -> Iterator[Scene]:
    """Yield the scenes of a split, `train` or `val`, without end."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - two seconds, which a stored data set need not cost

    images, numbers = load_digits(return_X_y=True)
    digits = images.reshape(-1, 8, 8).astype(np.uint8)
    training = split == "train"
    part = slice(None, TRAINING_DIGITS) if training else slice(TRAINING_DIGITS, None)
    by_number = [digits[part][numbers[part] == number] for number in range(CLASSES)]
    random = np.random.Generator(np.random.PCG64([seed, 0 if training else 1]))
    while True:
        yield _scene(random, by_number)


def _is_complete(folder: Path, counts: dict[str, int]) -> bool:
    """Return whether no file is missing or cut off; images are not compressed, and of one size."""
    try:
        sizes = {
            (folder / "images" / split / f"{index:04}.png").stat().st_size
            for split, count in counts.items()
            for index in range(count)
        }
        labels = [
            (folder / "labels" / split / f"{index:04}.txt").stat().st_size
            for split, count in counts.items()
            for index in range(count)
        ]
        return len(sizes) <= 1 and all(labels) and (folder / "data.yaml").stat().st_size > 0
    except OSError:
        return False


def _publish(written: Path, folder: Path) -> None:
    try:
        written.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster, and has drawn the same
            raise


def _write(folder: Path, seed: int, counts: dict[str, int]) -> Path:
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index, scene in zip(range(count), scenes(split, seed), strict=False):
            _, png = cv2.imencode(".png", scene.image, _PNG)
            (images / f"{index:04}.png").write_bytes(png.tobytes())
            (labels / f"{index:04}.txt").write_text(scene.label, encoding="utf-8")
    names = "".join(f'  {number}: "{number}"\n' for number in range(CLASSES))
    (folder / "data.yaml").write_text(
        f'# {NOTE}\npath: ""  # this file\'s folder, wherever it is moved\n'
        f"train: images/train\nval: images/val\nnames:\n{names}",
        encoding="utf-8",
    )
    return folder


def _scene(random: np.random.Generator, by_number: list[Pixels]) -> Scene:
    image = _background(random)
    for _ in range(random.integers(3, 7)):
        _add_distractor(random, image)
    placed = _placed(random, by_number)
    topmost = np.full((SIDE, SIDE), -1)  # which digit's ink one sees at a pixel
    for index, digit in enumerate(placed):
        under = image[digit.area]
        colour = _contrasting(random, under)
        cover = digit.cover[..., None].astype(np.int64)
        image[digit.area] = (under * (255 - cover) + colour * cover + 127) // 255
        topmost[digit.area][digit.cover >= _INK] = index
    rows = (_row(digit.number, topmost == index) for index, digit in enumerate(placed))
    return Scene(image=image, label="".join(rows))


def _background(random: np.random.Generator) -> Pixels:
    """Return a smooth gradient of dark colours with slight noise."""
    broad, fine = (_enlarged(random.integers(20, 106, (cells, cells, 3), np.uint8), SIDE, SIDE) for cells in (4, 16))
    return ((3 * broad.astype(np.int64) + fine) // 4).astype(np.uint8)


def _add_distractor(random: np.random.Generator, image: Pixels) -> None:
    """Lighten or darken a disc, or a ring, a little."""
    x, y = random.integers(0, SIDE, 2)
    a, b = random.integers(5, 30, 2)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    distance = ((columns - x) * b) ** 2 + ((rows - y) * a) ** 2
    hole = random.choice((0, 3))  # in quarters of the radius
    shape = (distance <= (a * b) ** 2) & (16 * distance >= (hole * a * b) ** 2)
    shade = random.integers(15, 35, 3) * random.choice((-1, 1))
    image[shape] = np.clip(image[shape] + shade, 0, 255)


def _placed(random: np.random.Generator, by_number: list[Pixels]) -> list[Digit]:
    wanted = random.integers(5, 9)
    placed: list[Digit] = []
    while len(placed) < wanted:  # small ones fit everywhere, so it ends
        number = int(random.integers(CLASSES))
        drawing = by_number[number][random.integers(len(by_number[number]))]
        height = random.integers(SMALLEST, LARGEST * 5 // 4, 3).max()  # more large ones: quicker to learn
        cover = _cover(drawing, int(height))
        left, top = (int(random.integers(SIDE - length + 1)) for length in reversed(cover.shape))
        digit = Digit(number=number, left=left, top=top, cover=cover)
        if SMALLEST <= max(cover.shape) <= LARGEST and not any(digit.crowds(other) for other in placed):
            placed.append(digit)
    return placed


def _cover(drawing: Pixels, height: int) -> Pixels:
    """Return the opacity of a digit of 8x8 shades from 0 to 16: enlarged, sharp-edged, cropped to its ink.

    Args:
        drawing: the digit.
        height: in pixels, with a margin of an eighth or so that is cropped in the end.
    """
    drawing = np.pad(_cropped(drawing, 1), 1) * np.uint8(15)
    width = max(height * drawing.shape[1] // drawing.shape[0], 1)
    soft = _enlarged(drawing, height, width).astype(np.int64)
    return _cropped(np.clip(4 * (soft - 90), 0, 255).astype(np.uint8), _INK)


def _contrasting(random: np.random.Generator, under: Pixels) -> npt.NDArray[np.int64]:
    """Draw a colour that contrasts with the pixels under it."""
    while True:
        colour = random.integers(0, 256, 3)
        if abs(_brightness(colour) - _brightness(under)) >= _CONTRAST:
            return colour


def _brightness(colours: npt.NDArray[np.integer]) -> int:
    """Return the mean luma (ITU-R BT.601) of colours in OpenCV's order: blue, green, red."""
    pixels = colours.reshape(-1, 3).astype(np.int64)
    return int((pixels * (114, 587, 299)).sum()) // (1000 * len(pixels))


def _row(number: int, ink: npt.NDArray[np.bool_]) -> str:
    top, bottom, left, right = _bounds(ink)
    box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return " ".join([str(number), *(f"{pixels / SIDE:.6f}" for pixels in box)]) + "\n"


def _cropped(drawing: Pixels, ink: int) -> Pixels:
    top, bottom, left, right = _bounds(drawing >= ink)
    return drawing[top:bottom, left:right]


def _bounds(ink: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return first and last row, first and last column that have ink; the last ones exclusive."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _enlarged(drawing: Pixels, height: int, width: int) -> Pixels:
    return cv2.resize(drawing, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
