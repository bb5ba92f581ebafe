"""Scenes of textured geometric shapes: a data set that is drawn, the same for the same seed.

    python benchmarks/shape_scenes.py FOLDER [--seed N] [--train N] [--val N]

Writes FOLDER/data.yaml with images of 128 by 128 pixels. The class is the shape; its texture, colours, size, rotation
and the background say nothing about it. Shapes do not overlap.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nas.algorithms.arrays import FloatArray

SIDE = 128
SMALLEST, LARGEST = 12, 36
"""Radius of the circle around a shape, in pixels."""
MOST = 3
"""Shapes in a scene."""
_CONTRAST = 60.0
"""Least difference in brightness of a shape's colours from the mean of what they cover."""

Mask = npt.NDArray[np.bool_]
Shape = Callable[[FloatArray, FloatArray], Mask]


def disc(x: FloatArray, y: FloatArray) -> Mask:
    """Return where the unit disc is."""
    return x**2 + y**2 <= 1


def ring(x: FloatArray, y: FloatArray) -> Mask:
    """Return where the disc with a hole is."""
    return disc(x, y) & (x**2 + y**2 >= 0.25)


def crescent(x: FloatArray, y: FloatArray) -> Mask:
    """Return where the disc without another disc is."""
    return disc(x, y) & ((x - 0.5) ** 2 + y**2 >= 0.64)


def square(x: FloatArray, y: FloatArray) -> Mask:
    """Return where the inscribed square is."""
    return np.maximum(abs(x), abs(y)) <= np.sqrt(0.5)


def triangle(x: FloatArray, y: FloatArray) -> Mask:
    """Return where the inscribed equilateral triangle is."""
    return (y >= -0.5) & (abs(x) * np.sqrt(3) <= 1 - y)


def cross(x: FloatArray, y: FloatArray) -> Mask:
    """Return where two crossing bars are."""
    return (np.minimum(abs(x), abs(y)) <= 0.28) & (np.maximum(abs(x), abs(y)) <= 0.95)


SHAPES: tuple[Shape, ...] = (disc, ring, crescent, square, triangle, cross)


def draw(folder: Path, *, seed: int = 0, train: int = 96, val: int = 128) -> Path:
    """Draw the data set, and return its data.yaml.

    Args:
        folder: created.
        train: number of scenes to train on.
        val: number of scenes to validate on.
    """
    for part, (split, count) in enumerate((("train", train), ("val", val))):
        random = np.random.Generator(np.random.PCG64([seed, part]))
        for name in ("images", "labels"):
            (folder / name / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, label = scene(random)
            cv2.imwrite(str(folder / "images" / split / f"{index:04}.png"), image)
            (folder / "labels" / split / f"{index:04}.txt").write_text(label, encoding="utf-8")
    names = "".join(f"  {number}: {shape.__name__}\n" for number, shape in enumerate(SHAPES))
    file = folder / "data.yaml"
    file.write_text(f'path: ""\ntrain: images/train\nval: images/val\nnames:\n{names}', encoding="utf-8")
    return file


def scene(random: np.random.Generator) -> tuple[npt.NDArray[np.uint8], str]:
    """Return an image, `(SIDE, SIDE, 3)`, and the rows of its label."""
    image, occupied = _background(random), np.zeros((SIDE, SIDE), dtype=np.bool_)
    rows: list[str] = []
    wanted = int(random.integers(1, MOST + 1))
    while len(rows) < wanted:
        number = int(random.integers(len(SHAPES)))
        radius = random.uniform(SMALLEST, LARGEST)
        x, y = _coordinates(random, radius)
        mask = SHAPES[number](x, y)
        box = _bounds(mask)
        if occupied[box].any():
            continue
        occupied[box] = True
        image[mask] = _painted(random, image[mask].mean(), x, y, radius)[mask]
        rows.append(_row(number, box))
    noisy = image + random.normal(0, 6, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), "".join(rows)


def _background(random: np.random.Generator) -> FloatArray:
    """Return smooth colours with stripes of little contrast."""
    cells = random.uniform(40, 200, (4, 4, 3))
    smooth = cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    across, _ = _coordinates(random, 1.0)
    stripes = 12 * np.sin(across * random.uniform(0.2, 0.8))
    return np.asarray(smooth + stripes[..., None], dtype=np.float64)


def _coordinates(random: np.random.Generator, radius: float) -> tuple[FloatArray, FloatArray]:
    """Return coordinates of all pixels around a random centre, rotated, in units of the radius."""
    across, down = random.uniform(radius, SIDE - radius, 2)
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    u, v = (columns - across) / radius, (rows - down) / radius
    return u * np.cos(angle) - v * np.sin(angle), u * np.sin(angle) + v * np.cos(angle)


def _painted(random: np.random.Generator, under: float, x: FloatArray, y: FloatArray, radius: float) -> FloatArray:
    """Return an image in a texture of two colours: plain, striped, checked or dotted."""
    colours: list[FloatArray] = []
    while len(colours) < 2:
        colour = random.uniform(0, 255, 3)
        if abs(colour.mean() - under) >= _CONTRAST:
            colours.append(colour)
    waves = np.pi * radius / random.uniform(3, 6)
    patterns = (
        np.zeros_like(x, dtype=np.bool_),
        np.sin(waves * x) > 0,
        np.sin(waves * x) * np.sin(waves * y) > 0,
        np.sin(waves * x) + np.sin(waves * y) > 1,
    )
    chosen = patterns[int(random.integers(len(patterns)))]
    return np.asarray(np.where(chosen[..., None], colours[0], colours[1]), dtype=np.float64)


def _bounds(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns that a shape covers."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _row(number: int, box: tuple[slice, slice]) -> str:
    """Return the row of a label: class, centre, width and height, as fractions."""
    down, across = box
    center = ((across.start + across.stop) / 2, (down.start + down.stop) / 2)
    values = (*center, across.stop - across.start, down.stop - down.start)
    return " ".join([str(number), *(f"{value / SIDE:.6f}" for value in values)]) + "\n"


def main() -> None:
    """Draw the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=96)
    parser.add_argument("--val", type=int, default=128)
    options = parser.parse_args()
    print(draw(options.folder, seed=options.seed, train=options.train, val=options.val))


if __name__ == "__main__":
    main()
