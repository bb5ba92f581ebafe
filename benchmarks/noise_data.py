"""Data set of noise, small enough for a training of a second."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_data(folder: Path, images: int = 32) -> None:
    """Write a data set of noise with a box an image."""
    rng = np.random.default_rng(0)
    for split, number in (("train", images), ("val", images // 2)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            pixels[16:48, 16:48] = 255 * (index % 2)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            (folder / "labels" / split / f"{index}.txt").write_text(f"{index % 2} 0.5 0.5 0.5 0.5\n", encoding="utf-8")
    text = f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [dark, bright]\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
