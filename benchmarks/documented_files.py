"""Files that README.md and the pages of docs/ assume, for `benchmarks/docs.py` and the tests."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ultralytics import YOLO

from benchmarks import documented, forked
from trials.data import digit_scenes

ROOT = documented.ROOT
CHECKPOINT = "yolov9t.pt"
"""Written last: a folder that has it is complete."""

ARTICLE = """\
nc: 2
anchors: 3
depth_multiple: 0.33
width_multiple: 0.25
backbone:
  - [-1, 1, Conv, [64, 6, 2, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C3, [128]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 6, C3_UIB, [256]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 9, C3, [512]]
  - [-1, 1, Conv, [1024, 3, 2]]
  - [-1, 3, C3, [1024]]
  - [-1, 1, SPPF, [1024, 5]]
head:
  - [-1, 1, Conv, [512, 1, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]
  - [-1, 1, Conv, [256, 1, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 3, C3, [256, False]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 14], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 10], 1, Concat, [1]]
  - [-1, 3, C3, [1024, False]]
  - [[17, 20, 23], 1, Detect, [nc, anchors]]
"""
"""A model file as articles print them: in YOLOv5's format, with a module of another repository."""

FEW = """\
name: few
base: yolov9{scale}.yaml
scale: t
slots:
  - at: {layers: [8, 21]}
    choices:
      UIB: {start_kernel: [0, 3], expansion: [2, 4]}
"""
"""A space of which few layers are to be timed."""


def prepare(folder: Path, given: Sequence[Path] = ()) -> None:
    """Write the files that the pages assume, and copy those given; a folder that is complete is left as it is.

    The benchmarks are a copy: one that trains appends to a table beside itself.
    """
    if (folder / CHECKPOINT).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as drawn:
        scenes = digit_scenes.draw(Path(drawn).absolute(), train=64, val=16).parent
        for name in ("my", "moved"):
            shutil.copytree(scenes, folder / name, dirs_exist_ok=True)
    pages = ("README.md", "docs/operators.md", "docs/spaces.md")
    readme, operators, spaces = ((ROOT / page).read_text(encoding="utf-8") for page in pages)
    files = {
        "mine.yaml": _block(readme, "yaml"),
        "edge.yaml": _block(spaces[spaces.index("## Several spaces") :], "yaml"),
        "my_ops.py": _block(operators, "python"),
        "faster.yaml": _block(operators, "yaml"),
        "few.yaml": FEW,
        "article.yaml": ARTICLE,
        "model.yaml": ARTICLE,
        "fork.py": forked.FORK,
        "forked.yaml": forked.MODEL,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", dirs_exist_ok=True)
    for path in given:
        (folder / path.name).write_bytes(path.read_bytes())
    unfinished = folder / "unfinished.pt"
    YOLO("yolov9t.yaml").save(unfinished)  # with random weights: nothing is downloaded
    unfinished.rename(folder / CHECKPOINT)


def _block(page: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)
    if found is None:
        raise SystemExit(f"no {language} block on the page")
    return found.group(1)
